/* blas.c - products by tiles, a blocked Cholesky factorization, triangular solves. */
#include "quant/blas.h"

#include "base/pool.h"
#include "quant/gemm_bf16.h"

#include <math.h>
#ifdef JANG_HAVE_OPENBLAS
#include <cblas.h>
#endif

/* ---- Products ---- */

#ifdef JANG_HAVE_OPENBLAS
void blas_gemm(const gemm_call *g) {
    cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
                g->trans_b ? CblasTrans : CblasNoTrans, (blasint)g->m, (blasint)g->n, (blasint)g->k,
                g->alpha, g->a, (blasint)g->lda, g->b, (blasint)g->ldb, g->beta, g->c,
                (blasint)g->ldc);
}
#else
void blas_gemm(const gemm_call *g) {
    for (int64_t i = 0; i < g->m; i++) {
        float *restrict c = g->c + i * g->ldc;
        for (int64_t j = 0; j < g->n; j++) {
            c[j] = g->beta == 0.0f ? 0.0f : g->beta * c[j];
        }
        for (int64_t p = 0; p < g->k; p++) {
            float a = g->alpha * (g->trans_a ? g->a[p * g->lda + i] : g->a[i * g->lda + p]);
            const float *restrict b = g->trans_b ? g->b + p : g->b + p * g->ldb;
            int64_t step = g->trans_b ? g->ldb : 1;
            for (int64_t j = 0; j < g->n; j++) {
                c[j] += a * b[j * step];
            }
        }
    }
}
#endif

/* Tiles of a result; of a symmetric one, small enough to leave out much below the diagonal. */
#define TILE BF16_TILE
#define TILE_SYMMETRIC 192

typedef struct spread {
    const gemm_call *call;
    int64_t tile, tiles_n;
    gemm_bf16_fn bf16; /* NULL: f32 */
    uint8_t *scratch;  /* BF16_SCRATCH for each thread */
} spread;

/* At most a tile. */
static void run_call(const spread *s, const gemm_call *g, int thread) {
    if (s->bf16) {
        s->bf16(g, s->scratch + (size_t)thread * BF16_SCRATCH);
    } else {
        blas_gemm(g);
    }
}

/* Tile (i, j) of a call. */
static void run_at(const spread *s, gemm_call g, int64_t i, int64_t j, int thread) {
    if (g.symmetric && j < i) {
        return;
    }
    g.a += g.trans_a ? i : i * g.lda;
    g.b += g.trans_b ? j * g.ldb : j;
    g.c += i * g.ldc + j;
    g.m = g.m - i < s->tile ? g.m - i : s->tile;
    g.n = g.n - j < s->tile ? g.n - j : s->tile;
    run_call(s, &g, thread);
}

static void run_tile(void *arg, int task, int thread) {
    const spread *s = arg;
    run_at(s, *s->call, task / s->tiles_n * s->tile, task % s->tiles_n * s->tile, thread);
}

/* The BLAS must not start threads of its own inside of our tasks. */
static void hold_blas(void) {
#ifdef JANG_HAVE_OPENBLAS
    openblas_set_num_threads(1);
#endif
}

/* Scratch for coarse products; without it they are not coarse. */
static void make_scratch(spread *s, ctx_t *ctx, bool coarse) {
    if (coarse && (s->bf16 = gemm_bf16_choose(ctx)) != NULL) {
        s->scratch = ctx_alloc_aligned(ctx, (size_t)pool_threads(ctx_pool(ctx)) * BF16_SCRATCH, 64);
        s->bf16 = s->scratch ? s->bf16 : NULL;
    }
}

void blas_gemm_spread(ctx_t *ctx, const gemm_call *call) {
    hold_blas();
    int64_t tile = call->symmetric ? TILE_SYMMETRIC : TILE;
    spread s = {.call = call, .tile = tile, .tiles_n = (call->n + tile - 1) / tile};
    make_scratch(&s, ctx, call->coarse);
    pool_run(ctx_pool(ctx), run_tile, &s, (int)((call->m + tile - 1) / tile * s.tiles_n));
    ctx_free_aligned(ctx, s.scratch);
}

/* All tiles of one of several calls. */
static void run_whole(void *arg, int task, int thread) {
    const spread *s = arg;
    const gemm_call *g = &s->call[task];
    for (int64_t i = 0; i < g->m && g->k; i += s->tile) {
        for (int64_t j = 0; j < g->n; j += s->tile) {
            run_at(s, *g, i, j, thread);
        }
    }
}

void blas_gemm_batch(ctx_t *ctx, const gemm_call *calls, int n) {
    hold_blas();
    spread s = {.call = calls, .tile = TILE};
    make_scratch(&s, ctx, n > 0 && calls[0].coarse);
    pool_run(ctx_pool(ctx), run_whole, &s, n);
    ctx_free_aligned(ctx, s.scratch);
}

void blas_mirror(float *a, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        for (int64_t j = 0; j < i; j++) {
            a[i * n + j] = a[j * n + i];
        }
    }
}

