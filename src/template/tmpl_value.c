/* tmpl_value.c - making values: text, lists, tuples, undefined. */
#include "template/tmpl_value.h"

#include "template/tmpl_repr.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define GROW_FROM 64 /* text shorter than this is not worth storage that can grow */

/* ---- Undefined ---- */

static tval undefined_new(tm_core *t, tv_undefined u) {
    tv_undefined *p = tm_alloc(t, sizeof *p);
    *p = u;
    return (tval){.type = TV_UNDEFINED, .undefined = p};
}

tval tv_undefined_hint(tm_core *t, const char *hint) {
    return undefined_new(t, (tv_undefined){.hint = hint});
}

tval tv_undefined_name(tm_core *t, tval name) {
    return undefined_new(t, (tv_undefined){.name = name});
}

tval tv_undefined_attr(tm_core *t, tval object, tval name) {
    return undefined_new(t, (tv_undefined){.object = object, .name = name});
}

_Noreturn void tv_fail_undefined(tm_core *t, tval v) {
    const tv_undefined *u = v.undefined;
    if (u->hint) {
        tm_fail(t, "%s", u->hint);
    }
    const char *name = tv_repr_text(t, u->name);
    if (u->object.type == TV_MISSING) {
        tm_fail(t, "%s is undefined", name);
    }
    const char *type = tv_type_name(u->object);
    const char *object = tv_is(u->object, TV_NONE) ? "" : " object";
    type = tv_is(u->object, TV_NONE) ? "None" : type;
    if (!tv_is(u->name, TV_STR)) {
        tm_fail(t, "%s%s has no element %s", type, object, name);
    }
    tm_fail(t, "'%s%s' has no attribute %s", type, object, name);
}

/* ---- Text ---- */

tval tv_text_take(tm_core *t, const char *data, size_t n) {
    tv_str *s = tm_alloc(t, sizeof *s);
    *s = (tv_str){.data = data, .n = n, .n_chars = TV_UNCOUNTED};
    return (tval){.type = TV_STR, .str = s};
}

tval tv_text(tm_core *t, const char *data, size_t n) {
    char *copy = tm_alloc(t, n);
    tm_step(t, n / 64);
    tm_copy(copy, data, n);
    return tv_text_take(t, copy, n);
}

tval tv_literal(tm_core *t, const char *text) {
    return tv_text_take(t, text, strlen(text));
}

tval tv_printf(tm_core *t, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    size_t size = n < 0 ? 0 : (size_t)n;
    char *text = tm_alloc(t, size + 1);
    vsnprintf(text, size + 1, format, again);
    va_end(again);
    return tv_text_take(t, text, size);
}

tval tv_as_markup(tm_core *t, tval s, bool markup) {
    if (s.str->markup == markup) {
        return s;
    }
    tv_str *copy = tm_alloc(t, sizeof *copy);
    *copy = *s.str;
    copy->store = NULL;
    copy->markup = markup;
    return (tval){.type = TV_STR, .str = copy};
}

/* Appends in place if a's text ends where its storage is free; otherwise moves it to new storage
 * with room for as much again. */
tval tv_concat(tm_core *t, tval a, tval b) {
    const tv_str *x = a.str, *y = b.str;
    size_t n = x->n + y->n;
    tm_step(t, y->n / 64);
    tval result;
    tv_store *store = x->store;
    if (store && store->capacity - store->used >= y->n &&
        x->data + x->n == (char *)(store + 1) + store->used) {
        tm_copy((char *)(store + 1) + store->used, y->data, y->n);
        store->used += y->n;
        result = tv_text_take(t, x->data, n);
    } else {
        size_t capacity = n < GROW_FROM ? n : n + n / 2;
        if (n > t->max_bytes) {
            tm_fail_memory(t, n);
        }
        store = tm_alloc(t, sizeof *store + capacity);
        *store = (tv_store){.used = n, .capacity = capacity};
        char *data = (char *)(store + 1);
        tm_step(t, x->n / 64);
        tm_copy(data, x->data, x->n);
        tm_copy(data + x->n, y->data, y->n);
        result = tv_text_take(t, data, n);
    }
    result.str->store = store;
    if (x->n_chars != TV_UNCOUNTED && y->n_chars != TV_UNCOUNTED) {
        result.str->n_chars = x->n_chars + y->n_chars;
    }
    return result;
}

size_t tv_n_chars(tv_str *s) {
    if (s->n_chars == TV_UNCOUNTED) {
        size_t n = 0;
        for (size_t i = 0; i < s->n; i++) {
            n += (s->data[i] & 0xc0) != 0x80;
        }
        s->n_chars = n;
    }
    return s->n_chars;
}

