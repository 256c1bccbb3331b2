/* affine_scalar.c - affine products in portable C, for processors without kernels of their own. */
#include <stdint.h>

#define NAME(kernel) kernel##__scalar

static int32_t dot_q8(const uint8_t *restrict w, const int8_t *restrict x, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += w[i] * x[i];
    }
    return sum;
}

#include "ops/cpu/affine_rows_body.h"

const affine_kernels affine_scalar = {
    .orders = {0},
    .quantize = kern_quantize_q8__scalar,
    .gemv = NULL,
    .gemv_max = 0,
    .gemm = kern_gemm_q8__scalar,
    .gemm_rows = 32,
    .gemm_tile = 1,
    .gemm_panel_bytes = panel_bytes,
};
