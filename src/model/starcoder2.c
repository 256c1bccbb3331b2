/* starcoder2.c - StarCoder2: LayerNorms with biases, an MLP without gate, biases by use_bias.
 *
 * Reference: transformers, models/starcoder2; arXiv:2402.19173. */
#include "model/decoder.h"

static const decoder_defaults defaults = {
    .n_context = 4096,
    .n_kv_head = 2,
    .rope_theta = 10000,
    .tied = true,
    .norm_eps = 1e-5,
    .eps_key = "norm_epsilon",
    .act = "gelu_pytorch_tanh",
    .biases = {{"use_bias", true, BIAS_ON_ATTENTION | BIAS_ON_MLP}}};

static jang_status adapt(decoder_config *c, json_at config) {
    c->norm.kind = NORM_LAYER;
    c->norm.bias = BIAS_NEEDED;
    c->mlp.layout = MLP_PLAIN;
    c->mlp.up = "c_fc";
    c->mlp.down = "c_proj";
    return decoder_read_window(&c->attention.window, config, 0);
}

const model_family family_starcoder2 = {
    .model_type = "starcoder2", .defaults = &defaults, .adapt = adapt};
