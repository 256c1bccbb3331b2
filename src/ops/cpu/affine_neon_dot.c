/* affine_neon_dot.c - affine products with aarch64's signed dot product.
 *
 * sdot takes signed bytes only. Codes of up to 6 bits are that; 8-bit ones are taken less 128,
 * which 128 times the sum of the activations makes good, all in exact integers. One rule for all
 * widths: code ^ 128 as a signed byte is code - 128. */
#include <arm_neon.h>
#include <stdint.h>

#define NAME(kernel) kernel##__neon_dot

/* n is a multiple of 32. */
static int32_t dot_q8(const uint8_t *restrict w, const int8_t *restrict x, int n) {
    int32x4_t dot = vdupq_n_s32(0), sum = vdupq_n_s32(0);
    const uint8x16_t top = vdupq_n_u8(0x80);
    const int8x16_t one = vdupq_n_s8(1);
    for (int i = 0; i < n; i += 16) {
        int8x16_t a = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + i), top)), b = vld1q_s8(x + i);
        dot = vdotq_s32(dot, a, b);
        sum = vdotq_s32(sum, one, b);
    }
    return vaddvq_s32(dot) + 128 * vaddvq_s32(sum);
}

#include "ops/cpu/affine_rows_body.h"

const affine_kernels affine_neon_dot = {
    .orders = {0},
    .quantize = kern_quantize_q8__neon_dot,
    .gemv = NULL,
    .gemv_max = 0,
    .gemm = kern_gemm_q8__neon_dot,
    .gemm_rows = 32,
    .gemm_tile = 1,
    .gemm_panel_bytes = panel_bytes,
};
