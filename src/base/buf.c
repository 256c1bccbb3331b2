/* buf.c - a growable byte buffer with a hard maximum. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static char empty_text[1];

void buf_init(buf *b, ctx_t *ctx, size_t max) {
    *b = (buf){.ctx = ctx, .data = empty_text, .max = max};
}

void buf_free(buf *b) {
    if (b->capacity) {
        ctx_free(b->ctx, b->data);
    }
    buf_init(b, b->ctx, b->max);
}

void buf_clear(buf *b) {
    b->size = 0;
    b->status = JANG_OK;
    if (b->capacity) {
        b->data[0] = 0;
    }
}

char *buf_reserve(buf *b, size_t n_bytes) {
    if (b->status != JANG_OK || n_bytes > b->max || b->size > b->max - n_bytes) {
        b->status = JANG_ERR_MEMORY;
        return NULL;
    }
    size_t need = b->size + n_bytes + 1;
    if (need > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < need) {
            capacity += capacity / 2;
        }
        char *data = ctx_realloc(b->ctx, b->capacity ? b->data : NULL, capacity);
        if (!data) {
            b->status = JANG_ERR_MEMORY;
            return NULL;
        }
        if (!b->capacity) {
            data[0] = 0;
        }
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->size;
}

void buf_put(buf *b, const void *data, size_t n_bytes) {
    char *to = buf_reserve(b, n_bytes);
    if (to && n_bytes) {
        memcpy(to, data, n_bytes);
        b->size += n_bytes;
        b->data[b->size] = 0;
    }
}

void buf_puts(buf *b, const char *text) {
    buf_put(b, text, strlen(text));
}

void buf_putc(buf *b, char c) {
    buf_put(b, &c, 1);
}

void buf_printf(buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *to = n < 0 ? NULL : buf_reserve(b, (size_t)n);
    if (to) {
        vsnprintf(to, (size_t)n + 1, format, again);
        b->size += (size_t)n;
    }
    va_end(again);
}

void buf_put_utf8(buf *b, uint32_t c) {
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        c = 0xfffd;
    }
    char out[4];
    size_t n = 0;
    if (c < 0x80) {
        out[n++] = (char)c;
    } else if (c < 0x800) {
        out[n++] = (char)(0xc0 | c >> 6);
        out[n++] = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        out[n++] = (char)(0xe0 | c >> 12);
        out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        out[n++] = (char)(0x80 | (c & 0x3f));
    } else {
        out[n++] = (char)(0xf0 | c >> 18);
        out[n++] = (char)(0x80 | (c >> 12 & 0x3f));
        out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        out[n++] = (char)(0x80 | (c & 0x3f));
    }
    buf_put(b, out, n);
}

jang_status buf_status(buf *b) {
    if (b->status == JANG_OK) {
        return JANG_OK;
    }
    return ctx_fail(b->ctx, b->status, "out of memory: a buffer would pass %zu bytes",
                    b->size < b->max ? b->size : b->max);
}

jang_status buf_take(buf *b, char **data, size_t *n_bytes) {
    if (b->status == JANG_OK && !b->capacity) {
        buf_reserve(b, 0);
    }
    jang_status status = buf_status(b);
    if (status != JANG_OK) {
        return status;
    }
    *data = b->data;
    if (n_bytes) {
        *n_bytes = b->size;
    }
    buf_init(b, b->ctx, b->max);
    return JANG_OK;
}
