/* tape_experts.c - routing, products of experts, and their gradients.
 *
 * Which experts a token takes has no gradient; by how much it takes each of them has. */
#include "quant/tape_impl.h"

#include "base/softmax.h"

#include <math.h>
#include <string.h>

/* A choice of experts, as those who use it find it. */
typedef struct route_note {
    tape_note note;
    const ops_routes *routes;
    route_desc d;
    ops_mat logits;      /* buf NULL: all experts, by 1 */
    const float *inputs; /* the logits [n_tok, n_expert] */
    int32_t n_tok;
    int n_expert, n_used;
    int32_t *expert;          /* [n_tok * n_used] */
    int32_t *first, *order;   /* as in ops_routes */
    float *weight, *d_weight; /* [n_tok * n_used] */
} route_note;

/* ---- Routing ---- */

/* The score of each chosen expert, and the gradients of the scores: those of the weights through
 * the division by their sum and the factors. */
static void back_weights(const route_desc *d, const int32_t *expert, const float *scores,
                         const float *d_weight, int n_used, float *d_score) {
    float sum = d->sum_eps, dot = 0;
    for (int k = 0; k < n_used; k++) {
        float factor = d->scale;
        factor *= d->expert_scale
                      ? host_element(d->expert_scale->d.data, d->expert_scale->d.type, expert[k])
                      : 1;
        d_score[k] = d_weight[k] * factor;
        sum += scores[k];
        dot += d_score[k] * scores[k];
    }
    for (int k = 0; k < n_used && d->renormalise; k++) {
        d_score[k] = d_score[k] / sum - dot / (sum * sum);
    }
}

/* The gradient of one token's logits. */
static void back_route_row(const route_note *r, int32_t token, float *d_logits) {
    const float *x = r->inputs + (int64_t)token * r->n_expert;
    const int32_t *expert = r->expert + (int64_t)token * r->n_used;
    const float *d_weight = r->d_weight + (int64_t)token * r->n_used;
    float all[OPS_MAX_EXPERTS], scores[OPS_MAX_EXPERTS], d_score[OPS_MAX_EXPERTS], dot = 0;
    for (int k = 0; k < r->n_used; k++) {
        scores[k] = x[expert[k]];
    }
    bool chosen = r->d.score == ROUTE_SOFTMAX_CHOSEN;
    if (r->d.score == ROUTE_SOFTMAX) {
        softmax(all, x, r->n_expert);
    } else if (chosen) {
        softmax(scores, scores, r->n_used);
    }
    for (int k = 0; k < r->n_used; k++) {
        scores[k] = r->d.score == ROUTE_SOFTMAX   ? all[expert[k]]
                    : r->d.score == ROUTE_SIGMOID ? 1 / (1 + expf(-scores[k]))
                                                  : scores[k];
    }
    back_weights(&r->d, expert, scores, d_weight, r->n_used, d_score);
    for (int k = 0; k < r->n_used; k++) {
        dot += d_score[k] * scores[k];
    }
    for (int k = 0; k < r->n_used; k++) {
        float s = scores[k];
        d_logits[expert[k]] += r->d.score == ROUTE_SIGMOID ? d_score[k] * s * (1 - s)
                                                           : s * (d_score[k] - (chosen ? dot : 0));
    }
    for (int i = 0; i < r->n_expert && r->d.score == ROUTE_SOFTMAX; i++) {
        d_logits[i] -= all[i] * dot;
    }
}

/* The same for ROUTE_SPARSEMIXER: each score is a softmax over the experts not chosen before it
 * whose logits are near its own. */
static void back_sparse_row(const route_note *r, int32_t token, float *d_logits) {
    const float *x = r->inputs + (int64_t)token * r->n_expert;
    const int32_t *expert = r->expert + (int64_t)token * r->n_used;
    float p[OPS_MAX_EXPERTS], scores[OPS_MAX_EXPERTS], d_score[OPS_MAX_EXPERTS];
    for (int pass = 0; pass < 2; pass++) {
        bool taken[OPS_MAX_EXPERTS] = {false};
        for (int k = 0; k < r->n_used; k++) {
            float top = x[expert[k]], sum = 0;
            for (int i = 0; i < r->n_expert; i++) {
                float factor = fabsf(x[i]) > top ? fabsf(x[i]) : top;
                bool left_out = taken[i] || (top - x[i]) / factor > 2 * r->d.jitter;
                p[i] = left_out ? 0 : expf(x[i] - top);
                sum += p[i];
            }
            scores[k] = 1 / sum;
            for (int i = 0; i < r->n_expert && pass == 1; i++) {
                d_logits[i] += d_score[k] * scores[k] * ((i == expert[k]) - p[i] / sum);
            }
            taken[expert[k]] = true;
        }
        if (pass == 0) {
            back_weights(&r->d, expert, scores, r->d_weight + (int64_t)token * r->n_used, r->n_used,
                         d_score);
        }
    }
}

