/* scan_python.c - Python literals and Gemma's notation, both written as JSON. */
#include "json_out.h"
#include "scan.h"

#include <string.h>

#define MAX_DEPTH 64

static const char name_extra[] = "_";

/* ---- Python ---- */

static scan_result python_value(scanner *s, tbuf *out, int depth);

static int hex_value(char c) {
    const char *digits = "0123456789abcdef";
    const char *place = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
    return place ? (int)(place - digits) : -1;
}

/* \xHH, \uHHHH: written as \u escapes; *n is the length. */
static scan_result python_hex(const scanner *s, size_t n_digits, tbuf *out, size_t *n) {
    unsigned value = 0;
    for (size_t i = 0; i < n_digits; i++) {
        size_t at = s->at + 2 + i;
        if (at >= s->n) {
            return scan_end(s);
        }
        int digit = hex_value(s->text[at]);
        if (digit < 0) {
            return SCAN_BAD;
        }
        value = value * 16 + (unsigned)digit;
    }
    tbuf_printf(out, "\\u%04x", value);
    *n = 2 + n_digits;
    return SCAN_OK;
}

static scan_result python_escape(const scanner *s, tbuf *out, size_t *n) {
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    if (s->n - s->at < 2) {
        return scan_end(s);
    }
    char c = s->text[s->at + 1];
    if (c == 'x' || c == 'u') {
        return python_hex(s, c == 'x' ? 2 : 4, out, n);
    }
    *n = 2;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        json_escape(out, &to[known - from], 1);
    } else if (c != '\n') { /* an unknown escape stands for itself */
        json_escape(out, s->text + s->at, 2);
    }
    return SCAN_OK;
}

static scan_result python_string(scanner *s, tbuf *out) {
    char quote[4] = {s->text[s->at], 0, 0, 0};
    char triple[4] = {quote[0], quote[0], quote[0], 0};
    scan_result is_triple = scan_peek(s, triple);
    if (is_triple == SCAN_MORE) {
        return SCAN_MORE;
    }
    const char *end = is_triple == SCAN_OK ? triple : quote;
    s->at += strlen(end);
    tbuf_putc(out, '"');
    while (s->at < s->n) {
        scan_result r = scan_peek(s, end);
        if (r == SCAN_OK) {
            s->at += strlen(end);
            tbuf_putc(out, '"');
            return SCAN_OK;
        }
        if (r == SCAN_MORE) {
            return r;
        }
        size_t n = 1;
        if (s->text[s->at] == '\\') {
            r = python_escape(s, out, &n);
            if (r != SCAN_OK) {
                return r;
            }
        } else {
            json_escape(out, s->text + s->at, 1);
        }
        s->at += n;
    }
    return scan_end(s);
}

static scan_result python_word(scanner *s, tbuf *out) {
    static const struct {
        const char *python, *json;
    } words[] = {{"None", "null"}, {"True", "true"}, {"False", "false"},
                 {"null", "null"}, {"true", "true"}, {"false", "false"}};
    const char *name;
    size_t n;
    scanner at = *s;
    scan_result r = scan_name(&at, name_extra, &name, &n);
    if (r != SCAN_OK) {
        return r;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strlen(words[i].python) == n && !memcmp(words[i].python, name, n)) {
            tbuf_puts(out, words[i].json);
            *s = at;
            return SCAN_OK;
        }
    }
    return SCAN_BAD;
}

/* key: value */
static scan_result python_pair(scanner *s, tbuf *out, int depth) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    if (s->text[s->at] != '"' && s->text[s->at] != '\'') {
        return SCAN_BAD;
    }
    scan_result r = python_string(s, out);
    if (r == SCAN_OK) {
        scan_space(s);
        r = scan_literal(s, ":");
    }
    if (r == SCAN_OK) {
        tbuf_putc(out, ':');
        r = python_value(s, out, depth + 1);
    }
    return r;
}

static scan_result python_container(scanner *s, tbuf *out, int depth) {
    char open = s->text[s->at++];
    char close = open == '{' ? '}' : open == '[' ? ']' : ')';
    if (depth == MAX_DEPTH) {
        return SCAN_BAD;
    }
    tbuf_putc(out, open == '{' ? '{' : '[');
    for (bool first = true;; first = false) {
        scan_space(s);
        bool comma = !first && s->at < s->n && s->text[s->at] == ',';
        if (comma) {
            s->at++;
            scan_space(s);
        }
        if (s->at == s->n) {
            return scan_end(s);
        }
        if (s->text[s->at] == close) {
            s->at++;
            tbuf_putc(out, open == '{' ? '}' : ']');
            return SCAN_OK;
        }
        if (!first && !comma) {
            return SCAN_BAD;
        }
        if (!first) {
            tbuf_putc(out, ',');
        }
        scan_result r = open == '{' ? python_pair(s, out, depth) : python_value(s, out, depth + 1);
        if (r != SCAN_OK) {
            return r;
        }
    }
}

