/* stablelm.c - StableLM: LayerNorms with biases, RoPE on a quarter of a head; StableLM 2 12B has
 * attention and MLP side by side and norms q and k by a LayerNorm of each head's own.
 *
 * Reference: transformers, models/stablelm. */
#include "model/decoder.h"

static jang_status stablelm_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 4096,
                                              .rope_theta = 10000,
                                              .partial_rotary = 0.25,
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_eps"};
    decoder_config c;
    bool qk_norm = false, parallel = false;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    const bias_key bias = {"use_qkv_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias}};
    c.norm.kind = a->norm.kind = NORM_LAYER;
    c.norm.bias = BIAS_NEEDED;
    a->q_norm = "q_layernorm";
    a->k_norm = "k_layernorm";
    status = decoder_read_biases(l->config, &bias, 1);
    if (status == JANG_OK) {
        status = json_get_bool(&qk_norm, l->config, "qk_layernorm", false);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&parallel, l->config, "use_parallel_residual", false);
    }
    a->qk_norm = qk_norm ? QK_NORM_EACH : QK_NORM_NONE;
    if (parallel) {
        c.beside = BESIDE_SAME;
        c.norms = (layer_norms){.mixer_before = "input_layernorm"};
    }
    return decoder_finish(m, l, &c, status);
}

const model_family family_stablelm = {.model_type = "stablelm", .open = stablelm_open};