static void back_route(tape *t, tape_note *note) {
    const route_note *r = (const route_note *)note;
    for (int32_t i = 0; r->logits.buf && i < r->n_tok; i++) {
        float *d_logits = tape_grad_row(t, r->logits, i);
        if (r->d.score == ROUTE_SPARSEMIXER) {
            back_sparse_row(r, i, d_logits);
        } else {
            back_route_row(r, i, d_logits);
        }
    }
}

static void note_routes(route_note *r, tape *t, const ops_routes *routes) {
    size_t n = (size_t)routes->n_tok * (size_t)routes->n_used;
    r->routes = routes;
    r->n_tok = routes->n_tok;
    r->n_expert = routes->n_expert;
    r->n_used = routes->n_used;
    r->expert = tape_alloc(t, n, sizeof *r->expert);
    r->order = tape_alloc(t, n, sizeof *r->order);
    r->first = tape_alloc(t, (size_t)routes->n_expert + 1, sizeof *r->first);
    r->weight = tape_floats(t, (int64_t)n);
    r->d_weight = tape_floats(t, (int64_t)n);
    if (r->expert && r->order && r->first && r->weight && r->d_weight) {
        memcpy(r->expert, routes->expert, n * sizeof *r->expert);
        memcpy(r->order, routes->order, n * sizeof *r->order);
        memcpy(r->first, routes->first, ((size_t)routes->n_expert + 1) * sizeof *r->first);
        memcpy(r->weight, routes->weight, n * sizeof *r->weight);
    }
}

static void run_route(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes) {
    tape *t = tape_of(o);
    t->own->route(o, desc, logits, routes);
    route_note *r = tape_new_note(t, sizeof *r, back_route);
    if (r) {
        r->d = *desc;
        r->logits = logits;
        r->inputs = tape_keep(t, logits);
        note_routes(r, t, routes);
    }
}

static void run_route_all(ops *o, int32_t n_tok, ops_routes *routes) {
    tape *t = tape_of(o);
    t->own->route_all(o, n_tok, routes);
    route_note *r = tape_new_note(t, sizeof *r, back_route);
    if (r) {
        note_routes(r, t, routes);
    }
}

/* The choice that was made last for these routes; NULL: nothing is recorded. */
static route_note *find_route(const tape *t, const ops_routes *routes) {
    for (tape_note *n = t->records ? t->last : NULL; n; n = n->before) {
        route_note *r = (route_note *)n;
        if (n->back == back_route && r->routes == routes) {
            return r;
        }
    }
    return NULL;
}

/* ---- Sums and copies by routes ---- */

typedef struct sum_note {
    tape_note note;
    route_note *routes;
    ops_mat x, y;
    const float *inputs; /* x [x.n_row, x.width] */
    bool accumulate, plain;
} sum_note;

static void back_sum(tape *t, tape_note *note) {
    const sum_note *s = (const sum_note *)note;
    const route_note *r = s->routes;
    int64_t width = s->y.width;
    float *g = s->accumulate ? tape_look(t, s->y) : tape_take(t, s->y);
    for (int64_t i = 0; g && i < (int64_t)r->n_tok * r->n_used; i++) {
        const float *from = g + i / r->n_used * width, *x = s->inputs + i * width;
        float *to = tape_grad_row(t, s->x, i), weight = s->plain ? 1 : r->weight[i], dot = 0;
        for (int64_t k = 0; k < width; k++) {
            to[k] += weight * from[k];
            dot += from[k] * x[k];
        }
        r->d_weight[i] += s->plain ? 0 : dot;
    }
}

static void run_sum_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y, bool accumulate,
                           bool plain) {
    tape *t = tape_of(o);
    route_note *r = find_route(t, routes);
    sum_note *s = r ? tape_new_note(t, sizeof *s, back_sum) : NULL;
    if (s) {
        *s = (sum_note){s->note, r, x, y, NULL, accumulate, plain};
        s->x.n_row = (int64_t)r->n_tok * r->n_used;
        s->y.n_row = r->n_tok;
        s->inputs = tape_keep(t, s->x);
    }
    t->own->sum_routes(o, routes, x, y, accumulate, plain);
}

static void back_take_routes(tape *t, tape_note *note) {
    const sum_note *s = (const sum_note *)note;
    const route_note *r = s->routes;
    int64_t width = s->x.width;
    float *g = tape_take(t, s->y);
    for (int64_t i = 0; g && i < s->y.n_row; i++) {
        const float *from = g + i * width, *x = s->inputs + i / r->n_used * width;
        float *to = tape_grad_row(t, s->x, i / r->n_used), dot = 0;
        for (int64_t k = 0; k < width; k++) {
            to[k] += r->weight[i] * from[k];
            dot += from[k] * x[k];
        }
        r->d_weight[i] += dot;
    }
}

