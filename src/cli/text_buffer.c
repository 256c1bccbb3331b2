/* text_buffer.c - text made piece by piece. */
#include "text_buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for n_bytes more and the 0 byte behind them. */
static bool make_room(text_buffer *b, size_t n_bytes) {
    if (b->n + n_bytes + 1 > b->capacity && !b->failed) {
        size_t capacity = 2 * (b->n + n_bytes + 1);
        char *text = realloc(b->text, capacity);
        b->failed = !text;
        b->text = text ? text : b->text;
        b->capacity = text ? capacity : b->capacity;
    }
    return !b->failed;
}

void text_add(text_buffer *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    b->failed = b->failed || n < 0;
    if (b->failed || !make_room(b, (size_t)n)) {
        return;
    }
    va_start(args, format);
    vsnprintf(b->text + b->n, b->capacity - b->n, format, args);
    va_end(args);
    b->n += (size_t)n;
}

void text_add_bytes(text_buffer *b, const char *bytes, size_t n_bytes) {
    if (make_room(b, n_bytes)) {
        memcpy(b->text + b->n, bytes, n_bytes);
        b->n += n_bytes;
        b->text[b->n] = 0;
    }
}

void text_buffer_free(text_buffer *b) {
    free(b->text);
    *b = (text_buffer){0};
}
