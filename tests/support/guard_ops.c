/* guard_ops.c - a backend that locks its memory with mprotect while no operator runs. */
#include "guard_ops.h"

#include "ops/hostbuf.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

typedef struct guard_ops {
    ops base;
    ops *inner;
    jang_status status; /* of mprotect */
} guard_ops;

static void set_access(guard_ops *g, int access) {
    for (host_block *b = host_of(g->inner)->blocks; b; b = b->next) {
        if (mprotect(b->data, b->n_bytes, access) != 0 && g->status == JANG_OK) {
            g->status = ctx_fail(g->base.ctx, JANG_ERR_IO, "mprotect: %s", strerror(errno));
        }
    }
}

static ops *enter(ops *o) {
    set_access((guard_ops *)o, PROT_READ | PROT_WRITE);
    return ((guard_ops *)o)->inner;
}

static jang_status leave(ops *o, jang_status status) {
    set_access((guard_ops *)o, PROT_NONE);
    return status;
}

static void guard_close(ops *o) {
    ops_close(enter(o));
    ctx_free(o->ctx, o);
}

static jang_status guard_buf_new(ops_buf **out, ops *o, size_t n_bytes) {
    ops *in = enter(o);
    return leave(o, in->table->buf_new(out, in, n_bytes));
}

static void guard_buf_free(ops *o, ops_buf *buf) {
    ops *in = enter(o);
    in->table->buf_free(in, buf);
    (void)leave(o, JANG_OK);
}

static jang_status guard_write(ops *o, ops_buf *buf, size_t at, const void *data, size_t n_bytes) {
    ops *in = enter(o);
    return leave(o, in->table->write(in, buf, at, data, n_bytes));
}

static jang_status guard_read(ops *o, const ops_buf *buf, size_t at, void *data, size_t n_bytes) {
    ops *in = enter(o);
    return leave(o, in->table->read(in, buf, at, data, n_bytes));
}

static jang_status guard_reserve(ops *o, const ops_limits *limits) {
    ops *in = enter(o);
    return leave(o, in->table->reserve(in, limits));
}

static jang_status guard_finish(ops *o) {
    ops *in = enter(o);
    jang_status own = ((guard_ops *)o)->status, status = in->table->finish(in);
    return leave(o, own ? own : status);
}

static jang_status guard_weight_new(ops_weight **out, ops *o, const weight_desc *desc) {
    ops *in = enter(o);
    return leave(o, in->table->weight_new(out, in, desc));
}

static void guard_weight_free(ops *o, ops_weight *w) {
    ops *in = enter(o);
    in->table->weight_free(in, w);
    (void)leave(o, JANG_OK);
}

static jang_status guard_batch_new(ops_batch **out, ops *o) {
    ops *in = enter(o);
    return leave(o, in->table->batch_new(out, in));
}

static void guard_batch_free(ops *o, ops_batch *batch) {
    ops *in = enter(o);
    in->table->batch_free(in, batch);
    (void)leave(o, JANG_OK);
}

static jang_status guard_batch_set(ops *o, ops_batch *batch, const batch_desc *desc) {
    ops *in = enter(o);
    return leave(o, in->table->batch_set(in, batch, desc));
}

static jang_status guard_kv_new(ops_kv **out, ops *o, const kv_desc *desc) {
    ops *in = enter(o);
    return leave(o, in->table->kv_new(out, in, desc));
}

static void guard_kv_free(ops *o, ops_kv *kv) {
    ops *in = enter(o);
    in->table->kv_free(in, kv);
    (void)leave(o, JANG_OK);
}

static jang_status guard_kv_grow(ops *o, ops_kv *kv, int32_t n_pages) {
    ops *in = enter(o);
    return leave(o, in->table->kv_grow(in, kv, n_pages));
}

static jang_status guard_kv_open(ops *o, ops_kv *kv, int32_t page) {
    ops *in = enter(o);
    return leave(o, in->table->kv_open(in, kv, page));
}

static void guard_kv_seal(ops *o, ops_kv *kv, int32_t page) {
    ops *in = enter(o);
    in->table->kv_seal(in, kv, page);
    (void)leave(o, JANG_OK);
}

static void guard_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to) {
    ops *in = enter(o);
    in->table->kv_copy(in, kv, from, to);
    (void)leave(o, JANG_OK);
}

