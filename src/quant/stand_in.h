/* stand_in.h - a matrix as it would be quantized, in a form that a running model can multiply with.
 *
 * Made in memory by a method that sees a matrix's weights only; scales and biases are bf16, which
 * hold any. */
#ifndef JANG_QUANT_STAND_IN_H
#define JANG_QUANT_STAND_IN_H

#include "ops/ops.h"
#include "quant/plan.h"
#include "quant/stored_rows.h"

typedef struct stand_in {
    ops_weight *original; /* as the model has it; NULL: not seen in this layer */
    ops_weight *weight;   /* quantized; NULL: none */
    stored_rows rows;     /* what it lies in */
} stand_in;

typedef struct stand_in_job {
    ctx_t *ctx;
    checkpoint *source;
    const ops_table *table; /* the backend's */
    ops *ops;
    const plan_item *item;
    quant_fn fn;
    const float *importance; /* [columns]; NULL: all alike */
} stand_in_job;

/* Quantizes the item and makes a weight of it in the form of s->original, which is set. What was
 * made is freed by stand_in_free, after failure too. Errors: JANG_ERR_FORMAT: NaN or infinite
 * weights. */
JANG_MUST_CHECK jang_status stand_in_make(stand_in *s, const stand_in_job *job);
/* Frees all but the original, and forgets it. */
void stand_in_free(stand_in *s, ctx_t *ctx, const ops_table *table, ops *o);

#endif
