/* moe.h - the mixture-of-experts block: a router sends each token to a few of many MLPs, whose
 * weighted sum is the result; shared experts, which all tokens pass, are added.
 *
 *     y = sum_k w_k down_k(act(gate_k(h)) * up_k(h)) + shared(h)
 *
 * The router and the experts may each read h through a norm of their own (Gemma 4); the experts may
 * work in a narrower space, between two projections that they share (Nemotron 3).
 *
 * Sources: Mixtral, arXiv:2401.04088; shared experts and groups, DeepSeek, arXiv:2401.06066 and
 * arXiv:2412.19437. Routing is in ops.h (route_desc). */
#ifndef JANG_MODEL_MOE_H
#define JANG_MODEL_MOE_H

#include "model/decoder.h"

/* Where a checkpoint keeps the parts of such a layer, below "layers.N."; see expert_matrix. */
typedef struct moe_names {
    const char *router;               /* "mlp.gate" */
    const char *select_bias;          /* "mlp.gate.e_score_correction_bias", a tensor's name */
    const char *stacked[3];           /* gate, up, down */
    const char *before, *after[3];    /* one tensor an expert */
    const char *fused_in, *fused_out; /* gate and up; down, where that is no .weight */
    fused_order in_order, out_order;
    const char *shared, *shared_gate; /* "mlp.shared_expert", "mlp.shared_expert_gate" */
    const char *latent_in, *latent_out;
    const char *expert_scale; /* of route_desc, a tensor's name; NULL: none */
} moe_names;

/* mlp.experts.N.gate_proj, mlp.switch_mlp: Qwen, DeepSeek, GLM, OLMoE and most others. */
extern const moe_names moe_names_mlp;
/* block_sparse_moe.experts.N.w1: Mixtral, Phi-MoE, MiniMax. */
extern const moe_names moe_names_sparse;

typedef struct moe_config {
    const moe_names *names;
    int64_t n_expert, n_used, n_ff;
    route_desc route; /* its weights are found by names */
    bias_rule router_bias, select_bias, expert_bias;
    act_desc act;
    double clamp;        /* gpt-oss: swiglu_limit, with alpha; 0: plain act */
    double clamp_alpha;  /* 1.702 */
    bool scale_input;    /* Llama 4: routes' weights multiply the experts' input */
    int64_t n_shared_ff; /* 0: no shared expert */
    bool shared_gated;   /* sigmoid(shared_gate(h)) times the shared expert */
    bool plain;          /* experts, shared ones too, have no gate: down(act(up(h))) */
    bias_rule shared_bias;
    int64_t n_latent; /* width of the experts' input and result; 0: the stream's */
    bias_rule latent_bias;
    norm_desc router_norm, input_norm; /* width 0: none */
} moe_config;

/* Makes a block whose weights' names begin with prefix ("layers.3."). */
JANG_MUST_CHECK jang_status moe_make(block **out, loader *l, work *w, const moe_config *c,
                                     int64_t n_embd, const char *prefix);

/* A decoder's ffn of families with experts in all layers; its own is the moe_config. */
JANG_MUST_CHECK jang_status moe_in_every_layer(block **out, decoder *d, loader *l,
                                               const decoder_config *c, int layer);

/* Reads the numbers of experts and of those used, and checks them: n_expert from the first of the
 * keys that is there. */
JANG_MUST_CHECK jang_status moe_read_counts(moe_config *c, json_at config,
                                            const char *const *expert_keys, const char *used_key,
                                            int64_t default_experts, int64_t default_used);

/* Reads n_group and topk_group and checks that they fit the experts. */
JANG_MUST_CHECK jang_status moe_read_groups(moe_config *c, json_at config, int64_t default_groups,
                                            int64_t default_used);

#endif
