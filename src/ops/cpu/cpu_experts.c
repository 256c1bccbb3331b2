/* cpu_experts.c - products with experts: each with the rows of the tokens sent to it, as if it were
 * a weight by itself.
 *
 * A run takes experts as they come in routes' order, as many as q8 has room for, and rounds their
 * inputs into blocks of rows that belong to one expert each (a slot). An expert with few rows
 * goes through the gemv kernel, the others through the gemm; both give a row the same bits. The
 * slots' products are one list of pieces. With one token in the step, whose row all of its experts
 * read, that row is rounded once. */
#include "ops/cpu/cpu_ops.h"

#include <math.h>

#define SPLIT_ELEMENTS 16384 /* steps of more elements are worth waking the other threads */
#define F32_ROWS 8           /* rows of a weight that f32 inputs meet one after the other */

typedef struct experts_run {
    cpu_ops *c;
    const ops_routes *routes;
    ops_mat x;
    const expert_item *items[CPU_MAX_ITEMS];
    int64_t piece[CPU_MAX_ITEMS]; /* rows of a piece of this item */
    int first[CPU_MAX_ITEMS + 1]; /* number of the item's first piece in a slot */
    int n_items, n_slots;
    bool rounded; /* x is read in 8 bits */
} experts_run;

/* ---- Memory and routing -----------------------------------------------------------------------
 */

jang_status cpu_routes_new(ops_routes **out, ops *o, int32_t n_tok, int n_expert, int n_used) {
    cpu_ops *c = cpu_of(o);
    ops_routes *routes;
    jang_status status = host_routes_new(&routes, o, n_tok, n_expert, n_used);
    if (status != JANG_OK) {
        return status;
    }
    status = cpu_reserve_linear(c, c->n_tok, c->max_in, n_used);
    if (status != JANG_OK) {
        host_routes_free(o, routes);
        return status;
    }
    *out = routes;
    return JANG_OK;
}

/* What the row by row operators of this file need. */
typedef struct rows_run {
    cpu_ops *c;
    ops_routes *routes;
    const route_desc *desc;
    ops_mat x, x2, y;
    float alpha, limit;
    bool accumulate, plain;
    void (*row)(const struct rows_run *run, int64_t t);
} rows_run;

static void rows_task(void *arg, int task, int thread) {
    const rows_run *run = arg;
    (void)thread;
    run->row(run, task);
}

static void run_rows(const rows_run *run, int64_t n_row, int64_t width) {
    if (n_row > 1 && n_row * width > SPLIT_ELEMENTS) {
        pool_run(run->c->pool, rows_task, (void *)(uintptr_t)run, (int)n_row);
        return;
    }
    for (int64_t t = 0; t < n_row; t++) {
        run->row(run, t);
    }
}

static void route_row(const rows_run *run, int64_t t) {
    ops_routes *routes = run->routes;
    int64_t at = t * routes->n_used;
    host_route_row(run->desc, host_row(run->x, t), routes->n_expert, routes->n_used,
                   routes->expert + at, routes->weight + at);
}

void cpu_route(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes) {
    if (!host_route_begin(o, desc, logits, routes)) {
        return;
    }
    rows_run run = {.c = cpu_of(o), .routes = routes, .desc = desc, .x = logits, .row = route_row};
    run_rows(&run, routes->n_tok, logits.width * routes->n_used);
    host_route_sort(routes);
}

/* ---- One piece --------------------------------------------------------------------------------
 */

/* The rows of q8 that belong to a slot. */
static q8_rows slot_rows(const experts_run *run, const expert_slot *slot) {
    return q8_part(&run->c->q8, slot->base, slot->n_row);
}

/* Puts results [n_row][n] with the bias into the routes' rows. */
static void put_results(const expert_slot *slot, const weight_desc *d, ops_mat y, int64_t from,
                        int64_t n, const float *results) {
    float bias[CPU_OUT_ROWS];
    for (int64_t r = 0; r < n; r++) {
        bias[r] = d->bias ? host_element(d->bias, d->bias_type, from + r) : 0;
    }
    for (int32_t i = 0; i < slot->n_row; i++) {
        float *out = host_row(y, slot->routes[i]) + from;
        for (int64_t r = 0; r < n; r++) {
            out[r] = results[i * n + r] + bias[r];
        }
    }
}

/* Rows from .. to-1 of an expert with f32 inputs, a few rows at a time so that they stay in the
 * cache while the inputs pass. */
static void exact_slot(const experts_run *run, const expert_slot *slot, const weight_desc *d,
                       ops_mat y, int64_t from, int64_t to, float *held, float *scratch) {
    for (int64_t r = from; r < to; r += F32_ROWS) {
        int64_t n = to - r < F32_ROWS ? to - r : F32_ROWS;
        const float *rows = scratch;
        weight_desc block = {.n_in = d->n_in, .type = DT_F32, .data = rows};
        for (int64_t i = 0; d->bits && i < n; i++) {
            weight_row_f32(scratch + i * d->n_in, d, r + i);
        }
        for (int32_t i = 0; i < slot->n_row; i++) {
            const float *x = host_route_input(run->routes, run->x, slot->routes[i]);
            cpu_exact_rows(run->c, d->bits ? &block : d, x, 0, 1, d->bits ? 0 : r,
                           d->bits ? n : r + n, held + i * n, n, NULL);
        }
        put_results(slot, d, y, r, n, held);
    }
}

