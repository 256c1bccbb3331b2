/* calib_site.c - quantizing the matrices whose inputs a calibration has studied. */
#include "quant/calib_runner.h"

#include "quant/blas.h"

#include <math.h>

#define AIM_SHARE 0.5   /* of the way to a target: docs/quantization-notes.md */
#define BLOCK_ROWS 4096 /* of a matrix that are in memory as f32 */

/* ---- Experts with few tokens ---- */

/* Experts that few tokens were sent to lean on what all experts' inputs are like: as if each had
 * seen twice as many more of those as inputs have numbers. */
static jang_status blend_sites(runner *r) {
    gptq_site all;
    int64_t n_in = r->sites[0].n_in;
    jang_status status = gptq_site_new(&all, r->c->ctx, n_in);
    if (status != JANG_OK) {
        return status;
    }
    for (int i = 0; i < r->n_sites; i++) {
        gptq_site_blend(&all, &r->sites[i], 1);
        all.n_tok += r->sites[i].n_tok;
    }
    double share = all.n_tok ? 2 * (double)n_in / (double)all.n_tok : 0;
    for (int i = 0; i < r->n_sites; i++) {
        gptq_site_blend(&r->sites[i], &all, share);
    }
    gptq_site_free(&all, r->c->ctx);
    return JANG_OK;
}

/* What was measured to be best for experts (docs/quantization-notes.md). */
#define EXPERT_DAMPING 2 /* times as much as others */
#define EXPERT_SWEEPS 4
#define EXPERT_STRETCH 0.5

/* The fewer tokens an input has for its numbers, the less their moments are believed. */
static double damping_of(const runner *r, const gptq_site *s, double damping) {
    return damping * (r->n_expert ? EXPERT_DAMPING : 1) *
           (1 + 10 * (double)s->n_in / (double)(s->n_tok + 1));
}

jang_status runner_aim(runner *r, double damping) {
    jang_status status = JANG_OK;
    for (int i = 0; i < r->n_sites && status == JANG_OK; i++) {
        gptq_site *s = &r->sites[i];
        status = gptq_aim(s, r->c->ctx, damping_of(r, s, damping), AIM_SHARE);
    }
    return status;
}

/* ---- Matrices ---- */

/* Codes of the whole item, made when its first rows are quantized. */
static jang_status make_codes(runner *r, int k) {
    const plan_item *item = &r->c->plan->items[r->items[k]];
    ctx_t *ctx = r->c->ctx;
    item_codes *c = &r->codes[k];
    size_t n = (size_t)item->part->params, n_groups = n / (size_t)item->group;
    if (c->codes) {
        return JANG_OK;
    }
    c->codes = ctx_alloc(ctx, n);
    c->scales = ctx_array(ctx, n_groups, sizeof *c->scales);
    c->biases = ctx_array(ctx, n_groups, sizeof *c->biases);
    return c->codes && c->scales && c->biases ? JANG_OK : ctx_fail_memory(ctx, n + n_groups * 8);
}

static jang_status read_rows(float *out, runner *r, size_t number, int64_t first, int64_t n) {
    const model_part *part = r->c->plan->items[number].part;
    jang_status status = part_rows_f32(out, r->c->source, part, first, n);
    for (int64_t i = 0; i < n * part->columns && status == JANG_OK; i++) {
        if (!isfinite(out[i])) {
            status = ctx_fail(
                r->c->ctx, JANG_ERR_FORMAT, "%s: tensor %s: NaN or infinite weights in row %lld",
                checkpoint_path(r->c->source), part->name, (long long)(first + i / part->columns));
        }
    }
    return status;
}

/* Goes through an item's weights before any is quantized: refuses those that are not finite, and
 * takes bf16 scales where f16 cannot hold them. */
static jang_status check_item(runner *r, size_t number, float *rows) {
    plan_item *item = &r->c->plan->items[number];
    jang_status status = JANG_OK;
    float most = 0;
    for (int64_t at = 0; at < item->part->rows && status == JANG_OK; at += BLOCK_ROWS) {
        int64_t n = item->part->rows - at < BLOCK_ROWS ? item->part->rows - at : BLOCK_ROWS;
        status = read_rows(rows, r, number, at, n);
        for (int64_t i = 0; i < n * item->part->columns && status == JANG_OK; i++) {
            most = fabsf(rows[i]) > most ? fabsf(rows[i]) : most;
        }
    }
    if (status == JANG_OK && most > 30000.0f) {
        plan_widen(item);
    }
    return status;
}

/* Rows [first, last) by one site. */
static jang_status quantize_rows(runner *r, int k, const gptq_site *s, int64_t first, int64_t last,
                                 float *rows) {
    const plan_item *item = &r->c->plan->items[r->items[k]];
    int64_t columns = item->part->columns, n_groups = columns / item->group;
    const output_moments *o = r->c->outputs ? &r->c->outputs[r->items[k]] : NULL;
    jang_status status = JANG_OK;
    for (int64_t at = first; at < last && status == JANG_OK; at += BLOCK_ROWS) {
        gptq_matrix m = {.w = rows,
                         .n_out = last - at < BLOCK_ROWS ? last - at : BLOCK_ROWS,
                         .bits = item->bits,
                         .type = item->type,
                         .codes = r->codes[k].codes + at * columns,
                         .scales = r->codes[k].scales + at * n_groups,
                         .biases = r->codes[k].biases + at * n_groups};
        if (o && o->squares) {
            m.outputs = o->squares + at * o->block;
            m.block = o->block;
            m.n_gradients = o->n_tok[first / (last - first)];
        }
        status = read_rows(rows, r, r->items[k], at, m.n_out);
        if (status == JANG_OK) {
            status = r->c->feedback ? gptq_quantize(s, r->c->ctx, &m)
                                    : runner_fit(r, s, &m, item->group);
        }
    }
    return status;
}

