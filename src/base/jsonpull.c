/* jsonpull.c - a pull reader for large JSON texts.
 *
 * Strings are scanned eight bytes at a time for the four things that matter: a quote, a backslash,
 * a control character, a byte outside ASCII. Only the last one sends them through the UTF-8 check.
 */
#include "base/jsonpull.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void jsonpull_init(jsonpull *p, ctx_t *ctx, const char *what, const char *text, size_t n_bytes) {
    *p = (jsonpull){.ctx = ctx, .what = what, .text = text, .n_bytes = n_bytes};
    buf_init(&p->scratch, ctx, BUF_NO_LIMIT);
    buf_init(&p->key_scratch, ctx, BUF_NO_LIMIT);
    if (n_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        p->at = 3;
    }
}

void jsonpull_free(jsonpull *p) {
    if (p->ctx) {
        buf_free(&p->scratch);
        buf_free(&p->key_scratch);
    }
}

jang_status jsonpull_fail(jsonpull *p, const char *message) {
    return ctx_fail(p->ctx, JANG_ERR_FORMAT, "%s: byte %zu: %s", p->what, p->at, message);
}

char jsonpull_peek(jsonpull *p) {
    static const char eight[] = "        ";
    while (p->n_bytes - p->at >= 8 && memcmp(p->text + p->at, eight, 8) == 0) {
        p->at += 8; /* indentation */
    }
    while (p->at < p->n_bytes) {
        char c = p->text[p->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
            return c;
        }
        p->at++;
    }
    return 0;
}

/* ---- Containers ---- */

jang_status jsonpull_enter(jsonpull *p, char open) {
    if (jsonpull_peek(p) != open) {
        return jsonpull_fail(p, open == '{' ? "expected an object" : "expected an array");
    }
    if (p->depth == JSONPULL_MAX_DEPTH) {
        return jsonpull_fail(p, "nested too deep");
    }
    p->close[p->depth] = open == '{' ? '}' : ']';
    p->any[p->depth] = false;
    p->depth++;
    p->at++;
    return JANG_OK;
}

static jang_status read_string(jsonpull *p, buf *scratch, jsonpull_str *out);

static jang_status read_key(jsonpull *p) {
    jang_status status = read_string(p, &p->key_scratch, &p->key);
    if (status == JANG_OK && jsonpull_peek(p) != ':') {
        status = jsonpull_fail(p, "expected ':'");
    }
    p->at += status == JANG_OK;
    return status;
}

bool jsonpull_next(jsonpull *p, jang_status *status) {
    int top = p->depth - 1;
    char c = jsonpull_peek(p);
    if (c == p->close[top]) {
        p->at++;
        p->depth--;
        return false;
    }
    if (p->any[top]) {
        if (c != ',') {
            *status = jsonpull_fail(p, "expected ',' or the end of the list");
            return false;
        }
        p->at++;
        if (jsonpull_peek(p) == p->close[top]) {
            *status = jsonpull_fail(p, "a comma before the end of the list");
            return false;
        }
    }
    p->any[top] = true;
    *status = p->close[top] == '}' ? read_key(p) : JANG_OK;
    return *status == JANG_OK;
}

bool jsonpull_key_is(const jsonpull *p, const char *key) {
    size_t n = strlen(key);
    return p->key.n_bytes == n && memcmp(p->key.data, key, n) == 0;
}

/* ---- Strings ---- */

#define ONES 0x0101010101010101u
#define HIGHS 0x8080808080808080u

/* The high bit of each byte of w that is a quote, a backslash, a control character or not ASCII.
 * Exact up to and including the first such byte, which is all that is used. */
static uint64_t marks(uint64_t w) {
    uint64_t quote = w ^ ONES * '"', slash = w ^ ONES * '\\';
    return ((quote - ONES) | (slash - ONES) | (w - ONES * 0x20) | w) & HIGHS;
}

/* Length of the plain ASCII part at s. */
static size_t plain_run(const char *s, size_t n) {
    size_t i = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, s + i, 8);
        uint64_t m = marks(w);
        if (m) {
            return i + (size_t)__builtin_ctzll(m) / 8;
        }
    }
