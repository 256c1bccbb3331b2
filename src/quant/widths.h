/* widths.h - what each width would do to a matrix: the error of its weights, measured. */
#ifndef JANG_QUANT_WIDTHS_H
#define JANG_QUANT_WIDTHS_H

#include "quant/plan.h"
#include "quant/quantizer.h"

typedef struct width_form {
    int bits, group;
} width_form;

/* Quantizes a matrix by fn in each of n forms and gives the error of each as a share of its
 * weights: sum_c v_c (w - q)^2 / sum_c v_c w^2        q as stored: scales and biases rounded to
 * type over all rows, or over rows taken evenly from it where it has more than 256 thousand
 * weights. v is importance [columns], NULL: 1. All groups divide the columns. A matrix of zeros has
 * the error 0. JANG_ERR_FORMAT: NaN or infinite weights, by the tensor's name. */
JANG_MUST_CHECK jang_status widths_measure(double *errors, ctx_t *ctx, const checkpoint *source,
                                           const plan_item *item, const width_form *forms, int n,
                                           quant_fn fn, const float *importance);

#endif
