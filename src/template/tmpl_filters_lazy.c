/* tmpl_filters_lazy.c - filters that give a generator: they work, and fail, when it is used. */
#include "template/tmpl_filters.h"

#include <string.h>

/* What a generator remembers of its call. */
typedef struct lazy {
    tm_call call;
    tm_args rest;         /* arguments for the filter or test it applies */
    const tm_builtin *fn; /* NULL: none */
    fl_path path;
    tval fallback;
    tv_iter *items;
    tv_dict *seen; /* unique */
    tval list;     /* slice */
    int64_t n_slices, offset;
    tv_list_builder kept; /* batch */
    bool started, wanted, by_attribute, ended;
} lazy;

static tval generator(tm_core *t, const tm_call *c,
                      bool (*next)(tm_core *t, tv_iter *it, tval *out), lazy state) {
    lazy *l = tm_alloc(t, sizeof *l);
    *l = state;
    l->call = *c;
    tm_args *given = tm_alloc(t, sizeof *given);
    *given = *c->given;
    l->call.given = given;
    tv_iter *it = tm_zero(t, sizeof *it);
    it->next = next;
    it->state = l;
    it->type_name = "generator";
    return tv_from_iter(it);
}

static const tm_builtin *find_by_value(tm_core *t, tval name, bool filter) {
    const tm_builtin *fn = filter ? tm_find_filter(name) : tm_find_test(name);
    if (!tv_hashable(t, name)) {
        tm_fail(t, "unhashable type: '%s'", tv_type_name(name));
    }
    if (!fn) {
        tm_fail(t, "No %s named %s.", filter ? "filter" : "test", tv_repr_text(t, name));
    }
    return fn;
}

/* Arguments from the i-th on. */
static tm_args rest_of(const tm_args *given, size_t i) {
    tm_args rest = *given;
    rest.positional += i;
    rest.n -= i;
    return rest;
}

/* ---- map ---- */

static void start_map(tm_core *t, lazy *l) {
    const tm_args *given = l->call.given;
    tval attribute = tv_missing();
    for (size_t i = 0; i < given->n_named && given->n == 0; i++) {
        if (tv_str_is(given->named[i].name, "attribute")) {
            attribute = given->named[i].value;
        }
    }
    if (attribute.type == TV_MISSING) {
        if (given->n == 0) {
            tm_fail(t, "map requires a filter argument");
        }
        l->rest = rest_of(given, 1);
        return;
    }
    for (size_t i = 0; i < given->n_named; i++) {
        if (tv_str_is(given->named[i].name, "default")) {
            l->fallback = given->named[i].value;
        } else if (!tv_str_is(given->named[i].name, "attribute")) {
            tm_fail(t, "Unexpected keyword argument %s", tv_repr_text(t, given->named[i].name));
        }
    }
    l->by_attribute = true;
    l->path = fl_path_of(t, attribute);
}

static bool next_mapped(tm_core *t, tv_iter *it, tval *out) {
    lazy *l = it->state;
    if (!l->started) {
        if (!tv_truth(t, l->call.self)) {
            return false;
        }
        start_map(t, l);
        l->items = tv_iterate(t, l->call.self);
        l->started = true;
    }
    tval item;
    if (!tv_next(t, l->items, &item)) {
        return false;
    }
    if (l->by_attribute) {
        *out = fl_follow(t, l->path, item, l->fallback);
    } else {
        l->fn = l->fn ? l->fn : find_by_value(t, l->call.given->positional[0], true);
        *out = tm_call_builtin(t, l->fn, item, &l->rest);
    }
    return true;
}

static tval filter_map(tm_core *t, const tm_call *c) {
    return generator(t, c, next_mapped, (lazy){.fallback = tv_missing()});
}

/* ---- select, reject, selectattr, rejectattr ---- */

static bool next_selected(tm_core *t, tv_iter *it, tval *out) {
    lazy *l = it->state;
    const tm_args *given = l->call.given;
    size_t at = l->by_attribute;
    if (!l->started) {
        if (!tv_truth(t, l->call.self)) {
            return false;
        }
        if (l->by_attribute) {
            if (given->n == 0) {
                tm_fail(t, "Missing parameter for attribute name");
            }
            l->path = fl_path_of(t, given->positional[0]);
        }
        l->items = tv_iterate(t, l->call.self);
        l->started = true;
    }
    for (tval item; tv_next(t, l->items, &item);) {
        tval v = l->by_attribute ? fl_follow(t, l->path, item, tv_missing()) : item;
        if (given->n > at) {
            l->fn = l->fn ? l->fn : find_by_value(t, given->positional[at], false);
            tm_args rest = rest_of(given, at + 1);
            v = tm_call_builtin(t, l->fn, v, &rest);
        }
        if (tv_truth(t, v) == l->wanted) {
            *out = item;
            return true;
        }
    }
    return false;
}

static tval filter_select(tm_core *t, const tm_call *c) {
    return generator(t, c, next_selected, (lazy){.wanted = true});
}

static tval filter_reject(tm_core *t, const tm_call *c) {
    return generator(t, c, next_selected, (lazy){.wanted = false});
}

static tval filter_selectattr(tm_core *t, const tm_call *c) {
    return generator(t, c, next_selected, (lazy){.wanted = true, .by_attribute = true});
}

