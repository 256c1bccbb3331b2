/* tmpl_numfmt.h - Python's format specifications: [[fill]align][sign][#][0][width][,][.precision]
 * [type], for text, integers and floats. */
#ifndef JANG_TMPL_NUMFMT_H
#define JANG_TMPL_NUMFMT_H

#include "template/tmpl_run.h"

typedef struct nf_spec {
    uint32_t fill;  /* 0: the type's own */
    char align;     /* '<', '>', '=', '^' or 0 */
    char sign;      /* '+', ' ', '-' or 0 */
    bool alternate; /* # */
    bool zero;      /* 0 before the width */
    bool no_negative_zero;
    char grouping; /* ',', '_' or 0 */
    char type;     /* 0: none */
    int64_t width;
    int64_t precision; /* -1: none */
} nf_spec;

nf_spec nf_default(void);
/* Reads a specification; fails when it is none. */
nf_spec nf_parse(tm_core *t, const tv_str *text, tval value);
/* format(v, spec) */
void nf_put_str(tm_text *b, tv_str *s, const nf_spec *spec);
void nf_put_int(tm_text *b, tval v, const nf_spec *spec);
void nf_put_float(tm_text *b, double x, const nf_spec *spec);
void nf_put_value(tm_text *b, tval v, tval spec_text);

#endif