#endif
    while (i < n && (unsigned char)s[i] >= 0x20 && (unsigned char)s[i] < 0x80 && s[i] != '"' &&
           s[i] != '\\') {
        i++;
    }
    return i;
}

/* Four hexadecimal digits; -1 if they are not. */
static int32_t hex4(const char *s, size_t n) {
    int32_t value = 0;
    if (n < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        char c = s[i], lower = (char)(c | 0x20);
        int digit = c >= '0' && c <= '9'           ? c - '0'
                    : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                   : -1;
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* Decodes \uXXXX, and a following \uXXXX if the two are a surrogate pair. at is past the 'u'. */
static jang_status read_unicode_escape(jsonpull *p, buf *scratch) {
    int32_t unit = hex4(p->text + p->at, p->n_bytes - p->at);
    if (unit < 0) {
        return jsonpull_fail(p, "\\u needs four hexadecimal digits");
    }
    p->at += 4;
    const char *s = p->text + p->at;
    size_t left = p->n_bytes - p->at;
    uint32_t code_point = (uint32_t)unit;
    if (unit >= 0xd800 && unit < 0xdc00 && left >= 6 && s[0] == '\\' && s[1] == 'u') {
        int32_t low = hex4(s + 2, left - 2);
        if (low >= 0xdc00 && low < 0xe000) {
            code_point = 0x10000 + (((uint32_t)unit - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
            p->at += 6;
        }
    }
    buf_put_utf8(scratch, code_point);
    return JANG_OK;
}

/* at is past the backslash. */
static jang_status read_escape(jsonpull *p, buf *scratch) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = p->at < p->n_bytes ? p->text[p->at] : 0;
    const char *found = c ? strchr(from, c) : NULL;
    if (found) {
        buf_putc(scratch, to[found - from]);
        p->at++;
        return JANG_OK;
    }
    if (c != 'u') {
        return jsonpull_fail(p, "unknown escape in a string");
    }
    p->at++;
    return read_unicode_escape(p, scratch);
}

/* Reads on after the first escape: everything goes through scratch. at is on a backslash. */
static jang_status read_escaped(jsonpull *p, buf *scratch, size_t start, jsonpull_str *out) {
    buf_clear(scratch);
    buf_put(scratch, p->text + start, p->at - start);
    jang_status status = JANG_OK;
    while (status == JANG_OK) {
        size_t run = plain_run(p->text + p->at, p->n_bytes - p->at);
        buf_put(scratch, p->text + p->at, run);
        p->at += run;
        if (p->at == p->n_bytes) {
            return jsonpull_fail(p, "a string has no end");
        }
        unsigned char c = (unsigned char)p->text[p->at];
        if (c == '"') {
            p->at++;
            *out = (jsonpull_str){scratch->data, scratch->size};
            return buf_status(scratch);
        }
        if (c == '\\') {
            p->at++;
            status = read_escape(p, scratch);
        } else if (c < 0x20) {
            status = jsonpull_fail(p, "a control character in a string");
        } else {
            size_t n = utf8_valid_length(p->text + p->at, p->n_bytes - p->at);
            status = n ? JANG_OK : jsonpull_fail(p, "invalid UTF-8 in a string");
            buf_put(scratch, p->text + p->at, n);
            p->at += n;
        }
    }
    return status;
}

static jang_status read_string(jsonpull *p, buf *scratch, jsonpull_str *out) {
    if (jsonpull_peek(p) != '"') {
        return jsonpull_fail(p, "expected a string");
    }
    size_t start = ++p->at;
    for (;;) {
        p->at += plain_run(p->text + p->at, p->n_bytes - p->at);
        if (p->at == p->n_bytes) {
            return jsonpull_fail(p, "a string has no end");
        }
        unsigned char c = (unsigned char)p->text[p->at];
        if (c == '"') {
            *out = (jsonpull_str){p->text + start, p->at - start};
            p->at++;
            return JANG_OK;
        }
        if (c == '\\') {
            return read_escaped(p, scratch, start, out);
        }
        if (c < 0x20) {
            return jsonpull_fail(p, "a control character in a string");
        }
        size_t n = utf8_valid_length(p->text + p->at, p->n_bytes - p->at);
        if (n == 0) {
            return jsonpull_fail(p, "invalid UTF-8 in a string");
        }
        p->at += n;
    }
}

jang_status jsonpull_string(jsonpull *p, jsonpull_str *out) {
    return read_string(p, &p->scratch, out);
}

/* ---- Numbers and words ---- */

/* Copies the characters a number can have into word; returns how many. */
static size_t number_text(jsonpull *p, char word[64]) {
    char c = jsonpull_peek(p);
    size_t n = 0;
    if (c != '-' && (c < '0' || c > '9')) {
        return 0;
    }
    while (n < 63 && p->at + n < p->n_bytes) {
        c = p->text[p->at + n];
        if ((c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E') {
            break;
        }
        word[n++] = c;
    }
    word[n] = 0;
    return n;
}

jang_status jsonpull_int(jsonpull *p, int64_t *out) {
    char word[64], *end;
    size_t n = number_text(p, word);
    errno = 0;
    long long value = n ? strtoll(word, &end, 10) : 0;
    if (n == 0 || *end || errno) {
        return jsonpull_fail(p, "expected an integer");
    }
    p->at += n;
    *out = value;
    return JANG_OK;
}

jang_status jsonpull_double(jsonpull *p, double *out) {
    char word[64], *end;
    size_t n = number_text(p, word);
    double value = n ? strtod(word, &end) : 0;
    if (n == 0 || *end) {
        return jsonpull_fail(p, "expected a number");
    }
    p->at += n;
    *out = value;
    return JANG_OK;
}

/* Passes over word if it stands here. */
static bool take_word(jsonpull *p, const char *word) {
    size_t n = strlen(word);
    jsonpull_peek(p);
    if (p->n_bytes - p->at < n || memcmp(p->text + p->at, word, n) != 0) {
        return false;
    }
    p->at += n;
    return true;
}

jang_status jsonpull_bool(jsonpull *p, bool *out) {
    bool value = take_word(p, "true");
    if (!value && !take_word(p, "false")) {
        return jsonpull_fail(p, "expected true or false");
    }
    *out = value;
    return JANG_OK;
}

bool jsonpull_null(jsonpull *p) {
    return take_word(p, "null");
}

/* ---- Passing over ---- */

static jang_status skip_string(jsonpull *p) {
    size_t at = p->at + 1;
    for (;;) {
        const char *quote = at < p->n_bytes ? memchr(p->text + at, '"', p->n_bytes - at) : NULL;
        if (!quote) {
            return jsonpull_fail(p, "a string has no end");
        }
        size_t end = (size_t)(quote - p->text), slashes = 0;
        while (end - slashes > p->at + 1 && p->text[end - slashes - 1] == '\\') {
            slashes++;
        }
        at = end + 1;
        if (slashes % 2 == 0) {
            p->at = at;
            return JANG_OK;
        }
    }
}

static jang_status skip_scalar(jsonpull *p, char c) {
    double number;
    bool word;
    if (c == '"') {
        return skip_string(p);
    }
    if (c == 't' || c == 'f') {
        return jsonpull_bool(p, &word);
    }
    if (c == 'n' && jsonpull_null(p)) {
        return JANG_OK;
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return jsonpull_double(p, &number);
    }
    return jsonpull_fail(p, "expected a value");
}

jang_status jsonpull_skip(jsonpull *p) {
    int outside = p->depth;
    jang_status status = JANG_OK;
    for (;;) {
        char c = jsonpull_peek(p);
        status = c == '{' || c == '[' ? jsonpull_enter(p, c) : skip_scalar(p, c);
        while (status == JANG_OK && p->depth > outside && !jsonpull_next(p, &status)) {
        }
        if (status != JANG_OK || p->depth == outside) {
            return status;
        }
    }
}

jang_status jsonpull_raw(jsonpull *p, jsonpull_str *out) {
    jsonpull_peek(p);
    size_t start = p->at;
    jang_status status = jsonpull_skip(p);
    if (status == JANG_OK) {
        *out = (jsonpull_str){p->text + start, p->at - start};
    }
    return status;
}

jang_status jsonpull_end(jsonpull *p) {
    return jsonpull_peek(p) == 0 && p->at == p->n_bytes
               ? JANG_OK
               : jsonpull_fail(p, "text after the end of the document");
}