size_t tv_char_at(tv_str *s, size_t i) {
    if (tv_n_chars(s) == s->n) {
        return i;
    }
    size_t at = 0;
    for (; i > 0; i--) {
        do {
            at++;
        } while (at < s->n && (s->data[at] & 0xc0) == 0x80);
    }
    return at;
}

tval tv_substr(tm_core *t, tv_str *s, size_t from, size_t to) {
    if (from >= to) {
        return tv_as_markup(t, tv_literal(t, ""), s->markup);
    }
    size_t start = tv_char_at(s, from);
    size_t end;
    if (tv_n_chars(s) == s->n) {
        end = to;
    } else if (to == s->n_chars) {
        end = s->n;
    } else {
        tv_str rest = {.data = s->data + start, .n = s->n - start, .n_chars = s->n_chars - from};
        end = start + tv_char_at(&rest, to - from);
    }
    tm_step(t, end / 64);
    tval v = tv_text_take(t, s->data + start, end - start);
    v.str->n_chars = to - from;
    v.str->markup = s->markup;
    return v;
}

bool tv_str_equal(const tv_str *a, const tv_str *b) {
    return a == b || (a->n == b->n && memcmp(a->data, b->data, a->n) == 0);
}

bool tv_str_is(tval v, const char *text) {
    size_t n = strlen(text);
    return v.type == TV_STR && v.str->n == n && memcmp(v.str->data, text, n) == 0;
}

/* ---- Lists and tuples ---- */

tval tv_seq_new(tm_core *t, tv_type type, size_t n) {
    tv_seq *seq = tm_alloc(t, sizeof *seq);
    *seq = (tv_seq){.items = tm_array(t, n, sizeof(tval)), .n = n};
    tm_step(t, n / 4);
    return (tval){.type = type, .seq = seq};
}

tval tv_pair(tm_core *t, tval a, tval b) {
    tval pair = tv_seq_new(t, TV_TUPLE, 2);
    pair.seq->items[0] = a;
    pair.seq->items[1] = b;
    return pair;
}

tval tv_seq_concat(tm_core *t, tval a, tval b) {
    const tv_seq *x = a.seq, *y = b.seq;
    tv_store *store = x->store;
    size_t n = x->n + y->n;
    tv_seq *seq = tm_alloc(t, sizeof *seq);
    tm_step(t, y->n / 4);
    if (store && store->capacity - store->used >= y->n &&
        x->items + x->n == (tval *)(store + 1) + store->used) {
        seq->items = x->items;
        store->used += y->n;
    } else {
        size_t capacity = n + n / 2;
        if (capacity > t->max_bytes / sizeof(tval)) {
            tm_fail_memory(t, n);
        }
        store = tm_alloc(t, sizeof *store + capacity * sizeof(tval));
        *store = (tv_store){.used = n, .capacity = capacity};
        seq->items = (tval *)(store + 1);
        tm_step(t, x->n / 4);
        tm_copy(seq->items, x->items, x->n * sizeof(tval));
    }
    tm_copy(seq->items + x->n, y->items, y->n * sizeof(tval));
    seq->n = n;
    seq->store = store;
    seq->group = false;
    return (tval){.type = a.type, .seq = seq};
}

void tv_push(tm_core *t, tv_list_builder *list, tval v) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        tval *items = tm_array(t, capacity, sizeof(tval));
        if (list->n) {
            memcpy(items, list->items, list->n * sizeof(tval));
        }
        list->items = items;
        list->capacity = capacity;
    }
    tm_step(t, 1);
    list->items[list->n++] = v;
}

tval tv_built(tm_core *t, tv_list_builder *list, tv_type type) {
    tv_seq *seq = tm_alloc(t, sizeof *seq);
    *seq = (tv_seq){.items = list->items, .n = list->n};
    return (tval){.type = type, .seq = seq};
}

/* ---- Coercions ---- */

tv_str *tv_want_str(tm_core *t, tval v, const char *what) {
    if (v.type != TV_STR) {
        tm_fail(t, "%s must be str, not %s", what, tv_type_name(v));
    }
    return v.str;
}

int64_t tv_to_index(tm_core *t, tval v, bool clamp) {
    switch (v.type) {
    case TV_BOOL:
        return v.boolean;
    case TV_INT:
        return v.integer;
    case TV_UNDEFINED:
        tv_fail_undefined(t, v);
    case TV_BIG:
        if (clamp) {
            return tv_to_double(t, v) < 0 ? INT64_MIN : INT64_MAX;
        }
        tm_fail(t, "Python int too large to convert to C ssize_t");
    default:
        tm_fail(t, "'%s' object cannot be interpreted as an integer", tv_type_name(v));
    }
}
