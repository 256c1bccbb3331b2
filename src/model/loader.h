/* loader.h - binding a checkpoint's tensors to a backend's weights, with every shape checked.
 *
 * Names are given as the hub spells them ("layers.%d.self_attn.q_proj", without the prefix that
 * the whole model has there). A matrix is affine when NAME.scales exists, else dense. */
#ifndef JANG_MODEL_LOADER_H
#define JANG_MODEL_LOADER_H

#include "format/checkpoint.h"
#include "model/model.h"
#include "ops/ops.h"

/* A weight, and memory made here that it points into. */
typedef struct kept_weight {
    ops_weight *w;
    void *owned;        /* mostly NULL */
    char *name;         /* of the module in the checkpoint; NULL: computed here */
    weight_place place; /* module NULL: no part of another */
} kept_weight;

/* Every weight of a model. */
typedef struct weight_list {
    kept_weight *items;
    size_t n, capacity;
} weight_list;

/* Components of names that the hub spells otherwise than mlx-lm, below the model's prefix: "h" and
 * "layers" (GPT-NeoX). Families give mlx-lm's names; the hub's are tried where there is none. */
typedef struct name_alias {
    const char *mlx, *hub;
} name_alias;

/* Sizes of the parts of a recurrent state's slot, as blocks ask for them. */
typedef struct state_list {
    int64_t *sizes; /* [n] */
    int n, capacity;
} state_list;

struct tensor_source;
struct model_survey;

typedef struct loader {
    ctx_t *ctx;
    checkpoint *c;
    const struct tensor_source *source; /* of tensors instead of c; NULL: c */
    struct model_survey *survey;        /* notes what is asked for. Then data of
                                           tensors may not be read: it is not there */
    jang_status noted;                  /* of noting */
    const name_alias *aliases;
    bool own_names; /* noted names are the checkpoint's own */

    ops *o;
    bool careful;       /* all matrices get fine inputs, INPUT_PLAIN ones too */
    const char *prefix; /* of the decoder's tensors: "model." */
    bool turned;        /* dense matrices lie as [n_in, n_out] (GPT-2); load_matrix copies them */
    json_at whole;      /* config.json */
    json_at config;     /* the same, or the text part of it */
    weight_list *weights;
    model_totals *totals;
    state_list *states;
} loader;

typedef enum bias_rule { BIAS_NONE, BIAS_NEEDED } bias_rule;

/* How carefully a quantized matrix's inputs are rounded (weight_desc.fine). Attention breaks first
 * and is a small part of a model; the output matrix sees few rows. */
typedef enum input_rule { INPUT_PLAIN, INPUT_FINE } input_rule;

/* How often a token step reads a matrix: an embedding is read by the row. */
typedef enum read_rule { READ_ALL, READ_ROW } read_rule;

/* Each finds NAME.weight (NAME is made from format) and checks that it is [n_out, n_in] or [n].
 * A bias where the config says none, or none where it says one, is an error. The weight belongs to
 * the model. */
__attribute__((format(printf, 7, 8))) JANG_MUST_CHECK jang_status
load_matrix(ops_weight **out, loader *l, int64_t n_out, int64_t n_in, bias_rule bias,
            input_rule input, const char *format, ...);
__attribute__((format(printf, 4, 5))) JANG_MUST_CHECK jang_status load_vector(ops_weight **out,
                                                                              loader *l, int64_t n,
                                                                              const char *format,
                                                                              ...);
/* As load_vector, of a tensor whose whole name format gives ("layers.%d.self_attn.sinks"). */
__attribute__((format(printf, 4, 5))) JANG_MUST_CHECK jang_status load_param(ops_weight **out,
                                                                             loader *l, int64_t n,
                                                                             const char *format,
                                                                             ...);
/* Rows [first, first + n_out) of a matrix of n_all rows that the checkpoint has. */
typedef struct matrix_rows {
    const char *module; /* its name below that of the layer; NULL: none */
    int64_t first, n_all;
} matrix_rows;

/* Loads them, without a bias, as if they were the matrix base of the layer, whose weights' names
 * begin with prefix. */
