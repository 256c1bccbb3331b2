/* short_conv.h - LFM2's gated short convolution: b, c, x = linear(h); y = linear(c * conv(b * x)).
 *
 * Source: LFM2 technical report, arXiv:2511.23404; transformers, models/lfm2. */
#ifndef JANG_MODEL_SHORT_CONV_H
#define JANG_MODEL_SHORT_CONV_H

#include "model/recurrent.h"

typedef struct short_conv_config {
    int n_tap;
    bool bias; /* of the projections and of the convolution */
} short_conv_config;

/* Makes a block whose weights' names begin with prefix and "conv." (in_proj, conv, out_proj). */
JANG_MUST_CHECK jang_status short_conv_make(block **out, loader *l, work *w,
                                            const short_conv_config *c, int64_t n_embd,
                                            const char *prefix);

#endif
