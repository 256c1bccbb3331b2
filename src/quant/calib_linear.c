/* calib_linear.c - products of a calibration: with a BLAS, by the original's weights or by those
 * that are quantized already, and stopping at the input that is to be studied. */
#include "quant/calib_runner.h"

#include "ops/hostbuf.h"
#include "quant/blas.h"
#include "quant/scaling.h"
#include "quant/widen.h"

#include <math.h>
#include <string.h>

#define SITE_BYTES ((size_t)768 << 20) /* of the experts that are studied in one pass */

/* ---- Weights ---- */

size_t runner_item(const runner *r, const ops_weight *w) {
    const char *name = model_weight_name(r->m, w);
    return name ? plan_find_module(r->c->plan, name) : NO_ITEM;
}

/* Makes room for n numbers in the scratch; NULL: no memory. */
static float *weight_room(runner *r, size_t n) {
    if (n > r->n_weight) {
        ctx_free(r->c->ctx, r->weight);
        r->weight = ctx_array(r->c->ctx, n, sizeof *r->weight);
        r->n_weight = r->weight ? n : 0;
        if (!r->weight) {
            r->status = ctx_fail_memory(r->c->ctx, n * sizeof *r->weight);
        }
    }
    return r->weight;
}

/* The original weight as f32, in scratch until the next call; NULL: no memory. */
static const float *original(runner *r, const weight_desc *d) {
    float *out = weight_room(r, (size_t)(d->n_out * d->n_in));
    if (out) {
        weight_widen(r->c->ctx, d, out);
    }
    return out;
}

/* A head's matrix of a finished one that is all heads' keys and values likewise. */
static const float *finished_head(runner *r, const weight_desc *d, size_t number, int head,
                                  const weight_place *p) {
    int64_t n_row = p->turned ? d->n_in : d->n_out, n = p->turned ? d->n_out : d->n_in;
    float *out = weight_room(r, (size_t)(2 * n_row * n));
    if (!out) {
        return NULL;
    }
    float *rows = p->turned ? out + n_row * n : out;
    work_rows_f32(rows, r->c->work, number, p->first + head * p->step, n_row);
    for (int64_t i = 0; p->turned && i < n_row; i++) {
        for (int64_t k = 0; k < n; k++) {
            out[k * n_row + i] = rows[i * n + k];
        }
    }
    return out;
}

/* An expert of a finished matrix likewise; place: of one that is a part of it, or NULL. */
static const float *finished_expert(runner *r, const weight_desc *d, size_t number, int expert,
                                    const weight_place *place) {
    if (place) {
        return finished_head(r, d, number, expert, place);
    }
    float *out = weight_room(r, (size_t)(d->n_out * d->n_in));
    if (out) {
        work_rows_f32(out, r->c->work, number, expert * d->n_out, d->n_out);
        scaling_undo(out, r->c->plan->items[number].part, expert * d->n_out, d->n_out);
    }
    return out;
}

/* ---- linear ---- */

static void multiply(runner *r, const float *w, ops_mat x, int64_t first, int64_t n,
                     const linear_item *item) {
    const weight_desc *d = &item->weight->d;
    gemm_call g = {.m = n,
                   .n = d->n_out,
                   .k = d->n_in,
                   .trans_b = true,
                   .a = host_row(x, first),
                   .lda = x.stride,
                   .b = w,
                   .ldb = d->n_in,
                   .c = host_row(item->y, first),
                   .ldc = item->y.stride,
                   .alpha = 1,
                   .beta = item->accumulate ? 1.0f : 0.0f,
                   .coarse = true};
    blas_gemm_spread(r->c->ctx, &g);
    for (int64_t i = first; d->bias && i < first + n; i++) {
        float *y = host_row(item->y, i);
        for (int64_t k = 0; k < d->n_out; k++) {
            y[k] += host_element(d->bias, d->bias_type, k);
        }
    }
}

/* Adds the squares of inputs to a matrix's importance. */
static void add_squares(runner *r, size_t number, ops_mat x) {
    float **all = r->c->importance;
    if (r->trying || x.width != r->c->plan->items[number].part->columns) {
        return;
    }
    if (!all[number]) {
        all[number] = ctx_zero(r->c->ctx, (size_t)x.width, sizeof **all);
        if (!all[number]) {
            r->status = ctx_fail_memory(r->c->ctx, (size_t)x.width * sizeof **all);
            return;
        }
    }
    float *sum = all[number];
    if (r->seen[number] != r->pass) { /* only the last pass over a stage counts */
        memset(sum, 0, (size_t)x.width * sizeof *sum);
        r->seen[number] = r->pass;
    }
    for (int64_t i = r->n_orig; i < x.n_row; i++) {
        const float *row = host_row(x, i);
        for (int64_t k = 0; k < x.width; k++) {
            sum[k] += row[k] * row[k];
        }
    }
}

