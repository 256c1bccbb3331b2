/* phi.c - Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side on one LayerNorm, RoPE on part
 * of a head, biases everywhere, the output matrix's too.
 *
 * Reference: transformers, models/phi; arXiv:2309.05463. */
#include "model/decoder.h"

static const decoder_defaults defaults = {
    .n_context = 2048,
    .rope_theta = 10000,
    .partial_rotary = 0.5,
    .norm_eps = 1e-5,
    .eps_key = "layer_norm_eps",
    .act = "gelu_new",
    .biases = {{NULL, true, BIAS_ON_ATTENTION | BIAS_ON_MLP | BIAS_ON_OUTPUT}}};

static jang_status adapt(decoder_config *c, json_at config) {
    bool qk_norm = false;
    attention_config *a = &c->attention;
    c->norm.kind = NORM_LAYER;
    c->norm.bias = BIAS_NEEDED;
    c->norms = (layer_norms){.mixer_before = "input_layernorm"};
    c->beside = BESIDE_SAME;
    c->norm_name = "final_layernorm";
    a->norm = c->norm;
    a->o = "dense";
    a->q_norm = "q_layernorm";
    a->k_norm = "k_layernorm";
    c->mlp.layout = MLP_PLAIN;
    c->mlp.up = "fc1";
    c->mlp.down = "fc2";
    jang_status status = json_get_bool(&qk_norm, config, "qk_layernorm", false);
    a->qk_norm = qk_norm ? QK_NORM_HEAD : QK_NORM_NONE;
    return status;
}

const model_family family_phi = {.model_type = "phi", .defaults = &defaults, .adapt = adapt};
