/* ref.h - the reference backend: plain loops that say what each operator means.
 *
 * It is the oracle that the other backends are tested against, so it favours being evidently right:
 * sums run in order and in double, nothing is blocked, vectorised or threaded. */
#ifndef JANG_OPS_REF_H
#define JANG_OPS_REF_H

#include "ops/hostbuf.h"

typedef struct ref_ops {
    host_ops host;
    bool exact;
    /* One row of activations, quantized, or one row of a weight; made by reserve. */
    int64_t width;
    int16_t *codes;    /* [width] */
    float *scales;     /* [width / 32] */
    int32_t *sums;     /* [width / 32] */
    float *weight_row; /* [width] */
    float *scores;     /* one query's attention weights, grown with the cache */
    int64_t n_scores;
} ref_ops;

JANG_MUST_CHECK jang_status ref_open(ops **out, ctx_t *ctx, const ops_options *options);

static inline ref_ops *ref_of(ops *o) {
    return (ref_ops *)o;
}

/* Code i of a row of codes of b bits: an LSB-first bit stream. */
static inline unsigned ref_code(const uint8_t *row, int64_t i, int bits) {
    int64_t at = i * bits;
    unsigned low = row[at / 8], shift = (unsigned)(at % 8);
    unsigned high = shift + (unsigned)bits > 8 ? row[at / 8 + 1] : 0;
    return ((high << 8 | low) >> shift) & ((1u << bits) - 1);
}

/* Row r of a weight as f32: dense elements converted, or code * scale + bias. out [n_in]. */
void ref_weight_row(float *out, const ops_weight *w, int64_t r);

/* The operators; see ops_table. */
void ref_linear(ops *o, ops_mat x, const linear_item *items, int n_items);
void ref_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
               ops_mat y);
void ref_norm(ops *o, const norm_desc *norm, ops_mat x, ops_mat y);
void ref_rope(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
              int head_dim);
void ref_take_blocks(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width, ops_mat y);
void ref_conv(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat y);
void ref_time_step(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step, ops_mat decay);
void ref_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat step, ops_mat b, ops_mat c, ops_mat y);
void ref_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
             ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y);
void ref_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch, ops_mat q,
               ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y);
void ref_gated(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y);
void ref_add(ops *o, float scale, ops_mat x, ops_mat y);
void ref_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y);
jang_status ref_kv_new(ops_kv **out, ops *o, const kv_desc *desc);
void ref_kv_free(ops *o, ops_kv *kv);
jang_status ref_kv_grow(ops *o, ops_kv *kv, int32_t n_pages);
jang_status ref_kv_open(ops *o, ops_kv *kv, int32_t page);
void ref_kv_seal(ops *o, ops_kv *kv, int32_t page);
size_t ref_kv_open_bytes(const ops_kv *kv);
void ref_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to);
size_t ref_kv_page_bytes(const ops_kv *kv);
void ref_kv_save(ops *o, const ops_kv *kv, int32_t page, void *data);
void ref_kv_load(ops *o, ops_kv *kv, int32_t page, const void *data);
void ref_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v);
void ref_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                   const ops_batch *batch, ops_mat q, ops_mat out);
void ref_route(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes);
void ref_linear_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items);
void ref_route_all(ops *o, int32_t n_tok, ops_routes *routes);
void ref_take_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y);
void ref_sum_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y, bool accumulate,
                    bool plain);
void ref_gated_clamped(ops *o, float alpha, float limit, ops_mat gate, ops_mat up, ops_mat y);
void ref_add_gated(ops *o, ops_mat gate, ops_mat x, ops_mat y);

/* y = W x + b, or y += that, for one row. */
void ref_multiply(ref_ops *r, const ops_weight *w, const float *x, float *y, bool accumulate);

#endif
