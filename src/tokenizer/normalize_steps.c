/* normalize_steps.c - the single normalizers. */
#include "tokenizer/normalize_steps.h"

#include "base/utf8.h"

#include <string.h>

/* ---- Unicode forms ---- */

static bool is_ascii(const char *text, size_t n) {
    unsigned char all = 0;
    for (size_t i = 0; i < n; i++) {
        all |= (unsigned char)text[i];
    }
    return all < 0x80;
}

/* Decomposes text into s->points; *n_points says how many. */
static jang_status decompose(norm_scratch *s, const char *text, size_t n, int options,
                             size_t *n_points) {
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)text;
    buf_clear(&s->points);
    utf8proc_ssize_t room = (utf8proc_ssize_t)(n + n / 2 + 16), got = 0;
    for (int tries = 0; tries < 2; tries++) {
        char *to = buf_reserve(&s->points, (size_t)room * 4);
        if (!to) {
            return buf_status(&s->points);
        }
        got = utf8proc_decompose(in, (utf8proc_ssize_t)n, (utf8proc_int32_t *)(void *)to, room,
                                 (utf8proc_option_t)options);
        if (got <= room) {
            break;
        }
        room = got + 1;
    }
    if (got < 0) {
        return ctx_fail(s->points.ctx, JANG_ERR_FORMAT, "Unicode normalization: %s",
                        utf8proc_errmsg(got));
    }
    *n_points = (size_t)got;
    return JANG_OK;
}

jang_status norm_form(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                      size_t n) {
    if (is_ascii(text, n)) {
        buf_put(out, text, n);
        return JANG_OK;
    }
    size_t n_points = 0;
    jang_status status = decompose(s, text, n, step->options, &n_points);
    if (status != JANG_OK) {
        return status;
    }
    utf8proc_int32_t *points = (utf8proc_int32_t *)(void *)s->points.data;
    if (step->options & UTF8PROC_COMPOSE) {
        utf8proc_ssize_t left = utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n_points,
                                                         (utf8proc_option_t)step->options);
        n_points = left > 0 ? (size_t)left : 0;
    }
    for (size_t i = 0; i < n_points; i++) {
        buf_put_utf8(out, (uint32_t)points[i]);
    }
    return JANG_OK;
}

/* ---- Replacing ---- */

static void replace_string(buf *out, const char *from, size_t n_from, const char *to, size_t n_to,
                           const char *text, size_t n) {
    size_t at = 0;
    const char *found;
    while (n_from > 0 && (found = memmem(text + at, n - at, from, n_from))) {
        size_t start = (size_t)(found - text);
        buf_put(out, text + at, start - at);
        buf_put(out, to, n_to);
        at = start + n_from;
    }
    buf_put(out, text + at, n - at);
}

jang_status norm_replace_all(buf *out, tok_regex_scratch *s, const tok_regex *regex,
                             const char *from, size_t n_from, const char *to, size_t n_to,
                             const char *text, size_t n) {
    if (!regex) {
        replace_string(out, from, n_from, to, n_to, text, n);
        return JANG_OK;
    }
    size_t done = 0, at = 0, last_end = SIZE_MAX, start, end;
    while (at <= n && n > 0) {
        jang_status status = tok_regex_find(regex, s, text, n, at, &start, &end);
        if (status != JANG_OK) {
            return status;
        }
        if (start > n) {
            break;
        }
        at = end;
        if (start == end) { /* an empty match: go on one character further */
            size_t length = 1;
            if (end < n) {
                utf8_read(text + end, &length);
            }
            at = end + length;
            if (end == last_end) {
                continue;
            }
        }
        last_end = end;
        buf_put(out, text + done, start - done);
        buf_put(out, to, n_to);
        done = end;
    }
    buf_put(out, text + done, n - done);
    return JANG_OK;
}

jang_status norm_replace(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                         size_t n) {
    return norm_replace_all(out, &s->regex, step->regex, step->text, step->n_text, step->content,
                            step->n_content, text, n);
}

/* ---- Adding ---- */

jang_status norm_prepend(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                         size_t n) {
    (void)s;
    buf_put(out, step->text, step->n_text);
    buf_put(out, text, n);
    return JANG_OK;
}

jang_status norm_append(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                        size_t n) {
    (void)s;
    buf_put(out, text, n);
    buf_put(out, step->text, step->n_text);
    return JANG_OK;
}
