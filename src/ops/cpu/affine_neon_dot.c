/* affine_neon_dot.c - affine products with aarch64's signed dot product.
 *
 * sdot takes signed bytes only. Codes of up to 6 bits are that; 8-bit ones are taken less 128
 * (code ^ 128 as a signed byte), which 128 times the sum of the activations makes good. */
#include <arm_neon.h>

#define NAME(kernel) kernel##__neon_dot
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE int32x4_t dot_codes(int32x4_t acc, uint8x16_t codes, int8x16_t x, int bits) {
    if (bits < 8) {
        return vdotq_s32(acc, vreinterpretq_s8_u8(codes), x);
    }
    const int8x16_t half = vdupq_n_s8(64);
    acc = vdotq_s32(acc, vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(0x80))), x);
    return vdotq_s32(vdotq_s32(acc, half, x), half, x);
}

#include "ops/cpu/affine_neon_body.h"

const affine_kernels affine_neon_dot = AFFINE_KERNELS;
