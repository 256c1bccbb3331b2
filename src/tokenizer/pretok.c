/* pretok.c - running the chain of pre-tokenizer steps. */
#include "tokenizer/pretok.h"

#include "base/utf8.h"
#include "tokenizer/byte_chars.h"

#include <string.h>

static jang_status run_step(pre_scratch *s, int at, const char *text, size_t n, size_t n_origin);

/* ---- Splitting ---- */

/* A split under way: one part is held back until the next is known, where the behavior joins. */
typedef struct splitter {
    pre_scratch *s;
    const pre_step *step;
    int at;
    const char *text;
    size_t n_origin;
    bool any, held_match; /* whether a part is held, and whether the last one seen was a match */
    size_t start, end;    /* the held part */
} splitter;

static jang_status pass_on(splitter *p, size_t start, size_t end) {
    return start < end ? run_step(p->s, p->at + 1, p->text + start, end - start,
                                  p->n_origin > start ? p->n_origin - start : 0)
                       : JANG_OK;
}

static jang_status flush_held(splitter *p) {
    bool any = p->any;
    p->any = false;
    return any ? pass_on(p, p->start, p->end) : JANG_OK;
}

/* Takes the next part, a match or what lies between two. */
static jang_status take_part(splitter *p, size_t start, size_t end, bool match) {
    match ^= p->step->invert;
    bool join = false;
    switch (p->step->behavior) {
    case PRE_ISOLATED:
        return pass_on(p, start, end);
    case PRE_REMOVED:
        return match ? JANG_OK : pass_on(p, start, end);
    case PRE_CONTIGUOUS:
        join = match == p->held_match;
        break;
    case PRE_MERGED_WITH_PREVIOUS:
        join = match && !p->held_match;
        break;
    case PRE_MERGED_WITH_NEXT:
        join = !match && p->held_match;
        break;
    }
    p->held_match = match;
    if (join && p->any) {
        p->end = end;
        return JANG_OK;
    }
    jang_status status = flush_held(p);
    p->any = true;
    p->start = start;
    p->end = end;
    return status;
}

/* Parts at each character of a kind. */
static jang_status split_chars(splitter *p, size_t n) {
    size_t done = 0, length;
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < n; i += length) {
        if (!p->step->is(utf8_read(p->text + i, &length))) {
            continue;
        }
        if (done < i) {
            status = take_part(p, done, i, false);
        }
        if (status == JANG_OK) {
            status = take_part(p, i, i + length, true);
        }
        done = i + length;
    }
    return status == JANG_OK && done < n ? take_part(p, done, n, false) : status;
}

static jang_status split_string(splitter *p, size_t n) {
    size_t done = 0;
    const char *found;
    jang_status status = JANG_OK;
    while (status == JANG_OK && done < n && p->step->n_text > 0 &&
           (found = memmem(p->text + done, n - done, p->step->text, p->step->n_text))) {
        size_t start = (size_t)(found - p->text);
        if (done < start) {
            status = take_part(p, done, start, false);
        }
        done = start + p->step->n_text;
        if (status == JANG_OK) {
            status = take_part(p, start, done, true);
        }
    }
    return status == JANG_OK && done < n ? take_part(p, done, n, false) : status;
}

static jang_status split_scan(splitter *p, size_t n) {
    size_t done = 0, start = 0;
    jang_status status = JANG_OK;
    while (status == JANG_OK && done < n) {
        size_t end = p->step->scan(p->text, n, done, p->step->parameter, &start);
        if (done < start) {
            status = take_part(p, done, start, false);
        }
        if (status == JANG_OK && start < end) {
            status = take_part(p, start, end, true);
        }
        done = end;
    }
    return status;
}

/* An empty match right after the last match does not count; the search goes on one character
 * further. */
static jang_status split_regex(splitter *p, size_t n) {
    size_t done = 0, from = 0, last_end = SIZE_MAX, start, end, length;
    jang_status status = JANG_OK;
    while (status == JANG_OK && from <= n) {
        status = tok_regex_find(p->step->regex, &p->s->regex, p->text, n, from, &start, &end);
        if (status != JANG_OK || start > n) {
            break;
        }
        from = end;
        if (start == end) {
            if (end < n) {
                utf8_read(p->text + end, &length);
            } else {
                length = 1;
            }
            from = end + length;
            if (end == last_end) {
                continue;
            }
        }
        last_end = end;
        if (done < start) {
            status = take_part(p, done, start, false);
        }
        if (status == JANG_OK) {
            status = take_part(p, start, end, true);
        }
        done = end;
    }
    return status == JANG_OK && done < n ? take_part(p, done, n, false) : status;
}

