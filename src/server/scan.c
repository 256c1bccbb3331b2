/* scan.c - the plain pieces of a tool call: literals, names, JSON values. */
#include "scan.h"

#include "json_out.h"

#include <string.h>

#define MAX_DEPTH 256

scan_result scan_end(const scanner *s) {
    return s->final ? SCAN_BAD : SCAN_MORE;
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

void scan_space(scanner *s) {
    while (s->at < s->n && is_space(s->text[s->at])) {
        s->at++;
    }
}

scan_result scan_peek(const scanner *s, const char *literal) {
    size_t n = strlen(literal), left = s->n - s->at;
    if (left >= n) {
        return memcmp(s->text + s->at, literal, n) ? SCAN_BAD : SCAN_OK;
    }
    return memcmp(s->text + s->at, literal, left) ? SCAN_BAD : scan_end(s);
}

scan_result scan_literal(scanner *s, const char *literal) {
    scan_result r = scan_peek(s, literal);
    if (r == SCAN_OK) {
        s->at += strlen(literal);
    }
    return r;
}

scan_result scan_closer(scanner *s, const char *literal) {
    return s->final && s->at == s->n ? SCAN_OK : scan_literal(s, literal);
}

scan_result scan_until(scanner *s, const char *needle, const char **found, size_t *n_found) {
    const char *from = s->text + s->at;
    size_t n = strlen(needle), left = s->n - s->at;
    const char *place = left ? memmem(from, left, needle, n) : NULL;
    if (!place) {
        return scan_end(s);
    }
    *found = from;
    *n_found = (size_t)(place - from);
    s->at += *n_found + n;
    return SCAN_OK;
}

static bool is_name(char c, const char *extra) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr(extra, c));
}

scan_result scan_name(scanner *s, const char *extra, const char **name, size_t *n_name) {
    size_t end = s->at;
    while (end < s->n && is_name(s->text[end], extra)) {
        end++;
    }
    if (end == s->n && !s->final) {
        return SCAN_MORE;
    }
    if (end == s->at) {
        return SCAN_BAD;
    }
    *name = s->text + s->at;
    *n_name = end - s->at;
    s->at = end;
    return SCAN_OK;
}

/* ---- JSON ---- */

/* \x or \uXXXX at s->at; *n is its length. */
static scan_result scan_escape(const scanner *s, size_t *n) {
    size_t left = s->n - s->at;
    if (left < 2) {
        return scan_end(s);
    }
    char c = s->text[s->at + 1];
    if (c != 'u') {
        *n = 2;
        return strchr("\"\\/bfnrt", c) && c ? SCAN_OK : SCAN_BAD;
    }
    for (size_t i = 2; i < 6; i++) {
        if (i >= left) {
            return scan_end(s);
        }
        if (!strchr("0123456789abcdefABCDEF", s->text[s->at + i]) || !s->text[s->at + i]) {
            return SCAN_BAD;
        }
    }
    *n = 6;
    return SCAN_OK;
}

/* Behind the opening quote; appends all but the quotes. */
static scan_result scan_string_body(scanner *s, tbuf *out) {
    while (s->at < s->n) {
        size_t run = s->at;
        while (run < s->n && s->text[run] != '"' && s->text[run] != '\\' &&
               (unsigned char)s->text[run] >= 0x20) {
            run++;
        }
        tbuf_add(out, s->text + s->at, run - s->at);
        s->at = run;
        if (run == s->n) {
            break;
        }
        size_t n = 1;
        if (s->text[run] == '"') {
            s->at++;
            return SCAN_OK;
        }
        if (s->text[run] == '\\') {
            scan_result r = scan_escape(s, &n);
            if (r != SCAN_OK) {
                return r;
            }
            tbuf_add(out, s->text + s->at, n);
        } else {
            json_escape(out, s->text + s->at, 1);
        }
        s->at += n;
    }
    return scan_end(s);
}

static scan_result scan_string(scanner *s, tbuf *out) {
    scan_result r = scan_literal(s, "\"");
    if (r != SCAN_OK) {
        return r;
    }
    tbuf_putc(out, '"');
    r = scan_string_body(s, out);
    if (r == SCAN_OK) {
        tbuf_putc(out, '"');
    }
    return r;
}

static unsigned hex4(const char *p) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        value = value * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

