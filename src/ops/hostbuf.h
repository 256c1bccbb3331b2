/* hostbuf.h - what backends that compute in the host's memory share: blocks, buffers, batches,
 * weights, and a note of the first failure of a step.
 *
 * All memory that model code must not touch (activations, keys and values, batches) lies in blocks
 * of whole memory pages, linked in a list of their backend, so that a test can take away the
 * access to all of it while no operator runs. */
#ifndef JANG_OPS_HOSTBUF_H
#define JANG_OPS_HOSTBUF_H

#include "ops/ops.h"

#include <math.h>

#define HOST_PAGE_BYTES 4096

typedef struct host_block {
    uint8_t *data;  /* at a multiple of HOST_PAGE_BYTES */
    size_t n_bytes; /* a multiple of HOST_PAGE_BYTES */
    struct host_block *next, **link;
} host_block;

/* Every host backend's object begins with this. */
typedef struct host_ops {
    ops base;
    host_block *blocks;
    jang_status status; /* of the operators since the last finish */
    uint64_t last_serial;
} host_ops;

static inline host_ops *host_of(ops *o) {
    return (host_ops *)o;
}

/* Makes a block, cleared. n_bytes is rounded up; 0 gives one page. */
JANG_MUST_CHECK jang_status host_block_new(host_block **out, ops *o, size_t n_bytes);
void host_block_free(ops *o, host_block *block);

/* Records a failure inside an operator, which cannot return one; ops_finish reports the first. */
__attribute__((format(printf, 3, 4))) void host_fail(ops *o, jang_status status, const char *format,
                                                     ...);

/* ---- Buffers ----------------------------------------------------------------------------------
 */

struct ops_buf {
    host_block *block;
    size_t n_bytes;
};

/* The table's entries for buffers. */
jang_status host_buf_new(ops_buf **out, ops *o, size_t n_bytes);
void host_buf_free(ops *o, ops_buf *buf);
jang_status host_write(ops *o, ops_buf *buf, size_t at, const void *data, size_t n_bytes);
jang_status host_read(ops *o, const ops_buf *buf, size_t at, void *data, size_t n_bytes);
jang_status host_finish(ops *o);

/* Row i of a matrix. */
static inline float *host_row(ops_mat m, int64_t i) {
    return (float *)(void *)m.buf->block->data + m.at + i * m.stride;
}

/* ---- Batches ----------------------------------------------------------------------------------
 */

struct ops_batch {
    host_block *block; /* holds all that the pointers below lead to */
    uint64_t serial;   /* of the step: no two of a backend are alike; never 0 */
    int32_t n_tok, n_seq, n_out;
    int32_t *ids;    /* [n_tok] */
    int32_t *pos;    /* [n_tok] position of a token in its sequence */
    int32_t *types;  /* [n_tok] */
    int32_t *seq_of; /* [n_tok] */
    int32_t *out;    /* [n_out] */
    batch_seq *seqs; /* [n_seq], with pages in this block */
};

jang_status host_batch_new(ops_batch **out, ops *o);
void host_batch_free(ops *o, ops_batch *batch);
/* Which rows of an embedding the batch's tokens take: [n_tok]. */
const int32_t *host_batch_rows(const ops_batch *batch, embed_by by);
jang_status host_batch_set(ops *o, ops_batch *batch, const batch_desc *desc);

/* ---- Weights ----------------------------------------------------------------------------------
 */

struct ops_weight {
    weight_desc d;         /* memory borrowed from the model's files, at any alignment; no name */
    expert_data experts[]; /* [d.n_expert], where d.experts points */
};

/* One of a weight's experts as a weight by itself. */
static inline weight_desc host_expert(const ops_weight *w, int expert) {
    weight_desc d = w->d;
    const expert_data *e = &w->d.experts[expert];
    d.data = e->data;
    d.scales = e->scales;
    d.biases = e->biases;
    d.bias = e->bias;
    d.experts = NULL;
    d.n_expert = 0;
    return d;
}

/* Checks the description and keeps it. Errors: JANG_ERR_ARGUMENT, naming the weight. */
jang_status host_weight_new(ops_weight **out, ops *o, const weight_desc *desc);
void host_weight_free(ops *o, ops_weight *w);

/* Element i of an array of F32, F16 or BF16 at any alignment. */
float host_element(const void *data, dtype type, int64_t i);

static inline const uint8_t *host_affine_row(const ops_weight *w, int64_t row) {
    return (const uint8_t *)w->d.data + (size_t)(row * (w->d.n_in * w->d.bits / 8));
}

/* ---- Routes -----------------------------------------------------------------------------------
 */

struct ops_routes {
    host_block *block; /* holds all that the pointers below lead to */
    int32_t max_tok;
    int n_expert, n_used;
    int32_t n_tok;   /* of the last route */
    int32_t *expert; /* [n_tok * n_used] of each route */
    float *weight;   /* [n_tok * n_used] */
    int32_t *first;  /* [n_expert + 1] where an expert's routes begin in order */
    int32_t *order;  /* [n_tok * n_used] routes by expert, rising within one */
};

