/* ops.h - the operator table: everything that model code may ask of a machine.
 *
 * A backend is one ops_table and the objects behind it. Model code sees handles only: it never
 * follows a buffer or a weight, so a backend may keep them anywhere. Operators are issued in order
 * and may run later (a GPU's stream); ops_finish waits and reports what went wrong since the last
 * one. Buffers may be read by the host only through ops_read.
 *
 * Activations are f32 matrices [n_row, width] in buffers.
 *
 * Row independence, a promise every backend keeps: what an operator writes for one token is the
 * same to the last bit whatever other tokens, of the same or of other sequences, are in the batch.
 * So results do not depend on batching, on how a prompt is cut into chunks, or on prefix reuse.
 *
 * An ops is used by one thread at a time. */
#ifndef JANG_OPS_H
#define JANG_OPS_H

#include "base/tensor.h"

typedef struct ops ops;
typedef struct ops_buf ops_buf;       /* memory of a backend */
typedef struct ops_weight ops_weight; /* a weight as a backend holds it */
typedef struct ops_batch ops_batch;   /* the tokens of a step as a backend holds them */
typedef struct ops_kv ops_kv;         /* a pool of pages of keys and values, all layers */
typedef struct ops_state ops_state;   /* a pool of slots of recurrent state, all layers */
typedef struct ops_routes ops_routes; /* the experts that a step's tokens go to, in one layer */

/* A matrix of f32 in a buffer: element (i, j) is number at + i * stride + j. */
typedef struct ops_mat {
    ops_buf *buf;
    int64_t at, stride;
    int64_t n_row, width;
} ops_mat;

/* Columns [from, from + width) of m. */
static inline ops_mat ops_columns(ops_mat m, int64_t from, int64_t width) {
    m.at += from;
    m.width = width;
    return m;
}

/* ---- Weights ----------------------------------------------------------------------------------
 */

/* Where one of several matrices of a weight lies; see weight_desc. */
typedef struct expert_data {
    const void *data, *scales, *biases, *bias;
} expert_data;

/* A weight in the model's files, matrix [n_out, n_in] (n_out 1 for a vector). Dense: data of a
 * floating type. Affine (bits != 0): data U32 [n_out, n_in * bits / 32], scales and biases
 * [n_out, n_in / group] of scale_type; see format/affine.h. The memory outlives the weight. */
typedef struct weight_desc {
    const char *name; /* for messages of weight_new, which does not keep it */
    int64_t n_out, n_in;
    dtype type; /* of data when dense: F32, F16, BF16 */
    int bits, group;
    dtype scale_type; /* F16, BF16 or F32 */
    const void *data, *scales, *biases;
    bool fine;        /* affine: inputs are rounded with care (rounding.h) */
    const void *bias; /* added to the product, [n_out] of bias_type; NULL: none */
    dtype bias_type;
    /* The matrices of a layer's experts, all of this shape and form: then data, scales, biases and
     * bias are NULL above. Not needed after weight_new. */
    const expert_data *experts; /* [n_expert] */
    int n_expert;               /* 0: one matrix, as above */
} weight_desc;

/* ---- Batches and the KV cache -----------------------------------------------------------------
 */

#define OPS_PAGE_TOKENS 64 /* tokens in a page */

/* One sequence's part of a batch. */
typedef struct batch_seq {
    int32_t first, n_tok; /* its tokens are rows first .. first + n_tok - 1 of the batch */
    int32_t n_past;       /* tokens of it in the cache already: the first row's position */
    const int32_t *pages; /* pages[p / OPS_PAGE_TOKENS] holds position p, for all up to the last */
    int32_t state;        /* its slot of recurrent state, where the model has any */
    int32_t n_known;      /* length of the prompt, whatever steps it is cut into: a token belongs
                             to a sequence of so many, or of all up to itself where that is more
                             (RoPE by length); 0: this step ends the prompt */
} batch_seq;

typedef struct batch_desc {
    int32_t n_tok;
    const int32_t *ids; /* [n_tok] */
    int32_t n_seq;
    const batch_seq *seqs; /* [n_seq], covering the rows in order */
    int32_t n_out;
    const int32_t *out;   /* [n_out] rows whose logits are wanted, rising */
    const int32_t *types; /* [n_tok] token types (of BERT's pairs); NULL: all 0 */
} batch_desc;

