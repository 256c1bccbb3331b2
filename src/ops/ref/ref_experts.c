/* ref_experts.c - routing, the products of experts, and the sums of what they make. */
#include "ops/ref/ref.h"

#include <math.h>

void ref_route(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes) {
    if (!host_route_begin(o, desc, logits, routes)) {
        return;
    }
    for (int32_t t = 0; t < routes->n_tok; t++) {
        int64_t at = (int64_t)t * routes->n_used;
        host_route_row(desc, host_row(logits, t), routes->n_expert, routes->n_used,
                       routes->expert + at, routes->weight + at);
    }
    host_route_sort(routes);
}

void ref_linear_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items) {
    ref_ops *r = ref_of(o);
    if (!host_experts_check(o, routes, x, items, n_items)) {
        return;
    }
    if (x.width > r->width) {
        host_fail(o, JANG_ERR_ARGUMENT, "linear_experts: width %lld, but reserve said %lld",
                  (long long)x.width, (long long)r->width);
        return;
    }
    for (int i = 0; i < n_items; i++) {
        for (int32_t route = 0; route < routes->n_tok * routes->n_used; route++) {
            const ops_weight w = {.d = host_expert(items[i].weight, routes->expert[route])};
            ref_multiply(r, &w, host_route_input(routes, x, route), host_row(items[i].y, route),
                         false);
        }
    }
}

void ref_route_all(ops *o, int32_t n_tok, ops_routes *routes) {
    (void)host_route_all(o, n_tok, routes);
}

void ref_take_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y) {
    (void)o;
    for (int32_t route = 0; route < routes->n_tok * routes->n_used; route++) {
        for (int64_t i = 0; i < x.width; i++) {
            host_row(y, route)[i] = routes->weight[route] * host_row(x, route / routes->n_used)[i];
        }
    }
}

void ref_sum_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y, bool accumulate,
                    bool plain) {
    (void)o;
    for (int32_t t = 0; t < routes->n_tok; t++) {
        float *out = host_row(y, t);
        for (int64_t i = 0; i < y.width; i++) {
            double sum = 0;
            for (int32_t k = 0; k < routes->n_used; k++) {
                int32_t route = t * routes->n_used + k;
                double weight = plain ? 1 : (double)routes->weight[route];
                sum += weight * host_row(x, route)[i];
            }
            out[i] = (float)(accumulate ? out[i] + sum : sum);
        }
    }
}

void ref_gated_clamped(ops *o, float alpha, float limit, ops_mat gate, ops_mat up, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < y.n_row; t++) {
        const float *g = host_row(gate, t), *u = host_row(up, t);
        float *out = host_row(y, t);
        for (int64_t i = 0; i < y.width; i++) {
            double a = g[i] > limit ? limit : g[i];
            double b = u[i] > limit ? limit : u[i] < -limit ? -limit : u[i];
            out[i] = (float)((b + 1) * a / (1 + exp(-(double)alpha * a)));
        }
    }
}

void ref_add_gated(ops *o, ops_mat gate, ops_mat x, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < y.n_row; t++) {
        double factor = 1 / (1 + exp(-(double)host_row(gate, t)[0]));
        for (int64_t i = 0; i < y.width; i++) {
            host_row(y, t)[i] = (float)(host_row(y, t)[i] + factor * host_row(x, t)[i]);
        }
    }
}
