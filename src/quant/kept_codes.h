/* kept_codes.h - weights of quantized checkpoints taken over as they are: the same codes, with
 * scales and biases that stand for the same numbers exactly. */
#ifndef JANG_QUANT_KEPT_CODES_H
#define JANG_QUANT_KEPT_CODES_H

#include "quant/parts.h"

/* How a part's codes are stored when they are kept: MLX's form as it is; AWQ's and GPTQ's with
 * bias = -zero * scale, in the type of their scales where it holds all those products, otherwise in
 * F32. *why is set where a part is quantized but cannot be kept, NULL for one that is not. */
typedef struct kept_form {
    int bits, group;
    dtype type;
} kept_form;
bool kept_codes_form(kept_form *out, const char **why, const model_part *part);

/* Rows [first, first + n): words as MLX packs them, scales and biases of form->type, all as stored.
 * False: a scale or bias is not finite. */
bool kept_codes_rows(void *words, void *scales, void *biases, const kept_form *form,
                     const model_part *part, int64_t first, int64_t n);

#endif
