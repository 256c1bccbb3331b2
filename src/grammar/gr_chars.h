/* gr_chars.h - sets of characters, and how they are spelt in bytes. */
#ifndef JANG_GRAMMAR_GR_CHARS_H
#define JANG_GRAMMAR_GR_CHARS_H

#include "grammar/gr_auto.h"

/* Characters first..last. A set is a list of spans, sorted, apart from each other. */
typedef struct gr_span {
    uint32_t first, last;
} gr_span;

typedef struct gr_set {
    ctx_t *ctx;
    gr_span *spans;
    size_t n, capacity;
    jang_status status;
} gr_set;

void gr_set_init(gr_set *s, ctx_t *ctx);
void gr_set_free(gr_set *s);
/* Adds characters in any order. */
void gr_set_add(gr_set *s, uint32_t first, uint32_t last);
void gr_set_add_all(gr_set *s, const gr_set *other);
/* Sorts, joins and takes out the surrogates, which are no characters. */
void gr_set_finish(gr_set *s);
/* Turns a finished set into all other characters. */
void gr_set_invert(gr_set *s);
/* Adds the characters of a Unicode general category, "L" or "Lu"; false if there is none such. */
bool gr_set_add_category(gr_set *s, const char *name, size_t n_bytes);

/* One character of a finished set, in UTF-8. */
uint32_t gr_utf8(gr_auto *a, const gr_span *spans, size_t n, uint32_t next);

/* Writes a byte of UTF-8 text as it stands in a JSON string, in the usual spelling; returns the
 * number of bytes, at most 6. */
size_t gr_json_escape(char out[8], unsigned char byte);

#endif
