/* int_packed.h - integer codes as AWQ's and GPTQ's checkpoints pack them: matrices turned, columns
 * of the weight along the first axis, w = (code - zero) * scale.
 *
 * GPTQ (AutoGPTQ, GPTQModel): codes [n_in * bits / 32, n_out], each column of words one LSB-first
 * stream of an output's codes; zeros [n_group, n_out * bits / 32], each row one stream. Format 1
 * stores zero - 1. g_idx names the group of each input, in any order ("act-order").
 * AWQ (AutoAWQ, GEMM): codes [n_in, n_out / 8] and zeros [n_group, n_out / 8] of 4 bits; the eight
 * outputs of a word lie in the order 0 2 4 6 1 3 5 7 from its low end. */
#ifndef JANG_FORMAT_INT_PACKED_H
#define JANG_FORMAT_INT_PACKED_H

#include "base/tensor.h"

typedef enum int_layout { INT_GPTQ, INT_AWQ } int_layout;

typedef struct int_packed {
    int_layout layout;
    int bits;     /* GPTQ: 2, 3, 4, 8; AWQ: 4 */
    int zero_add; /* added to each stored zero: 1 for GPTQ's format 1 */
    int64_t n_in, n_out;
    int64_t group, n_group;       /* inputs in a group, where group_of says nothing else */
    const uint8_t *codes, *zeros; /* 32-bit words, at any alignment, as are the following */
    const uint8_t *scales;        /* [n_group, n_out] of scale_type */
    dtype scale_type;             /* F16, BF16 or F32 */
    const uint8_t *group_of;      /* I32 [n_in]; NULL: i / group */
} int_packed;

/* Returns the first input whose group is out of range, -1 if none is. */
int64_t int_packed_bad_group(const int_packed *p);

/* Whether input i is in group i / group, for all inputs. */
bool int_packed_in_order(const int_packed *p);

/* The code of output o and input i as it is stored; the scale of an output's group, and the bias
 * that makes code * scale + bias of it: -zero * scale, without rounding. */
uint8_t int_packed_code(const int_packed *p, int64_t o, int64_t i);
void int_packed_group(float *scale, float *bias, const int_packed *p, int64_t o, int64_t g);

/* Rows (outputs) [first, first + n) as out f32 [n, n_in]. */
void int_packed_rows_f32(float *restrict out, const int_packed *p, int64_t first, int64_t n);

#endif