static const plan_item *item_at(const runner *r, int k) {
    return &r->c->plan->items[r->items[k]];
}

/* Rows of the items that are in memory at a time, at most. */
static int64_t block_rows(const runner *r) {
    int64_t most = 0;
    for (int k = 0; k < r->n_items; k++) {
        int64_t n = item_at(r, k)->part->rows;
        most = n > most ? n : most;
    }
    return most < BLOCK_ROWS ? most : BLOCK_ROWS;
}

/* Makes room for the codes of the items, and looks at their weights once. */
static jang_status begin_items(runner *r, float *rows) {
    jang_status status = JANG_OK;
    for (int k = 0; k < r->n_items && status == JANG_OK; k++) {
        status = make_codes(r, k);
        if (status == JANG_OK && r->expert_first == 0) {
            status = check_item(r, r->items[k], rows);
        }
    }
    return status;
}

static bool same_groups(const runner *r) {
    bool same = true;
    for (int k = 1; k < r->n_items; k++) {
        same &= item_at(r, k)->group == item_at(r, 0)->group;
    }
    return same;
}

/* The rows of all items of this group size that have the site's inputs. */
static jang_status quantize_group(runner *r, int site, int group, double damping, float *rows) {
    gptq_site copy = {0}, *s = &r->sites[site];
    jang_status status = JANG_OK;
    if (r->c->feedback && !same_groups(r)) { /* the others need the site as it is */
        status = gptq_site_copy(&copy, r->c->ctx, s);
        s = &copy;
    }
    if (status == JANG_OK && r->c->feedback) {
        status = gptq_prepare(s, r->c->ctx, group, damping);
    }
    for (int k = 0; k < r->n_items && status == JANG_OK; k++) {
        const plan_item *item = item_at(r, k);
        int64_t n = r->n_expert ? item->part->rows / r->n_expert : item->part->rows;
        int64_t first = (r->expert_first + site) * n;
        if (item->group == group) {
            status = quantize_rows(r, k, s, first, first + n, rows);
        }
    }
    gptq_site_free(&copy, r->c->ctx);
    return status;
}

/* All rows of the items that have the site's inputs, a size of groups after the other. */
static jang_status quantize_site(runner *r, int site, double damping, float *rows) {
    jang_status status = JANG_OK;
    for (int k = 0; k < r->n_items && status == JANG_OK; k++) {
        int group = item_at(r, k)->group;
        bool had = false;
        for (int i = 0; i < k; i++) {
            had |= item_at(r, i)->group == group;
        }
        status = had ? JANG_OK : quantize_group(r, site, group, damping, rows);
    }
    return status;
}

static jang_status put_items(runner *r) {
    jang_status status = JANG_OK;
    for (int k = 0; k < r->n_items && status == JANG_OK; k++) {
        size_t number = r->items[k];
        const item_codes *c = &r->codes[k];
        work_matrix stored = {c->codes, c->scales, c->biases, r->c->plan->items[number].type};
        status = work_put(r->c->work, number, &stored);
        r->done[number] = status == JANG_OK;
    }
    return status;
}

jang_status runner_quantize(bool *all, runner *r, double damping) {
    jang_status status = r->n_expert ? blend_sites(r) : JANG_OK;
    r->damping = damping_of(r, &r->sites[0], damping);
    bool tuned = r->sites[0].h_held != NULL;
    for (int i = 0; i < r->n_sites; i++) {
        blas_mirror(r->sites[i].h, r->sites[i].n_in);
        if (r->n_expert) {
            r->sites[i].n_polish = EXPERT_SWEEPS;
            r->sites[i].stretch = EXPERT_STRETCH;
        }
    }
    if (status == JANG_OK && tuned) {
        status = runner_tune(r);
        r->damping = r->damping > damping || !r->head ? r->damping : damping;
    }
    if (status == JANG_OK) {
        status = runner_choose_factors(r);
    }
    for (int i = 0; i < r->n_sites; i++) {
        gptq_site_merge(&r->sites[i], r->c->ctx);
    }
    runner_apply_factors(r);
    size_t n_rows = (size_t)block_rows(r), row_bytes = (size_t)r->sites[0].n_in * sizeof(float);
    float *rows = ctx_array(r->c->ctx, n_rows, row_bytes);
    if (status == JANG_OK) {
        status = rows ? begin_items(r, rows) : ctx_fail_memory(r->c->ctx, n_rows * row_bytes);
    }
    for (int i = 0; i < r->n_sites && status == JANG_OK; i++) {
        double own = tuned ? r->damping : damping_of(r, &r->sites[i], damping);
        status = quantize_site(r, i, own, rows);
    }
    ctx_free(r->c->ctx, rows);
    r->expert_first += r->n_sites;
    *all = r->expert_first >= r->n_expert;
    if (status == JANG_OK && *all) {
        status = put_items(r);
    }
    return status;
}

void runner_free_sites(runner *r) {
    for (int i = 0; i < r->n_sites; i++) {
        gptq_site_free(&r->sites[i], r->c->ctx);
    }
    ctx_free(r->c->ctx, r->sites);
    r->sites = NULL;
    r->n_sites = 0;
}

void runner_free_codes(runner *r) {
    for (int i = 0; i < MAX_ITEMS; i++) {
        ctx_free(r->c->ctx, r->codes[i].codes);
        ctx_free(r->c->ctx, r->codes[i].scales);
        ctx_free(r->c->ctx, r->codes[i].biases);
        r->codes[i] = (item_codes){0};
    }
    r->expert_first = 0;
}
