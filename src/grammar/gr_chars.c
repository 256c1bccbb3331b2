/* gr_chars.c - sets of characters as sorted spans, and their UTF-8 as automata. */
#include "grammar/gr_chars.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define LAST_CHAR 0x10ffffu
#define MAX_SPANS 100000

void gr_set_init(gr_set *s, ctx_t *ctx) {
    *s = (gr_set){.ctx = ctx};
}

void gr_set_free(gr_set *s) {
    ctx_free(s->ctx, s->spans);
    s->spans = NULL;
}

void gr_set_add(gr_set *s, uint32_t first, uint32_t last) {
    if (first > last || s->status != JANG_OK) {
        return;
    }
    if (s->n >= MAX_SPANS) {
        s->status = ctx_fail(s->ctx, JANG_ERR_UNSUPPORTED, "a set of characters has over %d parts",
                             MAX_SPANS);
        return;
    }
    s->status = gr_grow(s->ctx, &s->spans, &s->capacity, s->n, sizeof *s->spans);
    if (s->status == JANG_OK) {
        s->spans[s->n++] = (gr_span){first, last};
    }
}

void gr_set_add_all(gr_set *s, const gr_set *other) {
    for (size_t i = 0; i < other->n; i++) {
        gr_set_add(s, other->spans[i].first, other->spans[i].last);
    }
}

static int compare_spans(const void *a, const void *b) {
    uint32_t x = ((const gr_span *)a)->first, y = ((const gr_span *)b)->first;
    return (x > y) - (x < y);
}

void gr_set_finish(gr_set *s) {
    if (s->n) {
        qsort(s->spans, s->n, sizeof *s->spans, compare_spans);
    }
    size_t n = 0;
    bool surrogates = false;
    for (size_t i = 0; i < s->n; i++) {
        gr_span span = s->spans[i];
        if (n && span.first <= s->spans[n - 1].last + 1) {
            gr_span *joined = &s->spans[n - 1];
            joined->last = span.last > joined->last ? span.last : joined->last;
        } else {
            s->spans[n++] = span;
        }
        surrogates |= s->spans[n - 1].first <= 0xdfff && s->spans[n - 1].last >= 0xd800;
    }
    s->n = n;
    if (surrogates) {
        gr_set whole = *s;
        gr_set_init(s, whole.ctx);
        s->status = whole.status;
        for (size_t i = 0; i < n; i++) {
            gr_span p = whole.spans[i];
            gr_set_add(s, p.first, p.last < 0xd800 ? p.last : 0xd7ff);
            gr_set_add(s, p.first > 0xdfff ? p.first : 0xe000, p.last);
        }
        gr_set_free(&whole);
    }
}

void gr_set_invert(gr_set *s) {
    gr_set other;
    gr_set_init(&other, s->ctx);
    uint32_t from = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->spans[i].first > from) {
            gr_set_add(&other, from, s->spans[i].first - 1);
        }
        from = s->spans[i].last + 1;
    }
    gr_set_add(&other, from, LAST_CHAR);
    other.status = s->status != JANG_OK ? s->status : other.status;
    gr_set_free(s);
    *s = other;
    gr_set_finish(s);
}

bool gr_set_add_category(gr_set *s, const char *name, size_t n) {
    if (n < 1 || n > 2 || !strchr("CLMNPSZ", name[0])) {
        return false;
    }
    bool found = false;
    uint32_t from = 0;
    bool inside = false;
    for (uint32_t c = 0; c <= LAST_CHAR + 1; c++) {
        const char *have = c <= LAST_CHAR ? utf8proc_category_string((utf8proc_int32_t)c) : "";
        bool in = c <= LAST_CHAR && have[0] == name[0] && (n == 1 || have[1] == name[1]);
        if (in && !inside) {
            from = c;
        } else if (!in && inside) {
            gr_set_add(s, from, c - 1);
        }
        inside = in;
        found |= in;
    }
    return found;
}

/* ---- UTF-8 ---- */

static size_t encode(uint32_t c, unsigned char out[4]) {
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (unsigned char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (unsigned char)(lead[n] | c);
    return n;
}

/* The whole characters of a tail: 0, 1, 2 or 3 continuation bytes of any value. */
typedef struct tails {
    gr_auto *a;
    uint32_t any[4]; /* 0: not written yet */
} tails;

static uint32_t any_tail(tails *t, size_t n) {
    if (!t->any[n]) {
        t->any[n] = gr_range(t->a, 0x80, 0xbf, any_tail(t, n - 1));
    }
    return t->any[n];
}

/* Texts of n bytes from lo to hi, in the order of bytes, which is that of characters. */
static uint32_t between(tails *t, const unsigned char *lo, const unsigned char *hi, size_t n) {
    static const unsigned char least[3] = {0x80, 0x80, 0x80}, most[3] = {0xbf, 0xbf, 0xbf};
    if (n == 0) {
        return t->any[0];
    }
    bool low_full = memcmp(lo + 1, least, n - 1) == 0, high_full = memcmp(hi + 1, most, n - 1) == 0;
    if (lo[0] == hi[0] && !(low_full && high_full)) {
        return gr_range(t->a, lo[0], hi[0], between(t, lo + 1, hi + 1, n - 1));
    }
    unsigned from = lo[0], to = hi[0];
    uint32_t all = 0;
    if (!low_full) {
        all = gr_range(t->a, from, from, between(t, lo + 1, most, n - 1));
        from++;
    }
    if (!high_full) {
        all = gr_split(t->a, all, gr_range(t->a, to, to, between(t, least, hi + 1, n - 1)));
        to--;
    }
    if (from <= to) {
        all = gr_split(t->a, all, gr_range(t->a, from, to, any_tail(t, n - 1)));
    }
    return all;
}

uint32_t gr_utf8(gr_auto *a, const gr_span *spans, size_t n, uint32_t next) {
    static const uint32_t ends[] = {0x7f, 0x7ff, 0xffff, LAST_CHAR};
    tails t = {a, {next, 0, 0, 0}};
    uint32_t all = 0;
    for (size_t i = 0; i < n && next; i++) {
        uint32_t first = spans[i].first;
        for (size_t k = 0; k < 4 && first <= spans[i].last; k++) {
            if (first > ends[k]) {
                continue;
            }
            uint32_t last = spans[i].last < ends[k] ? spans[i].last : ends[k];
            unsigned char lo[4], hi[4];
            gr_span parts[2] = {{first, last}, {1, 0}};
            if (k == 2 && first < 0xd800 && last > 0xdfff) { /* around the surrogates */
                parts[0].last = 0xd7ff;
                parts[1] = (gr_span){0xe000, last};
            }
            for (int p = 0; p < 2 && parts[p].first <= parts[p].last; p++) {
                encode(parts[p].first, lo);
                size_t length = encode(parts[p].last, hi);
                all = gr_split(a, all, between(&t, lo, hi, length));
            }
            first = last + 1;
        }
    }
    return all;
}

size_t gr_json_escape(char out[8], unsigned char byte) {
    static const char *const names = "\b\f\n\r\t\"\\", *const letters = "bfnrt\"\\";
    const char *at = byte ? strchr(names, byte) : NULL;
    if (at) {
        out[0] = '\\';
        out[1] = letters[at - names];
        return 2;
    }
    if (byte < 0x20) {
        return (size_t)snprintf(out, 8, "\\u%04x", byte);
    }
    out[0] = (char)byte;
    return 1;
}
