/* stablelm.c - StableLM: LayerNorms with biases, RoPE on a quarter of a head; StableLM 2 12B has
 * attention and MLP side by side and norms q and k by a LayerNorm of each head's own.
 *
 * Reference: transformers, models/stablelm. */
#include "model/decoder.h"

static jang_status adapt(decoder_config *c, json_at config) {
    bool qk_norm = false, parallel = false;
    attention_config *a = &c->attention;
    c->norm.kind = a->norm.kind = NORM_LAYER;
    c->norm.bias = BIAS_NEEDED;
    a->q_norm = "q_layernorm";
    a->k_norm = "k_layernorm";
    jang_status status = json_get_bool(&qk_norm, config, "qk_layernorm", false);
    if (status == JANG_OK) {
        status = json_get_bool(&parallel, config, "use_parallel_residual", false);
    }
    a->qk_norm = qk_norm ? QK_NORM_EACH : QK_NORM_NONE;
    if (parallel) {
        c->beside = BESIDE_SAME;
        c->norms = (layer_norms){.mixer_before = "input_layernorm"};
    }
    return status;
}

const model_family family_stablelm = {
    .model_type = "stablelm",
    .defaults = &(const decoder_defaults){.n_context = 4096,
                                          .rope_theta = 10000,
                                          .partial_rotary = 0.25,
                                          .norm_eps = 1e-5,
                                          .eps_key = "layer_norm_eps",
                                          .biases = {{"use_qkv_bias", false, BIAS_ON_QKV}}},
    .adapt = adapt};