static void guard_kv_save(ops *o, const ops_kv *kv, int32_t page, void *data) {
    ops *in = enter(o);
    in->table->kv_save(in, kv, page, data);
    (void)leave(o, JANG_OK);
}

static void guard_kv_load(ops *o, ops_kv *kv, int32_t page, const void *data) {
    ops *in = enter(o);
    in->table->kv_load(in, kv, page, data);
    (void)leave(o, JANG_OK);
}

static jang_status guard_state_new(ops_state **out, ops *o, const state_desc *desc) {
    ops *in = enter(o);
    return leave(o, in->table->state_new(out, in, desc));
}

static void guard_state_free(ops *o, ops_state *state) {
    ops *in = enter(o);
    in->table->state_free(in, state);
    (void)leave(o, JANG_OK);
}

static jang_status guard_state_grow(ops *o, ops_state *state, int32_t n_slots) {
    ops *in = enter(o);
    return leave(o, in->table->state_grow(in, state, n_slots));
}

static void guard_state_copy(ops *o, ops_state *state, int32_t from, int32_t to) {
    ops *in = enter(o);
    in->table->state_copy(in, state, from, to);
    (void)leave(o, JANG_OK);
}

static void guard_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch,
                        float scale, ops_mat y) {
    ops *in = enter(o);
    in->table->embed(in, w, by, batch, scale, y);
    (void)leave(o, JANG_OK);
}

static void guard_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    ops *in = enter(o);
    in->table->linear(in, x, items, n_items);
    (void)leave(o, JANG_OK);
}

static void guard_norm(ops *o, const norm_desc *norm, ops_mat x, ops_mat y) {
    ops *in = enter(o);
    in->table->norm(in, norm, x, y);
    (void)leave(o, JANG_OK);
}

static void guard_rope(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
                       int head_dim) {
    ops *in = enter(o);
    in->table->rope(in, rope, batch, x, n_head, head_dim);
    (void)leave(o, JANG_OK);
}

static void guard_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k,
                           ops_mat v) {
    ops *in = enter(o);
    in->table->kv_store(in, kv, layer, batch, k, v);
    (void)leave(o, JANG_OK);
}

static void guard_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                            const ops_batch *batch, ops_mat q, ops_mat out) {
    ops *in = enter(o);
    in->table->attention(in, desc, kv, layer, batch, q, out);
    (void)leave(o, JANG_OK);
}

static void guard_gated(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y) {
    ops *in = enter(o);
    in->table->gated(in, act, gate, up, y);
    (void)leave(o, JANG_OK);
}

static void guard_take_blocks(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width,
                              ops_mat y) {
    ops *in = enter(o);
    in->table->take_blocks(in, x, stride, from, width, y);
    (void)leave(o, JANG_OK);
}

static void guard_conv(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch,
                       ops_mat x, ops_mat y) {
    ops *in = enter(o);
    in->table->conv(in, desc, at, batch, x, y);
    (void)leave(o, JANG_OK);
}

static void guard_time_step(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step,
                            ops_mat decay) {
    ops *in = enter(o);
    in->table->time_step(in, desc, x, step, decay);
    (void)leave(o, JANG_OK);
}

static void guard_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch,
                       ops_mat x, ops_mat step, ops_mat b, ops_mat c, ops_mat y) {
    ops *in = enter(o);
    in->table->scan(in, desc, at, batch, x, step, b, c, y);
    (void)leave(o, JANG_OK);
}

static void guard_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                      ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y) {
    ops *in = enter(o);
    in->table->ssd(in, desc, at, batch, x, step, decay, b, c, y);
    (void)leave(o, JANG_OK);
}

static void guard_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch,
                        ops_mat q, ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y) {
    ops *in = enter(o);
    in->table->delta(in, desc, at, batch, q, k, v, decay, beta, y);
    (void)leave(o, JANG_OK);
}

static void guard_add(ops *o, float scale, ops_mat x, ops_mat y) {
    ops *in = enter(o);
    in->table->add(in, scale, x, y);
    (void)leave(o, JANG_OK);
}

static void guard_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y) {
    ops *in = enter(o);
    in->table->take_out(in, batch, x, y);
    (void)leave(o, JANG_OK);
}

