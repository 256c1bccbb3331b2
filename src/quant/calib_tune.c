/* calib_tune.c - damping and targets of the matrices under study, by tokens that are held out.
 *
 * What an error of the weights costs is known from the calibration text only; the fewer its tokens,
 * the more of what they say is chance. Damping says how much of it is believed. Each is tried on
 * some rows, and what disturbs the outputs least on tokens that had no part in it is taken. */
#include "quant/calib_trial.h"

#include "quant/blas.h"

#define TUNE_SITES 8 /* experts that are tried */

static const double dampings[] = {0.01, 0.03, 0.1, 0.3};
static const double shares[] = {0, 0.5, 1};
#define N_DAMPINGS (sizeof dampings / sizeof *dampings)
#define N_WAYS (N_DAMPINGS * sizeof shares / sizeof *shares)

static trial_way way_of(size_t i) {
    return (trial_way){dampings[i % N_DAMPINGS], shares[i / N_DAMPINGS]};
}

static jang_status try_ways(double *losses, runner *r, int item, int site, const float *ones) {
    const plan_item *it = &r->c->plan->items[r->items[item]];
    const gptq_site *s = &r->sites[site];
    int64_t n = r->n_expert ? it->part->rows / r->n_expert : it->part->rows;
    trial t;
    jang_status status = trial_make(&t, r, s, it, (r->expert_first + site) * n, n);
    for (size_t i = 0; i < N_WAYS && status == JANG_OK; i++) {
        trial_way way = way_of(i);
        status = trial_run(&losses[i], &t, ones, &way);
    }
    trial_free(&t);
    return status;
}

jang_status runner_tune(runner *r) {
    double losses[N_WAYS] = {0};
    int64_t n_in = r->sites[0].n_in;
    float *ones = ctx_array(r->c->ctx, (size_t)n_in, sizeof *ones);
    jang_status status = ones ? JANG_OK : ctx_fail_memory(r->c->ctx, (size_t)n_in * sizeof *ones);
    for (int64_t i = 0; i < n_in && ones; i++) {
        ones[i] = 1;
    }
    for (int i = 0; i < r->n_sites; i++) {
        blas_mirror(r->sites[i].h_held, n_in);
    }
    int step = r->n_sites > TUNE_SITES ? r->n_sites / TUNE_SITES : 1;
    for (int i = 0; i < r->n_sites && status == JANG_OK; i += step) {
        for (int k = 0; k < r->n_items && status == JANG_OK; k++) {
            status = try_ways(losses, r, k, i, ones);
        }
    }
    size_t best = 0;
    for (size_t i = 1; i < N_WAYS; i++) {
        best = losses[i] < losses[best] ? i : best;
    }
    r->damping = way_of(best).damping;
    for (int i = 0; i < r->n_sites; i++) {
        r->sites[i].share = (float)way_of(best).share;
        r->sites[i].n_polish = 6;
    }
    ctx_free(r->c->ctx, ones);
    return status;
}
