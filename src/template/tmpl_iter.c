/* tmpl_iter.c - going through values: sequences, text, dictionaries, ranges, generators, loops. */
#include "template/pyunicode.h"
#include "template/tmpl_run.h"

#include <string.h>

/* ---- Iterators over what is there ---- */

static bool next_item(tm_core *t, tv_iter *it, tval *out) {
    (void)t;
    if (it->at >= it->source.seq->n) {
        return false;
    }
    *out = it->source.seq->items[it->at++];
    return true;
}

static bool next_char(tm_core *t, tv_iter *it, tval *out) {
    const tv_str *s = it->source.str;
    if (it->at >= s->n) {
        return false;
    }
    size_t start = it->at;
    py_char_next(s->data, s->n, &it->at);
    *out = tv_text_take(t, s->data + start, it->at - start);
    out->str->n_chars = 1;
    out->str->markup = false;
    return true;
}

static bool next_entry(tm_core *t, tv_iter *it, tval *out) {
    const tv_dict *d = it->source.type == TV_DICT ? it->source.dict : it->source.view->dict;
    tv_view_kind kind = it->source.type == TV_DICT ? TV_KEYS : it->source.view->kind;
    if (it->at >= d->n) {
        return false;
    }
    const tv_entry *e = &d->entries[it->at++];
    *out = kind == TV_KEYS ? e->key : kind == TV_VALUES ? e->value : tv_pair(t, e->key, e->value);
    return true;
}

static bool next_number(tm_core *t, tv_iter *it, tval *out) {
    (void)t;
    const tv_range *r = it->source.range;
    if (it->at >= r->n) {
        return false;
    }
    *out = tv_int((int64_t)((uint64_t)r->start + (uint64_t)r->step * it->at++));
    return true;
}

static bool next_nothing(tm_core *t, tv_iter *it, tval *out) {
    (void)t, (void)it, (void)out;
    return false;
}

/* A loop can be gone through from within: it then advances. */
static bool next_of_loop(tm_core *t, tv_iter *it, tval *out) {
    tval item;
    if (!loop_advance(t, it->source.loop, &item)) {
        return false;
    }
    *out = tv_pair(t, item, it->source);
    return true;
}

typedef bool (*next_fn)(tm_core *t, tv_iter *it, tval *out);
static next_fn next_for(tval v) {
    switch (v.type) {
    case TV_LIST:
    case TV_TUPLE:
        return next_item;
    case TV_STR:
        return next_char;
    case TV_DICT:
    case TV_VIEW:
        return next_entry;
    case TV_RANGE:
        return next_number;
    case TV_UNDEFINED:
        return next_nothing;
    case TV_LOOP:
        return next_of_loop;
    default:
        return NULL;
    }
}

bool tv_iterable(tval v) {
    return v.type == TV_ITER || next_for(v);
}

tv_iter *tv_iterate(tm_core *t, tval v) {
    if (v.type == TV_ITER) {
        return v.iter;
    }
    next_fn next = next_for(v);
    if (!next) {
        tm_fail(t, "'%s' object is not iterable", tv_type_name(v));
    }
    tv_iter *it = tm_zero(t, sizeof *it);
    it->next = next;
    it->source = v;
    return it;
}

bool tv_next(tm_core *t, tv_iter *it, tval *out) {
    tm_step(t, 1);
    if (it->done) {
        return false;
    }
    tm_enter(t);
    bool more = it->next(t, it, out);
    tm_leave(t);
    it->done = !more;
    return more;
}

tval tv_from_iter(tv_iter *it) {
    return (tval){.type = TV_ITER, .iter = it};
}

const tv_seq *tv_items(tm_core *t, tval v) {
    if (v.type == TV_LIST || v.type == TV_TUPLE) {
        return v.seq;
    }
    tv_list_builder list = {0};
    tv_iter *it = tv_iterate(t, v);
    for (tval item; tv_next(t, it, &item);) {
        tv_push(t, &list, item);
    }
    return tv_built(t, &list, TV_LIST).seq;
}