/* ---- Cholesky ---- */

#define BLOCK 64 /* columns factored at once */
#define ROWS 64  /* rows of a task */

typedef struct panel {
    float *a;
    int64_t n, at, width, first;
} panel;

/* Factors the small block in place; its pivots in f64. */
static bool factor_block(float *a, int64_t lda, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = (double)a[i * lda + j];
            for (int64_t k = 0; k < j; k++) {
                sum -= (double)a[i * lda + k] * (double)a[j * lda + k];
            }
            if (i == j) {
                if (!(sum > 0) || !isfinite(sum)) {
                    return false;
                }
                a[i * lda + i] = (float)sqrt(sum);
            } else {
                a[i * lda + j] = (float)(sum / (double)a[j * lda + j]);
            }
        }
    }
    return true;
}

/* z L^T = x for each of n_rows rows, in place; l [n, n] lower. */
static void solve_forward(float *x, int64_t ldx, int64_t n_rows, const float *l, int64_t ldl,
                          int64_t n) {
    for (int64_t r = 0; r < n_rows; r++) {
        float *z = x + r * ldx;
        for (int64_t j = 0; j < n; j++) {
            float sum = z[j];
            for (int64_t i = 0; i < j; i++) {
                sum -= z[i] * l[j * ldl + i];
            }
            z[j] = sum / l[j * ldl + j];
        }
    }
}

/* y L = z for each row, in place. */
static void solve_backward(float *x, int64_t ldx, int64_t n_rows, const float *l, int64_t ldl,
                           int64_t n) {
    for (int64_t r = 0; r < n_rows; r++) {
        float *y = x + r * ldx;
        for (int64_t j = n - 1; j >= 0; j--) {
            y[j] /= l[j * ldl + j];
            for (int64_t i = 0; i < j; i++) {
                y[i] -= y[j] * l[j * ldl + i];
            }
        }
    }
}

static void solve_panel(void *arg, int task, int thread) {
    (void)thread;
    const panel *p = arg;
    int64_t row = p->first + (int64_t)task * ROWS;
    int64_t n_rows = p->n - row < ROWS ? p->n - row : ROWS;
    solve_forward(p->a + row * p->n + p->at, p->n, n_rows, p->a + p->at * p->n + p->at, p->n,
                  p->width);
}

bool blas_cholesky(ctx_t *ctx, float *a, int64_t n) {
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t width = n - at < BLOCK ? n - at : BLOCK;
        gemm_call g = {.m = n - at,
                       .n = width,
                       .k = at,
                       .trans_b = true,
                       .a = a + at * n,
                       .b = a + at * n,
                       .c = a + at * n + at,
                       .lda = n,
                       .ldb = n,
                       .ldc = n,
                       .alpha = -1,
                       .beta = 1};
        if (at > 0) {
            blas_gemm_spread(ctx, &g);
        }
        if (!factor_block(a + at * n + at, n, width)) {
            return false;
        }
        panel p = {a, n, at, width, at + width};
        int64_t left = n - p.first;
        if (left > 0) {
            pool_run(ctx_pool(ctx), solve_panel, &p, (int)((left + ROWS - 1) / ROWS));
        }
    }
    return true;
}

typedef struct solve_job {
    float *x;
    int64_t rows, n;
    const float *l;
} solve_job;

static void solve_rows(void *arg, int task, int thread) {
    (void)thread;
    const solve_job *s = arg;
    int64_t n = s->n, row = (int64_t)task * ROWS;
    int64_t n_rows = s->rows - row < ROWS ? s->rows - row : ROWS;
    float *x = s->x + row * n;
    gemm_call g = {.m = n_rows, .lda = n, .ldb = n, .ldc = n, .alpha = -1, .beta = 1, .a = x};
    for (int64_t at = 0; at < n; at += BLOCK) {
        g.n = n - at < BLOCK ? n - at : BLOCK;
        g.k = at;
        g.b = s->l + at * n;
        g.trans_b = true;
        g.c = x + at;
        if (at > 0) {
            blas_gemm(&g);
        }
        solve_forward(x + at, n, n_rows, s->l + at * n + at, n, g.n);
    }
    g.trans_b = false;
    for (int64_t at = (n - 1) / BLOCK * BLOCK; at >= 0; at -= BLOCK) {
        int64_t end = n - at < BLOCK ? n : at + BLOCK;
        g.n = end - at;
        g.k = n - end;
        g.a = x + end;
        g.b = s->l + end * n + at;
        g.c = x + at;
        if (g.k > 0) {
            blas_gemm(&g);
        }
        solve_backward(x + at, n, n_rows, s->l + at * n + at, n, g.n);
    }
}

void blas_solve(ctx_t *ctx, float *x, int64_t rows, const float *l, int64_t n) {
    hold_blas();
    solve_job s = {x, rows, n, l};
    pool_run(ctx_pool(ctx), solve_rows, &s, (int)((rows + ROWS - 1) / ROWS));
}
