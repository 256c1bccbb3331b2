/* affine.h - MLX's affine layout: packing of codes, dequantization, shapes.
 *
 * A row of n codes of b bits (2, 3, 4, 5, 6, 8) is one LSB-first bit stream in little-endian
 * uint32 words; codes cross words when b is 3, 5 or 6. w = code * scale + bias, scale and bias one
 * a group of 32, 64 or 128 columns. docs/format.md has it byte by byte. */
#ifndef JANG_FORMAT_AFFINE_H
#define JANG_FORMAT_AFFINE_H

#include "base/tensor.h"

bool affine_bits_ok(int bits);
bool affine_group_ok(int group);

/* Words of a row of n codes; n * bits is a multiple of 32. */
static inline int64_t affine_row_words(int64_t n, int bits) {
    return n * bits / 32;
}

/* codes [n], each below 2^bits; words [n * bits / 32]. n is a multiple of 32. */
void affine_pack(uint32_t *restrict words, const uint8_t *restrict codes, int64_t n, int bits);
void affine_unpack(uint8_t *restrict codes, const uint32_t *restrict words, int64_t n, int bits);

/* Dequantizes one row: out [n] f32 = code * scale + bias (product and sum each rounded to f32).
 * scales, biases [n / group] of type (F16, BF16 or F32); any alignment. */
void affine_row_f32(float *restrict out, const void *words, const void *scales, const void *biases,
                    dtype type, int64_t n, int bits, int group);

/* Finds bits and group from the shapes of a module's three tensors: weight U32 [.., words], scales
 * [.., groups]. When several fit, a pair equal to the hint (from config.json; 0: none) is taken.
 * Fails naming the module when none fits. */
JANG_MUST_CHECK jang_status affine_infer(int *bits, int *group, ctx_t *ctx,
                                         const tensor_view *weight, const tensor_view *scales,
                                         const tensor_view *biases, int hint_bits, int hint_group);

#endif
