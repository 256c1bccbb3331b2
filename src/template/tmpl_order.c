/* tmpl_order.c - truth, equality, identity, order and length of values. */
#include "template/tmpl_big.h"
#include "template/tmpl_run.h"

#include <math.h>
#include <string.h>

const char *tv_type_name(tval v) {
    static const char *const names[TV_N_TYPES] = {
        [TV_MISSING] = "_MissingType",
        [TV_UNDEFINED] = "Undefined",
        [TV_NONE] = "NoneType",
        [TV_BOOL] = "bool",
        [TV_INT] = "int",
        [TV_BIG] = "int",
        [TV_FLOAT] = "float",
        [TV_STR] = "str",
        [TV_LIST] = "list",
        [TV_TUPLE] = "tuple",
        [TV_DICT] = "dict",
        [TV_RANGE] = "range",
        [TV_VIEW] = "dict_keys",
        [TV_ITER] = "generator",
        [TV_NAMESPACE] = "Namespace",
        [TV_MACRO] = "Macro",
        [TV_FUNCTION] = "function",
        [TV_METHOD] = "builtin_function_or_method",
        [TV_LOOP] = "LoopContext",
        [TV_CYCLER] = "Cycler",
        [TV_JOINER] = "Joiner",
        [TV_BLOCK] = "BlockReference",
    };
    if (v.type == TV_VIEW) {
        static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
        return views[v.view->kind];
    }
    if (v.type == TV_STR && v.str->markup) {
        return "Markup";
    }
    return names[v.type];
}

bool tv_truth(tm_core *t, tval v) {
    switch (v.type) {
    case TV_MISSING:
    case TV_UNDEFINED:
    case TV_NONE:
        return false;
    case TV_BOOL:
        return v.boolean;
    case TV_INT:
        return v.integer != 0;
    case TV_FLOAT:
        return v.real != 0;
    case TV_STR:
        return v.str->n > 0;
    default: {
        size_t n;
        return !tv_length(t, v, &n) || n > 0;
    }
    }
}

bool tv_length(tm_core *t, tval v, size_t *n) {
    switch (v.type) {
    case TV_UNDEFINED:
        *n = 0;
        return true;
    case TV_STR:
        *n = tv_n_chars(v.str);
        return true;
    case TV_LIST:
    case TV_TUPLE:
        *n = v.seq->n;
        return true;
    case TV_DICT:
        *n = v.dict->n;
        return true;
    case TV_RANGE:
        *n = v.range->n;
        return true;
    case TV_VIEW:
        *n = v.view->dict->n;
        return true;
    case TV_LOOP:
        *n = loop_length(t, v.loop);
        return true;
    default:
        return false;
    }
}

bool tv_same(tval a, tval b) {
    if (a.type != b.type) {
        return false;
    }
    switch (a.type) {
    case TV_MISSING:
    case TV_NONE:
        return true;
    case TV_BOOL:
        return a.boolean == b.boolean;
    case TV_INT: /* small integers are shared in Python */
        return a.integer == b.integer && a.integer >= -5 && a.integer <= 256;
    case TV_FLOAT:
        return false;
    case TV_STR:
        return a.str == b.str || (a.str->n == 0 && b.str->n == 0 && !a.str->markup);
    case TV_TUPLE:
        return a.any == b.any || (a.seq->n == 0 && b.seq->n == 0);
    default:
        return a.any == b.any;
    }
}

/* ---- Equality ---- */

static bool seq_equal(tm_core *t, const tv_seq *a, const tv_seq *b) {
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        tm_step(t, 1);
        if (!tv_same(a->items[i], b->items[i]) && !tv_equal(t, a->items[i], b->items[i])) {
            return false;
        }
    }
    return true;
}

static bool dict_equal(tm_core *t, const tv_dict *a, const tv_dict *b) {
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        const tval *other = tv_dict_get(t, b, a->entries[i].key);
        tm_step(t, 1);
        if (!other ||
            (!tv_same(a->entries[i].value, *other) && !tv_equal(t, a->entries[i].value, *other))) {
            return false;
        }
    }
    return true;
}

/* Whether large holds each key or item of small; a list among them cannot be looked for in keys. */
static bool view_contained(tm_core *t, const tv_view *small, tv_view *large) {
    tval in = {.type = TV_VIEW, .view = large};
    for (size_t i = 0; i < small->dict->n; i++) {
        const tv_entry *e = &small->dict->entries[i];
        tval item = small->kind == TV_KEYS ? e->key : tv_pair(t, e->key, e->value);
        if (!tv_contains(t, in, item)) {
            return false;
        }
    }
    return true;
}

static bool view_equal(tm_core *t, tv_view *a, tv_view *b) {
    if (a->kind == TV_VALUES || b->kind == TV_VALUES || a->dict->n != b->dict->n) {
        return a == b;
    }
    return view_contained(t, a, b);
}

static bool number_equal(tval a, tval b) {
    if (a.type == TV_FLOAT && b.type == TV_FLOAT) {
        return a.real == b.real;
    }
    if (a.type == TV_FLOAT || b.type == TV_FLOAT) {
        tval n = a.type == TV_FLOAT ? b : a;
        double x = a.type == TV_FLOAT ? a.real : b.real;
        return !isnan(x) && int_compare_double(n, x) == 0;
    }
    return int_compare(a, b) == 0;
}

