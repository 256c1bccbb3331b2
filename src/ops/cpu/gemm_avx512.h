/* gemm_avx512.h - the AVX-512 kernels for affine weights, as their files define them. */
#ifndef JANG_OPS_GEMM_AVX512_H
#define JANG_OPS_GEMM_AVX512_H

#include "ops/cpu/cpu_kernels.h"

void kern_quantize_q8__avx512(const q8_rows *out, int64_t row, const float *x, int64_t n, int bits,
                              int group, float limit, q8_order order);
void kern_gemv_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          float *y, int64_t y_stride);
void kern_gemm_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          rows_ahead ahead, float *y, int64_t y_stride, uint8_t *panel);
size_t gemm_panel_bytes__avx512(int64_t n_in);

#endif
