/* calib_scale.c - choosing factors of inputs for the matrices under study (scaling.h), and matrices
 * that are quantized without error feedback. */
#include "quant/calib_runner.h"

#include "base/file.h"
#include "base/half.h"
#include "base/pool.h"
#include "quant/blas.h"
#include "quant/scaling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TRIAL_ROWS 64    /* of a matrix, in all its sites under trial together at most twice that */
#define TRIAL_SITES 8    /* experts that are tried */
#define MAX_EXPONENT 4.0 /* factors are 2^-4 .. 2^4 */
#define FIT_ROWS 16      /* of a task */

/* Shares of the inputs' sizes, as exponents, that are tried; 0 leaves them as they are. */
static const double powers[] = {0, 0.25, 0.5, 0.75, 1};
#define N_POWERS (sizeof powers / sizeof *powers)

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

/* Rows of one matrix that a trial quantizes, and room for it. */
typedef struct trial {
    runner *r;
    const gptq_site *site;
    const plan_item *item;
    int64_t n_rows;
    float *rows, *work, *product; /* [n_rows, n_in]: as they are, quantized, errors times H */
    uint8_t *codes;
    float *scales, *biases;
} trial;

static void trial_free(trial *t) {
    ctx_t *ctx = t->r->c->ctx;
    void *all[] = {t->rows, t->work, t->product, t->codes, t->scales, t->biases};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(ctx, all[i]);
    }
}

/* Reads rows taken evenly from [first, first + n). */
static jang_status trial_make(trial *t, runner *r, const gptq_site *site, const plan_item *item,
                              int64_t first, int64_t n) {
    ctx_t *ctx = r->c->ctx;
    size_t n_in = (size_t)site->n_in, n_rows = (size_t)(n < TRIAL_ROWS ? n : TRIAL_ROWS);
    *t = (trial){.r = r, .site = site, .item = item, .n_rows = (int64_t)n_rows};
    t->rows = ctx_array(ctx, n_rows, n_in * sizeof(float));
    t->work = ctx_array(ctx, n_rows, n_in * sizeof(float));
    t->product = ctx_array(ctx, n_rows, n_in * sizeof(float));
    t->codes = ctx_array(ctx, n_rows, n_in);
    t->scales = ctx_array(ctx, n_rows, n_in / (size_t)item->group * sizeof(float));
    t->biases = ctx_array(ctx, n_rows, n_in / (size_t)item->group * sizeof(float));
    if (!t->rows || !t->work || !t->product || !t->codes || !t->scales || !t->biases) {
        trial_free(t);
        return ctx_fail_memory(ctx, 3 * n_rows * n_in * sizeof(float));
    }
    jang_status status = JANG_OK;
    for (int64_t i = 0; i < t->n_rows && status == JANG_OK; i++) {
        status = part_rows_f32(t->rows + i * site->n_in, r->c->source, item->part,
                               first + i * n / t->n_rows, 1);
    }
    if (status != JANG_OK) {
        trial_free(t);
    }
    return status;
}

static jang_status quantize_trial(trial *t, const float *factors) {
    runner *r = t->r;
    int64_t n_in = t->site->n_in;
    gptq_site scaled;
    jang_status status = gptq_site_copy(&scaled, r->c->ctx, t->site);
    if (status != JANG_OK) {
        return status;
    }
    scaled.share = 0;
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
        status = gptq_prepare(&scaled, r->c->ctx, t->item->group, r->c->damping);
        status = status == JANG_OK ? gptq_quantize(&scaled, r->c->ctx, &m) : status;
    } else {
        status = runner_fit(r, &scaled, &m, t->item->group);
        read_codes(&m, n_in, t->item->group);
    }
    gptq_site_free(&scaled, r->c->ctx);
    return status;
}

