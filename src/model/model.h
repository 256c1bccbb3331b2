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
    int32_t n_context; /* longest sequence */
    int32_t n_kv_head, head_dim;
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

/* Computes a batch of at most the reserved number of tokens. Ids are checked here; pages must exist
 * in kv, which was made by model_kv_desc. */
JANG_MUST_CHECK jang_status model_step(model *m, const batch_desc *batch, ops_kv *kv);

/* Logits of rows [first, first + n) of the last step's out rows, f32 [n, n_vocab], to the host. */
JANG_MUST_CHECK jang_status model_logits(model *m, int32_t first, int32_t n, float *logits);

/* What a KV pool for this model looks like. */
kv_desc model_kv_desc(const model *m, kv_type type);

#endif