/* How the cache keeps keys and values. Integers are of vectors that host_kv_rotate has turned, in
 * which no number is much larger than the others; scales and minima are f16.
 *
 * Q8: each key and value of a token and head has integers of 8 bits and a scale.
 *
 * Q4, Q5: while a page is open, that is, written to, it is kept in f16. When it is full, its keys
 * become integers of 4 bits (Q5: 6), with a scale and a minimum for each of their elements over the
 * page's tokens; its values, of 4 bits, with a scale and a minimum for each token. The token whose
 * key is farthest from the others' stays in f16. A token meets the keys and values of its own page
 * in f16 and those of earlier pages as integers: how it meets them depends on positions alone. */
typedef enum kv_type { KV_F16, KV_F32, KV_Q8, KV_Q4, KV_Q5, KV_N_TYPE } kv_type;

static inline int kv_key_bits(kv_type type) {
    static const int bits[KV_N_TYPE] = {16, 32, 8, 4, 6};
    return bits[type];
}

static inline int kv_value_bits(kv_type type) {
    static const int bits[KV_N_TYPE] = {16, 32, 8, 4, 4};
    return bits[type];
}

/* Numbers that go with the integers: a scale, and a minimum. */
static inline int kv_type_params(kv_type type) {
    static const int n_params[KV_N_TYPE] = {0, 0, 1, 2, 2};
    return n_params[type];
}

/* Whether pages have a form of their own while they are open. */
static inline bool kv_type_opens(kv_type type) {
    return kv_type_params(type) > 1;
}

/* What a token leaves in the cache in one layer: a key of k_dim and a value of v_dim numbers for
 * each kv head, of even sizes up to OPS_HEAD_MAX. */
typedef struct kv_layer {
    int n_kv_head, k_dim, v_dim; /* n_kv_head 0: the layer keeps nothing */
} kv_layer;

#define OPS_HEAD_MAX 1024

/* Bytes that a head's keys and values of a page take. */
static inline size_t kv_head_bytes(kv_type type, int k_dim, int v_dim) {
    size_t k = (size_t)k_dim, v = (size_t)v_dim, half = sizeof(uint16_t);
    size_t bits = k * (size_t)kv_key_bits(type) + v * (size_t)kv_value_bits(type);
    size_t n = OPS_PAGE_TOKENS * 2 * (size_t)kv_type_params(type); /* of f16 */
    if (kv_type_opens(type)) { /* a token by itself is its number, key and value */
        n = 2 * (k + OPS_PAGE_TOKENS) + 1 + k + v;
    }
    return OPS_PAGE_TOKENS / 8 * bits + n * half;
}

typedef struct kv_desc {
    int n_layer;
    const kv_layer *layers; /* [n_layer], not needed after kv_new */
    kv_type type;
} kv_desc;

/* A slot of recurrent state is n_part arrays of f32, sizes[i] numbers each: convolution windows,
 * SSM and delta-rule matrices, as the model numbers them. A sequence whose n_past is 0 begins with
 * zeros, whatever its slot held. */
typedef struct state_desc {
    int n_part;
    const int64_t *sizes; /* [n_part], not needed after state_new */
} state_desc;

/* ---- Operators' parameters --------------------------------------------------------------------
 */

typedef struct linear_item {
    const ops_weight *weight;
    ops_mat y;       /* [x.n_row, n_out] */
    bool accumulate; /* y += W x + b, else y = W x + b */
} linear_item;

typedef struct rope_desc {
    const ops_weight *inv_freq;  /* dense F32 vector [n_rot / 2]: angle = position * inv_freq */
    int n_rot;                   /* leading elements of a head that turn, even */
    bool interleaved;            /* pairs (2i, 2i+1); else (i, i + n_rot / 2) */
    float scale;                 /* cos and sin are multiplied by it */
    const ops_weight *long_freq; /* instead of inv_freq for sequences of more than long_from tokens
                                    (n_known); NULL: none */
    int32_t long_from;
} rope_desc;

/* Scores are scale * q k, then softcap * tanh(score / softcap) where there is a softcap. */
typedef struct attention_desc {
    int n_head;
    kv_layer kv; /* as in the cache's layer; n_head is a multiple of its heads */
    float scale;
    int32_t window; /* a token sees itself and window - 1 before it (whole: and after it); 0: all */
    int32_t chunk;  /* it sees none before the last multiple of this up to it; 0: all */
    float softcap;  /* 0: none */
    /* F32, F16 or BF16 [n_head]: a score of each head that joins the softmax without a value, so
     * that a token may attend to nothing; NULL: none. */
    const ops_weight *sinks;
    /* Queries at position p are multiplied by 1 + temper * ln(1 + floor((p + temper_shift) /
     * temper_span)); temper 0: not. */
    float temper;
    int32_t temper_span, temper_shift;
    bool whole; /* not causal: a token sees all of its sequence that the step has brought */
} attention_desc;

