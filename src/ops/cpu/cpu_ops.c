/* cpu_ops.c - the cpu backend's tables (one for each instruction set, since its name says which),
 * its opening and its scratch. */
#include "ops/cpu/cpu_ops.h"

static void cpu_close(ops *o) {
    cpu_ops *c = cpu_of(o);
    cpu_free_linear(c);
    cpu_free_attention(c);
    for (int i = 0; i < CPU_ROPE_CACHES; i++) {
        ctx_free(o->ctx, c->ropes[i].cosines);
    }
    ctx_free(o->ctx, (ops_table *)(uintptr_t)o->table);
    ctx_free(o->ctx, c);
}

static jang_status cpu_reserve(ops *o, const ops_limits *limits) {
    cpu_ops *c = cpu_of(o);
    int64_t n_tok = limits->n_tok > c->n_tok ? limits->n_tok : c->n_tok;
    for (int i = 0; i < CPU_ROPE_CACHES && n_tok > c->n_tok; i++) {
        rope_cache *r = &c->ropes[i];
        size_t n = (size_t)n_tok * CPU_ROPE_MAX;
        ctx_free(o->ctx, r->cosines);
        *r = (rope_cache){.cosines = ctx_array(o->ctx, n, sizeof(float))};
        if (!r->cosines) {
            cpu_free_linear(c); /* nothing is reserved: the next call makes all anew */
            return ctx_fail_memory(o->ctx, n * sizeof(float));
        }
    }
    return cpu_reserve_linear(c, n_tok, c->max_in, c->n_used);
}

static jang_status cpu_weight_new(ops_weight **out, ops *o, const weight_desc *desc) {
    cpu_ops *c = cpu_of(o);
    ops_weight *w;
    jang_status status = host_weight_new(&w, o, desc);
    if (status) {
        return status;
    }
    if (desc->bits && desc->n_in > c->max_in) {
        status = cpu_reserve_linear(c, c->n_tok, desc->n_in, c->n_used);
        if (status) {
            host_weight_free(o, w);
            return status;
        }
    }
    *out = w;
    return JANG_OK;
}

static const ops_table cpu_table = {
    .name = "cpu",
    .close = cpu_close,
    .buf_new = host_buf_new,
    .buf_free = host_buf_free,
    .write = host_write,
    .read = host_read,
    .reserve = cpu_reserve,
    .finish = host_finish,
    .weight_new = cpu_weight_new,
    .weight_free = host_weight_free,
    .batch_new = host_batch_new,
    .batch_free = host_batch_free,
    .batch_set = host_batch_set,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .kv_grow = cpu_kv_grow,
    .kv_open = cpu_kv_open,
    .kv_seal = cpu_kv_seal,
    .kv_open_bytes = cpu_kv_open_bytes,
    .kv_copy = cpu_kv_copy,
    .kv_page_bytes = cpu_kv_page_bytes,
    .kv_save = cpu_kv_save,
    .kv_load = cpu_kv_load,
    .state_new = host_state_new,
    .state_free = host_state_free,
    .state_grow = host_state_grow,
    .state_copy = host_state_copy,
    .embed = cpu_embed,
    .linear = cpu_linear,
    .norm = cpu_norm,
    .rope = cpu_rope,
    .kv_store = cpu_kv_store,
    .attention = cpu_attention,
    .gated = cpu_gated,
    .take_blocks = cpu_take_blocks,
    .conv = cpu_conv,
    .time_step = cpu_time_step,
    .scan = cpu_scan,
    .ssd = cpu_ssd,
    .delta = cpu_delta,
    .add = cpu_add,
    .take_out = cpu_take_out,
    .routes_new = cpu_routes_new,
    .routes_free = host_routes_free,
    .route = cpu_route,
    .route_all = cpu_route_all,
    .take_routes = cpu_take_routes,
    .linear_experts = cpu_linear_experts,
    .sum_routes = cpu_sum_routes,
    .gated_clamped = cpu_gated_clamped,
    .add_gated = cpu_add_gated,
};

jang_status cpu_ops_open(ops **out, ctx_t *ctx, const ops_options *options) {
    cpu_isa isa;
    jang_status status = cpu_choose(&isa, ctx);
    if (status) {
        return status;
    }
    cpu_ops *c = ctx_zero(ctx, 1, sizeof *c);
    ops_table *table = ctx_zero(ctx, 1, sizeof *table);
    if (!c || !table) {
        ctx_free(ctx, c);
        ctx_free(ctx, table);
        return ctx_fail_memory(ctx, sizeof *c);
    }
    c->kernels = cpu_kernels_for(isa);
    *table = cpu_table;
    table->name = c->kernels->name;
    c->host.base = (ops){.table = table, .ctx = ctx};
    c->pool = ctx_pool(ctx);
    c->exact = options->exact;
    *out = &c->host.base;
    return JANG_OK;
}
