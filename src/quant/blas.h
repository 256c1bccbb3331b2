/* blas.h - matrix products in f32, by a BLAS where the build has one (JANG_BLAS), and the few dense
 * solvers that quantization needs, in terms of them.
 *
 * Matrices are row-major with a leading dimension. The work is cut into tiles of a fixed size that
 * the context's threads take, and the BLAS is held to one thread in each, so results do not depend
 * on the number of threads. */
#ifndef JANG_QUANT_BLAS_H
#define JANG_QUANT_BLAS_H

#include "base/ctx.h"

/* C = alpha op(A) op(B) + beta C, with C [m, n] and k the length of the sums. */
typedef struct gemm_call {
    int64_t m, n, k;
    bool trans_a, trans_b; /* A is [k, m]; B is [n, k] */
    const float *a, *b;
    int64_t lda, ldb;
    float *c;
    int64_t ldc;
    float alpha, beta;
    bool coarse;    /* spread only: the operands may be rounded to bf16 where that is faster */
    bool symmetric; /* spread only: C is; of the lower triangle, only what the tiles on the diagonal
                       hold is computed (blas_mirror fills in the rest) */
} gemm_call;

/* Within one thread; inside of a task. */
void blas_gemm(const gemm_call *call);
/* Spread over the context's threads. */
void blas_gemm_spread(ctx_t *ctx, const gemm_call *call);

/* Several products, each by one thread, which may be coarse; none may write where another reads or
 * writes. Calls with m, n or k of 0 are left out. */
void blas_gemm_batch(ctx_t *ctx, const gemm_call *calls, int n);

/* Copies the upper triangle of a [n, n] to the lower. */
void blas_mirror(float *a, int64_t n);

/* A = L L^T in place: the lower triangle of a [n, n] becomes L. False when a is not positive
 * definite; a is then spoiled. */
bool blas_cholesky(ctx_t *ctx, float *a, int64_t n);

/* X = X (L L^T)^-1 for x [rows, n], rows spread over the threads. */
void blas_solve(ctx_t *ctx, float *x, int64_t rows, const float *l, int64_t n);

#endif
