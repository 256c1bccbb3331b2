/* tmpl_text.c - operations on text that both methods and filters offer. */
#include "template/tmpl_text.h"

#include "template/pyunicode.h"

#include <string.h>

tval tx_piece(tm_core *t, const tv_str *s, size_t from, size_t to) {
    tval v = tv_text_take(t, s->data + from, to - from);
    v.str->markup = s->markup;
    return v;
}

/* ---- Searching ---- */

size_t tx_find(tm_core *t, const tv_str *s, size_t from, size_t to, const tv_str *needle) {
    if (from > to || needle->n > to - from) {
        return SIZE_MAX;
    }
    if (needle->n == 0) {
        return from;
    }
    const char *p = memmem(s->data + from, to - from, needle->data, needle->n);
    size_t at = p ? (size_t)(p - s->data) : SIZE_MAX;
    tm_step(t, ((p ? at : to) - from) / 64 + 1);
    return at;
}

size_t tx_find_last(tm_core *t, const tv_str *s, size_t from, size_t to, const tv_str *needle) {
    if (from > to || needle->n > to - from) {
        return SIZE_MAX;
    }
    for (size_t at = to - needle->n;; at--) {
        tm_step(t, needle->n / 64 + 1);
        if (memcmp(s->data + at, needle->data, needle->n) == 0) {
            return at;
        }
        if (at == from) {
            return SIZE_MAX;
        }
    }
}

/* ---- Ends ---- */

static bool set_has(const tv_str *set, uint32_t c) {
    if (!set) {
        return py_is_space(c);
    }
    for (size_t at = 0; at < set->n;) {
        if (py_char_next(set->data, set->n, &at) == c) {
            return true;
        }
    }
    return false;
}

tval tx_strip(tm_core *t, tv_str *s, const tv_str *set, tx_side side) {
    size_t from = 0, to = s->n;
    while ((side & TX_LEFT) && from < to) {
        size_t next = from;
        tm_step(t, 1 + (set ? set->n / 8 : 0));
        if (!set_has(set, py_char_next(s->data, to, &next))) {
            break;
        }
        from = next;
    }
    while ((side & TX_RIGHT) && to > from) {
        size_t before = to;
        tm_step(t, 1 + (set ? set->n / 8 : 0));
        if (!set_has(set, py_char_prev(s->data, &before))) {
            break;
        }
        to = before;
    }
    return tx_piece(t, s, from, to);
}

/* ---- Replacing ---- */

/* An empty text stands before every character and at the end. */
static tval replace_empty(tm_core *t, tv_str *s, const tv_str *new, int64_t max) {
    tm_text b = tm_text_start(t);
    size_t at = 0;
    int64_t done = 0;
    for (; at < s->n && (max < 0 || done < max); done++) {
        size_t start = at;
        py_char_next(s->data, s->n, &at);
        tm_text_put(&b, new->data, new->n);
        tm_text_put(&b, s->data + start, at - start);
        tm_step(t, 1);
    }
    if (at == s->n && (max < 0 || done < max)) {
        tm_text_put(&b, new->data, new->n);
    }
    tm_text_put(&b, s->data + at, s->n - at);
    return tm_text_end(&b);
}

tval tx_replace(tm_core *t, tv_str *s, const tv_str *old, const tv_str *new, int64_t max) {
    tval out;
    if (old->n == 0) {
        out = replace_empty(t, s, new, max);
    } else {
        tm_text b = tm_text_start(t);
        size_t at = 0;
        for (int64_t done = 0; max < 0 || done < max; done++) {
            size_t found = tx_find(t, s, at, s->n, old);
            if (found == SIZE_MAX) {
                break;
            }
            tm_text_put(&b, s->data + at, found - at);
            tm_text_put(&b, new->data, new->n);
            at = found + old->n;
        }
        tm_text_put(&b, s->data + at, s->n - at);
        out = tm_text_end(&b);
    }
    out.str->markup = s->markup;
    return out;
}

/* ---- Splitting ---- */

static void reverse_items(tv_list_builder *list) {
    for (size_t i = 0; i < list->n / 2; i++) {
        tval swap = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = swap;
    }
}