static void run_piece(void *arg, int piece, int thread) {
    const experts_run *run = arg;
    cpu_ops *c = run->c;
    const affine_kernels *k = c->kernels->affine;
    uint8_t *scratch = c->thread_bytes + (size_t)thread * c->thread_stride;
    float *held = (float *)(void *)(scratch + c->thread_out);
    int a_slot = run->first[run->n_items], i = 0;
    const expert_slot *slot = &c->slots[piece / a_slot];
    for (piece %= a_slot; piece >= run->first[i + 1];) {
        i++;
    }
    const expert_item *item = run->items[i];
    const weight_desc d = host_expert(item->weight, slot->expert);
    int64_t from = (piece - run->first[i]) * run->piece[i], end = from + run->piece[i];
    end = end < d.n_out ? end : d.n_out;
    if (!run->rounded) {
        exact_slot(run, slot, &d, item->y, from, end, held, (float *)(void *)scratch);
        return;
    }
    q8_rows x = slot_rows(run, slot);
    int64_t step = slot->for_gemv ? CPU_OUT_ROWS : k->gemm_rows;
    for (; from < end; from += step) {
        int64_t to = from + step < end ? from + step : end;
        if (slot->for_gemv) {
            k->gemv(&d, &x, from, to, held, to - from);
        } else {
            rows_ahead ahead = {to < end ? &d : NULL, to};
            k->gemm(&d, &x, from, to, ahead, held, to - from, scratch);
        }
        put_results(slot, &d, item->y, from, to - from, held);
    }
}

/* ---- A run ------------------------------------------------------------------------------------
 */

static void quantize_slot(void *arg, int number, int thread) {
    const experts_run *run = arg;
    const expert_slot *slot = &run->c->slots[number];
    const weight_desc *d = &run->items[0]->weight->d;
    (void)thread;
    q8_rows rows = slot_rows(run, slot);
    q8_order order = slot->for_gemv ? Q8_FOR_GEMV : Q8_FOR_GEMM;
    for (int32_t i = 0; i < slot->n_row; i++) {
        const float *x = host_route_input(run->routes, run->x, slot->routes[i]);
        cpu_quantize(run->c, &rows, i, x, d, order);
    }
}

/* Takes experts from *next on into slots, as many as there is room for. Returns their rows. */
static int64_t take_slots(experts_run *run, int *next) {
    cpu_ops *c = run->c;
    const ops_routes *routes = run->routes;
    int64_t base = 0;
    bool shared = run->x.n_row == 1; /* one input for all */
    run->n_slots = 0;
    for (; *next < routes->n_expert; ++*next) {
        int32_t first = routes->first[*next], n = routes->first[*next + 1] - first;
        if (n == 0) {
            continue;
        }
        if (base + n > c->n_rounded) {
            break;
        }
        c->slots[run->n_slots++] = (expert_slot){.expert = *next,
                                                 .routes = routes->order + first,
                                                 .n_row = n,
                                                 .base = shared ? 0 : base,
                                                 .for_gemv = n <= c->kernels->affine->gemv_max};
        base += n;
    }
    return base;
}

/* Cuts the products of the slots into pieces and lets the threads do them. */
static void run_slots(experts_run *run, int64_t n_row) {
    cpu_ops *c = run->c;
    size_t total = 0;
    bool gemm = false;
    for (int i = 0; i < run->n_items; i++) {
        const ops_weight *w = run->items[i]->weight;
        total += (size_t)run->n_slots * (size_t)w->d.n_out * host_row_bytes(w);
    }
    for (int s = 0; s < run->n_slots; s++) {
        gemm = gemm || (run->rounded && !c->slots[s].for_gemv);
    }
    bool alone = total / (size_t)run->n_slots * (size_t)n_row <= CPU_DIRECT_BYTES;
    for (int i = 0; i < run->n_items; i++) {
        const ops_weight *w = run->items[i]->weight;
        int64_t rows = cpu_piece_rows(c, w, total), unit = c->kernels->affine->gemm_rows;
        rows = gemm ? (rows + unit - 1) / unit * unit : rows;
        run->piece[i] = rows;
        run->first[i + 1] = run->first[i] + (int)((w->d.n_out + rows - 1) / rows);
    }
    int n_quantize = !run->rounded ? 0 : run->x.n_row == 1 ? 1 : run->n_slots;
    bool split = n_row * run->x.width > SPLIT_ELEMENTS;
    for (int s = 0; s < n_quantize && !split; s++) {
        quantize_slot(run, s, 0);
    }
    if (split && n_quantize) {
        pool_run(c->pool, quantize_slot, run, n_quantize);
    }
    int n_pieces = run->n_slots * run->first[run->n_items];
    for (int p = 0; alone && p < n_pieces; p++) {
        run_piece(run, p, 0);
    }
    if (!alone) {
        pool_run(c->pool, run_piece, run, n_pieces);
    }
}

