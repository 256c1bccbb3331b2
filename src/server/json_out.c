/* json_out.c - writes JSON piece by piece into a text. */
#include "json_out.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void json_escape(tbuf *out, const char *text, size_t n_bytes) {
    static const char short_names[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    size_t from = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        tbuf_add(out, text + from, i - from);
        from = i + 1;
        const char *name = c ? strchr(short_names, c) : NULL;
        if (name && (name - short_names) % 2 == 0) {
            tbuf_putc(out, '\\');
            tbuf_putc(out, name[1]);
        } else if (c == '"' || c == '\\') {
            tbuf_putc(out, '\\');
            tbuf_putc(out, (char)c);
        } else {
            tbuf_printf(out, "\\u%04x", c);
        }
    }
    tbuf_add(out, text + from, n_bytes - from);
}

void json_quote(tbuf *out, const char *text, size_t n_bytes) {
    tbuf_putc(out, '"');
    json_escape(out, text, n_bytes);
    tbuf_putc(out, '"');
}

jw jw_start(tbuf *out) {
    return (jw){.out = out};
}

static void begin_member(jw *w, const char *key) {
    if (w->has_member[w->depth]) {
        tbuf_putc(w->out, ',');
    }
    w->has_member[w->depth] = true;
    if (key) {
        json_quote(w->out, key, strlen(key));
        tbuf_putc(w->out, ':');
    }
}

void jw_open(jw *w, const char *key, char kind) {
    begin_member(w, key);
    tbuf_putc(w->out, kind);
    if (w->depth == JW_MAX_DEPTH) {
        w->out->failed = true;
        return;
    }
    w->depth++;
    w->has_member[w->depth] = false;
    w->closer[w->depth] = kind == '{' ? '}' : ']';
}

void jw_close(jw *w) {
    tbuf_putc(w->out, w->closer[w->depth]);
    w->depth--;
}

void jw_bytes(jw *w, const char *key, const char *text, size_t n_bytes) {
    begin_member(w, key);
    json_quote(w->out, text, n_bytes);
}

void jw_text(jw *w, const char *key, const char *text) {
    if (text) {
        jw_bytes(w, key, text, strlen(text));
    } else {
        jw_null(w, key);
    }
}

void jw_int(jw *w, const char *key, int64_t value) {
    begin_member(w, key);
    tbuf_printf(w->out, "%" PRId64, value);
}

void jw_real(jw *w, const char *key, double value) {
    begin_member(w, key);
    if (isfinite(value)) {
        tbuf_printf(w->out, "%.9g", value);
    } else {
        tbuf_puts(w->out, "null");
    }
}

void jw_bool(jw *w, const char *key, bool value) {
    begin_member(w, key);
    tbuf_puts(w->out, value ? "true" : "false");
}

void jw_null(jw *w, const char *key) {
    begin_member(w, key);
    tbuf_puts(w->out, "null");
}

void jw_raw(jw *w, const char *key, const char *json, size_t n_bytes) {
    begin_member(w, key);
    tbuf_add(w->out, json, n_bytes);
}

void jw_value(jw *w, const char *key, const json_t *value) {
    begin_member(w, key);
    if (!value) {
        tbuf_puts(w->out, "null");
        return;
    }
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text) {
        tbuf_puts(w->out, text);
    } else {
        w->out->failed = true;
    }
    free(text);
}
