/* tmpl_methods.c - attributes of lists, dictionaries, numbers and the engine's own objects. */
#include "template/tmpl_methods.h"

#include "template/tmpl_big.h"

#include <math.h>
#include <string.h>

#define LENGTH(rows) (sizeof(rows) / sizeof *(rows))

/* ---- Sequences ---- */

static bool equal_items(tm_core *t, tval a, tval b) {
    return tv_same(a, b) || tv_equal(t, a, b);
}

static tval seq_count(tm_core *t, const tm_call *c) {
    int64_t n = 0;
    tv_iter *it = tv_iterate(t, c->self);
    for (tval item; tv_next(t, it, &item);) {
        n += equal_items(t, item, c->arg[0]);
    }
    return tv_int(n);
}

static tval seq_index(tm_core *t, const tm_call *c) {
    size_t length;
    tv_length(t, c->self, &length);
    int64_t n = (int64_t)length, bounds[2] = {0, n};
    for (size_t i = 0; i < 2; i++) {
        if (c->arg[i + 1].type != TV_MISSING) {
            int64_t at = tv_to_index(t, c->arg[i + 1], true);
            at = at < 0 ? (at < -n ? 0 : at + n) : at;
            bounds[i] = at;
        }
    }
    tv_iter *it = tv_iterate(t, c->self);
    int64_t i = 0;
    for (tval item; tv_next(t, it, &item); i++) {
        if (i >= bounds[0] && i < bounds[1] && equal_items(t, item, c->arg[0])) {
            return tv_int(i);
        }
    }
    tm_fail(t, "%s is not in %s", tv_repr_text(t, c->arg[0]), tv_type_name(c->self));
}

static tval list_copy(tm_core *t, const tm_call *c) {
    tval copy = tv_seq_new(t, TV_LIST, c->self.seq->n);
    if (c->self.seq->n) {
        tm_copy(copy.seq->items, c->self.seq->items, c->self.seq->n * sizeof(tval));
    }
    return copy;
}

static const tm_builtin list_methods[] = {
    {"count", seq_count, "/ value", 1},
    {"index", seq_index, "/ value start stop", 1},
    {"copy", list_copy, "/", 0},
};
static const tm_builtin tuple_methods[] = {
    {"count", seq_count, "/ value", 1},
    {"index", seq_index, "/ value start stop", 1},
};
static const tm_builtin range_methods[] = {
    {"count", seq_count, "/ value", 1},
    {"index", seq_index, "/ value", 1},
};

/* ---- Dictionaries ---- */

static tval dict_get(tm_core *t, const tm_call *c) {
    const tval *v = tv_dict_get(t, c->self.dict, c->arg[0]);
    return v ? *v : c->arg[1].type == TV_MISSING ? tv_none() : c->arg[1];
}

static tval make_view(tm_core *t, tval dict, tv_view_kind kind) {
    tv_view *view = tm_alloc(t, sizeof *view);
    *view = (tv_view){.dict = dict.dict, .kind = kind};
    return (tval){.type = TV_VIEW, .view = view};
}

static tval dict_items(tm_core *t, const tm_call *c) {
    return make_view(t, c->self, TV_ITEMS);
}

static tval dict_keys(tm_core *t, const tm_call *c) {
    return make_view(t, c->self, TV_KEYS);
}

static tval dict_values(tm_core *t, const tm_call *c) {
    return make_view(t, c->self, TV_VALUES);
}

static tval dict_copy(tm_core *t, const tm_call *c) {
    const tv_dict *from = c->self.dict;
    tv_dict *d = tv_dict_new(t, from->n);
    for (size_t i = 0; i < from->n; i++) {
        tv_dict_put(t, d, from->entries[i].key, from->entries[i].value);
    }
    return tv_from_dict(d);
}

static tval dict_fromkeys(tm_core *t, const tm_call *c) {
    tv_dict *d = tv_dict_new(t, 0);
    tv_iter *it = tv_iterate(t, c->arg[0]);
    tval value = c->arg[1].type == TV_MISSING ? tv_none() : c->arg[1];
    for (tval key; tv_next(t, it, &key);) {
        tv_dict_put(t, d, key, value);
    }
    return tv_from_dict(d);
}

static const tm_builtin dict_methods[] = {
    {"get", dict_get, "/ key default", 1}, {"items", dict_items, "/", 0},
    {"keys", dict_keys, "/", 0},           {"values", dict_values, "/", 0},
    {"copy", dict_copy, "/", 0},           {"fromkeys", dict_fromkeys, "/ iterable value", 1},
};

static tval view_isdisjoint(tm_core *t, const tm_call *c) {
    tv_iter *it = tv_iterate(t, c->arg[0]);
    for (tval item; tv_next(t, it, &item);) {
        if (tv_contains(t, c->self, item)) {
            return tv_bool(false);
        }
    }
    return tv_bool(true);
}

static const tm_builtin view_methods[] = {
    {"isdisjoint", view_isdisjoint, "/ other", 1},
};

/* ---- Numbers ---- */