static void split_at(tm_core *t, tv_list_builder *list, tv_str *s, const tv_str *separator,
                     int64_t max) {
    size_t at = 0;
    for (int64_t cuts = 0; max < 0 || cuts < max; cuts++) {
        size_t found = tx_find(t, s, at, s->n, separator);
        if (found == SIZE_MAX) {
            break;
        }
        tv_push(t, list, tx_piece(t, s, at, found));
        at = found + separator->n;
    }
    tv_push(t, list, tx_piece(t, s, at, s->n));
}

static void split_at_from_right(tm_core *t, tv_list_builder *list, tv_str *s,
                                const tv_str *separator, int64_t max) {
    size_t end = s->n;
    for (int64_t cuts = 0; max < 0 || cuts < max; cuts++) {
        size_t found = tx_find_last(t, s, 0, end, separator);
        if (found == SIZE_MAX) {
            break;
        }
        tv_push(t, list, tx_piece(t, s, found + separator->n, end));
        end = found;
    }
    tv_push(t, list, tx_piece(t, s, 0, end));
    reverse_items(list);
}

/* Moves over characters that are blank (or that are not). */
static size_t skip(const tv_str *s, size_t at, bool blank) {
    while (at < s->n) {
        size_t next = at;
        if (py_is_space(py_char_next(s->data, s->n, &next)) != blank) {
            break;
        }
        at = next;
    }
    return at;
}

static size_t skip_back(const tv_str *s, size_t at, bool blank) {
    while (at > 0) {
        size_t before = at;
        if (py_is_space(py_char_prev(s->data, &before)) != blank) {
            break;
        }
        at = before;
    }
    return at;
}

static void split_blank(tm_core *t, tv_list_builder *list, tv_str *s, int64_t max) {
    size_t at = skip(s, 0, true);
    for (int64_t cuts = 0; at < s->n; cuts++) {
        bool last = max >= 0 && cuts >= max;
        size_t end = last ? s->n : skip(s, at, false);
        tm_step(t, (end - at) / 16);
        tv_push(t, list, tx_piece(t, s, at, end));
        at = last ? s->n : skip(s, end, true);
    }
}

static void split_blank_from_right(tm_core *t, tv_list_builder *list, tv_str *s, int64_t max) {
    size_t end = skip_back(s, s->n, true);
    for (int64_t cuts = 0; end > 0; cuts++) {
        bool last = max >= 0 && cuts >= max;
        size_t start = last ? 0 : skip_back(s, end, false);
        tm_step(t, (end - start) / 16);
        tv_push(t, list, tx_piece(t, s, start, end));
        end = last ? 0 : skip_back(s, start, true);
    }
    reverse_items(list);
}

tval tx_split(tm_core *t, tv_str *s, const tv_str *separator, int64_t max, bool from_right) {
    tv_list_builder list = {0};
    if (separator && separator->n == 0) {
        tm_fail(t, "empty separator");
    }
    if (separator) {
        (from_right ? split_at_from_right : split_at)(t, &list, s, separator, max);
    } else {
        (from_right ? split_blank_from_right : split_blank)(t, &list, s, max);
    }
    return tv_built(t, &list, TV_LIST);
}

tval tx_split_lines(tm_core *t, tv_str *s, bool keep_ends) {
    tv_list_builder list = {0};
    for (size_t start = 0; start < s->n;) {
        size_t end = start, next = start;
        uint32_t c = 0;
        while (next < s->n) {
            end = next;
            c = py_char_next(s->data, s->n, &next);
            if (py_is_line_break(c)) {
                break;
            }
            end = next;
        }
        if (c == '\r' && end < next && next < s->n && s->data[next] == '\n') {
            next++;
        }
        tm_step(t, (next - start) / 16);
        tv_push(t, &list, tx_piece(t, s, start, keep_ends ? next : end));
        start = next;
    }
    return tv_built(t, &list, TV_LIST);
}

tval tx_join(tm_core *t, const tv_str *separator, tval items, bool any_type) {
    tm_text b = tm_text_start(t);
    tv_iter *it = tv_iterate(t, items);
    size_t i = 0;
    for (tval item; tv_next(t, it, &item); i++) {
        if (i > 0) {
            tm_text_put(&b, separator->data, separator->n);
        }
        if (separator->markup && !any_type) {
            item = tm_escape(t, item);
        }
        if (!any_type && item.type != TV_STR) {
            tm_fail(t, "sequence item %zu: expected str instance, %s found", i, tv_type_name(item));
        }
        tv_put_str(&b, item);
    }
    tval v = tm_text_end(&b);
    v.str->markup = separator->markup && !any_type;
    return v;
}