static tval filter_rejectattr(tm_core *t, const tm_call *c) {
    return generator(t, c, next_selected, (lazy){.wanted = false, .by_attribute = true});
}

/* ---- unique, items ---- */

static bool next_unique(tm_core *t, tv_iter *it, tval *out) {
    lazy *l = it->state;
    if (!l->started) {
        l->path = fl_path_of(t, fl_or(l->call.arg[1], tv_none()));
        l->items = tv_iterate(t, l->call.self);
        l->seen = tv_dict_new(t, 0);
        l->started = true;
    }
    bool case_sensitive = fl_given(l->call.arg[0]) && tv_truth(t, l->call.arg[0]);
    for (tval item; tv_next(t, l->items, &item);) {
        tval key = fl_follow(t, l->path, item, tv_missing());
        key = case_sensitive ? key : fl_ignore_case(t, key);
        if (!tv_dict_get(t, l->seen, key)) {
            tv_dict_put(t, l->seen, key, tv_none());
            *out = item;
            return true;
        }
    }
    return false;
}

static tval filter_unique(tm_core *t, const tm_call *c) {
    return generator(t, c, next_unique, (lazy){0});
}

static bool next_pair(tm_core *t, tv_iter *it, tval *out) {
    lazy *l = it->state;
    if (l->call.self.type == TV_UNDEFINED) {
        return false;
    }
    if (l->call.self.type != TV_DICT) {
        tm_fail(t, "Can only get item pairs from a mapping.");
    }
    const tv_dict *d = l->call.self.dict;
    if (it->at >= d->n) {
        return false;
    }
    *out = tv_pair(t, d->entries[it->at].key, d->entries[it->at].value);
    it->at++;
    return true;
}

static tval filter_items(tm_core *t, const tm_call *c) {
    return generator(t, c, next_pair, (lazy){0});
}

/* ---- batch, slice ---- */

static tval filled(tm_core *t, lazy *l) {
    tval fill = fl_or(l->call.arg[1], tv_none()), count = l->call.arg[0];
    tval row = tv_built(t, &l->kept, TV_LIST);
    tval n = tv_int((int64_t)l->kept.n);
    if (fill.type != TV_NONE && tv_compare(t, TV_LT, n, count)) {
        tval one = tv_seq_new(t, TV_LIST, 1);
        one.seq->items[0] = fill;
        row = tm_add(t, row, tm_binary(t, ND_MUL, one, tm_binary(t, ND_SUB, count, n)));
    }
    return row;
}

static bool next_batch(tm_core *t, tv_iter *it, tval *out) {
    lazy *l = it->state;
    if (!l->started) {
        l->items = tv_iterate(t, l->call.self);
        l->started = true;
    }
    for (tval item; !l->ended && tv_next(t, l->items, &item);) {
        if (tv_equal(t, tv_int((int64_t)l->kept.n), l->call.arg[0])) {
            *out = tv_built(t, &l->kept, TV_LIST);
            l->kept = (tv_list_builder){0};
            tv_push(t, &l->kept, item);
            return true;
        }
        tv_push(t, &l->kept, item);
    }
    bool rest = !l->ended && l->kept.n > 0;
    l->ended = true;
    if (rest) {
        *out = filled(t, l);
    }
    return rest;
}

static tval filter_batch(tm_core *t, const tm_call *c) {
    return generator(t, c, next_batch, (lazy){0});
}

static bool next_slice(tm_core *t, tv_iter *it, tval *out) {
    lazy *l = it->state;
    if (!l->started) {
        const tv_seq *items = tv_items(t, l->call.self);
        l->list = (tval){.type = TV_LIST, .any = (void *)(uintptr_t)items};
        l->n_slices = tv_to_index(t, l->call.arg[0], false);
        if (l->n_slices == 0) {
            tm_fail(t, "integer division or modulo by zero");
        }
        l->started = true;
    }
    int64_t n = (int64_t)l->list.seq->n, i = (int64_t)it->at++;
    if (i >= l->n_slices) {
        return false;
    }
    int64_t each = n / l->n_slices, extra = n % l->n_slices;
    int64_t start = i * each + (i < extra ? i : extra), size = each + (i < extra);
    tval row = tm_slice(t, l->list, tv_int(start), tv_int(start + size), tv_none());
    tval fill = fl_or(l->call.arg[1], tv_none());
    if (fill.type != TV_NONE && i >= extra) {
        tval one = tv_seq_new(t, TV_LIST, 1);
        one.seq->items[0] = fill;
        row = tm_add(t, row, one);
    }
    *out = row;
    return true;
}

static tval filter_slice(tm_core *t, const tm_call *c) {
    return generator(t, c, next_slice, (lazy){0});
}

static const tm_builtin rows[] = {
    {"map", filter_map, "*", 0},
    {"select", filter_select, "*", 0},
    {"reject", filter_reject, "*", 0},
    {"selectattr", filter_selectattr, "*", 0},
    {"rejectattr", filter_rejectattr, "*", 0},
    {"unique", filter_unique, "case_sensitive attribute", 0},
    {"items", filter_items, "", 0},
    {"batch", filter_batch, "linecount fill_with", 1},
    {"slice", filter_slice, "slices fill_with", 1},
};
const tm_filter_table tm_lazy_filters = {rows, sizeof rows / sizeof *rows};
