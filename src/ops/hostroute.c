/* hostroute.c - choosing experts, in host backends: scores, groups, the best, and the routes in
 * order of their experts. */
#include "ops/hostbuf.h"

#include "base/softmax.h"

#include <math.h>

/* ---- Memory ----------------------------------------------------------------------------------
 */

jang_status host_routes_new(ops_routes **out, ops *o, int32_t n_tok, int n_expert, int n_used) {
    if (n_tok < 1 || n_expert < 1 || n_expert > OPS_MAX_EXPERTS || n_used < 1 ||
        n_used > n_expert || n_tok > INT32_MAX / n_used) {
        return ctx_fail(o->ctx, JANG_ERR_ARGUMENT,
                        "routes of %d tokens to %d of %d experts: at most %d experts", n_tok,
                        n_used, n_expert, OPS_MAX_EXPERTS);
    }
    ops_routes *routes = ctx_zero(o->ctx, 1, sizeof *routes);
    if (!routes) {
        return ctx_fail_memory(o->ctx, sizeof *routes);
    }
    size_t n = (size_t)n_tok * (size_t)n_used;
    size_t n_words = 3 * n + (size_t)n_expert + 1;
    jang_status status = host_block_new(&routes->block, o, n_words * sizeof(int32_t));
    if (status != JANG_OK) {
        ctx_free(o->ctx, routes);
        return status;
    }
    routes->max_tok = n_tok;
    routes->n_expert = n_expert;
    routes->n_used = n_used;
    routes->expert = (int32_t *)(void *)routes->block->data;
    routes->order = routes->expert + n;
    routes->weight = (float *)(void *)(routes->order + n);
    routes->first = (int32_t *)(void *)(routes->weight + n);
    *out = routes;
    return JANG_OK;
}

void host_routes_free(ops *o, ops_routes *routes) {
    if (routes) {
        host_block_free(o, routes->block);
        ctx_free(o->ctx, routes);
    }
}

bool host_route_begin(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes) {
    int n_group = desc->n_group > 1 ? desc->n_group : 1;
    bool groups_fit =
        routes->n_expert % n_group == 0 &&
        (n_group == 1 || (desc->n_group_used >= 1 && desc->n_group_used <= n_group &&
                          routes->n_expert / n_group * desc->n_group_used >= routes->n_used));
    if (!groups_fit || logits.n_row > routes->max_tok || logits.width != routes->n_expert) {
        host_fail(
            o, JANG_ERR_ARGUMENT,
            "route: %lld rows of %lld logits, %d of %d groups, but routes are of %d tokens to "
            "%d of %d experts",
            (long long)logits.n_row, (long long)logits.width, desc->n_group_used, n_group,
            routes->max_tok, routes->n_used, routes->n_expert);
        routes->n_tok = 0;
        return false;
    }
    routes->n_tok = (int32_t)logits.n_row;
    return true;
}

bool host_experts_check(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items) {
    int64_t n_route = (int64_t)routes->n_tok * routes->n_used;
    bool fits = x.n_row == routes->n_tok || x.n_row == n_route;
    for (int i = 0; i < n_items && fits; i++) {
        const weight_desc *d = &items[i].weight->d;
        fits = d->n_expert == routes->n_expert && d->n_in == x.width;
    }
    if (!fits) {
        host_fail(
            o, JANG_ERR_ARGUMENT,
            "linear_experts: an input of %lld rows of %lld or a weight does not fit %d tokens "
            "with %d routes to %d experts",
            (long long)x.n_row, (long long)x.width, routes->n_tok, routes->n_used,
            routes->n_expert);
    }
    return fits;
}

bool host_route_all(ops *o, int32_t n_tok, ops_routes *routes) {
    routes->n_tok = 0;
    if (n_tok > routes->max_tok || routes->n_used != routes->n_expert) {
        host_fail(o, JANG_ERR_ARGUMENT,
                  "route_all: %d tokens to %d experts, but routes are of %d tokens to %d of them",
                  n_tok, routes->n_expert, routes->max_tok, routes->n_used);
        return false;
    }
    routes->n_tok = n_tok;
    for (int32_t i = 0; i < n_tok * routes->n_used; i++) {
        routes->expert[i] = i % routes->n_used;
        routes->weight[i] = 1;
    }
    host_route_sort(routes);
    return true;
}

/* ---- One token --------------------------------------------------------------------------------
 */

static float element_of(const ops_weight *w, int i) {
    return host_element(w->d.data, w->d.type, i);
}

