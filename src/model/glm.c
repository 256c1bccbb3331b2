/* glm.c - GLM-4-9B (glm) and GLM-4-0414 (glm4): RoPE on half of a head with neighbours as pairs,
 * gate and up in one matrix, biases of q, k and v; glm4 has norms on both sides of each block.
 *
 * References: transformers, models/glm and glm4; arXiv:2406.12793. */
#include "model/decoder.h"

static jang_status read_both(decoder_config *c, json_at config) {
    static const decoder_defaults defaults = {.n_context = 131072,
                                              .head_dim = 128,
                                              .n_kv_head = 2,
                                              .rope_theta = 10000,
                                              .partial_rotary = 0.5,
                                              .norm_eps = 1.5625e-7};
    jang_status status = decoder_read_config(c, config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c->attention;
    const bias_key bias = {"attention_bias", true, {&a->q_bias, &a->k_bias, &a->v_bias}};
    c->ropes[0].interleaved = true;
    c->mlp.layout = MLP_GATE_UP;
    status = decoder_read_biases(config, &bias, 1);
    if (status != JANG_OK) {
        decoder_config_free(c, config.ctx);
    }
    return status;
}

static jang_status glm_open(model *m, loader *l) {
    decoder_config c;
    jang_status status = read_both(&c, l->config);
    return status == JANG_OK ? decoder_open(m, l, &c) : status;
}

static jang_status glm4_open(model *m, loader *l) {
    decoder_config c;
    jang_status status = read_both(&c, l->config);
    if (status != JANG_OK) {
        return status;
    }
    c.norms = (layer_norms){.mixer_before = "input_layernorm",
                            .mixer_after = "post_self_attn_layernorm",
                            .ffn_before = "post_attention_layernorm",
                            .ffn_after = "post_mlp_layernorm"};
    return decoder_open(m, l, &c);
}

const model_family family_glm = {.model_type = "glm", .open = glm_open};
const model_family family_glm4 = {.model_type = "glm4", .open = glm4_open};
