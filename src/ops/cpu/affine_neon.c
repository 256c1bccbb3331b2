/* affine_neon.c - affine products with aarch64's NEON as every processor has it.
 *
 * Bytes are multiplied to 16 bits, which signed ones fit: codes of up to 6 bits are that; 8-bit
 * ones are taken less 128, which 128 times the sum of the activations makes good. */
#include <arm_neon.h>

#define NAME(kernel) kernel##__neon
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Lane l: a times b of bytes 4 l .. 4 l + 3. */
ALWAYS_INLINE int32x4_t dot_bytes(int8x16_t a, int8x16_t b) {
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b)));
}

ALWAYS_INLINE int32x4_t dot_codes(int32x4_t acc, uint8x16_t codes, int8x16_t x, int bits) {
    if (bits < 8) {
        return vaddq_s32(acc, dot_bytes(vreinterpretq_s8_u8(codes), x));
    }
    int8x16_t less = vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(0x80)));
    int32x4_t sum = vshlq_n_s32(dot_bytes(vdupq_n_s8(1), x), 7);
    return vaddq_s32(acc, vaddq_s32(dot_bytes(less, x), sum));
}

#include "ops/cpu/affine_neon_body.h"

const affine_kernels affine_neon = AFFINE_KERNELS;
