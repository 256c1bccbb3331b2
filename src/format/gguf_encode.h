/* gguf_encode.h - numbers to GGUF's block types; the layouts are told in gguf_blocks.c. */
#ifndef JANG_FORMAT_GGUF_ENCODE_H
#define JANG_FORMAT_GGUF_ENCODE_H

#include "base/tensor.h"

/* A row as f32 and, where it comes from affine codes, as those: w = code * scale + bias. */
typedef struct gguf_row {
    const float *x;               /* [n] */
    const uint8_t *codes;         /* [n]; NULL: the row has none, nor what follows */
    const float *scales, *biases; /* [n / group] */
    int64_t n;                    /* a whole number of the type's blocks */
    int bits, group;              /* of the codes; group is a multiple of 32 */
} gguf_row;

/* Writes a row, whose numbers are finite, in F32, F16, BF16, Q8_0, or, of a row with codes of at
 * most 4 and 5 bits, in Q4_1 and Q5_1, which take over the codes: exactly, where scales and biases
 * are f16 numbers. K types, of rows with codes: see gguf_encode_k. */
void gguf_encode_row(uint8_t *restrict out, dtype type, const gguf_row *row);

/* Writes a row with codes in Q2_K, Q3_K, Q4_K, Q5_K or Q6_K: scales and biases are rounded to those
 * of the type, and codes chosen anew for the least squared error. */
void gguf_encode_k(uint8_t *restrict out, dtype type, const gguf_row *row);

#endif
