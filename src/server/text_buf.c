/* text_buf.c - a growable text whose failures stick. */
#include "text_buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tbuf_free(tbuf *b) {
    free(b->data);
    *b = (tbuf){0};
}

void tbuf_clear(tbuf *b) {
    tbuf_cut(b, 0);
}

/* Room for n_bytes more and a 0 byte. */
static bool reserve(tbuf *b, size_t n_bytes) {
    if (b->failed) {
        return false;
    }
    if (n_bytes >= SIZE_MAX / 4 - b->n) {
        b->failed = true;
        return false;
    }
    size_t wanted = b->n + n_bytes + 1;
    if (wanted <= b->capacity) {
        return true;
    }
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < wanted) {
        capacity *= 2;
    }
    char *more = realloc(b->data, capacity);
    if (!more) {
        b->failed = true;
        return false;
    }
    b->data = more;
    b->capacity = capacity;
    return true;
}

void tbuf_add(tbuf *b, const void *data, size_t n_bytes) {
    if (reserve(b, n_bytes)) {
        if (n_bytes) {
            memcpy(b->data + b->n, data, n_bytes);
        }
        b->n += n_bytes;
        b->data[b->n] = 0;
    }
}

void tbuf_puts(tbuf *b, const char *text) {
    tbuf_add(b, text, strlen(text));
}

void tbuf_putc(tbuf *b, char c) {
    tbuf_add(b, &c, 1);
}

void tbuf_printf(tbuf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(b, (size_t)n)) {
        b->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(b->data + b->n, (size_t)n + 1, format, args);
    va_end(args);
    b->n += (size_t)n;
}

/* Length of the character at text; 0 if it is not whole and valid. */
static size_t character(const unsigned char *text, size_t n) {
    size_t k = text[0] < 0x80   ? 1
               : text[0] < 0xC2 ? 0
               : text[0] < 0xE0 ? 2
               : text[0] < 0xF0 ? 3
               : text[0] < 0xF5 ? 4
                                : 0;
    if (!k || k > n) {
        return 0;
    }
    for (size_t i = 1; i < k; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool bad = (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xED && text[1] > 0x9F) ||
               (text[0] == 0xF0 && text[1] < 0x90) || (text[0] == 0xF4 && text[1] > 0x8F);
    return bad ? 0 : k;
}

void tbuf_add_utf8(tbuf *out, const char *text, size_t n_bytes) {
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < n_bytes;) {
        size_t k = character(p + i, n_bytes - i);
        if (k) {
            tbuf_add(out, text + i, k);
        } else {
            tbuf_puts(out, "\xEF\xBF\xBD");
        }
        i += k ? k : 1;
    }
}

void tbuf_drop(tbuf *b, size_t n_bytes) {
    if (n_bytes && b->data) {
        n_bytes = n_bytes < b->n ? n_bytes : b->n;
        memmove(b->data, b->data + n_bytes, b->n - n_bytes + 1);
        b->n -= n_bytes;
    }
}

void tbuf_cut(tbuf *b, size_t n_bytes) {
    if (n_bytes < b->n) {
        b->n = n_bytes;
        b->data[n_bytes] = 0;
    }
}

const char *tbuf_text(const tbuf *b) {
    return b->data ? b->data : "";
}

bool tbuf_is(const tbuf *b, const char *text) {
    return b->n == strlen(text) && (!b->n || !memcmp(b->data, text, b->n));
}
