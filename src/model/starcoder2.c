/* starcoder2.c - StarCoder2: LayerNorms with biases, an MLP without gate, biases by use_bias.
 *
 * Reference: transformers, models/starcoder2; arXiv:2402.19173. */
#include "model/decoder.h"

static jang_status starcoder2_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 4096,
                                              .n_kv_head = 2,
                                              .rope_theta = 10000,
                                              .tied = true,
                                              .norm_eps = 1e-5,
                                              .eps_key = "norm_epsilon",
                                              .act = "gelu_pytorch_tanh"};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    const bias_key biases[] = {
        {"use_bias", true, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}},
        {"use_bias", true, {&c.mlp.bias}},
    };
    c.norm.kind = NORM_LAYER;
    c.norm.bias = BIAS_NEEDED;
    c.mlp.layout = MLP_PLAIN;
    c.mlp.up = "c_fc";
    c.mlp.down = "c_proj";
    status = decoder_read_biases(l->config, biases, 2);
    return decoder_finish(
        m, l, &c, status == JANG_OK ? decoder_read_window(&a->window, l->config, 0) : status);
}

const model_family family_starcoder2 = {.model_type = "starcoder2", .open = starcoder2_open};
