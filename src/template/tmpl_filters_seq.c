/* tmpl_filters_seq.c - filters on values and sequences that give their result at once. */
#include "template/pyunicode.h"
#include "template/tmpl_big.h"
#include "template/tmpl_filters.h"
#include "template/tmpl_methods.h"
#include "template/tmpl_text.h"

#include <string.h>
#include <time.h>

/* ---- Attributes ---- */

/* "user.0": texts, and integers where a part is made of digits. */
fl_path fl_path_of(tm_core *t, tval attribute) {
    fl_path path = {0};
    if (attribute.type == TV_NONE) {
        return path;
    }
    if (attribute.type != TV_STR) {
        path.parts = tm_array(t, 1, sizeof *path.parts);
        path.parts[path.n++] = attribute;
        return path;
    }
    const tv_seq *parts = tx_split(t, attribute.str, tv_literal(t, ".").str, -1, false).seq;
    path.parts = tm_array(t, parts->n, sizeof *path.parts);
    for (; path.n < parts->n; path.n++) {
        const tv_str *s = parts->items[path.n].str;
        bool digits = s->n > 0;
        for (size_t i = 0; i < s->n; i++) {
            digits &= s->data[i] >= '0' && s->data[i] <= '9';
        }
        path.parts[path.n] = digits ? int_from_digits(t, s->data, s->n, 10) : parts->items[path.n];
    }
    return path;
}

tval fl_follow(tm_core *t, fl_path path, tval item, tval fallback) {
    for (size_t i = 0; i < path.n; i++) {
        item = tm_get_item(t, item, path.parts[i]);
        if (item.type == TV_UNDEFINED && fallback.type != TV_MISSING && fallback.type != TV_NONE) {
            item = fallback;
        }
    }
    return item;
}

tval fl_ignore_case(tm_core *t, tval v) {
    return v.type == TV_STR ? tx_lower(t, v.str) : v;
}

static bool flag(tm_core *t, tval v) {
    return fl_given(v) && tv_truth(t, v);
}

/* ---- Any value ---- */

static tval filter_default(tm_core *t, const tm_call *c) {
    bool use = c->self.type == TV_UNDEFINED || (flag(t, c->arg[1]) && !tv_truth(t, c->self));
    return use ? fl_or(c->arg[0], tv_literal(t, "")) : c->self;
}

static tval filter_length(tm_core *t, const tm_call *c) {
    size_t n;
    if (!tv_length(t, c->self, &n)) {
        tm_fail(t, "object of type '%s' has no len()", tv_type_name(c->self));
    }
    return tv_int((int64_t)n);
}

static tval filter_attr(tm_core *t, const tm_call *c) {
    tv_want_str(t, c->arg[0], "attribute name");
    tval v = tm_type_attr(t, c->self, c->arg[0]);
    return v.type == TV_MISSING ? tv_undefined_attr(t, c->self, c->arg[0]) : v;
}

static tval filter_list(tm_core *t, const tm_call *c) {
    const tv_seq *items = tv_items(t, c->self);
    tval list = tv_seq_new(t, TV_LIST, items->n);
    if (items->n) {
        tm_copy(list.seq->items, items->items, items->n * sizeof(tval));
    }
    return list;
}

static tval filter_join(tm_core *t, const tm_call *c) {
    tval separator = tv_to_str(t, fl_or(c->arg[0], tv_literal(t, "")));
    tval attribute = fl_or(c->arg[1], tv_none());
    if (attribute.type == TV_NONE) {
        return tx_join(t, separator.str, c->self, true);
    }
    fl_path path = fl_path_of(t, attribute);
    tv_list_builder list = {0};
    tv_iter *it = tv_iterate(t, c->self);
    for (tval item; tv_next(t, it, &item);) {
        tv_push(t, &list, fl_follow(t, path, item, tv_missing()));
    }
    return tx_join(t, separator.str, tv_built(t, &list, TV_LIST), true);
}

/* ---- Single items ---- */

/* Whether Python's reversed() takes it. */
static bool is_reversible(tval v) {
    switch (v.type) {
    case TV_STR:
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
    case TV_RANGE:
    case TV_VIEW:
    case TV_UNDEFINED:
        return true;
    default:
        return false;
    }
}

static tval filter_first(tm_core *t, const tm_call *c) {
    tval v;
    if (tv_next(t, tv_iterate(t, c->self), &v)) {
        return v;
    }
    return tv_undefined_hint(t, "No first item, sequence was empty.");
}