/* ---- Membership ---- */

static bool range_has(tm_core *t, const tv_range *r, tval item) {
    if (item.type != TV_INT && item.type != TV_BOOL) {
        for (size_t i = 0; i < r->n && tv_is_number(item); i++) {
            if (tv_equal(t, tv_int(r->start + r->step * (int64_t)i), item)) {
                return true;
            }
        }
        return false;
    }
    int64_t n = item.type == TV_INT ? item.integer : item.boolean;
    bool within = r->step > 0 ? n >= r->start && n < r->stop : n <= r->start && n > r->stop;
    uint64_t away =
        r->step > 0 ? (uint64_t)n - (uint64_t)r->start : (uint64_t)r->start - (uint64_t)n;
    uint64_t step = r->step > 0 ? (uint64_t)r->step : 0 - (uint64_t)r->step;
    return within && away % step == 0;
}

static bool text_has(tm_core *t, const tv_str *s, tval item) {
    if (item.type != TV_STR) {
        tm_fail(t, "'in <string>' requires string as left operand, not %s", tv_type_name(item));
    }
    tm_step(t, s->n / 64);
    return memmem(s->data, s->n, item.str->data, item.str->n) != NULL;
}

static bool items_have(tm_core *t, tval container, tval item) {
    tv_iter *it = tv_iterate(t, container);
    for (tval other; tv_next(t, it, &other);) {
        if (tv_same(other, item) || tv_equal(t, other, item)) {
            return true;
        }
    }
    return false;
}

/* (key, value) in d.items() */
static bool view_has(tm_core *t, const tv_view *view, tval item) {
    if (view->kind == TV_KEYS) {
        return tv_dict_get(t, view->dict, item) != NULL;
    }
    if (item.type != TV_TUPLE || item.seq->n != 2) {
        return false;
    }
    const tval *value = tv_dict_get(t, view->dict, item.seq->items[0]);
    return value &&
           (tv_same(*value, item.seq->items[1]) || tv_equal(t, *value, item.seq->items[1]));
}

bool tv_contains(tm_core *t, tval container, tval item) {
    switch (container.type) {
    case TV_STR:
        return text_has(t, container.str, item);
    case TV_DICT:
        return tv_dict_get(t, container.dict, item) != NULL;
    case TV_RANGE:
        return range_has(t, container.range, item);
    case TV_VIEW:
        if (container.view->kind != TV_VALUES) {
            return view_has(t, container.view, item);
        }
        return items_have(t, container, item);
    default:
        if (!tv_iterable(container)) {
            tm_fail(t, "argument of type '%s' is not iterable", tv_type_name(container));
        }
        return items_have(t, container, item);
    }
}

/* ---- Loops ---- */

bool loop_advance(tm_core *t, tv_loop *loop, tval *out) {
    if (loop->has_next) {
        *out = loop->next;
        loop->has_next = false;
    } else if (!tv_next(t, loop->it, out)) {
        return false;
    }
    loop->index0++;
    loop->before = loop->current;
    loop->current = *out;
    return true;
}

static bool peek(tm_core *t, tv_loop *loop) {
    if (!loop->has_next) {
        loop->has_next = tv_next(t, loop->it, &loop->next);
    }
    return loop->has_next;
}

size_t loop_length(tm_core *t, tv_loop *loop) {
    if (!loop->has_length) {
        if (loop->source.type == TV_ITER || !tv_length(t, loop->source, &loop->length)) {
            const tv_seq *rest = tv_items(t, tv_from_iter(loop->it));
            tval list = {.type = TV_LIST, .any = (void *)(uintptr_t)rest};
            loop->it = tv_iterate(t, list);
            loop->length = rest->n + (size_t)(loop->index0 + 1) + loop->has_next;
        }
        loop->has_length = true;
    }
    return loop->length;
}

