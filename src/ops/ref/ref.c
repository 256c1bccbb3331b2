/* ref.c - the reference backend's table, its opening and its scratch. */
#include "ops/ref/ref.h"

static void free_scratch(ref_ops *r) {
    ctx_t *ctx = r->host.base.ctx;
    ctx_free(ctx, r->codes);
    ctx_free(ctx, r->scales);
    ctx_free(ctx, r->sums);
    ctx_free(ctx, r->weight_row);
    r->codes = NULL;
    r->scales = r->weight_row = NULL;
    r->sums = NULL;
    r->width = 0;
}

static void ref_close(ops *o) {
    free_scratch(ref_of(o));
    ctx_free(o->ctx, ref_of(o)->scores);
    ctx_free(o->ctx, o);
}

static jang_status ref_reserve(ops *o, const ops_limits *limits) {
    ref_ops *r = ref_of(o);
    if (limits->width <= r->width) {
        return JANG_OK;
    }
    free_scratch(r);
    size_t width = (size_t)limits->width, n_groups = width / 32 + 1;
    r->codes = ctx_array(o->ctx, width, sizeof *r->codes);
    r->scales = ctx_array(o->ctx, n_groups, sizeof *r->scales);
    r->sums = ctx_array(o->ctx, n_groups, sizeof *r->sums);
    r->weight_row = ctx_array(o->ctx, width, sizeof *r->weight_row);
    if (!r->codes || !r->scales || !r->sums || !r->weight_row) {
        free_scratch(r);
        return ctx_fail_memory(o->ctx, 6 * width);
    }
    r->width = limits->width;
    return JANG_OK;
}

static const ops_table ref_table = {
    .name = "ref",
    .close = ref_close,
    .buf_new = host_buf_new,
    .buf_free = host_buf_free,
    .write = host_write,
    .read = host_read,
    .reserve = ref_reserve,
    .finish = host_finish,
    .weight_new = host_weight_new,
    .weight_free = host_weight_free,
    .batch_new = host_batch_new,
    .batch_free = host_batch_free,
    .batch_set = host_batch_set,
    .kv_new = ref_kv_new,
    .kv_free = ref_kv_free,
    .kv_grow = ref_kv_grow,
    .kv_open = ref_kv_open,
    .kv_seal = ref_kv_seal,
    .kv_open_bytes = ref_kv_open_bytes,
    .kv_copy = ref_kv_copy,
    .kv_page_bytes = ref_kv_page_bytes,
    .kv_save = ref_kv_save,
    .kv_load = ref_kv_load,
    .state_new = host_state_new,
    .state_free = host_state_free,
    .state_grow = host_state_grow,
    .state_copy = host_state_copy,
    .embed = ref_embed,
    .linear = ref_linear,
    .norm = ref_norm,
    .rope = ref_rope,
    .kv_store = ref_kv_store,
    .attention = ref_attention,
    .gated = ref_gated,
    .take_blocks = ref_take_blocks,
    .conv = ref_conv,
    .time_step = ref_time_step,
    .scan = ref_scan,
    .ssd = ref_ssd,
    .delta = ref_delta,
    .add = ref_add,
    .take_out = ref_take_out,
    .routes_new = host_routes_new,
    .routes_free = host_routes_free,
    .route = ref_route,
    .route_all = ref_route_all,
    .take_routes = ref_take_routes,
    .linear_experts = ref_linear_experts,
    .sum_routes = ref_sum_routes,
    .gated_clamped = ref_gated_clamped,
    .add_gated = ref_add_gated,
};

jang_status ref_open(ops **out, ctx_t *ctx, const ops_options *options) {
    ref_ops *r = ctx_zero(ctx, 1, sizeof *r);
    if (!r) {
        return ctx_fail_memory(ctx, sizeof *r);
    }
    r->host.base = (ops){.table = &ref_table, .ctx = ctx};
    r->exact = options->exact;
    *out = &r->host.base;
    return JANG_OK;
}