/* Runs the items that read x in one form. */
static void run_items(experts_run *run) {
    cpu_ops *c = run->c;
    const weight_desc *d = &run->items[0]->weight->d;
    run->rounded = cpu_form_key(c, d) != 0;
    if (run->rounded) {
        c->q8.code_stride = (d->n_in + Q8_PAD - 1) / Q8_PAD * Q8_PAD;
        c->q8.group_stride = (d->n_in / d->group + 15) / 16 * 16;
    }
    for (int next = 0; next < run->routes->n_expert;) {
        int64_t n_row = take_slots(run, &next);
        if (n_row > 0) {
            run_slots(run, n_row);
        }
    }
}

void cpu_linear_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items) {
    cpu_ops *c = cpu_of(o);
    if (!host_experts_check(o, routes, x, items, n_items)) {
        return;
    }
    if (routes->n_tok > c->n_tok || routes->n_used > c->n_used || n_items > CPU_MAX_ITEMS) {
        host_fail(o, JANG_ERR_ARGUMENT, "linear_experts: %d tokens, but reserve said %lld",
                  routes->n_tok, (long long)c->n_tok);
        return;
    }
    bool done[CPU_MAX_ITEMS] = {false};
    for (int i = 0; i < n_items && routes->n_tok > 0; i++) {
        if (done[i]) {
            continue;
        }
        experts_run run = {.c = c, .routes = routes, .x = x};
        int key = cpu_form_key(c, &items[i].weight->d);
        for (int j = i; j < n_items; j++) {
            if (!done[j] && cpu_form_key(c, &items[j].weight->d) == key) {
                run.items[run.n_items++] = &items[j];
                done[j] = true;
            }
        }
        run_items(&run);
    }
}

/* ---- Sums and gates ---------------------------------------------------------------------------
 */

static void sum_row(const rows_run *run, int64_t t) {
    const float_kernels *k = run->c->kernels->floats;
    const ops_routes *routes = run->routes;
    int64_t first = t * routes->n_used, n = run->y.width;
    float *y = host_row(run->y, t);
    for (int64_t i = first; i < first + routes->n_used; i++) {
        float weight = run->plain ? 1 : routes->weight[i];
        if (i == first && !run->accumulate) {
            k->scale(y, host_row(run->x, i), n, weight);
        } else {
            k->add_scaled(y, host_row(run->x, i), n, weight);
        }
    }
}

void cpu_route_all(ops *o, int32_t n_tok, ops_routes *routes) {
    (void)host_route_all(o, n_tok, routes);
}

static void take_row(const rows_run *run, int64_t route) {
    run->c->kernels->floats->scale(host_row(run->y, route),
                                   host_row(run->x, route / run->routes->n_used), run->x.width,
                                   run->routes->weight[route]);
}

void cpu_take_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y) {
    rows_run run = {
        .c = cpu_of(o), .routes = (ops_routes *)(uintptr_t)routes, .x = x, .y = y, .row = take_row};
    run_rows(&run, (int64_t)routes->n_tok * routes->n_used, x.width);
}

void cpu_sum_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y, bool accumulate,
                    bool plain) {
    rows_run run = {.c = cpu_of(o),
                    .routes = (ops_routes *)(uintptr_t)routes,
                    .x = x,
                    .y = y,
                    .accumulate = accumulate,
                    .plain = plain,
                    .row = sum_row};
    run_rows(&run, routes->n_tok, y.width * routes->n_used);
}

static void clamped_row(const rows_run *run, int64_t t) {
    run->c->kernels->floats->gated_clamped(host_row(run->y, t), host_row(run->x, t),
                                           host_row(run->x2, t), run->y.width, run->alpha,
                                           run->limit);
}

void cpu_gated_clamped(ops *o, float alpha, float limit, ops_mat gate, ops_mat up, ops_mat y) {
    rows_run run = {.c = cpu_of(o),
                    .x = gate,
                    .x2 = up,
                    .y = y,
                    .alpha = alpha,
                    .limit = limit,
                    .row = clamped_row};
    run_rows(&run, y.n_row, y.width);
}

static void add_gated_row(const rows_run *run, int64_t t) {
    float factor = 1 / (1 + expf(-host_row(run->x, t)[0]));
    run->c->kernels->floats->add_scaled(host_row(run->y, t), host_row(run->x2, t), run->y.width,
                                        factor);
}

void cpu_add_gated(ops *o, ops_mat gate, ops_mat x, ops_mat y) {
    rows_run run = {.c = cpu_of(o), .x = gate, .x2 = x, .y = y, .row = add_gated_row};
    run_rows(&run, y.n_row, y.width);
}