void runner_load_finished(runner *r, size_t number) {
    work_view v;
    if (r->done[number] || !work_get(&v, r->c->work, number)) {
        return;
    }
    r->c->plan->items[number].type = v.type;
    r->done[number] = true;
}

/* A finished matrix that is not experts, as f32; NULL: it is not finished. */
static const float *finished(runner *r, size_t number) {
    const plan_item *item = number == NO_ITEM ? NULL : &r->c->plan->items[number];
    if (!item || !r->done[number] || r->quantized[number]) {
        return item ? r->quantized[number] : NULL;
    }
    r->quantized[number] = ctx_array(r->c->ctx, (size_t)item->part->params, sizeof(float));
    if (!r->quantized[number]) {
        r->status = ctx_fail_memory(r->c->ctx, (size_t)item->part->params * sizeof(float));
        return NULL;
    }
    work_rows_f32(r->quantized[number], r->c->work, number, 0, item->part->rows);
    scaling_undo(r->quantized[number], item->part, 0, item->part->rows);
    return r->quantized[number];
}

static void compute(runner *r, ops_mat x, const linear_item *item, size_t number) {
    const float *quantized = finished(r, number);
    int64_t n = quantized ? r->n_orig : x.n_row;
    if (n > 0 && r->status == JANG_OK) {
        const float *w = original(r, &item->weight->d);
        if (!w) {
            return;
        }
        multiply(r, w, x, 0, n, item);
    }
    if (quantized) {
        multiply(r, quantized, x, n, x.n_row - n, item);
    }
}

/* ---- Studying ---- */

#define HELD_OUT 8 /* one sequence of so many is */

bool runner_holds(const runner *r) {
    return r->c->thorough && r->n_seqs >= HELD_OUT;
}

/* Whether a token of the step, the original's not counted, is held out. */
static bool is_held(const runner *r, int64_t token) {
    return runner_holds(r) &&
           (r->step_first + (size_t)(token / r->c->n_seq)) % HELD_OUT == HELD_OUT - 1;
}

/* Makes n sites for inputs of this width; false: they are there, or it failed. */
static void make_sites(runner *r, int n, int64_t width) {
    if (r->sites || r->status != JANG_OK) {
        return;
    }
    r->sites = ctx_zero(r->c->ctx, (size_t)n, sizeof *r->sites);
    r->n_sites = r->sites ? n : 0;
    r->status = r->sites ? JANG_OK : ctx_fail_memory(r->c->ctx, (size_t)n * sizeof *r->sites);
    for (int i = 0; i < n && r->status == JANG_OK; i++) {
        r->status = gptq_site_new(&r->sites[i], r->c->ctx, width);
        if (r->status == JANG_OK && runner_holds(r)) {
            r->status = gptq_site_hold(&r->sites[i], r->c->ctx);
        }
    }
}

void runner_study(runner *r, const float *rows, int64_t stride, int64_t n_row, int64_t width) {
    r->reached = true;
    r->n_expert = 0;
    make_sites(r, 1, width);
    int64_t n = n_row - r->n_orig, step = runner_holds(r) ? r->c->n_seq : n;
    for (int64_t at = 0; at < n && r->status == JANG_OK; at += step) {
        r->status =
            gptq_site_add(&r->sites[0], r->c->ctx, rows + (r->n_orig + at) * stride,
                          r->n_orig ? rows + at * stride : NULL, stride, step, is_held(r, at));
    }
}

/* Notes the numbers of a call's weights. Returns whether some are still to be quantized, which are
 * then the items under study. */
static bool choose_items(runner *r, int call, const size_t *numbers, int n) {
    int n_pending = 0;
    for (int i = 0; i < n; i++) {
        if (numbers[i] != NO_ITEM && r->c->work) {
            runner_load_finished(r, numbers[i]);
            n_pending += !r->done[numbers[i]];
        }
    }
    if (!n_pending || call < r->target) {
        return false;
    }
    r->site_call = call;
    r->n_items = 0;
    for (int i = 0; i < n; i++) {
        if (numbers[i] != NO_ITEM && !r->done[numbers[i]]) {
            r->items[r->n_items++] = numbers[i];
        }
    }
    return true;
}

