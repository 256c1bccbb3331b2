/* affine_neon_i8mm.c - affine products with aarch64's products of unsigned and signed bytes.
 *
 * usdot multiplies codes of any width by activations. For tiles usmmla multiplies two rows of eight
 * codes by two rows of eight activations, twice as many products an instruction. */
#include <arm_neon.h>
#include <stdint.h>

#define NAME(kernel) kernel##__neon_i8mm
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE int32x4_t dot_codes(int32x4_t acc, uint8x16_t codes, int8x16_t x, int bits) {
    (void)bits;
    return vusdotq_s32(acc, codes, x);
}

#define TILE_DOTS dot_tile

/* out[r] lane t: the products of n codes of row r of the weight and of row t of x, four of each. */
ALWAYS_INLINE void dot_tile(int32x4_t *out, const uint8_t *w, int64_t w_stride,
                            const int8_t *const *x, int64_t at, int n, int bits) {
    int32x4_t sum[2][2]; /* [pair of rows][pair of x]: [w0 x0, w0 x1, w1 x0, w1 x1] */
    (void)bits;
    for (int i = 0; i < 4; i++) {
        sum[i / 2][i % 2] = vdupq_n_s32(0);
    }
    for (int i = 0; i < n; i += 16) {
        uint64x2_t a[4], b[4];
        for (int r = 0; r < 4; r++) {
            a[r] = vreinterpretq_u64_u8(vld1q_u8(w + r * w_stride + at + i));
            b[r] = vreinterpretq_u64_s8(vld1q_s8(x[r] + at + i));
        }
        for (int k = 0; k < 4; k++) {
            const int p = k / 2, q = k % 2;
            uint8x16_t a0 = vreinterpretq_u8_u64(vzip1q_u64(a[2 * p], a[2 * p + 1]));
            uint8x16_t a1 = vreinterpretq_u8_u64(vzip2q_u64(a[2 * p], a[2 * p + 1]));
            int8x16_t b0 = vreinterpretq_s8_u64(vzip1q_u64(b[2 * q], b[2 * q + 1]));
            int8x16_t b1 = vreinterpretq_s8_u64(vzip2q_u64(b[2 * q], b[2 * q + 1]));
            sum[p][q] = vusmmlaq_s32(vusmmlaq_s32(sum[p][q], a0, b0), a1, b1);
        }
    }
    for (int p = 0; p < 2; p++) {
        int64x2_t c = vreinterpretq_s64_s32(sum[p][0]), d = vreinterpretq_s64_s32(sum[p][1]);
        out[2 * p] = vreinterpretq_s32_s64(vzip1q_s64(c, d));
        out[2 * p + 1] = vreinterpretq_s32_s64(vzip2q_s64(c, d));
    }
}

#include "ops/cpu/affine_neon_body.h"

const affine_kernels affine_neon_i8mm = AFFINE_KERNELS;
