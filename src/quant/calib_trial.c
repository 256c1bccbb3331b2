/* calib_trial.c - quantizing some rows of a matrix under study, and matrices without feedback. */
#include "quant/calib_trial.h"

#include "base/half.h"
#include "base/pool.h"
#include "quant/blas.h"

#include <string.h>

#define TRIAL_ROWS 64
#define FIT_ROWS 16 /* of a task */

/* ---- Fitting rows ---- */

typedef struct fit_job {
    quant_fn fn;
    quant_block block;
} fit_job;

static void fit_rows(void *arg, int task, int thread) {
    (void)thread;
    const fit_job *j = arg;
    quant_block b = j->block;
    int64_t first = (int64_t)task * FIT_ROWS, n_groups = b.n_cols / b.group;
    b.n_rows = b.n_rows - first < FIT_ROWS ? b.n_rows - first : FIT_ROWS;
    b.w += first * b.n_cols;
    b.codes += first * b.n_cols;
    b.scales += first * n_groups;
    b.biases += first * n_groups;
    (void)j->fn(&b); /* weights have been checked */
}

jang_status runner_fit(runner *r, const gptq_site *s, const gptq_matrix *m, int group) {
    float *importance = ctx_array(r->c->ctx, (size_t)s->n_in, sizeof *importance);
    if (!importance) {
        return ctx_fail_memory(r->c->ctx, (size_t)s->n_in * sizeof *importance);
    }
    for (int64_t i = 0; i < s->n_in; i++) {
        importance[i] = s->h[i * s->n_in + i];
    }
    fit_job j = {r->c->fn,
                 {.w = m->w,
                  .n_rows = m->n_out,
                  .n_cols = s->n_in,
                  .bits = m->bits,
                  .group = group,
                  .codes = m->codes,
                  .scales = m->scales,
                  .biases = m->biases,
                  .type = m->type,
                  .importance = importance}};
    pool_run(ctx_pool(r->c->ctx), fit_rows, &j, (int)((m->n_out + FIT_ROWS - 1) / FIT_ROWS));
    ctx_free(r->c->ctx, importance);
    return JANG_OK;
}

static float stored(float x, dtype type) {
    return type == DT_BF16 ? bf16_to_f32(f32_to_bf16(x)) : f16_to_f32(f32_to_f16(x));
}

/* Weights become what their codes say. */
static void read_codes(const gptq_matrix *m, int64_t n_in, int group) {
    for (int64_t i = 0; i < m->n_out * n_in; i++) {
        m->w[i] = (float)m->codes[i] * stored(m->scales[i / group], m->type) +
                  stored(m->biases[i / group], m->type);
    }
}

/* ---- Trials ---- */

void trial_free(trial *t) {
    ctx_t *ctx = t->r->c->ctx;
    void *all[] = {t->rows, t->work, t->product, t->cross, t->codes, t->scales, t->biases};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(ctx, all[i]);
    }
    *t = (trial){.r = t->r};
}

/* C = A B for matrices of n_in columns. */
static void multiply(const trial *t, float *c, const float *a, const float *b) {
    int64_t n_in = t->site->n_in;
    gemm_call g = {.m = t->n_rows,
                   .n = n_in,
                   .k = n_in,
                   .a = a,
                   .lda = n_in,
                   .b = b,
                   .ldb = n_in,
                   .c = c,
                   .ldc = n_in,
                   .alpha = 1};
    blas_gemm_spread(t->r->c->ctx, &g);
}

/* Reads rows taken evenly from [first, first + n). */
jang_status trial_make(trial *t, runner *r, const gptq_site *site, const plan_item *item,
                       int64_t first, int64_t n) {
    ctx_t *ctx = r->c->ctx;
    size_t n_in = (size_t)site->n_in, n_rows = (size_t)(n < TRIAL_ROWS ? n : TRIAL_ROWS);
    *t = (trial){.r = r, .site = site, .item = item, .n_rows = (int64_t)n_rows};
    t->rows = ctx_array(ctx, n_rows, n_in * sizeof(float));
    t->work = ctx_array(ctx, n_rows, n_in * sizeof(float));
    t->product = ctx_array(ctx, n_rows, n_in * sizeof(float));
    t->cross = site->z_held ? ctx_array(ctx, n_rows, n_in * sizeof(float)) : NULL;
    t->codes = ctx_array(ctx, n_rows, n_in);
    t->scales = ctx_array(ctx, n_rows, n_in / (size_t)item->group * sizeof(float));
    t->biases = ctx_array(ctx, n_rows, n_in / (size_t)item->group * sizeof(float));
    if (!t->rows || !t->work || !t->product || (site->z_held && !t->cross) || !t->codes ||
        !t->scales || !t->biases) {
        trial_free(t);
        return ctx_fail_memory(ctx, 3 * n_rows * n_in * sizeof(float));
    }
    jang_status status = JANG_OK;
    for (int64_t i = 0; i < t->n_rows && status == JANG_OK; i++) {
        status = part_rows_f32(t->rows + i * site->n_in, r->c->source, item->part,
                               first + i * n / t->n_rows, 1);
    }
    if (status == JANG_OK && t->cross) {
        multiply(t, t->cross, t->rows, site->z_held);
    }
    if (status != JANG_OK) {
        trial_free(t);
    }
    return status;
}

static jang_status quantize_trial(trial *t, const float *factors, const trial_way *way) {
    runner *r = t->r;
    int64_t n_in = t->site->n_in;
    gptq_site scaled;
    jang_status status = gptq_site_copy(&scaled, r->c->ctx, t->site);
    if (status != JANG_OK) {
        return status;
    }
    scaled.share = (float)way->share;
    gptq_site_scale(&scaled, factors);
    for (int64_t i = 0; i < t->n_rows * n_in; i++) {
        t->work[i] = t->rows[i] * factors[i % n_in];
    }
    gptq_matrix m = {.w = t->work,
                     .n_out = t->n_rows,
                     .bits = t->item->bits,
                     .type = t->item->type,
                     .codes = t->codes,
                     .scales = t->scales,
                     .biases = t->biases};
    if (r->c->feedback) {
        status = gptq_prepare(&scaled, r->c->ctx, t->item->group, way->damping);
        status = status == JANG_OK ? gptq_quantize(&scaled, r->c->ctx, &m) : status;
    } else {
        status = runner_fit(r, &scaled, &m, t->item->group);
        read_codes(&m, n_in, t->item->group);
    }
    gptq_site_free(&scaled, r->c->ctx);
    return status;
}

jang_status trial_run(double *loss, trial *t, const float *factors, const trial_way *way) {
    int64_t n_in = t->site->n_in;
    jang_status status = quantize_trial(t, factors, way);
    if (status != JANG_OK) {
        return status;
    }
    for (int64_t i = 0; i < t->n_rows * n_in; i++) {
        t->work[i] = t->rows[i] - t->work[i] / factors[i % n_in];
    }
    multiply(t, t->product, t->work, t->site->h_held ? t->site->h_held : t->site->h);
    for (int64_t i = 0; i < t->n_rows * n_in; i++) {
        double both = (double)t->product[i] + (t->cross ? 2 * (double)t->cross[i] : 0);
        *loss += (double)t->work[i] * both;
    }
    return JANG_OK;
}
