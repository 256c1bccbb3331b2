/* gptq_outputs.c - rows decided one after the other, each making up for the errors of those before
 * it. A few rows, spread over the matrix, are decided at once, each by itself. */
#include "quant/gptq_impl.h"

#include "quant/blas.h"

#include <math.h>
#include <string.h>

#define WAVES 32      /* of a block of rows, at most */
#define LEAST_WAVE 32 /* rows of one */
#define DAMPING 0.05  /* of the mean diagonal, ... */
#define FEW 10        /* ... and so much more by how few tokens there are for the rows */
#define MAX_DAMPING 1000.0

/* A block of rows at work. */
typedef struct coupling {
    ctx_t *ctx;
    int64_t n, n_in, n_wave; /* rows; rows of a wave */
    int64_t *order;          /* [n] which row is decided when */
    float *factor;           /* [n, n] what errors add to targets, in that order */
    float *errors;           /* [n, n_in] in that order */
    gptq_matrix wave;
} coupling;

static int64_t wave_rows(int64_t n) {
    int64_t size = (n + WAVES - 1) / WAVES;
    size = (size + LATTICE_ROWS - 1) / LATTICE_ROWS * LATTICE_ROWS;
    return size < LEAST_WAVE ? LEAST_WAVE : size;
}

/* Neighbours, which are of one head, come in different waves. */
static void make_order(coupling *c) {
    int64_t n_waves = (c->n + c->n_wave - 1) / c->n_wave, at = 0;
    for (int64_t first = 0; first < n_waves; first++) {
        for (int64_t row = first; row < c->n; row += n_waves) {
            c->order[at++] = row;
        }
    }
}

static double mean_diagonal(const float *g, int64_t n, int64_t stride) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)g[i * stride + i];
    }
    return sum / (double)n;
}

/* Factors the moments g, upper triangle, rows of stride numbers. */
static jang_status factor_moments(coupling *c, const gptq_matrix *m) {
    const float *g = m->outputs;
    int64_t n = c->n, stride = m->block;
    double mean = mean_diagonal(g, n, stride);
    if (!isfinite(mean)) {
        return ctx_fail(c->ctx, JANG_ERR_FORMAT, "the gradients of outputs are not finite");
    }
    double least = DAMPING * (1 + FEW * (double)n / (double)(m->n_gradients + 1));
    for (double damping = least; damping <= least * MAX_DAMPING; damping *= 10) {
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; k < n; k++) {
                int64_t a = c->order[n - 1 - i], b = c->order[n - 1 - k];
                c->factor[i * n + k] = g[(a < b ? a : b) * stride + (a < b ? b : a)];
            }
            c->factor[i * n + i] += (float)(mean > 0 ? damping * mean : 1.0);
        }
        if (blas_cholesky(c->ctx, c->factor, n)) {
            gptq_make_feedback(c->factor, n, c->n_wave);
            return JANG_OK;
        }
    }
    return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                    "the second moments of the outputs' gradients cannot be factored");
}

/* Rows [at, at + n) of the order, with targets that make up for the errors before them. */
static void aim_wave(coupling *c, const float *w, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float *row = w + c->order[at + i] * c->n_in;
        memcpy(c->errors + (at + i) * c->n_in, row, (size_t)c->n_in * sizeof *row);
    }
    memcpy(c->wave.w, c->errors + at * c->n_in, (size_t)(n * c->n_in) * sizeof(float));
    gemm_call g = {.m = n,
                   .n = c->n_in,
                   .k = at,
                   .trans_a = true,
                   .a = c->factor + at,
                   .lda = c->n,
                   .b = c->errors,
                   .ldb = c->n_in,
                   .c = c->wave.w,
                   .ldc = c->n_in,
                   .alpha = 1,
                   .beta = 1};
    if (at > 0) {
        blas_gemm_spread(c->ctx, &g);
    }
}

