/* tmpl_number.h - Python's int() and float() of text, and round(). */
#ifndef JANG_TMPL_NUMBER_H
#define JANG_TMPL_NUMBER_H

#include "template/tmpl_run.h"

/* int(text, base): base 0 or 2 to 36. False when the text is no such number. */
bool nm_parse_int(tm_core *t, const tv_str *s, unsigned base, tval *out);
/* float(text) */
bool nm_parse_float(tm_core *t, const tv_str *s, double *out);
/* round(x, places) */
tval nm_round(tm_core *t, tval x, int64_t places);

#endif