void loop_put(tm_text *b, tv_loop *loop) {
    tval text = tv_printf(b->t, "<LoopContext %lld/%zu>", (long long)loop->index0 + 1,
                          loop_length(b->t, loop));
    tm_text_put(b, text.str->data, text.str->n);
}

static tval loop_first(tm_core *t, tv_loop *loop) {
    (void)t;
    return tv_bool(loop->index0 == 0);
}

static tval loop_last(tm_core *t, tv_loop *loop) {
    return tv_bool(!peek(t, loop));
}

static tval loop_index(tm_core *t, tv_loop *loop) {
    (void)t;
    return tv_int(loop->index0 + 1);
}

static tval loop_index0(tm_core *t, tv_loop *loop) {
    (void)t;
    return tv_int(loop->index0);
}

static tval loop_revindex(tm_core *t, tv_loop *loop) {
    return tv_int((int64_t)loop_length(t, loop) - loop->index0);
}

static tval loop_revindex0(tm_core *t, tv_loop *loop) {
    return tv_int((int64_t)loop_length(t, loop) - loop->index0 - 1);
}

static tval loop_size(tm_core *t, tv_loop *loop) {
    return tv_int((int64_t)loop_length(t, loop));
}

static tval loop_depth(tm_core *t, tv_loop *loop) {
    (void)t;
    return tv_int(loop->depth0 + 1);
}

static tval loop_depth0(tm_core *t, tv_loop *loop) {
    (void)t;
    return tv_int(loop->depth0);
}

static tval loop_previous(tm_core *t, tv_loop *loop) {
    return loop->index0 == 0 ? tv_undefined_hint(t, "there is no previous item") : loop->before;
}

static tval loop_next(tm_core *t, tv_loop *loop) {
    return peek(t, loop) ? loop->next : tv_undefined_hint(t, "there is no next item");
}

static tval loop_cycle(tm_core *t, const tm_call *call) {
    if (call->given->n == 0) {
        tm_fail(t, "no items for cycling given");
    }
    return call->given->positional[(size_t)call->self.loop->index0 % call->given->n];
}

static tval loop_changed(tm_core *t, const tm_call *call) {
    tv_loop *loop = call->self.loop;
    tval now = tv_seq_new(t, TV_TUPLE, call->given->n);
    for (size_t i = 0; i < call->given->n; i++) {
        now.seq->items[i] = call->given->positional[i];
    }
    bool changed = !loop->has_changed || !tv_equal(t, loop->last_changed, now);
    loop->has_changed = true;
    loop->last_changed = now;
    return tv_bool(changed);
}

static const struct loop_row {
    const char *name;
    tval (*get)(tm_core *t, tv_loop *loop);
    tm_builtin method; /* when get is NULL */
} loop_rows[] = {
    {"index", loop_index, {0}},
    {"index0", loop_index0, {0}},
    {"first", loop_first, {0}},
    {"last", loop_last, {0}},
    {"length", loop_size, {0}},
    {"revindex", loop_revindex, {0}},
    {"revindex0", loop_revindex0, {0}},
    {"depth", loop_depth, {0}},
    {"depth0", loop_depth0, {0}},
    {"previtem", loop_previous, {0}},
    {"nextitem", loop_next, {0}},
    {"cycle", NULL, {"cycle", loop_cycle, "*", 0}},
    {"changed", NULL, {"changed", loop_changed, "*", 0}},
};

tval loop_attr(tm_core *t, tval loop, tval name) {
    for (size_t i = 0; i < sizeof loop_rows / sizeof *loop_rows; i++) {
        if (tv_str_is(name, loop_rows[i].name)) {
            return loop_rows[i].get ? loop_rows[i].get(t, loop.loop)
                                    : tm_make_method(t, loop, &loop_rows[i].method);
        }
    }
    return tv_missing();
}