/* Which matrices of the plan the weights are, of the first of them; returns how many that are. The
 * squares of their inputs are added up where nothing else is looked for. */
static int find_items(size_t *numbers, runner *r, ops_mat x, const linear_item *items,
                      int n_items) {
    int n_known = n_items < MAX_ITEMS ? n_items : MAX_ITEMS;
    for (int i = 0; i < n_known; i++) {
        numbers[i] = runner_item(r, items[i].weight);
        if (numbers[i] != NO_ITEM && !r->c->work) {
            add_squares(r, numbers[i], x);
        }
    }
    return n_known;
}

static void compute_all(runner *r, ops_mat x, const linear_item *items, int n_items,
                        const size_t *numbers, int n_known) {
    for (int i = 0; i < n_items && r->status == JANG_OK; i++) {
        compute(r, x, &items[i], i < n_known ? numbers[i] : NO_ITEM);
    }
}

/* Products that are made before the first layer (Gemma 4's) are made anew by every step; they are
 * studied in passes of their own. */
static void compute_first(runner *r, ops_mat x, const linear_item *items, int n_items) {
    size_t numbers[MAX_ITEMS] = {0};
    int n_known = find_items(numbers, r, x, items, n_items);
    if (r->looks_first && !r->reached_first && choose_items(r, 0, numbers, n_known)) {
        runner_study(r, host_row(x, 0), x.stride, x.n_row, x.width);
        r->reached_first = true;
    }
    compute_all(r, x, items, n_items, numbers, n_known);
}

void runner_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    runner *r = (runner *)(void *)o->table;
    if (r->begins) {
        compute_first(r, x, items, n_items);
        return;
    }
    int call = r->call++;
    if (r->skip || r->status != JANG_OK || (r->again && call < r->kept.call)) {
        return;
    }
    if (r->again && call == r->kept.call) {
        runner_put_back(r, x);
    }
    if (r->head) {
        r->items[0] = runner_item(r, items[0].weight);
        r->n_items = 1;
        for (int64_t i = 0; i < x.n_row; i++, r->n_head_rows++) {
            memcpy(r->head_rows + r->n_head_rows * x.width, host_row(x, i),
                   (size_t)x.width * sizeof(float));
        }
        return;
    }
    size_t numbers[MAX_ITEMS] = {0};
    int n_known = find_items(numbers, r, x, items, n_items);
    if (choose_items(r, call, numbers, n_known)) {
        if (!r->trying) {
            runner_study(r, host_row(x, 0), x.stride, x.n_row, x.width);
            runner_keep(r, call, x);
        }
        r->skip = true;
        return;
    }
    compute_all(r, x, items, n_items, numbers, n_known);
}

/* ---- Experts ---- */

/* The routes of a step to one expert; the original's tokens come first. */
typedef struct expert_rows {
    const ops_routes *routes;
    ops_mat x;
    int expert;
    const int32_t *list;
    int32_t n, n_orig; /* of the list */
} expert_rows;

static expert_rows rows_of(const runner *r, const ops_routes *routes, ops_mat x, int expert) {
    expert_rows e = {.routes = routes, .x = x, .expert = expert};
    e.list = routes->order + routes->first[expert];
    e.n = routes->first[expert + 1] - routes->first[expert];
    while (e.n_orig < e.n && e.list[e.n_orig] / routes->n_used < r->n_orig) {
        e.n_orig++;
    }
    return e;
}

static void gather(float *out, const expert_rows *e, int32_t from, int32_t to) {
    for (int32_t i = from; i < to; i++, out += e->x.width) {
        memcpy(out, host_route_input(e->routes, e->x, e->list[i]),
               (size_t)e->x.width * sizeof *out);
    }
}

/* What the original model has for the inputs of the quantized one: of the same tokens; where it
 * sent such a token to other experts, and has no input for this one, the same input. */
static void gather_original(float *out, const expert_rows *e, int64_t n_orig) {
    int n_used = e->routes->n_used;
    bool by_token = n_used > 1 && e->x.n_row == e->routes->n_tok;
    for (int32_t i = e->n_orig; i < e->n; i++, out += e->x.width) {
        int64_t token = e->list[i] / n_used - n_orig;
        const float *row = host_route_input(e->routes, e->x, e->list[i]);
        row = by_token ? host_row(e->x, token) : row;
        for (int k = 0; k < n_used && !by_token; k++) {
            int64_t route = token * n_used + k;
            row = e->routes->expert[route] == e->expert ? host_row(e->x, route) : row;
        }
        memcpy(out, row, (size_t)e->x.width * sizeof *out);
    }
}