static void put_utf8(tbuf *out, unsigned c) {
    if (c < 0x80) {
        tbuf_putc(out, (char)c);
    } else if (c < 0x800) {
        tbuf_putc(out, (char)(0xC0 | c >> 6));
        tbuf_putc(out, (char)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        tbuf_putc(out, (char)(0xE0 | c >> 12));
        tbuf_putc(out, (char)(0x80 | (c >> 6 & 63)));
        tbuf_putc(out, (char)(0x80 | (c & 63)));
    } else {
        tbuf_putc(out, (char)(0xF0 | c >> 18));
        tbuf_putc(out, (char)(0x80 | (c >> 12 & 63)));
        tbuf_putc(out, (char)(0x80 | (c >> 6 & 63)));
        tbuf_putc(out, (char)(0x80 | (c & 63)));
    }
}

/* Decodes the escape at p of a checked string; returns its length. */
static size_t decode_escape(tbuf *out, const char *p, const char *end) {
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (p[1] != 'u') {
        const char *known = strchr(from, p[1]);
        tbuf_putc(out, known ? to[known - from] : p[1]);
        return 2;
    }
    unsigned c = hex4(p + 2);
    size_t n = 6;
    if (c >= 0xD800 && c < 0xDC00 && end - p >= 12 && p[6] == '\\' && p[7] == 'u') {
        unsigned low = hex4(p + 8);
        if (low >= 0xDC00 && low < 0xE000) {
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            n = 12;
        }
    }
    put_utf8(out, c >= 0xD800 && c < 0xE000 ? 0xFFFD : c);
    return n;
}

scan_result scan_json_text(scanner *s, tbuf *out) {
    tbuf raw = {0};
    scan_result r = scan_string(s, &raw);
    if (r == SCAN_OK && !raw.failed) {
        const char *p = raw.data + 1, *end = raw.data + raw.n - 1;
        while (p < end) {
            if (*p == '\\') {
                p += decode_escape(out, p, end);
            } else {
                tbuf_putc(out, *p++);
            }
        }
    }
    out->failed |= raw.failed;
    tbuf_free(&raw);
    return r;
}

static size_t digits(const scanner *s, size_t at) {
    size_t from = at;
    while (at < s->n && s->text[at] >= '0' && s->text[at] <= '9') {
        at++;
    }
    return at - from;
}

/* A number ends where something else follows; the end of the text may not be its end. */
static scan_result scan_number(scanner *s, tbuf *out) {
    size_t at = s->at + (s->text[s->at] == '-');
    size_t n = digits(s, at);
    bool bad = !n || (n > 1 && s->text[at] == '0');
    at += n;
    if (at < s->n && s->text[at] == '.' && !bad) {
        n = digits(s, at + 1);
        bad = !n;
        at += 1 + n;
    }
    if (at < s->n && (s->text[at] | 32) == 'e' && !bad) {
        at++;
        at += at < s->n && (s->text[at] == '+' || s->text[at] == '-');
        n = digits(s, at);
        bad = !n;
        at += n;
    }
    if (at >= s->n && !s->final) {
        return SCAN_MORE;
    }
    if (bad) {
        return SCAN_BAD;
    }
    tbuf_add(out, s->text + s->at, at - s->at);
    s->at = at;
    return SCAN_OK;
}

static scan_result scan_value(scanner *s, tbuf *out, int depth);

static scan_result scan_word(scanner *s, tbuf *out) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        scan_result r = scan_literal(s, words[i]);
        if (r == SCAN_OK) {
            tbuf_puts(out, words[i]);
        }
        if (r != SCAN_BAD) {
            return r;
        }
    }
    return SCAN_BAD;
}

static scan_result scan_key(scanner *s, tbuf *out) {
    scan_result r = scan_string(s, out);
    if (r == SCAN_OK) {
        scan_space(s);
        r = scan_literal(s, ":");
    }
    if (r == SCAN_OK) {
        tbuf_putc(out, ':');
    }
    return r;
}

/* An object or array, at its bracket. */
static scan_result scan_container(scanner *s, tbuf *out, int depth) {
    char open = s->text[s->at++], close = open == '{' ? '}' : ']';
    if (depth == MAX_DEPTH) {
        return SCAN_BAD;
    }
    tbuf_putc(out, open);
    for (bool first = true;; first = false) {
        scan_space(s);
        if (s->at == s->n) {
            return scan_end(s);
        }
        if (s->text[s->at] == close) {
            s->at++;
            tbuf_putc(out, close);
            return SCAN_OK;
        }
        if (!first && s->text[s->at++] != ',') {
            return SCAN_BAD;
        }
        scan_space(s);
        if (s->at == s->n) {
            return scan_end(s);
        }
        if (!first) {
            tbuf_putc(out, ',');
        }
        scan_result r = open == '{' ? scan_key(s, out) : SCAN_OK;
        if (r == SCAN_OK) {
            r = scan_value(s, out, depth + 1);
        }
        if (r != SCAN_OK) {
            return r;
        }
    }
}

static scan_result scan_value(scanner *s, tbuf *out, int depth) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    char c = s->text[s->at];
    if (c == '{' || c == '[') {
        return scan_container(s, out, depth);
    }
    if (c == '"') {
        return scan_string(s, out);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return scan_number(s, out);
    }
    return scan_word(s, out);
}

scan_result scan_json(scanner *s, tbuf *out) {
    return scan_value(s, out, 0);
}

bool json_compact(tbuf *out, const char *text, size_t n_bytes) {
    scanner s = {.text = text, .n = n_bytes, .final = true};
    size_t before = out->n;
    if (scan_json(&s, out) == SCAN_OK) {
        scan_space(&s);
        if (s.at == s.n) {
            return true;
        }
    }
    tbuf_cut(out, before);
    return false;
}
