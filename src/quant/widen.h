/* widen.h - a backend's weight as a matrix of f32. */
#ifndef JANG_QUANT_WIDEN_H
#define JANG_QUANT_WIDEN_H

#include "ops/ops.h"

/* out [n_out, n_in]: a dense weight's numbers, or an affine one's dequantized; not of experts
 * together. Spread over the context's threads. */
void weight_widen(ctx_t *ctx, const weight_desc *d, float *out);

#endif