/* An expert's outputs count by the routes' weights, its inputs by their roots:
 * docs/quantization.md.
 */
static void weigh_rows(float *rows, const expert_rows *e) {
    for (int32_t i = e->n_orig; i < e->n; i++, rows += e->x.width) {
        float by = sqrtf(fmaxf(e->routes->weight[e->list[i]], 0) * (float)e->routes->n_used);
        for (int64_t k = 0; k < e->x.width; k++) {
            rows[k] *= by;
        }
    }
}

/* Adds an expert's inputs. */
static void add_expert(runner *r, gptq_site *site, const expert_rows *e, bool held) {
    int64_t n = e->n - e->n_orig;
    size_t bytes = (size_t)(n * e->x.width) * sizeof(float);
    float *rows = n ? ctx_alloc(r->c->ctx, 2 * bytes) : NULL;
    if (n && !rows) {
        r->status = ctx_fail_memory(r->c->ctx, 2 * bytes);
        return;
    }
    if (n) {
        float *originals = r->n_orig ? rows + n * e->x.width : NULL;
        gather(rows, e, e->n_orig, e->n);
        weigh_rows(rows, e);
        if (originals) {
            gather_original(originals, e, r->n_orig);
            weigh_rows(originals, e);
        }
        r->status = gptq_site_add(site, r->c->ctx, rows, originals, e->x.width, n, held);
    }
    ctx_free(r->c->ctx, rows);
}

static void study_expert(runner *r, gptq_site *site, const expert_rows *e) {
    if (!runner_holds(r)) {
        add_expert(r, site, e, false);
        return;
    }
    int32_t *list = ctx_array(r->c->ctx, (size_t)e->n + 1, sizeof *list);
    if (!list) {
        r->status = ctx_fail_memory(r->c->ctx, (size_t)e->n * sizeof *list);
        return;
    }
    for (int held = 0; held < 2 && r->status == JANG_OK; held++) {
        expert_rows some = *e;
        some.list = list;
        some.n = e->n_orig;
        memcpy(list, e->list, (size_t)e->n_orig * sizeof *list);
        for (int32_t i = e->n_orig; i < e->n; i++) {
            if (is_held(r, e->list[i] / e->routes->n_used - r->n_orig) == (held == 1)) {
                list[some.n++] = e->list[i];
            }
        }
        add_expert(r, site, &some, held == 1);
    }
    ctx_free(r->c->ctx, list);
}

static void study_experts(runner *r, const ops_routes *routes, ops_mat x) {
    size_t site_bytes = 3 * (size_t)(x.width * x.width) * sizeof(float);
    size_t fit = SITE_BYTES / site_bytes, left = (size_t)(routes->n_expert - r->expert_first);
    fit = fit < 1 ? 1 : fit;
    r->reached = true;
    r->n_expert = routes->n_expert;
    make_sites(r, (int)(left < fit ? left : fit), x.width);
    for (int i = 0; i < r->n_sites && r->status == JANG_OK; i++) {
        expert_rows e = rows_of(r, routes, x, r->expert_first + i);
        study_expert(r, &r->sites[i], &e);
    }
}

/* y of some routes = W x + b, with w [n_out, n_in]. */
static void multiply_routes(runner *r, const float *w, const expert_rows *e, int32_t from,
                            int32_t to, const expert_item *item) {
    const weight_desc d = host_expert(item->weight, e->expert);
    int64_t n = to - from;
    float *rows = ctx_array(r->c->ctx, (size_t)n, (size_t)(d.n_in + d.n_out) * sizeof *rows);
    if (!rows) {
        r->status = ctx_fail_memory(r->c->ctx, (size_t)(n * (d.n_in + d.n_out)) * sizeof *rows);
        return;
    }
    float *y = rows + n * d.n_in;
    gather(rows, e, from, to);
    gemm_call g = {.m = n,
                   .n = d.n_out,
                   .k = d.n_in,
                   .trans_b = true,
                   .a = rows,
                   .lda = d.n_in,
                   .b = w,
                   .ldb = d.n_in,
                   .c = y,
                   .ldc = d.n_out,
                   .alpha = 1,
                   .coarse = true};
    blas_gemm_spread(r->c->ctx, &g);
    for (int64_t i = 0; i < n; i++) {
        float *out = host_row(item->y, e->list[from + i]);
        for (int64_t k = 0; k < d.n_out; k++) {
            out[k] = y[i * d.n_out + k] + (d.bias ? host_element(d.bias, d.bias_type, k) : 0);
        }
    }
    ctx_free(r->c->ctx, rows);
}

