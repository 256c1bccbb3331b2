/* calib_scale.c - choosing factors of inputs for the matrices under study (scaling.h). */
#include "quant/calib_trial.h"

#include "base/file.h"
#include "quant/blas.h"
#include "quant/scaling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TRIAL_SITES 8    /* experts that are tried */
#define MAX_EXPONENT 4.0 /* factors are 2^-4 .. 2^4 */

/* Shares of the inputs' sizes, as exponents, that are tried; 0 leaves them as they are. */
static const double powers[] = {0, 0.25, 0.5, 0.75, 1};
#define N_POWERS (sizeof powers / sizeof *powers)

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
    const trial_way way = {.damping = r->damping, .share = runner_holds(r) ? (double)s->share : 0};
    for (size_t p = 0; p < N_POWERS && status == JANG_OK; p++) {
        const gptq_site *from = n_shared > 1 ? r->sites : s;
        make_factors(factors, g, from, n_shared, powers[p]);
        spread_factors(factors + g->n_channels, g, factors, s->n_in);
        status = trial_run(&losses[p], &t, factors + g->n_channels, &way);
    }
    trial_free(&t);
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

jang_status runner_choose_factors(runner *r) {
    const model_part *part = r->c->plan->items[r->items[0]].part;
    scaling_group *g = r->c->scalings ? scalings_find(r->c->scalings, part) : NULL;
    jang_status status = JANG_OK;
    if (g && !g->decided && may_scale(r, g)) {
        status = decide(r, g);
    }
    return status;
}

void runner_apply_factors(runner *r) {
    const model_part *part = r->c->plan->items[r->items[0]].part;
    const scaling_group *g = r->c->scalings ? scalings_find(r->c->scalings, part) : NULL;
    for (int i = 0; i < r->n_sites && g && g->decided; i++) {
        int64_t set = g->n_sets == 1 ? 0 : r->expert_first + i;
        gptq_site_scale(&r->sites[i], part->scaling->columns + set * part->columns);
    }
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