static tval filter_last(tm_core *t, const tm_call *c) {
    if (!is_reversible(c->self)) {
        tm_fail(t, "'%s' object is not reversible", tv_type_name(c->self));
    }
    if (c->self.type == TV_STR) {
        size_t n = tv_n_chars(c->self.str);
        if (n > 0) {
            return tv_substr(t, c->self.str, n - 1, n);
        }
    } else {
        const tv_seq *items = tv_items(t, c->self);
        if (items->n) {
            return items->items[items->n - 1];
        }
    }
    return tv_undefined_hint(t, "No last item, sequence was empty.");
}

static tval filter_random(tm_core *t, const tm_call *c) {
    size_t n;
    if (!tv_length(t, c->self, &n)) {
        tm_fail(t, "object of type '%s' has no len()", tv_type_name(c->self));
    }
    if (n == 0) {
        return tv_undefined_hint(t, "No random item, sequence was empty.");
    }
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    uint64_t x = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u + t->n_steps;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    tval v = tm_get_item(t, c->self, tv_int((int64_t)((x ^ x >> 32) % n)));
    return v;
}

/* The least or largest by a key; the first of equals. */
static tval extreme(tm_core *t, const tm_call *c, tv_order better) {
    bool case_sensitive = flag(t, c->arg[0]);
    fl_path path = fl_path_of(t, fl_or(c->arg[1], tv_none()));
    tv_iter *it = tv_iterate(t, c->self);
    tval best = tv_missing(), best_key = tv_missing();
    for (tval item; tv_next(t, it, &item);) {
        tval key = fl_follow(t, path, item, tv_missing());
        key = case_sensitive ? key : fl_ignore_case(t, key);
        if (best.type == TV_MISSING || tv_compare(t, better, key, best_key)) {
            best = item;
            best_key = key;
        }
    }
    return best.type == TV_MISSING ? tv_undefined_hint(t, "No aggregated item, sequence was empty.")
                                   : best;
}

static tval filter_min(tm_core *t, const tm_call *c) {
    return extreme(t, c, TV_LT);
}

static tval filter_max(tm_core *t, const tm_call *c) {
    return extreme(t, c, TV_GT);
}

static tval filter_sum(tm_core *t, const tm_call *c) {
    fl_path path = fl_path_of(t, fl_or(c->arg[0], tv_none()));
    tval sum = fl_or(c->arg[1], tv_int(0));
    if (sum.type == TV_STR) {
        tm_fail(t, "sum() can't sum strings [use ''.join(seq) instead]");
    }
    tv_iter *it = tv_iterate(t, c->self);
    for (tval item; tv_next(t, it, &item);) {
        sum = tm_add(t, sum, fl_follow(t, path, item, tv_missing()));
    }
    return sum;
}

/* ---- Order ---- */

/* "age,name" gives two values, which are compared as a list. */
static tval sort_key(tm_core *t, const fl_path *paths, size_t n, tval item, bool case_sensitive) {
    tval key = tv_seq_new(t, TV_LIST, n);
    for (size_t i = 0; i < n; i++) {
        tval part = fl_follow(t, paths[i], item, tv_missing());
        key.seq->items[i] = case_sensitive ? part : fl_ignore_case(t, part);
    }
    return key;
}

static tval filter_sort(tm_core *t, const tm_call *c) {
    tval attribute = fl_or(c->arg[2], tv_none());
    tval names = tv_seq_new(t, TV_LIST, 1);
    names.seq->items[0] = attribute;
    if (attribute.type == TV_STR) {
        names = tx_split(t, attribute.str, tv_literal(t, ",").str, -1, false);
    }
    fl_path *paths = tm_array(t, names.seq->n, sizeof *paths);
    for (size_t i = 0; i < names.seq->n; i++) {
        paths[i] = fl_path_of(t, names.seq->items[i]);
    }
    tval list = filter_list(t, c);
    tval *keys = tm_array(t, list.seq->n, sizeof *keys);
    for (size_t i = 0; i < list.seq->n; i++) {
        keys[i] = sort_key(t, paths, names.seq->n, list.seq->items[i], flag(t, c->arg[1]));
    }
    tm_sort(t, list.seq->items, keys, list.seq->n, flag(t, c->arg[0]));
    return list;
}

