/* buf.h - a growable byte buffer with a hard maximum.
 *
 * Appending to a buffer that has failed does nothing, so a writer checks once, at the end:
 *     buf_puts(&b, "..."); buf_printf(&b, ...);  return buf_status(&b);
 * data is always ended by a 0 byte that size does not count; it is never NULL after buf_init. */
#ifndef JANG_BASE_BUF_H
#define JANG_BASE_BUF_H

#include "base/ctx.h"

typedef struct buf {
    ctx_t *ctx;
    char *data;
    size_t size, capacity, max;
    jang_status status; /* JANG_OK, JANG_ERR_MEMORY */
} buf;

#define BUF_NO_LIMIT ((size_t)1 << 46)

void buf_init(buf *b, ctx_t *ctx, size_t max);
void buf_free(buf *b);
void buf_clear(buf *b);
void buf_put(buf *b, const void *data, size_t n_bytes);
void buf_puts(buf *b, const char *text);
void buf_putc(buf *b, char c);
__attribute__((format(printf, 2, 3))) void buf_printf(buf *b, const char *format, ...);

/* Appends one code point as UTF-8; what is no code point becomes U+FFFD. */
void buf_put_utf8(buf *b, uint32_t code_point);

/* Makes room for n_bytes more and returns where they go, or NULL. size does not change. */
char *buf_reserve(buf *b, size_t n_bytes);

/* JANG_OK, or records the failure in the context. */
JANG_MUST_CHECK jang_status buf_status(buf *b);

/* Hands the memory to the caller (freed with ctx_free) and leaves the buffer empty. */
JANG_MUST_CHECK jang_status buf_take(buf *b, char **data, size_t *n_bytes);

#endif
