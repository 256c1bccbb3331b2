/* text_buffer.c - text made piece by piece. */
#include "text_buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_add(text_buffer *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || b->failed) {
        b->failed = true;
        return;
    }
    if (b->n + (size_t)n + 1 > b->capacity) {
        size_t capacity = 2 * (b->n + (size_t)n + 1);
        char *text = realloc(b->text, capacity);
        if (!text) {
            b->failed = true;
            return;
        }
        b->text = text;
        b->capacity = capacity;
    }
    va_start(args, format);
    vsnprintf(b->text + b->n, b->capacity - b->n, format, args);
    va_end(args);
    b->n += (size_t)n;
}

void text_add_bytes(text_buffer *b, const char *bytes, size_t n_bytes) {
    if (b->failed) {
        return;
    }
    if (b->n + n_bytes + 1 > b->capacity) {
        size_t capacity = 2 * (b->n + n_bytes + 1);
        char *text = realloc(b->text, capacity);
        if (!text) {
            b->failed = true;
            return;
        }
        b->text = text;
        b->capacity = capacity;
    }
    memcpy(b->text + b->n, bytes, n_bytes);
    b->n += n_bytes;
    b->text[b->n] = 0;
}

void text_buffer_free(text_buffer *b) {
    free(b->text);
    *b = (text_buffer){0};
}