JANG_MUST_CHECK jang_status load_matrix_rows(ops_weight **out, loader *l, int64_t n_out,
                                             int64_t n_in, const matrix_rows *rows,
                                             input_rule input, const char *prefix,
                                             const char *base);

/* As load_matrix, read by the row when it is no output matrix as well. */
JANG_MUST_CHECK jang_status load_embedding(ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                                           read_rule rule, const char *name);

/* An embedding of [skip + n_out, n_in] without its first rows, read by the row. */
JANG_MUST_CHECK jang_status load_embedding_rows(ops_weight **out, loader *l, int64_t n_out,
                                                int64_t n_in, int64_t skip, const char *name);

/* As load_matrix, for a name that has no prefix ("lm_head"). */
JANG_MUST_CHECK jang_status load_output(ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                                        bias_rule bias, const char *name);

/* Whether the checkpoint has that output matrix. */
bool loader_has_output(loader *l, const char *name);

/* Makes a weight of values computed here, f32 [n], copied to the backend's keeping. */
JANG_MUST_CHECK jang_status load_computed(ops_weight **out, loader *l, const float *values,
                                          int64_t n, const char *name);

/* ---- Experts (load_experts.c) ---- */

/* How a fused tensor holds gate and up. */
typedef enum fused_order {
    FUSED_NONE,       /* not fused */
    FUSED_ROWS,       /* [n_expert, 2 n_out, n_in], gate first */
    FUSED_COLUMNS,    /* [n_expert, n_in, 2 n_out], gate first */
    FUSED_ALTERNATING /* [n_expert, n_in, 2 n_out], gate and up in turn */
} fused_order;

/* One of the three matrices of a layer's experts, and the ways in which checkpoints name it, below
 * the layer's prefix. Names are tried in this order; NULL: there is no such way. */
typedef struct expert_matrix {
    const char *stacked; /* "mlp.switch_mlp.gate_proj": .weight [n_expert, n_out, n_in] */
    const char *before;  /* "mlp.experts." and what follows an expert's number, */
    const char *after;   /* ".gate_proj": .weight [n_out, n_in] of one expert */
    const char *fused;   /* "mlp.experts.gate_up_proj", itself a tensor's name */
    fused_order order;   /* of fused; FUSED_COLUMNS of a tensor of its own: [.., n_in, n_out] */
    int which, n_fused;  /* of the matrices in it: gate 0, up 1 of 2; 0 of 1 */
    int64_t n_out, n_in;
    bias_rule bias;
    input_rule input;
} expert_matrix;

/* Loads it as one weight of n_expert matrices, n_used of which a token reads. Mapped where it lies,
 * but for tensors that hold columns of what is wanted: those are copied. */
JANG_MUST_CHECK jang_status load_experts(ops_weight **out, loader *l, const expert_matrix *m,
                                         int n_expert, int n_used, const char *prefix);

/* The matrices of latent attention that each head has of its own (load_experts.c). */
typedef struct head_matrices {
    const char *keys, *values; /* stacked: [n_head, n_latent, key_dim], [n_head, value_dim, ..] */
    const char *fused;         /* or [n_head * (key_dim + value_dim), n_latent], keys turned */
    int n_head;
    int64_t key_dim, value_dim, n_latent;
} head_matrices;

/* Loads them as two weights with a matrix a head: keys [n_latent, key_dim], values [value_dim,
 * n_latent]. Keys of a fused tensor are a copy, in f32 where they were quantized. */
JANG_MUST_CHECK jang_status load_head_matrices(ops_weight **keys, ops_weight **values, loader *l,
                                               const head_matrices *m, const char *prefix);

void weight_list_free(weight_list *list, ctx_t *ctx, ops *o);

/* Finds which of the known prefixes the checkpoint's decoder has, by the module of its embedding.
 */
JANG_MUST_CHECK jang_status loader_find_prefix(loader *l, const char *embedding);

/* Whether the checkpoint has a tensor of this name below the prefix. */
bool loader_has(loader *l, const char *name);

/* Reads a tensor of n numbers, whole name below the prefix; ones in a survey. */
JANG_MUST_CHECK jang_status loader_read_numbers(float *out, loader *l, int64_t n, const char *name);

#endif