static bool range_equal(const tv_range *a, const tv_range *b) {
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

bool tv_equal(tm_core *t, tval a, tval b) {
    if (tv_is_number(a) && tv_is_number(b)) {
        return number_equal(a, b);
    }
    if (a.type != b.type) {
        return false;
    }
    bool equal;
    tm_enter(t);
    switch (a.type) {
    case TV_UNDEFINED:
    case TV_NONE:
    case TV_MISSING:
        equal = true;
        break;
    case TV_STR:
        tm_step(t, a.str->n / 64);
        equal = tv_str_equal(a.str, b.str);
        break;
    case TV_LIST:
    case TV_TUPLE:
        equal = seq_equal(t, a.seq, b.seq);
        break;
    case TV_DICT:
        equal = dict_equal(t, a.dict, b.dict);
        break;
    case TV_RANGE:
        equal = range_equal(a.range, b.range);
        break;
    case TV_VIEW:
        equal = view_equal(t, a.view, b.view);
        break;
    case TV_METHOD:
        equal = a.method == b.method ||
                (a.method->builtin == b.method->builtin && tv_same(a.method->self, b.method->self));
        break;
    default:
        equal = a.any == b.any;
        break;
    }
    tm_leave(t);
    return equal;
}

/* ---- Order ---- */

static bool order_holds(tv_order op, int sign) {
    switch (op) {
    case TV_LT:
        return sign < 0;
    case TV_LE:
        return sign <= 0;
    case TV_GT:
        return sign > 0;
    default:
        return sign >= 0;
    }
}

static bool number_order(tv_order op, tval a, tval b) {
    if (a.type != TV_FLOAT && b.type != TV_FLOAT) {
        return order_holds(op, int_compare(a, b));
    }
    if ((a.type == TV_FLOAT && isnan(a.real)) || (b.type == TV_FLOAT && isnan(b.real))) {
        return false;
    }
    if (a.type == TV_FLOAT && b.type == TV_FLOAT) {
        return order_holds(op, (a.real > b.real) - (a.real < b.real));
    }
    return order_holds(op, a.type == TV_FLOAT ? -int_compare_double(b, a.real)
                                              : int_compare_double(a, b.real));
}

/* The order of UTF-8 bytes is that of the code points. */
static int str_order(const tv_str *a, const tv_str *b) {
    size_t n = a->n < b->n ? a->n : b->n;
    int sign = n ? memcmp(a->data, b->data, n) : 0;
    return sign ? sign : (a->n > b->n) - (a->n < b->n);
}

static bool seq_order(tm_core *t, tv_order op, const tv_seq *a, const tv_seq *b) {
    size_t n = a->n < b->n ? a->n : b->n;
    for (size_t i = 0; i < n; i++) {
        tm_step(t, 1);
        if (!tv_same(a->items[i], b->items[i]) && !tv_equal(t, a->items[i], b->items[i])) {
            return tv_compare(t, op, a->items[i], b->items[i]);
        }
    }
    return order_holds(op, (a->n > b->n) - (a->n < b->n));
}

/* Views are sets: < means a proper subset. */
static bool view_order(tm_core *t, tv_order op, tv_view *a, tv_view *b) {
    tv_view *small = op == TV_LT || op == TV_LE ? a : b, *large = small == a ? b : a;
    bool proper = op == TV_LT || op == TV_GT;
    if (small->dict->n > large->dict->n || (proper && small->dict->n == large->dict->n)) {
        return false;
    }
    return view_contained(t, small, large);
}

bool tv_compare(tm_core *t, tv_order op, tval a, tval b) {
    static const char *const names[] = {"<", "<=", ">", ">="};
    if (tv_is_number(a) && tv_is_number(b)) {
        return number_order(op, a, b);
    }
    bool holds = false, known = a.type == b.type;
    tm_enter(t);
    if (known && a.type == TV_STR) {
        tm_step(t, a.str->n / 64);
        holds = order_holds(op, str_order(a.str, b.str));
    } else if (known && (a.type == TV_LIST || a.type == TV_TUPLE)) {
        holds = seq_order(t, op, a.seq, b.seq);
    } else if (known && a.type == TV_VIEW && a.view->kind != TV_VALUES &&
               b.view->kind != TV_VALUES) {
        holds = view_order(t, op, a.view, b.view);
    } else if (a.type == TV_UNDEFINED || b.type == TV_UNDEFINED) {
        tv_fail_undefined(t, a.type == TV_UNDEFINED ? a : b);
    } else {
        tm_fail(t, "'%s' not supported between instances of '%s' and '%s'", names[op],
                tv_type_name(a), tv_type_name(b));
    }
    tm_leave(t);
    return holds;
}

double tv_to_double(tm_core *t, tval v) {
    if (v.type == TV_FLOAT) {
        return v.real;
    }
    double x = int_to_double(v);
    if (isinf(x)) {
        tm_fail(t, "int too large to convert to float");
    }
    return x;
}