static void run_take_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y) {
    tape *t = tape_of(o);
    route_note *r = find_route(t, routes);
    sum_note *s = r ? tape_new_note(t, sizeof *s, back_take_routes) : NULL;
    if (s) {
        *s = (sum_note){.note = s->note, .routes = r, .x = x, .y = y};
        s->x.n_row = r->n_tok;
        s->y.n_row = (int64_t)r->n_tok * r->n_used;
        s->inputs = tape_keep(t, s->x);
    }
    t->own->take_routes(o, routes, x, y);
}

/* ---- Products ---- */

/* Products of routes with their experts; the way there and the way back go expert by expert. */
typedef struct experts_note {
    tape_note note;
    tape *t;
    route_note *routes;
    const ops_weight *w;
    ops_mat x, y;
    const float *inputs; /* x [x.n_row, x.width] */
    float *outputs;      /* [n_route, y.width]: y, or its gradient, by routes in their order */
    float *rows;         /* [n_route, x.width]: x in that order; then its gradient */
    float *d_rows;
    const tape_matrix *m; /* [n_expert] */
} experts_note;

static int64_t input_row(const experts_note *e, int32_t route) {
    return e->x.n_row == e->routes->n_tok ? route / e->routes->n_used : route;
}

/* Inputs in the order of their experts. */
static void gather(void *arg, int64_t first, int64_t last) {
    const experts_note *e = arg;
    for (int64_t i = first; i < last; i++) {
        int64_t row = input_row(e, e->routes->order[i]);
        memcpy(e->rows + i * e->x.width, e->inputs + row * e->x.width,
               (size_t)e->x.width * sizeof(float));
    }
}

/* The products of all experts: what they make of their rows. */
static bool multiply_experts(const experts_note *e) {
    tape *t = e->t;
    int n_expert = e->routes->n_expert;
    gemm_call *calls = tape_alloc(t, (size_t)n_expert, sizeof *calls);
    for (int i = 0; calls && i < n_expert; i++) {
        int64_t first = e->routes->first[i];
        calls[i] = (gemm_call){.m = e->routes->first[i + 1] - first,
                               .n = e->y.width,
                               .k = e->x.width,
                               .trans_b = true,
                               .a = e->rows + first * e->x.width,
                               .lda = e->x.width,
                               .b = e->m[i].value,
                               .ldb = e->x.width,
                               .c = e->outputs + first * e->y.width,
                               .ldc = e->y.width,
                               .alpha = 1,
                               .coarse = t->coarse};
    }
    if (calls) {
        blas_gemm_batch(t->ctx, calls, n_expert);
    }
    return calls != NULL;
}

/* The gradients of all experts' inputs, and of their matrices. */
static bool back_all_experts(const experts_note *e) {
    tape *t = e->t;
    int n_expert = e->routes->n_expert;
    int64_t n_in = e->x.width, n_out = e->y.width;
    gemm_call *calls = tape_alloc(t, 2 * (size_t)n_expert, sizeof *calls);
    for (int i = 0; calls && i < n_expert; i++) {
        int64_t first = e->routes->first[i], n = e->routes->first[i + 1] - first;
        const float *g = e->outputs + first * n_out;
        calls[2 * i] = (gemm_call){.m = n,
                                   .n = n_in,
                                   .k = n_out,
                                   .a = g,
                                   .lda = n_out,
                                   .b = e->m[i].value,
                                   .ldb = n_in,
                                   .c = e->d_rows + first * n_in,
                                   .ldc = n_in,
                                   .alpha = 1,
                                   .coarse = t->coarse};
        calls[2 * i + 1] = (gemm_call){.m = e->m[i].grad ? n_out : 0,
                                       .n = n_in,
                                       .k = n,
                                       .trans_a = true,
                                       .a = g,
                                       .lda = n_out,
                                       .b = e->rows + first * n_in,
                                       .ldb = n_in,
                                       .c = e->m[i].grad,
                                       .ldc = n_in,
                                       .alpha = 1,
                                       .beta = 1,
                                       .coarse = t->coarse};
    }
    if (calls) {
        blas_gemm_batch(t->ctx, calls, 2 * n_expert);
    }
    return calls != NULL;
}