static void compute_expert(runner *r, const expert_rows *e, const expert_item *item, size_t number,
                           const weight_place *place) {
    const weight_desc d = host_expert(item->weight, e->expert);
    bool quantized = number != NO_ITEM && r->done[number];
    int32_t n = quantized ? e->n_orig : e->n;
    const float *w = n > 0 ? original(r, &d) : NULL;
    if (w) {
        multiply_routes(r, w, e, 0, n, item);
    }
    if (n == e->n || r->status != JANG_OK) {
        return;
    }
    w = finished_expert(r, &d, number, e->expert, place);
    if (w) {
        multiply_routes(r, w, e, n, e->n, item);
    }
}

/* The number of an experts' weight; NO_ITEM too where the plan's matrix is not all of them. */
static size_t experts_item(const runner *r, const ops_weight *w) {
    size_t number = runner_item(r, w);
    const plan_item *item = number == NO_ITEM ? NULL : &r->c->plan->items[number];
    bool whole =
        item && item->part->rows == w->d.n_out * w->d.n_expert && item->part->columns == w->d.n_in;
    return whole ? number : NO_ITEM;
}

/* The matrix of all heads' keys and values that a weight is a part of, or NO_ITEM. */
static size_t heads_item(const runner *r, const ops_weight *w, const weight_place *place) {
    bool apart = !place || runner_item(r, w) != NO_ITEM;
    size_t number = apart ? NO_ITEM : plan_find_module(r->c->plan, place->module);
    int64_t latent = apart ? 0 : place->turned ? w->d.n_out : w->d.n_in;
    return number != NO_ITEM && r->c->plan->items[number].part->columns == latent ? number
                                                                                  : NO_ITEM;
}

/* Products with the parts of such a matrix. What it multiplies, if not absorbed, are the latent
 * vectors, and those are studied: the values that the stage has stored. */
static void run_heads(runner *r, int call, size_t number, const ops_routes *routes, ops_mat x,
                      const expert_item *item) {
    const weight_place *place = model_weight_place(r->m, item->weight);
    ops_mat c = r->stored_values;
    if (!r->c->work) {
        if (place->turned) { /* keys and values have the same inputs: once will do */
            add_squares(r, number, c);
        }
        r->experts(r->o, routes, x, item, 1);
        return;
    }
    if (choose_items(r, call, &number, 1)) {
        if (!r->trying) {
            runner_study(r, host_row(c, 0), c.stride, c.n_row, c.width);
        }
        r->skip = true;
        return;
    }
    for (int e = 0; e < routes->n_expert && r->status == JANG_OK; e++) {
        expert_rows rows = rows_of(r, routes, x, e);
        compute_expert(r, &rows, item, number, place);
    }
}

void runner_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                    int n_items) {
    runner *r = (runner *)(void *)o->table;
    int call = r->call++;
    if (r->skip || r->status != JANG_OK || (r->again && call < r->kept.call)) {
        return;
    }
    size_t heads = heads_item(r, items[0].weight, model_weight_place(r->m, items[0].weight));
    if (n_items == 1 && heads != NO_ITEM) {
        run_heads(r, call, heads, routes, x, &items[0]);
        return;
    }
    size_t numbers[MAX_ITEMS] = {0};
    int n_known = n_items < MAX_ITEMS ? n_items : MAX_ITEMS, n_planned = 0;
    for (int i = 0; i < n_known; i++) {
        numbers[i] = experts_item(r, items[i].weight);
        size_t number = runner_item(r, items[i].weight);
        n_planned += numbers[i] != NO_ITEM;
        if (number != NO_ITEM && (!r->c->work || numbers[i] == NO_ITEM)) {
            add_squares(r, number, x);
        }
    }
    if (!r->c->work || !n_planned || n_items > n_known) {
        r->experts(o, routes, x, items, n_items);
        return;
    }
    if (choose_items(r, call, numbers, n_known)) {
        if (!r->trying) {
            study_experts(r, routes, x);
        }
        r->skip = true;
        return;
    }
    for (int e = 0; e < routes->n_expert && r->status == JANG_OK; e++) {
        expert_rows rows = rows_of(r, routes, x, e);
        for (int i = 0; i < n_items && rows.n && r->status == JANG_OK; i++) {
            compute_expert(r, &rows, &items[i], numbers[i], NULL);
        }
    }
}
