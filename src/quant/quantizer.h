/* quantizer.h - the methods that turn rows of weights into codes, scales and biases.
 *
 * A method is a function and a row of the table in quantizer.c. It sees rows of f32 and gives codes
 * and, in f32, the scale and bias of each group. The caller rounds those to their stored type and
 * packs the codes. */
#ifndef JANG_QUANT_QUANTIZER_H
#define JANG_QUANT_QUANTIZER_H

#include "base/cpu.h"
#include "base/tensor.h"

#include <stddef.h>
#include <stdint.h>

/* A block of rows: w [n_rows, n_cols]; codes [n_rows, n_cols]; scales, biases
 * [n_rows, n_cols / group], in f32 but meant for type. group (32, 64, 128) divides n_cols.
 * importance [n_cols], or NULL: what the squared error of a weight in each column counts, for
 * methods that weigh errors. */
typedef struct quant_block {
    const float *w;
    int64_t n_rows, n_cols;
    int bits, group;
    uint8_t *codes;
    float *scales, *biases;
    dtype type;
    const float *importance;
} quant_block;

/* Returns false, with nothing of use written, when a weight is NaN or infinite. May be called from
 * several threads at once. */
typedef bool (*quant_fn)(const quant_block *block);

typedef struct quantizer {
    const char *name;
    bool weighs;   /* needs no text, but weighs errors by the sizes of inputs where there is some */
    bool full;     /* matrices are quantized as calibration sees their inputs; fn does the rest */
    bool feedback; /* ... by gptq.h */
    bool scales;   /* ... their inputs scaled (scaling.h) */
    bool thorough; /* tuned (tune.h) or, where that is not possible, ... with care that takes time
                      (calib_tune.c), and scales only then */
    quant_fn fn[CPU_N_ISA]; /* NULL: not made for this instruction set; CPU_SCALAR is always set */
} quantizer;

/* Finds a method by name. JANG_ERR_ARGUMENT names the methods there are. */
JANG_MUST_CHECK jang_status quantizer_find(const quantizer **out, ctx_t *ctx, const char *name);

/* The method's function for an instruction set: the best that was made for it. */
quant_fn quantizer_function(const quantizer *q, cpu_isa isa);

#endif
