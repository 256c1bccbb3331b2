/* names_impl.h - what the tables of families are made of; seen by names*.c only. */
#ifndef JANG_QUANT_NAMES_IMPL_H
#define JANG_QUANT_NAMES_IMPL_H

#include "quant/names.h"
#include "quant/part_maps.h"

typedef enum name_need {
    NEED_ALWAYS,
    NEED_MAYBE,   /* may be there: a bias */
    NEED_HEAD,    /* needed unless embeddings are tied, and dropped if they are */
    NEED_EXPERTS, /* needed in layers with experts: those where the first such rule has a part */
    NEED_DENSE,   /* needed in the others */
    NEED_DROP,    /* found in old checkpoints, of no use */
} name_need;

typedef struct name_rule {
    const char *name; /* within a layer: what follows "model.layers.N." */
    bool in_layer;
    name_need need;
    name_size rows, columns; /* of a matrix; a vector has no columns */
} name_rule;

struct name_family {
    const char *model_type;
    const name_rule *rules[6]; /* tables ended by a NULL name; the last is NULL */
    int64_t head_dim;          /* where the config does not say it; 0: hidden_size / heads */
    const map_rule *maps[3];   /* how mlx-lm's tensors are made of the hub's; the last is NULL */
};

/* names_moe.c */
extern const name_rule names_mlp_experts[], names_shared_expert[], names_shared_experts[],
    names_sparse_experts[], names_gpt_oss[], names_mla[];
extern const map_rule names_stack_mlp[], names_stack_sparse[], names_split_gpt_oss[],
    names_split_mla[];

#endif