/* Adds the error of the outputs, with the inputs scaled so. */
static jang_status try_factors(double *loss, trial *t, const float *factors) {
    int64_t n_in = t->site->n_in;
    jang_status status = quantize_trial(t, factors);
    if (status != JANG_OK) {
        return status;
    }
    for (int64_t i = 0; i < t->n_rows * n_in; i++) {
        t->work[i] = t->rows[i] - t->work[i] / factors[i % n_in];
    }
    gemm_call g = {.m = t->n_rows,
                   .n = n_in,
                   .k = n_in,
                   .a = t->work,
                   .lda = n_in,
                   .b = t->site->h,
                   .ldb = n_in,
                   .c = t->product,
                   .ldc = n_in,
                   .alpha = 1};
    blas_gemm_spread(t->r->c->ctx, &g);
    for (int64_t i = 0; i < t->n_rows * n_in; i++) {
        *loss += (double)t->work[i] * (double)t->product[i];
    }
    return JANG_OK;
}

/* ---- Factors ---- */

/* 2^round(power * log2(size / mean size)) of each channel, by the sites' inputs. */
static void make_factors(float *factors, const scaling_group *g, const gptq_site *sites,
                         int n_sites, double power) {
    double mean = 0;
    for (int64_t k = 0; k < g->n_channels; k++) {
        factors[k] = 0;
    }
    for (int s = 0; s < n_sites; s++) {
        for (int64_t c = 0; c < sites[s].n_in; c++) {
            factors[scaling_channel(g, c)] += sites[s].h[c * sites[s].n_in + c];
        }
    }
    for (int64_t k = 0; k < g->n_channels; k++) {
        factors[k] = factors[k] > 1e-30f ? log2f(factors[k]) / 2 : -50.0f;
        mean += (double)factors[k] / (double)g->n_channels;
    }
    for (int64_t k = 0; k < g->n_channels; k++) {
        double e = round(power * ((double)factors[k] - mean));
        factors[k] = (float)exp2(fmax(-MAX_EXPONENT, fmin(MAX_EXPONENT, e)));
    }
}

static void spread_factors(float *columns, const scaling_group *g, const float *factors,
                           int64_t n_in) {
    for (int64_t c = 0; c < n_in; c++) {
        columns[c] = factors[scaling_channel(g, c)];
    }
}

/* Adds the losses of all powers for an item's rows at one site. */
static jang_status try_powers(double *losses, runner *r, const scaling_group *g, int item, int site,
                              int n_shared) {
    const plan_item *it = &r->c->plan->items[r->items[item]];
    const gptq_site *s = &r->sites[site];
    int64_t n = r->n_expert ? it->part->rows / r->n_expert : it->part->rows;
    float *factors = ctx_array(r->c->ctx, (size_t)(g->n_channels + s->n_in), sizeof *factors);
    if (!factors) {
        return ctx_fail_memory(r->c->ctx, (size_t)(g->n_channels + s->n_in) * sizeof *factors);
    }
    trial t;
    jang_status status = trial_make(&t, r, s, it, site * n, n);
    for (size_t p = 0; p < N_POWERS && status == JANG_OK; p++) {
        const gptq_site *from = n_shared > 1 ? r->sites : s;
        make_factors(factors, g, from, n_shared, powers[p]);
        spread_factors(factors + g->n_channels, g, factors, s->n_in);
        status = try_factors(&losses[p], &t, factors + g->n_channels);
    }
    if (t.rows) {
        trial_free(&t);
    }
    ctx_free(r->c->ctx, factors);
    return status;
}

/* Finds the factors of one set: of the site of that number, or of all sites. */
static jang_status choose_set(float *factors, runner *r, const scaling_group *g, int site,
                              int n_shared) {
    double losses[N_POWERS] = {0};
    jang_status status = JANG_OK;
    int step = n_shared > TRIAL_SITES ? n_shared / TRIAL_SITES : 1;
    for (int s = 0; s < n_shared && status == JANG_OK; s += step) {
        for (int k = 0; k < r->n_items && status == JANG_OK; k++) {
            status = try_powers(losses, r, g, k, site + s, n_shared);
        }
    }
    size_t best = 0;
    for (size_t p = 1; p < N_POWERS; p++) {
        best = losses[p] < losses[best] ? p : best;
    }
    make_factors(factors, g, r->sites + site, n_shared, powers[best]);
    return status;
}