static tval number_itself(tm_core *t, const tm_call *c) {
    return c->self.type == TV_FLOAT ? c->self : int_add(t, c->self, tv_int(0));
}

static tval int_bits(tm_core *t, tval v, bool count_ones) {
    tm_text b = tm_text_start(t);
    int_put_digits(&b, v, 2);
    int64_t ones = 0;
    for (size_t i = 0; i < b.n; i++) {
        ones += b.data[i] == '1';
    }
    return tv_int(count_ones ? ones : int_sign(v) ? (int64_t)b.n : 0);
}

static tval int_bit_length(tm_core *t, const tm_call *c) {
    return int_bits(t, c->self, false);
}

static tval int_bit_count(tm_core *t, const tm_call *c) {
    return int_bits(t, c->self, true);
}

static tval int_ratio(tm_core *t, const tm_call *c) {
    return tv_pair(t, int_add(t, c->self, tv_int(0)), tv_int(1));
}

static tval float_is_integer(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(isfinite(c->self.real) && c->self.real == floor(c->self.real));
}

static tval int_is_integer(tm_core *t, const tm_call *c) { /* since Python 3.12 */
    (void)t, (void)c;
    return tv_bool(true);
}

static tval float_ratio(tm_core *t, const tm_call *c) {
    if (!isfinite(c->self.real)) {
        tm_fail(t, "cannot convert %s to integer ratio", isnan(c->self.real) ? "NaN" : "Infinity");
    }
    int exponent;
    double fraction = frexp(c->self.real, &exponent);
    while (fraction != floor(fraction)) {
        fraction *= 2;
        exponent--;
    }
    tval top = int_from_double(t, fraction), power = tv_int(2);
    power = int_pow(t, power, tv_int(exponent < 0 ? -exponent : exponent));
    return exponent < 0 ? tv_pair(t, top, power) : tv_pair(t, int_mul(t, top, power), tv_int(1));
}

static const tm_builtin int_methods[] = {
    {"conjugate", number_itself, "/", 0},   {"bit_length", int_bit_length, "/", 0},
    {"bit_count", int_bit_count, "/", 0},   {"as_integer_ratio", int_ratio, "/", 0},
    {"is_integer", int_is_integer, "/", 0},
};
static const tm_builtin float_methods[] = {
    {"conjugate", number_itself, "/", 0},
    {"is_integer", float_is_integer, "/", 0},
    {"as_integer_ratio", float_ratio, "/", 0},
};

static tval number_part(tm_core *t, tval v, tval name) {
    bool is_float = v.type == TV_FLOAT;
    if (tv_str_is(name, "real") || (!is_float && tv_str_is(name, "numerator"))) {
        return is_float ? v : int_add(t, v, tv_int(0));
    }
    if (tv_str_is(name, "imag")) {
        return is_float ? tv_float(0) : tv_int(0);
    }
    if (!is_float && tv_str_is(name, "denominator")) {
        return tv_int(1);
    }
    return tv_missing();
}

/* ---- The engine's own objects ---- */

static tval cycler_next(tm_core *t, const tm_call *c) {
    (void)t;
    tv_cycler *cycler = c->self.cycler;
    tval v = cycler->items->items[cycler->at];
    cycler->at = (cycler->at + 1) % cycler->items->n;
    return v;
}

static tval cycler_reset(tm_core *t, const tm_call *c) {
    (void)t;
    c->self.cycler->at = 0;
    return tv_none();
}

static const tm_builtin cycler_methods[] = {
    {"next", cycler_next, "/", 0},
    {"reset", cycler_reset, "/", 0},
};

static tval cycler_attr(tv_cycler *cycler, tval name) {
    if (tv_str_is(name, "current")) {
        return cycler->items->items[cycler->at];
    }
    if (tv_str_is(name, "pos")) {
        return tv_int((int64_t)cycler->at);
    }
    if (tv_str_is(name, "items")) {
        return (tval){.type = TV_TUPLE, .seq = cycler->items};
    }
    return tv_missing();
}

static tval joiner_attr(const tv_joiner *joiner, tval name) {
    if (tv_str_is(name, "sep")) {
        return joiner->separator;
    }
    return tv_str_is(name, "used") ? tv_bool(joiner->used) : tv_missing();
}

static tval macro_attr(tm_core *t, const tv_macro *macro, tval name) {
    const nd_macro *def = macro->def;
    if (tv_str_is(name, "name")) {
        return macro->name;
    }
    if (tv_str_is(name, "arguments")) {
        tval names = tv_seq_new(t, TV_TUPLE, def->params.n);
        for (size_t i = 0; i < def->params.n; i++) {
            names.seq->items[i] = def->params.items[i]->value;
        }
        return names;
    }
    const struct flag_row {
        const char *name;
        bool value;
    } flags[] = {{"catch_kwargs", def->uses_kwargs},
                 {"catch_varargs", def->uses_varargs},
                 {"caller", def->uses_caller},
                 {"explicit_caller", def->explicit_caller}};
    for (size_t i = 0; i < LENGTH(flags); i++) {
        if (tv_str_is(name, flags[i].name)) {
            return tv_bool(flags[i].value);
        }
    }
    return tv_missing();
}

