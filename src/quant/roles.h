/* roles.h - what a tensor is for, by its name, and the tier of bits that belongs to it.
 *
 * A role says which matrix of which block a tensor is ("q_proj", "expert_down"); a tier says which
 * column of a profile decides its width. Tensors that must stay in a floating type have the tier
 * TIER_FLOAT. Names are Hugging Face's or mlx-lm's. */
#ifndef JANG_QUANT_ROLES_H
#define JANG_QUANT_ROLES_H

#include <stdbool.h>

typedef enum quant_tier {
    TIER_FLOAT, /* never quantized: norms, routers, convolutions, biases, state parameters */
    TIER_MLP,
    TIER_ATTENTION,
    TIER_EMBEDDING,
    TIER_LM_HEAD,
    TIER_COUNT
} quant_tier;

typedef enum tensor_role {
    ROLE_OTHER, /* unknown: kept in floating point */
    ROLE_NORM,
    ROLE_BIAS,
    ROLE_CONV,
    ROLE_ROUTER,
    ROLE_STATE,     /* A, D, dt of state-space models, attention sinks, layer scalars */
    ROLE_LABELS,    /* a classifier's head */
    ROLE_POSITIONS, /* learned embeddings of positions */
    ROLE_EMBEDDING,
    ROLE_LM_HEAD,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_QKV,
    ROLE_MLA,         /* the low-rank projections of multi-head latent attention */
    ROLE_LAYER_INPUT, /* what a layer's own embedding passes (Gemma 4) */
    ROLE_LINEAR_IN,   /* linear attention (gated delta rule) */
    ROLE_LINEAR_OUT,  /* ... */
    ROLE_SSM_IN,
    ROLE_SSM_OUT,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_GATE_UP,
    ROLE_EXPERT_GATE,
    ROLE_EXPERT_UP,
    ROLE_EXPERT_DOWN,
    ROLE_EXPERT_GATE_UP,
    ROLE_SHARED_GATE,
    ROLE_SHARED_UP,
    ROLE_SHARED_DOWN,
    ROLE_SHARED_GATE_UP,
    ROLE_COUNT
} tensor_role;

typedef struct role_info {
    const char *name; /* as plans print it: "q_proj" */
    quant_tier tier;
} role_info;

const role_info *role_get_info(tensor_role role);
const char *tier_name(quant_tier tier);

/* Finds the role of a tensor by its full name, e.g. "model.layers.3.self_attn.q_proj.weight". */
tensor_role role_of(const char *name);

/* What follows the layer in a name ("mlp.up_proj.weight" in "model.layers.3.mlp.up_proj.weight"),
 * with the layer's number; NULL: the name speaks of none. GPT-2's layers are called h. */
const char *role_below_layer(const char *name, int *layer);

/* Number of the layer a name speaks of ("model.layers.3.mlp..." -> 3), or -1. */
int role_layer(const char *name);

#endif
