/* block.h - what the parts of a layer have in common: attention, MLPs, experts, recurrences.
 *
 * A block takes its input, one row a token, and leaves its result in another matrix or adds it to
 * one. It holds its weights and settings; activations lie in the step's workspace, whose slots
 * all blocks share, since they run one after the other. A block's own struct begins with `block`.
 */
#ifndef JANG_MODEL_BLOCK_H
#define JANG_MODEL_BLOCK_H

#include "model/family.h"

/* ---- Workspace ---- */

/* Slots of f32 matrices [n_tok, width]. The first few are the decoder's, the rest are any block's
 * while it runs. */
enum {
    WORK_STREAM, /* the residual stream */
    WORK_INPUT,  /* a block's input */
    WORK_INPUT2, /* the input of the block beside it */
    WORK_RESULT, /* a block's result before it is normed, scaled and added */
    WORK_KEPT,   /* what the family keeps through a step (per-layer embeddings) */
    WORK_BLOCK,  /* first of the blocks' */
    WORK_SLOTS = WORK_BLOCK + 12
};

/* Routes that blocks share likewise. */
enum {
    WORK_EXPERTS, /* chosen by a router */
    WORK_HEADS,   /* each token to every head's own matrix */
    WORK_ROUTES
};

typedef struct work {
    int64_t widths[WORK_SLOTS]; /* 0: unused */
    ops_buf *bufs[WORK_SLOTS];
    struct {
        int n_expert, n_used; /* 0: unused */
        ops_routes *routes;
    } routes[WORK_ROUTES];
} work;

/* Says that slot needs rows of width; while a model is opened. */
void work_need(work *w, int slot, int64_t width);
/* Says that routes to n_used of n_expert experts are needed; JANG_ERR_UNSUPPORTED when another
 * layer has said other numbers. */
JANG_MUST_CHECK jang_status work_need_routes(work *w, ctx_t *ctx, int which, int n_expert,
                                             int n_used);
/* Makes the buffers for n_tok tokens and reserves the backend's scratch. */
JANG_MUST_CHECK jang_status work_reserve(work *w, ops *o, int32_t n_tok);
void work_free(work *w, ops *o);

/* ---- Steps and blocks ---- */

/* A step as blocks see it. */
typedef struct block_step {
    ops *o;
    const ops_table *t; /* o's */
    const ops_batch *batch;
    int32_t n_tok;
    const model_cache *cache;
    const work *work;
} block_step;

/* The first width columns of a slot, a row for each token. */
ops_mat step_rows(const block_step *s, int slot, int64_t width);

typedef struct block block;

typedef struct block_kind {
    const char *name;
    /* y = block(h), or y += block(h) when add is set. h and y may not overlap. */
    void (*run)(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add);
    void (*close)(block *b, ctx_t *ctx); /* NULL: ctx_free is enough */
} block_kind;

struct block {
    const block_kind *kind;
};

void block_close(block *b, ctx_t *ctx);

/* ---- Norms ---- */

typedef struct norm_config {
    norm_kind kind;
    double eps, offset;
    bias_rule bias;
    bool plain; /* without a weight */
} norm_config;

/* Loads a norm over blocks of width; its weight and bias have n elements (n = width but where each
 * head has its own). */
__attribute__((format(printf, 6, 7))) JANG_MUST_CHECK jang_status
load_norm(norm_desc *out, loader *l, const norm_config *c, int64_t width, int64_t n,
          const char *format, ...);

#endif
