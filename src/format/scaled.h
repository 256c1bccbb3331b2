/* scaled.h - weights of few bits with a scale for each block, as checkpoints of other makers have
 * them: FP8 with a scale for a square of rows and columns (DeepSeek), MXFP4 with a power of two for
 * 32 columns (gpt-oss; OCP Microscaling Formats, 1.0). */
#ifndef JANG_FORMAT_SCALED_H
#define JANG_FORMAT_SCALED_H

#include "base/tensor.h"

/* out [n] = columns [at, at + n) of one row of E4M3 codes, each times the scale of its block of
 * `block` columns: scales F32 [columns / block, rounded up], that row's, at any alignment. */
void scaled_fp8_f32(float *restrict out, const uint8_t *row, const void *scales, int64_t at,
                    int64_t n, int64_t block);

#define MXFP4_GROUP 32
#define MXFP4_BYTES 16 /* codes of a group */

/* out [32 * n_groups] of E2M1 codes, two a byte, the lower four bits first, times 2^(scale - 127).
 * A scale of 255 makes NaNs. */
void scaled_mxfp4_f32(float *restrict out, const uint8_t *codes, const uint8_t *scales,
                      int64_t n_groups);

#endif