static jang_status run_split(pre_scratch *s, int at, const char *text, size_t n, size_t n_origin) {
    splitter p = {
        .s = s, .step = &s->chain->steps[at], .at = at, .text = text, .n_origin = n_origin};
    jang_status status = p.step->scan    ? split_scan(&p, n)
                         : p.step->regex ? split_regex(&p, n)
                         : p.step->is    ? split_chars(&p, n)
                                         : split_string(&p, n);
    return status == JANG_OK ? flush_held(&p) : status;
}

/* ---- Rewriting ---- */

static jang_status run_copy(pre_scratch *s, int at, size_t n_origin) {
    buf *b = &s->text[at];
    jang_status status = buf_status(b);
    return status == JANG_OK ? run_step(s, at + 1, b->data, b->size, n_origin) : status;
}

static jang_status run_prefix_space(pre_scratch *s, int at, const char *text, size_t n,
                                    size_t n_origin) {
    if (text[0] == ' ') {
        return run_step(s, at + 1, text, n, n_origin);
    }
    buf *b = &s->text[at];
    buf_clear(b);
    buf_putc(b, ' ');
    buf_put(b, text, n);
    return run_copy(s, at, n_origin ? n_origin + 1 : 0);
}

static jang_status run_dummy_prefix(pre_scratch *s, int at, const char *text, size_t n,
                                    size_t n_origin) {
    if (n_origin == 0) {
        return run_step(s, at + 1, text, n, n_origin);
    }
    buf *b = &s->text[at];
    buf_clear(b);
    buf_put(b, s->chain->steps[at].text, s->chain->steps[at].n_text);
    buf_put(b, text, n);
    return run_copy(s, at, n_origin + s->chain->steps[at].n_text);
}

static jang_status run_byte_chars(pre_scratch *s, int at, const char *text, size_t n,
                                  size_t n_origin) {
    buf_clear(&s->text[at]);
    byte_chars_put(&s->text[at], text, n_origin);
    size_t n_before = s->text[at].size;
    byte_chars_put(&s->text[at], text + n_origin, n - n_origin);
    return run_copy(s, at, n_before);
}

/* Appends text with the replacement for each space. */
static void put_replaced(buf *b, const pre_step *step, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        const char *space = memchr(text + i, ' ', n - i);
        size_t run = space ? (size_t)(space - text) - i : n - i;
        buf_put(b, text + i, run);
        i += run;
        if (space) {
            buf_put(b, step->text, step->n_text);
            i++;
        }
    }
}

static jang_status run_metaspace(pre_scratch *s, int at, const char *text, size_t n,
                                 size_t n_origin) {
    const pre_step *step = &s->chain->steps[at];
    buf *b = &s->text[at];
    buf_clear(b);
    bool there =
        text[0] == ' ' || (n >= step->n_text && memcmp(text, step->text, step->n_text) == 0);
    bool prepend =
        step->prepend == PRE_PREPEND_ALWAYS || (step->prepend == PRE_PREPEND_FIRST && n_origin > 0);
    if (prepend && !there) {
        buf_put(b, step->text, step->n_text);
    }
    put_replaced(b, step, text, n_origin);
    size_t n_before = n_origin > 0 ? b->size : 0;
    put_replaced(b, step, text + n_origin, n - n_origin);
    return run_copy(s, at, n_before);
}

static jang_status run_step(pre_scratch *s, int at, const char *text, size_t n, size_t n_origin) {
    n_origin = n_origin < n ? n_origin : n;
    if (at == s->chain->n_steps) {
        return s->sink(s->user, text, n);
    }
    switch (s->chain->steps[at].kind) {
    case PRE_SPLIT:
        return run_split(s, at, text, n, n_origin);
    case PRE_PREFIX_SPACE:
        return run_prefix_space(s, at, text, n, n_origin);
    case PRE_DUMMY_PREFIX:
        return run_dummy_prefix(s, at, text, n, n_origin);
    case PRE_BYTE_CHARS:
        return run_byte_chars(s, at, text, n, n_origin);
    case PRE_METASPACE:
        return run_metaspace(s, at, text, n, n_origin);
    }
    return JANG_OK;
}

jang_status pre_run(pre_scratch *s, const char *text, size_t n, size_t n_origin) {
    return n > 0 ? run_step(s, 0, text, n, n_origin) : JANG_OK;
}

void pre_scratch_init(pre_scratch *s, ctx_t *ctx, const pre_chain *chain, pre_sink sink,
                      void *user) {
    *s = (pre_scratch){.chain = chain, .sink = sink, .user = user};
    for (int i = 0; i < PRE_MAX_STEPS; i++) {
        buf_init(&s->text[i], ctx, BUF_NO_LIMIT);
    }
}

void pre_scratch_free(pre_scratch *s) {
    for (int i = 0; i < PRE_MAX_STEPS; i++) {
        buf_free(&s->text[i]);
    }
    tok_regex_scratch_free(&s->regex);
}