static scan_result python_value(scanner *s, tbuf *out, int depth) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    char c = s->text[s->at];
    if (c == '"' || c == '\'') {
        return python_string(s, out);
    }
    if (c == '{' || c == '[' || c == '(') {
        return python_container(s, out, depth);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return scan_json(s, out);
    }
    return python_word(s, out);
}

scan_result scan_python(scanner *s, tbuf *out) {
    return python_value(s, out, 0);
}

scan_result scan_python_arguments(scanner *s, tbuf *out) {
    tbuf_putc(out, '{');
    for (bool first = true;; first = false) {
        scan_space(s);
        if (s->at < s->n && s->text[s->at] == ')') {
            s->at++;
            tbuf_putc(out, '}');
            return SCAN_OK;
        }
        scan_result r = first ? SCAN_OK : scan_literal(s, ",");
        scan_space(s);
        const char *name;
        size_t n;
        if (r == SCAN_OK) {
            r = scan_name(s, name_extra, &name, &n);
        }
        if (r != SCAN_OK) {
            return r;
        }
        scan_space(s);
        r = scan_literal(s, "=");
        if (r != SCAN_OK) {
            return r;
        }
        if (!first) {
            tbuf_putc(out, ',');
        }
        json_quote(out, name, n);
        tbuf_putc(out, ':');
        r = scan_python(s, out);
        if (r != SCAN_OK) {
            return r;
        }
    }
}

/* ---- Gemma ---- */

static scan_result gemma_value(scanner *s, const char *quote, tbuf *out, int depth);

/* Text between two quote marks; what may be the beginning of the second is held back. */
static scan_result gemma_text(scanner *s, const char *quote, tbuf *out) {
    s->at += strlen(quote);
    tbuf_putc(out, '"');
    const char *found;
    size_t n;
    scanner at = *s;
    scan_result r = scan_until(&at, quote, &found, &n);
    if (r == SCAN_OK) {
        json_escape(out, found, n);
        tbuf_putc(out, '"');
        *s = at;
        return SCAN_OK;
    }
    size_t n_held = strlen(quote), n_left = s->n - s->at;
    json_escape(out, s->text + s->at, n_left > n_held ? n_left - n_held : 0);
    return r;
}

static scan_result gemma_key(scanner *s, const char *quote, tbuf *out) {
    scan_result r = scan_peek(s, quote);
    if (r == SCAN_OK) {
        r = gemma_text(s, quote, out);
    } else if (r == SCAN_BAD) {
        const char *name;
        size_t n;
        r = scan_name(s, "_-.$ ", &name, &n);
        if (r == SCAN_OK) {
            json_quote(out, name, n);
        }
    }
    if (r == SCAN_OK) {
        r = scan_literal(s, ":");
    }
    if (r == SCAN_OK) {
        tbuf_putc(out, ':');
    }
    return r;
}

static scan_result gemma_container(scanner *s, const char *quote, tbuf *out, int depth) {
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
        scan_result r = first ? SCAN_OK : scan_literal(s, ",");
        scan_space(s);
        if (r == SCAN_OK && !first) {
            tbuf_putc(out, ',');
        }
        if (r == SCAN_OK && open == '{') {
            r = gemma_key(s, quote, out);
        }
        if (r == SCAN_OK) {
            r = gemma_value(s, quote, out, depth + 1);
        }
        if (r != SCAN_OK) {
            return r;
        }
    }
}

static scan_result gemma_value(scanner *s, const char *quote, tbuf *out, int depth) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    char c = s->text[s->at];
    if (c == '{' || c == '[') {
        return gemma_container(s, quote, out, depth);
    }
    scan_result r = scan_peek(s, quote);
    if (r != SCAN_BAD) {
        return r == SCAN_OK ? gemma_text(s, quote, out) : r;
    }
    return scan_python(s, out);
}

scan_result scan_gemma(scanner *s, const char *quote, tbuf *out) {
    return gemma_value(s, quote, out, 0);
}
