/* text_buffer.h - text made piece by piece; starts as {0}. */
#ifndef JANG_CLI_TEXT_BUFFER_H
#define JANG_CLI_TEXT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct text_buffer {
    char *text; /* [n], ended by a 0 byte; NULL while empty */
    size_t n, capacity;
    bool failed; /* out of memory: text is not whole */
} text_buffer;

__attribute__((format(printf, 2, 3))) void text_add(text_buffer *b, const char *format, ...);
void text_add_bytes(text_buffer *b, const char *bytes, size_t n_bytes);
void text_buffer_free(text_buffer *b);

#endif