typedef enum norm_kind {
    NORM_RMS,   /* x / sqrt(mean(x^2) + eps) */
    NORM_LAYER, /* (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) */
    NORM_L2,    /* x / sqrt(sum(x^2) + eps) */
    NORM_NONE,  /* x: what is left is the product with the weight */
} norm_kind;

/* y = norm(x) * (weight + offset) + bias, over blocks of width numbers of a row. The vectors, where
 * there are any, have a multiple of width elements and are gone through again and again along a
 * row: one head's weight for all heads, or one for each. */
typedef struct norm_desc {
    norm_kind kind;
    int64_t width;
    const ops_weight *weight, *bias; /* NULL: 1 and 0 (offset counts with a weight only) */
    float eps, offset;
} norm_desc;

typedef enum activation {
    ACT_LINEAR, /* a x */
    ACT_SILU,
    ACT_GELU,
    ACT_GELU_TANH,
    ACT_RELU,
    ACT_RELU2,   /* max(x, 0)^2 */
    ACT_SIGMOID, /* 1 / (1 + exp(-x)) */
    ACT_SOFTCAP, /* a tanh(x / a) */
    ACT_CLAMP,   /* min(max(x, -a), a) */
    ACT_XIELU,   /* a x^2 + x / 2 above 0, else b (expm1(min(x, -1e-6)) - x) + x / 2:
                    arXiv:2411.13010 */
} activation;

typedef struct act_desc {
    activation kind;
    float a, b;
} act_desc;

/* Which row of an embedding a token takes. */
typedef enum embed_by { EMBED_IDS, EMBED_POSITIONS, EMBED_TYPES } embed_by;

/* ---- Experts ----
 *
 * A layer with experts sends each token to n_used of them: its routes. What experts compute is a
 * matrix with a row a route, route k of token t being row t * n_used + k. */

#define OPS_MAX_EXPERTS 1024

/* What a router's logits become. */
typedef enum route_score {
    ROUTE_SOFTMAX,        /* softmax over all experts */
    ROUTE_SIGMOID,        /* sigmoid of each */
    ROUTE_SOFTMAX_CHOSEN, /* chosen by the logits themselves, softmax over the chosen */
    /* Chosen by the logits; each by a softmax over the experts not chosen before it whose logits
     * are within 2 * jitter of its own, as a part of the larger magnitude: arXiv:2409.12136. */
    ROUTE_SPARSEMIXER
} route_score;

/* A token takes the n_used experts of the highest score + bias; of equal ones the first. A NaN
 * among the logits makes some choice. Its weights are their scores without the bias, each divided
 * by their sum + sum_eps where renormalise says so, times scale, times expert_scale. */
typedef struct route_desc {
    route_score score;
    const ops_weight *bias; /* dense vector [n_expert], NULL: none */
    /* The experts are n_group parts of equal size, and only the n_group_used best parts are looked
     * at: those with the highest score + bias, or the highest sum of two (group_pairs). 1: all. */
    int n_group, n_group_used;
    bool group_pairs;
    bool renormalise;
    float sum_eps, scale, jitter;
    const ops_weight *expert_scale; /* dense vector [n_expert], NULL: none */
} route_desc;

typedef struct expert_item {
    const ops_weight *weight; /* with the router's number of experts */
    ops_mat y;                /* a row a route, [.., n_out] */
} expert_item;

/* ---- Recurrent layers. What a sequence carries from token to token lies in one part of its slot
 * of state; how it is laid out there is the backend's affair. All weights here are dense F32. ----
 */

typedef struct state_at {
    ops_state *state;
    int part;
} state_at;

/* A causal convolution of each channel by itself. State: (n_tap - 1) * width numbers, the inputs of
 * the tokens before. */
typedef struct conv_desc {
    const ops_weight *weight; /* [n_tap, width], the newest token's tap last; n_tap <= 16 */
    const ops_weight *bias;   /* [width] or NULL */
    bool silu;                /* of the result */
} conv_desc;

/* From a projection to step sizes and decays. */
typedef struct time_step_desc {
    const ops_weight *bias; /* [width] or NULL */
    const ops_weight *a;    /* [width], negative; NULL: no decay is wanted */
    float min, max;         /* step sizes are cut to this range */
} time_step_desc;

/* Mamba's selective scan (arXiv:2312.00752). State: width * n_state numbers. */
typedef struct scan_desc {
    const ops_weight *a; /* [width, n_state], negative */
    const ops_weight *d; /* [width] */
    int n_state;
} scan_desc;

/* Mamba-2's state space duality (arXiv:2405.21060). State: n_head * n_state * head_dim numbers.
 * Heads h * n_group / n_head share their B and C. */
