/* normalize_steps.c - the single normalizers. */
#include "tokenizer/normalize_steps.h"

#include "base/utf8.h"
#include "tokenizer/byte_chars.h"
#include "tokenizer/unicode.h"

#include <string.h>

/* ---- Unicode forms ---- */

/* Appends one stretch in its normal form, by utf8proc. */
static jang_status normalize_stretch(norm_scratch *s, buf *out, const char *text, size_t n,
                                     int options) {
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)text;
    buf_clear(&s->points);
    utf8proc_ssize_t room = (utf8proc_ssize_t)(n + 16), got = room + 1;
    while (got > room) {
        room = got;
        char *to = buf_reserve(&s->points, (size_t)room * 4);
        if (!to) {
            return buf_status(&s->points);
        }
        got = utf8proc_decompose(in, (utf8proc_ssize_t)n, (utf8proc_int32_t *)(void *)to, room,
                                 (utf8proc_option_t)options);
    }
    utf8proc_int32_t *points = (utf8proc_int32_t *)(void *)s->points.data;
    if (got > 0 && (options & UTF8PROC_COMPOSE)) {
        got = utf8proc_normalize_utf32(points, got, (utf8proc_option_t)options);
    }
    if (got < 0) {
        return ctx_fail(out->ctx, JANG_ERR_FORMAT, "Unicode normalization: %s",
                        utf8proc_errmsg(got));
    }
    for (utf8proc_ssize_t i = 0; i < got; i++) {
        buf_put_utf8(out, (uint32_t)points[i]);
    }
    return JANG_OK;
}

/* Whether the reference's normalization may change or move a character. */
static bool moves(uint32_t c) {
    return unicode_byte(c) & UNICODE_MOVES;
}

/* Whether utf8proc's newer Unicode changes or moves a character that the reference does not know.
 */
static bool is_newer(uint32_t c) {
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    return p->combining_class || p->decomp_seqindex != UINT16_MAX;
}

/* Only stretches of characters that move, and the one before them to which they may join, can
 * change; the rest is copied. */
jang_status norm_form(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                      size_t n) {
    size_t done = 0, before = 0, length;
    uint32_t last = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c = utf8_read(text + i, &length);
        if (c < 0xa0 || !moves(c)) {
            before = i;
            last = c;
            i += length;
            continue;
        }
        size_t end = i + length;
        while (end < n && moves(utf8_read(text + end, &length))) {
            end += length;
        }
        size_t start = before >= done && before < i && !is_newer(last) ? before : i;
        buf_put(out, text + done, start - done);
        jang_status status = normalize_stretch(s, out, text + start, end - start, step->options);
        if (status != JANG_OK) {
            return status;
        }
        i = done = before = end;
    }
    buf_put(out, text + done, n - done);
    return JANG_OK;
}

/* ---- Character by character ---- */

jang_status norm_lower(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                       size_t n) {
    (void)step;
    (void)s;
    size_t length;
    uint32_t second;
    for (size_t i = 0; i < n; i += length) {
        buf_put_utf8(out, unicode_to_lower(utf8_read(text + i, &length), &second));
        if (second) {
            buf_put_utf8(out, second);
        }
    }
    return JANG_OK;
}

/* Appends the characters that are not of a kind. */
static void leave_out(buf *out, const char *text, size_t n, bool (*is)(uint32_t c)) {
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        if (!is(utf8_read(text + i, &length))) {
            buf_put(out, text + i, length);
        }
    }
}

jang_status norm_strip_accents(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                               size_t n) {
    (void)step;
    (void)s;
    leave_out(out, text, n, unicode_is_combining);
    return JANG_OK;
}

jang_status norm_bert_marks(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                            size_t n) {
    (void)step;
    (void)s;
    leave_out(out, text, n, unicode_is_bert_mark);
    return JANG_OK;
}

jang_status norm_bert_clean(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                            size_t n) {
    (void)step;
    (void)s;
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        uint32_t c = utf8_read(text + i, &length);
        if (unicode_space(c) && !unicode_is_bert_removed(c)) {
            buf_putc(out, ' ');
        } else if (!unicode_is_bert_removed(c)) {
            buf_put(out, text + i, length);
        }
    }
    return JANG_OK;
}

static bool is_chinese(uint32_t c) {
    static const uint32_t blocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                         {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                         {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        if (c >= blocks[i][0] && c <= blocks[i][1]) {
            return true;
        }
    }
    return false;
}

jang_status norm_bert_chinese(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                              size_t n) {
    (void)step;
    (void)s;
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        bool chinese = is_chinese(utf8_read(text + i, &length));
        buf_puts(out, chinese ? " " : "");
        buf_put(out, text + i, length);
        buf_puts(out, chinese ? " " : "");
    }
    return JANG_OK;
}

/* What Google's NMT models leave out, and what they take for a space. */
jang_status norm_nmt(const norm_step *step, norm_scratch *s, buf *out, const char *text, size_t n) {
    (void)step;
    (void)s;
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        uint32_t c = utf8_read(text + i, &length);
        if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
            c == 0x9f) {
            continue;
        }
        bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
                     (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xfeff || c == 0xfffd;
        buf_put(out, space ? " " : text + i, space ? 1 : length);
    }
    return JANG_OK;
}

jang_status norm_strip(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                       size_t n) {
    (void)s;
    size_t start = 0, length;
    while ((step->options & 1) && start < n && unicode_space(utf8_read(text + start, &length))) {
        start += length;
    }
    while ((step->options & 2) && n > start) {
        size_t back = utf8_back(text, n);
        if (!unicode_space(utf8_read(text + n - back, &length))) {
            break;
        }
        n -= back;
    }
    buf_put(out, text + start, n - start);
    return JANG_OK;
}

jang_status norm_byte_level(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                            size_t n) {
    (void)step;
    (void)s;
    byte_chars_put(out, text, n);
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