static jang_status guard_routes_new(ops_routes **out, ops *o, int32_t n_tok, int n_expert,
                                    int n_used) {
    ops *in = enter(o);
    return leave(o, in->table->routes_new(out, in, n_tok, n_expert, n_used));
}

static void guard_routes_free(ops *o, ops_routes *routes) {
    ops *in = enter(o);
    in->table->routes_free(in, routes);
    (void)leave(o, JANG_OK);
}

static void guard_route(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes) {
    ops *in = enter(o);
    in->table->route(in, desc, logits, routes);
    (void)leave(o, JANG_OK);
}

static void guard_route_all(ops *o, int32_t n_tok, ops_routes *routes) {
    ops *in = enter(o);
    in->table->route_all(in, n_tok, routes);
    (void)leave(o, JANG_OK);
}

static void guard_take_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y) {
    ops *in = enter(o);
    in->table->take_routes(in, routes, x, y);
    (void)leave(o, JANG_OK);
}

static void guard_linear_experts(ops *o, const ops_routes *routes, ops_mat x,
                                 const expert_item *items, int n_items) {
    ops *in = enter(o);
    in->table->linear_experts(in, routes, x, items, n_items);
    (void)leave(o, JANG_OK);
}

static void guard_sum_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y,
                             bool accumulate, bool plain) {
    ops *in = enter(o);
    in->table->sum_routes(in, routes, x, y, accumulate, plain);
    (void)leave(o, JANG_OK);
}

static void guard_gated_clamped(ops *o, float alpha, float limit, ops_mat gate, ops_mat up,
                                ops_mat y) {
    ops *in = enter(o);
    in->table->gated_clamped(in, alpha, limit, gate, up, y);
    (void)leave(o, JANG_OK);
}

static void guard_add_gated(ops *o, ops_mat gate, ops_mat x, ops_mat y) {
    ops *in = enter(o);
    in->table->add_gated(in, gate, x, y);
    (void)leave(o, JANG_OK);
}

static const ops_table guard_table = {
    .name = "guard",
    .close = guard_close,
    .buf_new = guard_buf_new,
    .buf_free = guard_buf_free,
    .write = guard_write,
    .read = guard_read,
    .reserve = guard_reserve,
    .finish = guard_finish,
    .weight_new = guard_weight_new,
    .weight_free = guard_weight_free,
    .batch_new = guard_batch_new,
    .batch_free = guard_batch_free,
    .batch_set = guard_batch_set,
    .kv_new = guard_kv_new,
    .kv_free = guard_kv_free,
    .kv_grow = guard_kv_grow,
    .kv_open = guard_kv_open,
    .kv_seal = guard_kv_seal,
    .kv_copy = guard_kv_copy,
    .kv_save = guard_kv_save,
    .kv_load = guard_kv_load,
    .state_new = guard_state_new,
    .state_free = guard_state_free,
    .state_grow = guard_state_grow,
    .state_copy = guard_state_copy,
    .embed = guard_embed,
    .linear = guard_linear,
    .norm = guard_norm,
    .rope = guard_rope,
    .kv_store = guard_kv_store,
    .attention = guard_attention,
    .gated = guard_gated,
    .take_blocks = guard_take_blocks,
    .conv = guard_conv,
    .time_step = guard_time_step,
    .scan = guard_scan,
    .ssd = guard_ssd,
    .delta = guard_delta,
    .add = guard_add,
    .take_out = guard_take_out,
    .routes_new = guard_routes_new,
    .routes_free = guard_routes_free,
    .route = guard_route,
    .route_all = guard_route_all,
    .take_routes = guard_take_routes,
    .linear_experts = guard_linear_experts,
    .sum_routes = guard_sum_routes,
    .gated_clamped = guard_gated_clamped,
    .add_gated = guard_add_gated,
};

jang_status guard_ops_open(ops **out, ctx_t *ctx, const char *inner_backend,
                           const ops_options *options) {
    guard_ops *g = ctx_zero(ctx, 1, sizeof *g);
    if (!g) {
        return ctx_fail_memory(ctx, sizeof *g);
    }
    jang_status status = ops_open(&g->inner, ctx, inner_backend, options);
    if (status) {
        ctx_free(ctx, g);
        return status;
    }
    g->base = (ops){.table = &guard_table, .ctx = ctx};
    *out = &g->base;
    return JANG_OK;
}