static tval filter_dictsort(tm_core *t, const tm_call *c) {
    tval by = fl_or(c->arg[1], tv_literal(t, "key"));
    bool by_key = tv_str_is(by, "key");
    if (!by_key && !tv_str_is(by, "value")) {
        tm_fail(t, "You can only sort by either \"key\" or \"value\"");
    }
    if (c->self.type != TV_DICT) {
        if (c->self.type == TV_UNDEFINED) {
            tv_fail_undefined(t, c->self);
        }
        tm_fail(t, "'%s' object has no attribute 'items'", tv_type_name(c->self));
    }
    const tv_dict *d = c->self.dict;
    tval list = tv_seq_new(t, TV_LIST, d->n);
    tval *keys = tm_array(t, d->n, sizeof *keys);
    for (size_t i = 0; i < d->n; i++) {
        const tv_entry *e = &d->entries[i];
        list.seq->items[i] = tv_pair(t, e->key, e->value);
        keys[i] = by_key ? e->key : e->value;
        keys[i] = flag(t, c->arg[0]) ? keys[i] : fl_ignore_case(t, keys[i]);
    }
    tm_sort(t, list.seq->items, keys, d->n, flag(t, c->arg[2]));
    return list;
}

static tval filter_groupby(tm_core *t, const tm_call *c) {
    fl_path path = fl_path_of(t, c->arg[0]);
    tval fallback = fl_or(c->arg[1], tv_none());
    bool case_sensitive = flag(t, c->arg[2]);
    tval list = filter_list(t, c);
    size_t n = list.seq->n;
    tval *keys = tm_array(t, n, sizeof *keys), *sorted = tm_array(t, n, sizeof *sorted);
    for (size_t i = 0; i < n; i++) {
        tval key = fl_follow(t, path, list.seq->items[i], fallback);
        keys[i] = sorted[i] = case_sensitive ? key : fl_ignore_case(t, key);
    }
    tm_sort(t, list.seq->items, keys, n, false);
    tm_sort(t, sorted, NULL, n, false);
    tv_list_builder groups = {0};
    for (size_t i = 0; i < n;) {
        tv_list_builder members = {0};
        size_t first = i;
        for (; i < n && (i == first || tv_same(sorted[first], sorted[i]) ||
                         tv_equal(t, sorted[first], sorted[i]));
             i++) {
            tv_push(t, &members, list.seq->items[i]);
        }
        tval key =
            case_sensitive ? sorted[first] : fl_follow(t, path, list.seq->items[first], fallback);
        tval group = tv_pair(t, key, tv_built(t, &members, TV_LIST));
        group.seq->group = true;
        tv_push(t, &groups, group);
    }
    return tv_built(t, &groups, TV_LIST);
}

static bool next_reversed(tm_core *t, tv_iter *it, tval *out) {
    (void)t;
    if (it->at == 0) {
        return false;
    }
    *out = it->source.seq->items[--it->at];
    return true;
}

static tval filter_reverse(tm_core *t, const tm_call *c) {
    if (c->self.type == TV_STR) {
        return tm_slice(t, c->self, tv_none(), tv_none(), tv_int(-1));
    }
    if (!tv_iterable(c->self)) {
        tm_fail(t, "argument must be iterable");
    }
    const tv_seq *items = tv_items(t, c->self);
    if (is_reversible(c->self)) {
        tv_iter *it = tm_zero(t, sizeof *it);
        it->next = next_reversed;
        it->source = (tval){.type = TV_LIST, .any = (void *)(uintptr_t)items};
        it->at = items->n;
        it->type_name = "list_reverseiterator";
        return tv_from_iter(it);
    }
    tval list = tv_seq_new(t, TV_LIST, items->n);
    for (size_t i = 0; i < items->n; i++) {
        list.seq->items[i] = items->items[items->n - 1 - i];
    }
    return list;
}

static const tm_builtin rows[] = {
    {"default", filter_default, "default_value boolean", 0},
    {"d", filter_default, "default_value boolean", 0},
    {"length", filter_length, "/", 0},
    {"count", filter_length, "/", 0},
    {"attr", filter_attr, "name", 1},
    {"list", filter_list, "", 0},
    {"join", filter_join, "d attribute", 0},
    {"first", filter_first, "", 0},
    {"last", filter_last, "", 0},
    {"random", filter_random, "", 0},
    {"min", filter_min, "case_sensitive attribute", 0},
    {"max", filter_max, "case_sensitive attribute", 0},
    {"sum", filter_sum, "attribute start", 0},
    {"sort", filter_sort, "reverse case_sensitive attribute", 0},
    {"dictsort", filter_dictsort, "case_sensitive by reverse", 0},
    {"groupby", filter_groupby, "attribute default case_sensitive", 1},
    {"reverse", filter_reverse, "", 0},
};
const tm_filter_table tm_seq_filters = {rows, sizeof rows / sizeof *rows};