/* Adds to the moments of all experts' outputs. */
static bool add_moments(const experts_note *e) {
    tape *t = e->t;
    int n_expert = e->routes->n_expert, n_calls = 0;
    int64_t n_out = e->y.width, block = e->m[0].block;
    if (!e->m[0].moments) {
        return true;
    }
    size_t n_squares = (size_t)((n_out + block - 1) / block);
    gemm_call *calls = tape_alloc(t, (size_t)n_expert * n_squares, sizeof *calls);
    for (int i = 0; calls && i < n_expert; i++) {
        int64_t first = e->routes->first[i], n = e->routes->first[i + 1] - first;
        for (int64_t at = 0; at < n_out; at += block) {
            calls[n_calls++] = tape_moments(t, &e->m[i], e->outputs + first * n_out, n, n_out, at);
        }
        *e->m[i].n_tok += n;
    }
    if (calls) {
        blas_gemm_batch(t->ctx, calls, n_calls);
    }
    return calls != NULL;
}

/* Finds all experts' matrices, or copies of the weight's own where it has none in its place. */
static bool find_experts(experts_note *e) {
    tape *t = e->t;
    int n = e->routes->n_expert;
    tape_matrix *m = tape_alloc(t, (size_t)n, sizeof *m);
    for (int i = 0; m && i < n; i++) {
        if (tape_find_matrix(t, e->w, i, &m[i]) && m[i].value) {
            continue;
        }
        weight_desc d = host_expert(e->w, i);
        float *copy = tape_floats(t, d.n_out * d.n_in);
        const float *wide = copy ? tape_widen(t, &d) : NULL;
        if (!wide) {
            return false;
        }
        memcpy(copy, wide, (size_t)(d.n_out * d.n_in) * sizeof *copy);
        m[i].value = copy;
    }
    e->m = m;
    return m != NULL;
}

static int64_t n_routes(const experts_note *e) {
    return (int64_t)e->routes->n_tok * e->routes->n_used;
}

static void back_experts(tape *t, tape_note *note) {
    experts_note *e = (experts_note *)note;
    int64_t n = n_routes(e), n_in = e->x.width, n_out = e->y.width;
    float *g = tape_take(t, e->y);
    e->rows = tape_floats(t, n * n_in);
    e->d_rows = tape_floats(t, n * n_in);
    e->outputs = tape_floats(t, n * n_out);
    if (!g || !e->rows || !e->d_rows || !e->outputs || !find_experts(e)) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(e->outputs + i * n_out, g + e->routes->order[i] * n_out, (size_t)n_out * sizeof *g);
    }
    tape_spread(t, n, gather, e);
    if (!back_all_experts(e) || !add_moments(e)) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float *to = tape_grad_row(t, e->x, input_row(e, e->routes->order[i]));
        for (int64_t k = 0; k < n_in; k++) {
            to[k] += e->d_rows[i * n_in + k];
        }
    }
}

/* y by the experts' matrices. */
static void compute(experts_note *e) {
    tape *t = e->t;
    int64_t n = n_routes(e), n_out = e->y.width;
    e->rows = tape_floats(t, n * e->x.width);
    e->outputs = tape_floats(t, n * n_out);
    if (!e->rows || !e->outputs || !find_experts(e)) {
        return;
    }
    tape_spread(t, n, gather, e);
    if (!multiply_experts(e)) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t route = e->routes->order[i], expert = e->routes->expert[route];
        float *y = host_row(e->y, route);
        memcpy(y, e->outputs + i * n_out, (size_t)n_out * sizeof *y);
        weight_desc d = host_expert(e->w, expert);
        for (int64_t k = 0; d.bias && k < n_out; k++) {
            y[k] += host_element(d.bias, d.bias_type, k);
        }
    }
}

static void run_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items) {
    tape *t = tape_of(o);
    route_note *r = find_route(t, routes), without = {.n_tok = routes->n_tok,
                                                      .n_expert = routes->n_expert,
                                                      .n_used = routes->n_used,
                                                      .expert = routes->expert,
                                                      .first = routes->first,
                                                      .order = routes->order};
    tape_mark start = t->at;
    const float *inputs = r || t->uses ? tape_keep(t, x) : NULL;
    for (int i = 0; i < n_items; i++) {
        experts_note *e = r ? tape_new_note(t, sizeof *e, back_experts) : NULL;
        experts_note now = {.t = t,
                            .routes = r ? r : &without,
                            .w = items[i].weight,
                            .x = x,
                            .y = items[i].y,
                            .inputs = inputs};
        if (e) {
            now.note = e->note;
            *e = now;
        }
        tape_matrix m;
        if (inputs && tape_find_matrix(t, items[i].weight, 0, &m) && m.value) {
            tape_mark at = t->at;
            compute(&now);
            t->at = at;
        } else {
            t->own->linear_experts(o, routes, x, &items[i], 1);
        }
    }
    t->at = r ? t->at : start;
}

void tape_set_experts(ops_table *table) {
    table->route = run_route;
    table->route_all = run_route_all;
    table->sum_routes = run_sum_routes;
    table->take_routes = run_take_routes;
    table->linear_experts = run_experts;
}
