/* tmpl_repr.h - str() and repr() of values, and the parts of text they are made of. */
#ifndef JANG_TMPL_REPR_H
#define JANG_TMPL_REPR_H

#include "base/buf.h"
#include "template/tmpl_value.h"

/* Text that is being made, in the arena. */
typedef struct tm_text {
    tm_core *t;
    char *data;
    size_t n, capacity;
} tm_text;

static inline tm_text tm_text_start(tm_core *t) {
    return (tm_text){.t = t};
}
void tm_text_put(tm_text *b, const char *data, size_t n);
void tm_text_puts(tm_text *b, const char *text);
void tm_text_putc(tm_text *b, char c);
void tm_text_fill(tm_text *b, char c, size_t n);
void tm_text_put_char(tm_text *b, uint32_t code_point);
tval tm_text_end(tm_text *b);

/* Appends str(v) or repr(v). */
void tv_put_str(tm_text *b, tval v);
void tv_put_repr(tm_text *b, tval v);
/* str(v): v itself when it is a plain str. */
tval tv_to_str(tm_core *t, tval v);
/* repr(v) ended by a 0 byte, shortened when very long: for messages. */
const char *tv_repr_text(tm_core *t, tval v);

#endif
