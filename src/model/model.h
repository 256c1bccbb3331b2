/* model.h - a language model: a family's weights on a backend, and its forward pass.
 *
 * The unit of work is a batch of tokens of several sequences (ops.h, batch_desc); one sequence is a
 * batch of one. A step computes the batch through all layers; the hidden states of the rows in
 * batch_desc.out are then kept for model_logits. A model is used by one thread at a time. */
#ifndef JANG_MODEL_H
#define JANG_MODEL_H

#include "format/checkpoint.h"
#include "ops/ops.h"

typedef struct model model;

/* Sizes that the engine above needs. */
typedef struct model_facts {
    int32_t n_vocab, n_embd, n_layer;
    int32_t n_context;          /* longest sequence */
    const kv_layer *kv_layers;  /* [n_layer] what each keeps in the cache; the family's own */
    bool bounded;               /* positions from n_context on have no embedding */
    const int64_t *state_sizes; /* [n_state] numbers of each part of a slot; the family's own */
    int n_state;                /* 0: no recurrent state */
    int32_t long_from;          /* longer sequences turn by other RoPE frequencies; 0: none do */
    bool tied;                  /* the embedding is the output matrix */
    bool whole;                 /* a token sees all of its sequence, which must come in one step */
    bool no_output;             /* there is no output matrix: model_logits fails */
    int32_t n_label;            /* scores of model_labels; 0: it is no classifier */
    int32_t n_type;             /* token types it tells apart; 0: none */
} model_facts;

/* What the weights amount to. */
typedef struct model_totals {
    int64_t n_params;
    uint64_t weight_bytes;  /* scales and biases included */
    uint64_t token_bytes;   /* read to make one token: all but an untied embedding's other rows */
    int64_t n_quantized;    /* parameters in quantized matrices ... */
    int64_t quantized_bits; /* ... and the bits of their codes */
    dtype largest_type;     /* element type of the largest unquantized matrix */
    int64_t largest_dense;  /* its number of elements */
    int min_bits, max_bits; /* over quantized matrices; 0: there are none */
} model_totals;

/* Binds the checkpoint's weights to a backend. Both must outlive the model. Errors: an unknown
 * model_type (with the known ones), a missing tensor, a shape that contradicts the config, a
 * setting of the config that the family does not support: always by name. */
JANG_MUST_CHECK jang_status model_open(model **out, ctx_t *ctx, checkpoint *c, ops *o);
void model_close(model *m);

const model_facts *model_get_facts(const model *m);
const model_totals *model_get_totals(const model *m);
const char *model_get_family(const model *m);

/* Makes room for steps of up to n_tok tokens. Called before the first step and to enlarge. */
JANG_MUST_CHECK jang_status model_reserve(model *m, int32_t n_tok);

/* Makes room for n rows of logits computed at once (MODEL_LOGIT_ROWS without it): for those who
 * want many. */
JANG_MUST_CHECK jang_status model_reserve_logits(model *m, int32_t n);

/* ---- What a model remembers of its sequences ---- */

/* Keys and values in pages, recurrent state in slots; NULL what the model has none of. */
typedef struct model_cache {
    ops_kv *kv;
    ops_state *state;
    kv_type type; /* of the pages */
} model_cache;

/* Makes an empty cache, of no pages and no slots yet. */
JANG_MUST_CHECK jang_status model_cache_new(model_cache *out, model *m, kv_type type);
void model_cache_free(model_cache *cache, model *m);
/* Makes pages 0 .. n_pages-1 and slots 0 .. n_slots-1 exist. */
JANG_MUST_CHECK jang_status model_cache_grow(model_cache *cache, model *m, int32_t n_pages,
                                             int32_t n_slots);

/* Before a page is written to, and once it is full or free: see ops_table. */
JANG_MUST_CHECK jang_status model_cache_open_page(model_cache *cache, model *m, int32_t page);
void model_cache_seal_page(model_cache *cache, model *m, int32_t page);
/* Copies a page of keys and values; a slot of state. */
void model_cache_copy_page(model_cache *cache, model *m, int32_t from, int32_t to);
void model_cache_copy_state(model_cache *cache, model *m, int32_t from, int32_t to);
/* What a page holds, as model_cache_page_bytes bytes of a backend's own form. */
void model_cache_save_page(const model_cache *cache, model *m, int32_t page, void *data);
void model_cache_load_page(model_cache *cache, model *m, int32_t page, const void *data);
/* Bytes of a page, and of a slot; 0 what the model has none of. */
size_t model_cache_page_bytes(const model_cache *cache, const model *m);
uint64_t model_state_bytes(const model *m);
/* Bytes that a page takes besides while it is open. */
size_t model_cache_open_bytes(const model_cache *cache, const model *m);

/* ---- Steps ---- */

/* Computes a batch of at most the reserved number of tokens. Ids are checked here; pages and slots
 * must exist in the cache. */
JANG_MUST_CHECK jang_status model_step(model *m, const batch_desc *batch, const model_cache *cache);

/* Stages first to last of a layer: one for each block (attention, MLP), or for blocks that stand
 * beside each other. All that a stage takes over from the one before is the residual stream. */
typedef struct layer_stages {
    int layer, first, last; /* last may be beyond the last there is */
} layer_stages;

int model_stages(const model *m, int layer);

/* The same in parts, for those who look between the layers (calibration): begin checks the batch
 * and embeds its tokens; each stage works on the residual stream, which may be read and written
 * between them as stream [n_tok, n_embd]; end norms the out rows for model_logits and waits. */
JANG_MUST_CHECK jang_status model_begin(model *m, const batch_desc *batch);
void model_layer(model *m, layer_stages which, const batch_desc *batch, const model_cache *cache);
ops_mat model_stream(model *m, int64_t n_tok);
JANG_MUST_CHECK jang_status model_end(model *m, const batch_desc *batch);

/* Logits of rows [first, first + n) of the last step's out rows, f32 [n, n_vocab], to the host. */
JANG_MUST_CHECK jang_status model_logits(model *m, int32_t first, int32_t n, float *logits);

/* A classifier's scores, before any softmax or sigmoid, of the same rows: f32 [n, n_label]. They
 * are meant for a sequence's first row where facts say whole, else for its last. */
JANG_MUST_CHECK jang_status model_labels(model *m, int32_t first, int32_t n, float *labels);

/* Final hidden states (normed, what the output matrix multiplies) of rows [first, first + n) of the
 * last step's out rows, f32 [n, n_embd], to the host. */
JANG_MUST_CHECK jang_status model_hidden(model *m, int32_t first, int32_t n, float *hidden);

/* The name of the weight's module in the checkpoint ("model.layers.0.mlp.up_proj"), borrowed until
 * the model is closed; NULL for a weight that is none of the checkpoint's. */
const char *model_weight_name(const model *m, const ops_weight *w);

/* Where the matrices of a weight lie that the checkpoint holds as a part of another one: matrix e
 * is the rows of that one from first + e * step on. */
typedef struct weight_place {
    char *module; /* that other one's name; the weight's own is what it has where it stands alone */
    int64_t first, step;
    bool turned; /* the rows are the matrix's columns */
} weight_place;

/* Borrowed until the model is closed; NULL: the weight is no part of another. */
const weight_place *model_weight_place(const model *m, const ops_weight *w);

#endif