/* ---- Groups at work ---- */

static size_t number_of(const runner *r, const model_part *part) {
    for (size_t i = 0; i < r->c->plan->n_items; i++) {
        if (r->c->plan->items[i].part == part) {
            return i;
        }
    }
    return NO_ITEM;
}

/* Whether nothing stands in the way: no consumer is finished, no part's codes are kept, and all
 * experts are under study. */
static bool may_scale(const runner *r, const scaling_group *g) {
    bool free = r->n_expert == 0 ? g->n_sets == 1 : r->n_sites == r->n_expert;
    free &= g->n_sets == 1 || g->n_sets == r->n_expert;
    for (int i = 0; i < g->n_consumers; i++) {
        size_t n = number_of(r, g->consumers[i]);
        free &= n != NO_ITEM && !r->done[n] && !r->c->plan->items[n].kept;
    }
    for (int i = 0; i < g->n_makers; i++) {
        size_t n = number_of(r, g->makers[i]);
        free &= n != NO_ITEM && !r->c->plan->items[n].kept;
    }
    return free;
}

static char *factors_path(const runner *r, const scaling_group *g) {
    char name[48];
    snprintf(name, sizeof name, "%08zu.factors", number_of(r, g->consumers[0]));
    return path_join(r->c->ctx, r->c->work->path, name);
}

static size_t n_factors(const scaling_group *g) {
    return (size_t)(g->n_sets * g->n_channels);
}

static jang_status decide(runner *r, scaling_group *g) {
    ctx_t *ctx = r->c->ctx;
    float *factors = ctx_array(ctx, n_factors(g), sizeof *factors);
    char *path = factors_path(r, g);
    jang_status status =
        factors && path ? JANG_OK : ctx_fail_memory(ctx, n_factors(g) * sizeof *factors);
    int n_shared = g->n_sets == 1 ? r->n_sites : 1;
    for (int64_t i = 0; i < g->n_sets && status == JANG_OK; i++) {
        status = choose_set(factors + i * g->n_channels, r, g, (int)i, n_shared);
    }
    if (status == JANG_OK) {
        status = file_write(ctx, path, factors, n_factors(g) * sizeof *factors);
    }
    if (status == JANG_OK) {
        scaling_set(g, factors);
    }
    ctx_free(ctx, path);
    ctx_free(ctx, factors);
    return status;
}

jang_status runner_scale(runner *r) {
    const model_part *part = r->c->plan->items[r->items[0]].part;
    scaling_group *g = r->c->scalings ? scalings_find(r->c->scalings, part) : NULL;
    jang_status status = JANG_OK;
    for (int i = 0; i < r->n_sites && g; i++) {
        blas_mirror(r->sites[i].h, r->sites[i].n_in);
    }
    if (g && !g->decided && may_scale(r, g)) {
        status = decide(r, g);
    }
    for (int i = 0; i < r->n_sites && g && g->decided && status == JANG_OK; i++) {
        int64_t set = g->n_sets == 1 ? 0 : r->expert_first + i;
        gptq_site_scale(&r->sites[i], part->scaling->columns + set * part->columns);
    }
    return status;
}

/* Takes over what an earlier, killed run has decided. */
jang_status runner_load_factors(runner *r) {
    jang_status status = JANG_OK;
    for (size_t i = 0; r->c->scalings && i < r->c->scalings->n_groups && status == JANG_OK; i++) {
        scaling_group *g = &r->c->scalings->groups[i];
        char *path = factors_path(r, g), *data = NULL;
        size_t n = 0;
        if (!path) {
            return ctx_fail_memory(r->c->ctx, strlen(r->c->work->path));
        }
        if (file_exists(path)) {
            status = file_read(&data, &n, r->c->ctx, path, (size_t)1 << 30);
        }
        if (data && n == n_factors(g) * sizeof(float)) {
            scaling_set(g, (const float *)(const void *)data);
        }
        ctx_free(r->c->ctx, data);
        ctx_free(r->c->ctx, path);
    }
    return status;
}