/* The table's entries for routes. */
jang_status host_routes_new(ops_routes **out, ops *o, int32_t n_tok, int n_expert, int n_used);
void host_routes_free(ops *o, ops_routes *routes);
/* Whether logits are for these routes and routes has room; if not, host_fail has said so. Sets
 * n_tok. */
bool host_route_begin(ops *o, const route_desc *desc, ops_mat logits, ops_routes *routes);
/* Chooses for one token: logits [n_expert], expert and weight [n_used]. */
void host_route_row(const route_desc *desc, const float *logits, int n_expert, int n_used,
                    int32_t *expert, float *weight);
/* The choice that route_all makes; false: routes has no room, and host_fail has said so. */
bool host_route_all(ops *o, int32_t n_tok, ops_routes *routes);
/* Fills first and order when all rows are chosen. */
void host_route_sort(ops_routes *routes);
/* Whether x and the items fit the routes; if not, host_fail has said so. */
bool host_experts_check(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items);

/* Row of x that a route reads. */
static inline const float *host_route_input(const ops_routes *routes, ops_mat x, int32_t route) {
    return host_row(x, x.n_row == routes->n_tok ? route / routes->n_used : route);
}

/* ---- Recurrent state --------------------------------------------------------------------------
 */

struct ops_state {
    int n_part;
    int64_t *at; /* [n_part + 1] where a part begins in a slot, in numbers; the last: its end */
    host_block **slots; /* [n_slots] */
    int32_t n_slots;
};

/* The table's entries for state. */
jang_status host_state_new(ops_state **out, ops *o, const state_desc *desc);
void host_state_free(ops *o, ops_state *state);
jang_status host_state_grow(ops *o, ops_state *state, int32_t n_slots);
void host_state_copy(ops *o, ops_state *state, int32_t from, int32_t to);

/* Part `part` of a slot. */
static inline float *host_state_part(const ops_state *state, int32_t slot, int part) {
    return (float *)(void *)state->slots[slot]->data + state->at[part];
}

/* The same for a sequence of a batch: cleared where the sequence begins. */
float *host_state_begin(state_at at, const batch_seq *seq);

/* A layer of a cache, as host backends lay it into a page. */
typedef struct host_kv_layer {
    kv_layer d;
    size_t at;    /* elements of a page in the layers before it, ... */
    size_t keys;  /* of which so many are keys' */
    size_t heads; /* and their kv heads */
} host_kv_layer;

/* Turns x [n], in place, by a Hadamard matrix over each block of the largest power of two that
 * divides n, divided by the root of its size: a rotation, and its own inverse. Products of two
 * vectors stay; one large number becomes many small ones (QuaRot, arXiv:2404.00456). */
void host_kv_rotate(float *x, int n);

/* Rounds x [n], which host_kv_rotate has turned, to integers of 8, 6 or 4 bits: params[0] * code
 * with codes of both signs (8), or params[0] * code + params[1] with codes from 0. Parameters are
 * numbers of f16. With an infinity or NaN in x, params[0] is NaN. */
void host_kv_round(int8_t *codes, float *params, const float *x, int n, int bits);

/* The token of a page whose key is farthest from their mean: far [OPS_PAGE_TOKENS] begins with
 * zeros, each row of keys [OPS_PAGE_TOKENS] adds to it. */
void host_kv_add_far(float *far, const float *row);
int host_kv_farthest(const float *far);

/* Checks a cache's sizes and lays out a page: out [n_layer + 1], the last of which begins where a
 * page ends. Freed by the caller with ctx_free. */
JANG_MUST_CHECK jang_status host_kv_layout(host_kv_layer **out, ops *o, const kv_desc *desc);

/* The frequencies by which a token's angles are made. */
static inline const ops_weight *host_rope_freq(const rope_desc *rope, const ops_batch *batch,
                                               int64_t token) {
    const batch_seq *seq = &batch->seqs[batch->seq_of[token]];
    int32_t n = seq->n_past + seq->n_tok;
    if (seq->n_known) {
        n = batch->pos[token] + 1 > seq->n_known ? batch->pos[token] + 1 : seq->n_known;
    }
    return rope->long_freq && n > rope->long_from ? rope->long_freq : rope->inv_freq;
}

/* The positions from .. to - 1 that the token at pos sees, of a sequence of n tokens so far. */
static inline void host_sight(const attention_desc *d, int32_t n, int32_t pos, int32_t *from,
                              int32_t *to) {
    int32_t window = d->window > 0 && pos >= d->window ? pos - d->window + 1 : 0;
    int32_t chunk = d->chunk > 0 ? pos - pos % d->chunk : 0;
    int32_t end = d->whole ? n : pos + 1;
    *from = chunk > window ? chunk : window;
    *to = d->window > 0 && end - pos > d->window ? pos + d->window : end;
}

/* What attention_desc.temper makes of queries at this position. */
static inline float host_temper(const attention_desc *d, int32_t pos) {
    return d->temper == 0 ? 1.0f
                          : 1.0f + d->temper * logf(1.0f + floorf((float)(pos + d->temper_shift) /
                                                                  (float)d->temper_span));
}

/* Bytes of one row of a weight, scales and biases included. */
size_t host_row_bytes(const ops_weight *w);

#endif