static tval range_attr(const tv_range *range, tval name) {
    if (tv_str_is(name, "start")) {
        return tv_int(range->start);
    }
    if (tv_str_is(name, "stop")) {
        return tv_int(range->stop);
    }
    return tv_str_is(name, "step") ? tv_int(range->step) : tv_missing();
}

static tval group_attr(const tv_seq *seq, tval name) {
    if (seq->group && tv_str_is(name, "grouper")) {
        return seq->items[0];
    }
    return seq->group && tv_str_is(name, "list") ? seq->items[1] : tv_missing();
}

static tval function_attr(tm_core *t, tval function, tval name) {
    if (strcmp(function.function->name, "dict") == 0 && tv_str_is(name, "fromkeys")) {
        return tm_make_method(t, function, tm_find_row(dict_methods, LENGTH(dict_methods), name));
    }
    return tv_missing();
}

/* ---- Any value ---- */

static const struct method_table {
    const tm_builtin *rows;
    size_t n;
} method_tables[TV_N_TYPES] = {
    [TV_LIST] = {list_methods, LENGTH(list_methods)},
    [TV_TUPLE] = {tuple_methods, LENGTH(tuple_methods)},
    [TV_RANGE] = {range_methods, LENGTH(range_methods)},
    [TV_DICT] = {dict_methods, LENGTH(dict_methods)},
    [TV_BOOL] = {int_methods, LENGTH(int_methods)},
    [TV_INT] = {int_methods, LENGTH(int_methods)},
    [TV_BIG] = {int_methods, LENGTH(int_methods)},
    [TV_FLOAT] = {float_methods, LENGTH(float_methods)},
    [TV_CYCLER] = {cycler_methods, LENGTH(cycler_methods)},
};

/* What would change a list or a dict, which the sandbox forbids. */
static bool is_forbidden(tval v, tval name) {
    static const char *const list[] = {"append", "clear",  "extend",  "insert",
                                       "pop",    "remove", "reverse", "sort"};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
    bool is_list = v.type == TV_LIST;
    size_t n = is_list ? LENGTH(list) : v.type == TV_DICT ? LENGTH(dict) : 0;
    for (size_t i = 0; i < n; i++) {
        if (tv_str_is(name, is_list ? list[i] : dict[i])) {
            return true;
        }
    }
    return false;
}

/* What every Python object has, and the sandbox keeps to itself. */
static bool is_private(tval name) {
    static const char *const names[] = {
        "__class__",   "__delattr__", "__dir__",           "__doc__",         "__eq__",
        "__format__",  "__ge__",      "__getattribute__",  "__getstate__",    "__gt__",
        "__hash__",    "__init__",    "__init_subclass__", "__le__",          "__lt__",
        "__ne__",      "__new__",     "__reduce__",        "__reduce_ex__",   "__repr__",
        "__setattr__", "__sizeof__",  "__str__",           "__subclasshook__"};
    for (size_t i = 0; i < LENGTH(names); i++) {
        if (tv_str_is(name, names[i])) {
            return true;
        }
    }
    return false;
}

static tval own_attr(tm_core *t, tval v, tval name) {
    const tval *found;
    switch (v.type) {
    case TV_BOOL:
    case TV_INT:
    case TV_BIG:
    case TV_FLOAT:
        return number_part(t, v, name);
    case TV_TUPLE:
        return group_attr(v.seq, name);
    case TV_RANGE:
        return range_attr(v.range, name);
    case TV_NAMESPACE:
        found = tv_dict_get(t, v.ns->attrs, name);
        return found ? *found : tv_missing();
    case TV_MACRO:
        return macro_attr(t, v.macro, name);
    case TV_LOOP:
        return loop_attr(t, v, name);
    case TV_CYCLER:
        return cycler_attr(v.cycler, name);
    case TV_JOINER:
        return joiner_attr(v.joiner, name);
    case TV_FUNCTION:
        return function_attr(t, v, name);
    case TV_UNDEFINED:
        tv_fail_undefined(t, v);
    default:
        return tv_missing();
    }
}

tval tm_type_attr(tm_core *t, tval object, tval name) {
    struct method_table table = method_tables[object.type];
    if (object.type == TV_STR) {
        table = (struct method_table){tm_str_methods, tm_n_str_methods};
    } else if (object.type == TV_VIEW && object.view->kind != TV_VALUES) {
        table = (struct method_table){view_methods, LENGTH(view_methods)};
    }
    const tm_builtin *method = tm_find_row(table.rows, table.n, name);
    if (!method && object.type == TV_STR && object.str->markup) {
        method = tm_find_row(tm_markup_methods, tm_n_markup_methods, name);
    }
    if (method) {
        return tm_make_method(t, object, method);
    }
    if (is_forbidden(object, name) || is_private(name)) {
        tval hint = tv_printf(t, "access to attribute %s of '%s' object is unsafe.%c",
                              tv_repr_text(t, name), tv_type_name(object), 0);
        return tv_undefined_hint(t, hint.str->data);
    }
    return own_attr(t, object, name);
}
