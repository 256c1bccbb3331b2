/* cohere2.c - Command R7B, Command A and their like: attention and MLP side by side on one
 * LayerNorm without bias; three of four layers have windows and RoPE, the fourth sees all and has
 * none.
 *
 * Reference: transformers, models/cohere2. */
#include "model/decoder.h"

static jang_status cohere2_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 8192,
                                              .rope_theta = 10000,
                                              .tied = true,
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_eps"};
    decoder_config c;
    int64_t every;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    const bias_key bias = {
        "attention_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}};
    c.norm.kind = NORM_LAYER;
    c.norms = (layer_norms){.mixer_before = "input_layernorm"};
    c.beside = BESIDE_SAME;
    c.ropes[0].interleaved = true;
    status = json_get_double(&c.logit_scale, l->config, "logit_scale", 0.0625);
    if (status == JANG_OK) {
        status = json_get_int(&every, l->config, "sliding_window_pattern", 4, 1, 1 << 12);
    }
    if (status == JANG_OK) {
        status = decoder_read_window(&a->window, l->config, 4096);
    }
    if (status == JANG_OK) {
        status = decoder_read_sliding(&c, l->config, decoder_slides, every);
    }
    if (status == JANG_OK) {
        status = decoder_choose_ropes(&c, m->ctx, -1, 0);
    }
    return decoder_finish(m, l, &c,
                          status == JANG_OK ? decoder_read_biases(l->config, &bias, 1) : status);
}

const model_family family_cohere2 = {.model_type = "cohere2", .open = cohere2_open};