/* Index of the largest of keys that are not taken, the first of equals. There is one. */
static int best_of(const float *keys, const bool *taken, int n) {
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (!taken[i] && (best < 0 || keys[i] > keys[best])) {
            best = i;
        }
    }
    return best;
}

static float group_key(const float *keys, int n, bool pairs) {
    float first = -INFINITY, second = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (keys[i] > first) {
            second = first;
            first = keys[i];
        } else if (keys[i] > second) {
            second = keys[i];
        }
    }
    return pairs && n > 1 ? first + second : first;
}

/* Takes the experts of all groups but the best ones out of the choice. */
static void leave_groups_out(const route_desc *desc, const float *keys, bool *taken, int n_expert) {
    float best[OPS_MAX_EXPERTS];
    bool kept[OPS_MAX_EXPERTS] = {false};
    int size = n_expert / desc->n_group;
    for (int g = 0; g < desc->n_group; g++) {
        best[g] = group_key(keys + g * size, size, desc->group_pairs);
    }
    for (int i = 0; i < desc->n_group_used; i++) {
        kept[best_of(best, kept, desc->n_group)] = true;
    }
    for (int i = 0; i < n_expert; i++) {
        taken[i] = !kept[i / size];
    }
}

static void score_logits(route_score kind, float *scores, const float *logits, int n) {
    if (kind == ROUTE_SOFTMAX) {
        softmax(scores, logits, n);
        return;
    }
    for (int i = 0; i < n; i++) {
        scores[i] = kind == ROUTE_SIGMOID ? 1 / (1 + expf(-logits[i])) : logits[i];
    }
}

/* The weight of the best of the experts that are left. */
static float sparse_weight(const float *logits, const bool *taken, int n, int best, float jitter) {
    float top = logits[best], sum = 0;
    for (int i = 0; i < n; i++) {
        float magnitude = fabsf(logits[i]), factor = magnitude > top ? magnitude : top;
        bool left_out = taken[i] || (top - logits[i]) / factor > 2 * jitter;
        sum += left_out ? 0 : expf(logits[i] - top);
    }
    return 1 / sum;
}

void host_route_row(const route_desc *desc, const float *logits, int n_expert, int n_used,
                    int32_t *expert, float *weight) {
    float scores[OPS_MAX_EXPERTS], biased[OPS_MAX_EXPERTS];
    bool taken[OPS_MAX_EXPERTS] = {false};
    bool alone = desc->score == ROUTE_SIGMOID && desc->n_group <= 1;
    const float *keys = alone ? logits : scores; /* large logits have one and the same sigmoid */
    score_logits(desc->score, scores, logits, n_expert);
    if (desc->bias) {
        for (int i = 0; i < n_expert; i++) {
            biased[i] = scores[i] + element_of(desc->bias, i);
        }
        keys = biased;
    }
    if (desc->n_group > 1) {
        leave_groups_out(desc, keys, taken, n_expert);
    }
    float sum = desc->sum_eps;
    for (int k = 0; k < n_used; k++) {
        int best = best_of(keys, taken, n_expert);
        expert[k] = best;
        weight[k] = desc->score == ROUTE_SPARSEMIXER
                        ? sparse_weight(logits, taken, n_expert, best, desc->jitter)
                        : scores[best];
        sum += weight[k];
        taken[best] = true;
    }
    if (desc->score == ROUTE_SOFTMAX_CHOSEN) {
        softmax(weight, weight, n_used);
    }
    for (int k = 0; k < n_used; k++) {
        weight[k] = (desc->renormalise ? weight[k] / sum : weight[k]) * desc->scale;
        weight[k] *= desc->expert_scale ? element_of(desc->expert_scale, expert[k]) : 1;
    }
}

/* ---- All tokens -------------------------------------------------------------------------------
 */

void host_route_sort(ops_routes *routes) {
    int32_t n = routes->n_tok * routes->n_used, *first = routes->first;
    for (int e = 0; e <= routes->n_expert; e++) {
        first[e] = 0;
    }
    for (int32_t i = 0; i < n; i++) {
        first[routes->expert[i] + 1]++;
    }
    for (int e = 0; e < routes->n_expert; e++) {
        first[e + 1] += first[e];
    }
    for (int32_t i = 0; i < n; i++) {
        routes->order[first[routes->expert[i]]++] = i;
    }
    for (int e = routes->n_expert; e > 0; e--) { /* each now stands where the next one began */
        first[e] = first[e - 1];
    }
    first[0] = 0;
}
