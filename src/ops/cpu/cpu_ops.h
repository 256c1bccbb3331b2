/* cpu_ops.h - the cpu backend: operators that split their work over the context's threads and hand
 * it to the kernels of this machine's instruction set (cpu_kernels.h).
 *
 * Scratch is made by reserve, weight_new and kv_new; no operator allocates. */
#ifndef JANG_OPS_CPU_OPS_H
#define JANG_OPS_CPU_OPS_H

#include "base/pool.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/hostbuf.h"

/* cos and sin of a step's positions, kept from one layer to the next. */
typedef struct rope_cache {
    uint64_t batch; /* serial of the batch it was made for; 0: none */
    const ops_weight *inv_freq;
    int n_rot;
    float scale;
    float *cosines, *sines; /* [n_tok][n_rot / 2] */
} rope_cache;

#define CPU_ROPE_CACHES 2 /* models with local and global layers use two */
#define CPU_ROPE_MAX 512  /* largest n_rot */

/* The work of one expert in a run of linear_experts. */
typedef struct expert_slot {
    int expert;
    const int32_t *routes; /* [n_row] */
    int32_t n_row;
    int64_t base;  /* its first row in q8 */
    bool for_gemv; /* and the order of its codes */
} expert_slot;

typedef struct cpu_ops {
    host_ops host;
    const cpu_kernels *kernels;
    pool *pool;
    bool exact;

    /* What scratch is made for: rows of a step, the longest row of an affine weight. */
    int64_t n_tok, max_in;
    int n_used;                       /* most routes of a token */
    int64_t n_rounded;                /* inputs that q8 has room for */
    q8_rows q8;                       /* n_rounded rows of max_in */
    expert_slot *slots;               /* [n_rounded] */
    uint8_t *thread_bytes;            /* [n_threads][thread_stride] panels and unsorted results */
    size_t thread_stride, thread_out; /* bytes; where the results begin */
    rope_cache ropes[CPU_ROPE_CACHES];
    int next_rope;
    struct attn_scratch *attention;
} cpu_ops;

static inline cpu_ops *cpu_of(ops *o) {
    return (cpu_ops *)o;
}

JANG_MUST_CHECK jang_status cpu_ops_open(ops **out, ctx_t *ctx, const ops_options *options);

/* Makes the scratch of linear for these sizes, if what is there is too small. */
JANG_MUST_CHECK jang_status cpu_reserve_linear(cpu_ops *c, int64_t n_tok, int64_t max_in,
                                               int n_used);
void cpu_free_linear(cpu_ops *c);
void cpu_free_attention(cpu_ops *c);
/* Makes attention's scratch for heads of head_dim; what there is stays until there is larger. */
JANG_MUST_CHECK jang_status cpu_reserve_attention(cpu_ops *c, int head_dim);

/* ---- What linear and linear_experts share (cpu_linear.c) ---- */

#define CPU_OUT_ROWS 64        /* rows of the weight whose results a thread holds back */
#define CPU_DIRECT_BYTES 16384 /* weights below this are multiplied by the calling thread alone */
#define CPU_MAX_ITEMS 64       /* products of one run */

/* Rows of a piece of work: so many bytes of weights at most that threads get several pieces. */
int64_t cpu_piece_rows(const cpu_ops *c, const ops_weight *w, size_t total_bytes);
/* What distinguishes the forms of x that weights read; 0: f32. */
int cpu_form_key(const cpu_ops *c, const weight_desc *d);
/* Rounds a row of x for weights like d into a row of out. */
void cpu_quantize(const cpu_ops *c, const q8_rows *out, int64_t row, const float *x,
                  const weight_desc *d, q8_order order);
/* y[t * y_stride + r - from] of rows from .. to-1 with f32 activations; affine ones are
 * dequantized into scratch a few at a time. */
void cpu_exact_rows(const cpu_ops *c, const weight_desc *d, const float *x, int64_t x_stride,
                    int64_t n_tok, int64_t from, int64_t to, float *y, int64_t y_stride,
                    float *scratch);

/* The operators; see ops_table. */
void cpu_linear(ops *o, ops_mat x, const linear_item *items, int n_items);
void cpu_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
               ops_mat y);
void cpu_norm(ops *o, const norm_desc *norm, ops_mat x, ops_mat y);
void cpu_rope(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
              int head_dim);
void cpu_take_blocks(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width, ops_mat y);
void cpu_conv(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat y);
void cpu_time_step(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step, ops_mat decay);
void cpu_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat step, ops_mat b, ops_mat c, ops_mat y);
void cpu_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
             ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y);
void cpu_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch, ops_mat q,
               ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y);
void cpu_gated(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y);
void cpu_add(ops *o, float scale, ops_mat x, ops_mat y);
void cpu_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y);
jang_status cpu_kv_new(ops_kv **out, ops *o, const kv_desc *desc);
void cpu_kv_free(ops *o, ops_kv *kv);
jang_status cpu_kv_grow(ops *o, ops_kv *kv, int32_t n_pages);
jang_status cpu_kv_open(ops *o, ops_kv *kv, int32_t page);
void cpu_kv_seal(ops *o, ops_kv *kv, int32_t page);
size_t cpu_kv_open_bytes(const ops_kv *kv);
void cpu_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to);
size_t cpu_kv_page_bytes(const ops_kv *kv);
void cpu_kv_save(ops *o, const ops_kv *kv, int32_t page, void *data);
void cpu_kv_load(ops *o, ops_kv *kv, int32_t page, const void *data);
void cpu_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v);
void cpu_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                   const ops_batch *batch, ops_mat q, ops_mat out);
jang_status cpu_routes_new(ops_routes **out, ops *o, int32_t n_tok, int n_expert, int n_used);
void cpu_route(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes);
void cpu_linear_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items);
void cpu_route_all(ops *o, int32_t n_tok, ops_routes *routes);
void cpu_take_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y);
void cpu_sum_routes(ops *o, const ops_routes *routes, ops_mat x, ops_mat y, bool accumulate,
                    bool plain);
void cpu_gated_clamped(ops *o, float alpha, float limit, ops_mat gate, ops_mat up, ops_mat y);
void cpu_add_gated(ops *o, ops_mat gate, ops_mat x, ops_mat y);

#endif
