/* phi.c - Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side on one LayerNorm, RoPE on part
 * of a head, biases everywhere, the output matrix's too.
 *
 * Reference: transformers, models/phi; arXiv:2309.05463. */
#include "model/decoder.h"

static jang_status phi_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 2048,
                                              .rope_theta = 10000,
                                              .partial_rotary = 0.5,
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_eps",
                                              .act = "gelu_new"};
    decoder_config c;
    bool qk_norm;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    c.norm.kind = NORM_LAYER;
    c.norm.bias = BIAS_NEEDED;
    c.norms = (layer_norms){.mixer_before = "input_layernorm"};
    c.beside = BESIDE_SAME;
    c.norm_name = "final_layernorm";
    c.output_bias = BIAS_NEEDED;
    a->norm = c.norm;
    a->q_bias = a->k_bias = a->v_bias = a->o_bias = BIAS_NEEDED;
    a->o = "dense";
    a->q_norm = "q_layernorm";
    a->k_norm = "k_layernorm";
    c.mlp.layout = MLP_PLAIN;
    c.mlp.bias = BIAS_NEEDED;
    c.mlp.up = "fc1";
    c.mlp.down = "fc2";
    status = json_get_bool(&qk_norm, l->config, "qk_layernorm", false);
    a->qk_norm = status == JANG_OK && qk_norm ? QK_NORM_HEAD : QK_NORM_NONE;
    return decoder_finish(m, l, &c, status);
}

const model_family family_phi = {.model_type = "phi", .open = phi_open};
