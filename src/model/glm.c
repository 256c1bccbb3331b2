/* glm.c - GLM-4-9B (glm) and GLM-4-0414 (glm4): RoPE on half of a head with neighbours as pairs,
 * gate and up in one matrix, biases of q, k and v; glm4 has norms on both sides of each block.
 *
 * References: transformers, models/glm and glm4; arXiv:2406.12793. */
#include "model/decoder.h"

static const decoder_defaults defaults = {.n_context = 131072,
                                          .head_dim = 128,
                                          .n_kv_head = 2,
                                          .rope_theta = 10000,
                                          .partial_rotary = 0.5,
                                          .norm_eps = 1.5625e-7,
                                          .biases = {{"attention_bias", true, BIAS_ON_QKV}}};

static jang_status adapt_glm(decoder_config *c, json_at config) {
    (void)config;
    c->ropes[0].interleaved = true;
    c->mlp.layout = MLP_GATE_UP;
    return JANG_OK;
}

static jang_status adapt_glm4(decoder_config *c, json_at config) {
    c->norms = (layer_norms){.mixer_before = "input_layernorm",
                             .mixer_after = "post_self_attn_layernorm",
                             .ffn_before = "post_attention_layernorm",
                             .ffn_after = "post_mlp_layernorm"};
    return adapt_glm(c, config);
}

const model_family family_glm = {.model_type = "glm", .defaults = &defaults, .adapt = adapt_glm};
const model_family family_glm4 = {.model_type = "glm4", .defaults = &defaults, .adapt = adapt_glm4};
