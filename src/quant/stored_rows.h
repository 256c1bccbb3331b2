/* stored_rows.h - rows of a matrix quantized to the form in which a model stores them: packed
 * codes, scales and biases of two bytes. */
#ifndef JANG_QUANT_STORED_ROWS_H
#define JANG_QUANT_STORED_ROWS_H

#include "quant/parts.h"
#include "quant/quantizer.h"

typedef struct stored_rows {
    uint8_t *weights;          /* [n_rows, affine_row_words] */
    uint16_t *scales, *biases; /* [n_rows, n_cols / group] */
    dtype type;                /* of both: DT_F16 or DT_BF16 */
} stored_rows;

/* Rounds n numbers to F16 or BF16; false: one is not finite in it. */
bool stored_halves(uint16_t *out, const float *x, int64_t n, dtype type);

typedef enum stored_result {
    STORED_DONE,
    STORED_NOT_FINITE, /* NaN or infinite weights */
    STORED_TOO_LARGE,  /* a scale or bias is not in the type */
} stored_result;

/* Quantizes a block by fn, and stores it as rows first, first + 1, ... of out, whose type is the
 * block's. */
stored_result stored_put(const stored_rows *out, int64_t first, const quant_block *block,
                         quant_fn fn);

/* A whole matrix. */
typedef struct stored_job {
    ctx_t *ctx;
    const checkpoint *source;
    const model_part *part;
    int bits, group;
    dtype type;
    quant_fn fn;
    const float *importance; /* [columns]; NULL: all alike */
} stored_job;

/* Quantizes all rows of a part, spread over the threads, into memory of *out, which stored_free
 * frees. out->type is the job's, or DT_BF16 where F16 does not hold the scales. Errors:
 * JANG_ERR_FORMAT: NaN or infinite weights, or such as are too large for BF16 too. */
JANG_MUST_CHECK jang_status stored_make(stored_rows *out, const stored_job *job);
void stored_free(stored_rows *rows, ctx_t *ctx);

#endif