/* Puts a wave's outcome into its rows of the block m. */
static void take_wave(coupling *c, const gptq_matrix *m, int64_t n_groups, int64_t at, int64_t n) {
    size_t n_in = (size_t)c->n_in, grids = (size_t)n_groups * sizeof(float);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = c->order[at + i];
        const float *q = c->wave.w + i * c->n_in;
        float *error = c->errors + (at + i) * c->n_in;
        for (int64_t k = 0; k < c->n_in; k++) {
            error[k] -= q[k];
        }
        memcpy(m->w + row * c->n_in, q, n_in * sizeof *q);
        memcpy(m->codes + row * c->n_in, c->wave.codes + i * c->n_in, n_in);
        memcpy(m->scales + row * n_groups, c->wave.scales + i * n_groups, grids);
        memcpy(m->biases + row * n_groups, c->wave.biases + i * n_groups, grids);
    }
}

static jang_status quantize_block(coupling *c, gptq_job *job, const gptq_matrix *m) {
    int64_t n_groups = c->n_in / job->s->group;
    make_order(c);
    jang_status status = factor_moments(c, m);
    for (int64_t at = 0; at < c->n && status == JANG_OK; at += c->n_wave) {
        int64_t n = c->n - at < c->n_wave ? c->n - at : c->n_wave;
        aim_wave(c, m->w, at, n);
        c->wave.n_out = n;
        status = gptq_job_run(job, &c->wave);
        take_wave(c, m, n_groups, at, n);
    }
    return status;
}

static jang_status make_coupling(coupling *c, const gptq_site *s, ctx_t *ctx,
                                 const gptq_matrix *m) {
    int64_t n = m->n_out < m->block ? m->n_out : m->block, n_wave = wave_rows(n),
            n_groups = s->n_in / s->group;
    size_t row = (size_t)s->n_in * sizeof(float), grids = (size_t)n_groups * sizeof(float);
    *c = (coupling){.ctx = ctx,
                    .n_in = s->n_in,
                    .n_wave = n_wave,
                    .order = ctx_array(ctx, (size_t)n, sizeof *c->order),
                    .factor = ctx_array(ctx, (size_t)n, (size_t)n * sizeof(float)),
                    .errors = ctx_array(ctx, (size_t)n, row),
                    .wave = {.w = ctx_array(ctx, (size_t)n_wave, row),
                             .codes = ctx_array(ctx, (size_t)n_wave, (size_t)s->n_in),
                             .scales = ctx_array(ctx, (size_t)n_wave, grids),
                             .biases = ctx_array(ctx, (size_t)n_wave, grids),
                             .bits = m->bits,
                             .type = m->type}};
    const gptq_matrix *w = &c->wave;
    bool made = c->order && c->factor && c->errors && w->w && w->codes && w->scales && w->biases;
    return made ? JANG_OK : ctx_fail_memory(ctx, (size_t)n * (row + (size_t)n * sizeof(float)));
}

static void free_coupling(coupling *c) {
    void *all[] = {c->order,      c->factor,      c->errors,     c->wave.w,
                   c->wave.codes, c->wave.scales, c->wave.biases};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(c->ctx, all[i]);
    }
}

jang_status gptq_quantize_coupled(const gptq_site *s, ctx_t *ctx, gptq_matrix *m) {
    coupling c;
    gptq_job job = {0};
    int64_t block = m->block, n_groups = s->n_in / s->group;
    jang_status status = make_coupling(&c, s, ctx, m);
    if (status == JANG_OK) {
        status = gptq_job_open(&job, s, ctx, LATTICE_ROWS);
    }
    for (int64_t at = 0; at < m->n_out && status == JANG_OK; at += block) {
        gptq_matrix rows = {.w = m->w + at * s->n_in,
                            .codes = m->codes + at * s->n_in,
                            .scales = m->scales + at * n_groups,
                            .biases = m->biases + at * n_groups,
                            .outputs = m->outputs + at * block,
                            .block = block,
                            .n_gradients = m->n_gradients};
        c.n = m->n_out - at < block ? m->n_out - at : block;
        status = quantize_block(&c, &job, &rows);
    }
    if (job.s) {
        gptq_job_close(&job);
    }
    free_coupling(&c);
    return status;
}
