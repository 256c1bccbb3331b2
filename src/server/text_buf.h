/* text_buf.h - a growable text whose failures stick, so that callers look once, at the end. */
#ifndef JANG_SERVER_TEXT_BUF_H
#define JANG_SERVER_TEXT_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tbuf {
    char *data; /* ended by a 0 byte once anything was added; NULL before */
    size_t n, capacity;
    bool failed; /* an allocation failed; what was added after that is lost */
} tbuf;

void tbuf_free(tbuf *b);
/* Empties it and keeps the memory. */
void tbuf_clear(tbuf *b);
void tbuf_add(tbuf *b, const void *data, size_t n_bytes);
void tbuf_puts(tbuf *b, const char *text);
void tbuf_putc(tbuf *b, char c);
__attribute__((format(printf, 2, 3))) void tbuf_printf(tbuf *b, const char *format, ...);
/* Adds text; bytes that are no character become U+FFFD. */
void tbuf_add_utf8(tbuf *b, const char *text, size_t n_bytes);
/* Removes the first n_bytes. */
void tbuf_drop(tbuf *b, size_t n_bytes);
/* Shortens to n_bytes. */
void tbuf_cut(tbuf *b, size_t n_bytes);
/* The text, never NULL. */
const char *tbuf_text(const tbuf *b);
/* Whether it equals a text. */
bool tbuf_is(const tbuf *b, const char *text);

#endif
