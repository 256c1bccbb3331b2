/* gemm_bf16.h - products of f32 matrices whose elements are rounded to bf16 on the way, for
 * processors that multiply those at twice the speed. Sums are in f32. */
#ifndef JANG_QUANT_GEMM_BF16_H
#define JANG_QUANT_GEMM_BF16_H

#include "quant/blas.h"

/* The largest call, and the scratch it needs, aligned to 64 bytes. */
#define BF16_TILE 480 /* rows and columns of C */
#define BF16_SCRATCH ((size_t)2 * 256 * BF16_TILE * sizeof(uint16_t))

/* C = alpha op(A) op(B) + beta C. */
typedef void (*gemm_bf16_fn)(const gemm_call *call, void *scratch);

/* NULL: this processor has no such instructions, or JANG_ISA rules them out. */
gemm_bf16_fn gemm_bf16_choose(ctx_t *ctx);

#if defined(__x86_64__)
void gemm_bf16__avx512(const gemm_call *call, void *scratch);
#endif

#endif