typedef struct ssd_desc {
    int n_head, head_dim, n_group, n_state;
    const ops_weight *d; /* [n_head] */
} ssd_desc;

/* The gated delta rule (arXiv:2412.06464). State: n_head * k_dim * v_dim numbers. Heads of values
 * h * n_k_head / n_head share their q and k. */
typedef struct delta_desc {
    int n_head, n_k_head, k_dim, v_dim;
} delta_desc;

/* The largest step to come, so that scratch is allocated once. */
typedef struct ops_limits {
    int32_t n_tok;
    int64_t width; /* widest matrix an operator reads or writes */
} ops_limits;

/* ---- The table --------------------------------------------------------------------------------
 */

typedef struct ops_table {
    const char *name; /* "ref", "cpu avx512" */
    void (*close)(ops *o);

    /* Memory. A new buffer is zero. */
    jang_status (*buf_new)(ops_buf **out, ops *o, size_t n_bytes);
    void (*buf_free)(ops *o, ops_buf *buf);
    jang_status (*write)(ops *o, ops_buf *buf, size_t at, const void *data, size_t n_bytes);
    jang_status (*read)(ops *o, const ops_buf *buf, size_t at, void *data, size_t n_bytes);
    jang_status (*reserve)(ops *o, const ops_limits *limits);
    jang_status (*finish)(ops *o);

    jang_status (*weight_new)(ops_weight **out, ops *o, const weight_desc *desc);
    void (*weight_free)(ops *o, ops_weight *w);

    jang_status (*batch_new)(ops_batch **out, ops *o);
    void (*batch_free)(ops *o, ops_batch *batch);
    /* Takes over a step; desc is not needed afterwards. Callers have checked ids and pages. */
    jang_status (*batch_set)(ops *o, ops_batch *batch, const batch_desc *desc);

    jang_status (*kv_new)(ops_kv **out, ops *o, const kv_desc *desc);
    void (*kv_free)(ops *o, ops_kv *kv);
    /* Makes pages 0 .. n_pages-1 exist; those there keep their contents. */
    jang_status (*kv_grow)(ops *o, ops_kv *kv, int32_t n_pages);
    /* A page is written to from when it is opened until it is sealed, which is once it is full, or
     * of no use to anybody. Opening what is open and sealing what is not change nothing. */
    jang_status (*kv_open)(ops *o, ops_kv *kv, int32_t page);
    void (*kv_seal)(ops *o, ops_kv *kv, int32_t page);
    /* Bytes that a page takes besides while it is open. */
    size_t (*kv_open_bytes)(const ops_kv *kv);
    /* Copies a page of all layers; what it has while open goes along to a page that is open. */
    void (*kv_copy)(ops *o, ops_kv *kv, int32_t from, int32_t to);
    /* Bytes of a page that is sealed; what it holds, to and from the host. The form is the
     * backend's own: only the same build on the same kind of machine reads it back. */
    size_t (*kv_page_bytes)(const ops_kv *kv);
    void (*kv_save)(ops *o, const ops_kv *kv, int32_t page, void *data);
    void (*kv_load)(ops *o, ops_kv *kv, int32_t page, const void *data);

    jang_status (*state_new)(ops_state **out, ops *o, const state_desc *desc);
    void (*state_free)(ops *o, ops_state *state);
    /* Makes slots 0 .. n_slots-1 exist; those there keep their contents. */
    jang_status (*state_grow)(ops *o, ops_state *state, int32_t n_slots);
    /* Copies a slot, all parts of it: a snapshot, or the way back to one. */
    void (*state_copy)(ops *o, ops_state *state, int32_t from, int32_t to);

    /* y[t] = the row of w that the token's id, position or type says, times scale. y [n_tok, n_in].
     */
    void (*embed)(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
                  ops_mat y);
    /* Products of one input with several weights of equal n_in: x [n_row, n_in]. No y may overlap
     * x or another. */
    void (*linear)(ops *o, ops_mat x, const linear_item *items, int n_items);
    /* y = norm(x), row by row. y may be x. */
    void (*norm)(ops *o, const norm_desc *norm, ops_mat x, ops_mat y);
    /* Turns n_head heads of head_dim columns each in place, by their tokens' positions. */
    void (*rope)(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
                 int head_dim);
    /* Puts the step's keys [n_tok, n_kv_head * k_dim] and values [n_tok, n_kv_head * v_dim] into
     * the cache. */
    void (*kv_store)(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v);
    /* Attention of the step's queries over each sequence's cached keys and values, the step's own
     * included: q [n_tok, n_head * k_dim], out [n_tok, n_head * v_dim]. Softmax in f32. */
    void (*attention)(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                      const ops_batch *batch, ops_mat q, ops_mat out);
    /* Takes columns out of blocks: of every `stride` columns of x those from .. from + width - 1,
     * so that y [n_row, x.width / stride * width]. */
    void (*take_blocks)(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width, ops_mat y);
    /* y[t] = bias + sum over j of weight[j] * x[t - n_tap + 1 + j], all [n_tok, width]; tokens
     * before the step come from the state. y may not overlap x. */
    void (*conv)(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                 ops_mat y);
    /* step = softplus(x + bias) cut to [min, max]; decay = exp(a * step). Either may be x; one
     * whose buf is NULL is not written. */
    void (*time_step)(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step, ops_mat decay);
    /* For each channel: h = exp(a * step) h + step * x * b, y = sum over n of h c + d x. x, step, y
     * [n_tok, width], b and c [n_tok, n_state]. y may be x. */
    void (*scan)(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                 ops_mat step, ops_mat b, ops_mat c, ops_mat y);
    /* For each head: h = decay h + b (step x)^T, y = c^T h + d x. x, y [n_tok, n_head * head_dim],
     * step and decay [n_tok, n_head], b and c [n_tok, n_group * n_state]. y may be x. */
    void (*ssd)(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y);
    /* For each head: S = decay S, S = S + beta k (v - k^T S), y = q^T S. q and k
     * [n_tok, n_k_head * k_dim], v and y [n_tok, n_head * v_dim], beta [n_tok, n_head], decay
     * [n_tok, n_head] or, for each row of S (Kimi Delta Attention, arXiv:2510.26692),
     * [n_tok, n_head * k_dim]. y may be v. */
    void (*delta)(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch, ops_mat q,
                  ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y);
    /* y = act(gate) * up, or act(gate) where up has no buffer. y may be gate or up. */
    void (*gated)(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y);
    /* y += scale * x */
    void (*add)(ops *o, float scale, ops_mat x, ops_mat y);
    /* y[i] = x[out[i]]: the rows whose logits are wanted. y [n_out, width]. */
    void (*take_out)(ops *o, const ops_batch *batch, ops_mat x, ops_mat y);

    /* Room for the routes of n_tok tokens: each to n_used of n_expert experts. */
    jang_status (*routes_new)(ops_routes **out, ops *o, int32_t n_tok, int n_expert, int n_used);
    void (*routes_free)(ops *o, ops_routes *routes);
    /* Chooses by the router's logits [n_tok, n_expert]. */
    void (*route)(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes);
    /* Sends each of n_tok tokens to all experts in their order, by weight 1: for heads that have
     * matrices of their own. */
    void (*route_all)(ops *o, int32_t n_tok, ops_routes *routes);
    /* y[route] = the route's weight times its token's row of x. */
    void (*take_routes)(ops *o, const ops_routes *routes, ops_mat x, ops_mat y);
    /* Products of tokens with their routes' experts alone. x has a row a token or a row a route;
     * no y may overlap x or another. */
    void (*linear_experts)(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                           int n_items);
    /* y[t] = the sum over a token's routes, in order, of the route's weight times its row of x;
     * accumulate: added to y[t]; plain: weights count as 1. */
    void (*sum_routes)(ops *o, const ops_routes *routes, ops_mat x, ops_mat y, bool accumulate,
                       bool plain);
    /* y = (clamp(up, -limit, limit) + 1) g sigmoid(alpha g), g = min(gate, limit). y may be gate
     * or up. */
    void (*gated_clamped)(ops *o, float alpha, float limit, ops_mat gate, ops_mat up, ops_mat y);
    /* y[t] += sigmoid(gate[t]) x[t]; gate has one column. */
    void (*add_gated)(ops *o, ops_mat gate, ops_mat x, ops_mat y);
} ops_table;

/* Every backend's object begins with this. */
struct ops {
    const ops_table *table;
    ctx_t *ctx;
};

/* ---- Opening ----------------------------------------------------------------------------------
 */

typedef struct ops_options {
    bool exact; /* quantized products with f32 activations: dequantized weights, f32 sums */
} ops_options;

/* Opens a backend by name ("cpu", "ref"); NULL: the best there is. An unknown name is
 * JANG_ERR_ARGUMENT with the list. Objects made from it must be freed before it is closed. */
JANG_MUST_CHECK jang_status ops_open(ops **out, ctx_t *ctx, const char *name,
                                     const ops_options *options);
void ops_close(ops *o);

/* Names of the backends in this build, ended by NULL. */
const char *const *ops_backends(void);

#endif