/* ---- Case ---- */

typedef size_t (*case_fn)(uint32_t out[3], uint32_t c);

static void put_mapped(tm_text *b, case_fn map, uint32_t c) {
    uint32_t out[3];
    size_t n = map(out, c);
    for (size_t i = 0; i < n; i++) {
        tm_text_put_char(b, out[i]);
    }
}

/* The capital sigma that ends a word has its own small letter. */
static bool is_final_sigma(const tv_str *s, size_t at, size_t next) {
    bool before = false;
    while (at > 0) {
        uint32_t c = py_char_prev(s->data, &at);
        if (!py_is_case_ignorable(c)) {
            before = py_is_cased(c);
            break;
        }
    }
    while (before && next < s->n) {
        uint32_t c = py_char_next(s->data, s->n, &next);
        if (!py_is_case_ignorable(c)) {
            return !py_is_cased(c);
        }
    }
    return before;
}

static void put_lower(tm_text *b, const tv_str *s, size_t at, size_t next, uint32_t c) {
    if (c == 0x3a3) {
        tm_step(b->t, s->n / 64);
        tm_text_put_char(b, is_final_sigma(s, at, next) ? 0x3c2 : 0x3c3);
    } else {
        put_mapped(b, py_lower, c);
    }
}

static tval end_like(tm_text *b, const tv_str *s) {
    tval v = tm_text_end(b);
    v.str->markup = s->markup;
    return v;
}

tval tx_lower(tm_core *t, tv_str *s) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t start = at;
        uint32_t c = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        put_lower(&b, s, start, at, c);
    }
    return end_like(&b, s);
}

static tval map_all(tm_core *t, tv_str *s, case_fn map) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        uint32_t c = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        put_mapped(&b, map, c);
    }
    return end_like(&b, s);
}

tval tx_upper(tm_core *t, tv_str *s) {
    return map_all(t, s, py_upper);
}

tval tx_casefold(tm_core *t, tv_str *s) {
    return map_all(t, s, py_fold);
}

tval tx_capitalize(tm_core *t, tv_str *s) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t start = at;
        uint32_t c = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        if (start == 0) {
            put_mapped(&b, py_title, c);
        } else {
            put_lower(&b, s, start, at, c);
        }
    }
    return end_like(&b, s);
}

tval tx_title(tm_core *t, tv_str *s) {
    tm_text b = tm_text_start(t);
    bool within = false;
    for (size_t at = 0; at < s->n;) {
        size_t start = at;
        uint32_t c = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        if (within) {
            put_lower(&b, s, start, at, c);
        } else {
            put_mapped(&b, py_title, c);
        }
        within = py_is_cased(c);
    }
    return end_like(&b, s);
}

tval tx_swapcase(tm_core *t, tv_str *s) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t start = at;
        uint32_t c = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        if (py_is_upper(c)) {
            put_lower(&b, s, start, at, c);
        } else if (py_is_lower(c)) {
            put_mapped(&b, py_upper, c);
        } else {
            tm_text_put_char(&b, c);
        }
    }
    return end_like(&b, s);
}

/* ---- Width ---- */

static void put_fill(tm_text *b, const tv_str *fill, size_t n) {
    if (fill->n && n > b->t->max_bytes / fill->n) {
        tm_fail_memory(b->t, n);
    }
    for (size_t i = 0; i < n; i++) {
        tm_step(b->t, 1);
        tm_text_put(b, fill->data, fill->n);
    }
}

tval tx_pad(tm_core *t, tv_str *s, int64_t width, const tv_str *fill, tx_align align) {
    size_t n = tv_n_chars(s);
    if (width <= 0 || (uint64_t)width <= n) {
        return tx_piece(t, s, 0, s->n);
    }
    size_t missing = (size_t)width - n, left = 0;
    if (align == TX_ALIGN_RIGHT) {
        left = missing;
    } else if (align == TX_ALIGN_CENTER) { /* an odd blank goes where CPython puts it */
        left = missing / 2 + (missing & (size_t)width & 1);
    }
    tm_text b = tm_text_start(t);
    put_fill(&b, fill, left);
    tm_text_put(&b, s->data, s->n);
    put_fill(&b, fill, missing - left);
    return end_like(&b, s);
}
