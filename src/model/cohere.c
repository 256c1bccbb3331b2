/* cohere.c - Command R, Aya and their successors Command R7B and A (cohere2): attention and MLP
 * side by side on one LayerNorm without bias; RoPE of neighbouring pairs. Of cohere, large models
 * norm each head of q and k with a weight of its own; of cohere2, three of four layers have windows
 * and RoPE, the fourth sees all and has none.
 *
 * Reference: transformers, models/{cohere,cohere2}. */
#include "model/decoder.h"

/* What both have. */
static jang_status read_common(decoder_config *c, json_at config, const decoder_defaults *d) {
    jang_status status = decoder_read_config(c, config, d);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c->attention;
    const bias_key bias = {
        "attention_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}};
    c->norm.kind = a->norm.kind = NORM_LAYER;
    c->norms = (layer_norms){.mixer_before = "input_layernorm"};
    c->beside = BESIDE_SAME;
    c->ropes[0].interleaved = true;
    status = json_get_double(&c->logit_scale, config, "logit_scale", 0.0625);
    if (status == JANG_OK) {
        status = decoder_read_biases(config, &bias, 1);
    }
    if (status != JANG_OK) {
        decoder_config_free(c, config.ctx);
    }
    return status;
}

static jang_status cohere_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 8192,
                                              .rope_theta = 500000,
                                              .tied = true,
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_eps"};
    decoder_config c;
    bool normed = false;
    jang_status status = read_common(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = json_get_bool(&normed, l->config, "use_qk_norm", false);
    c.attention.qk_norm = normed ? QK_NORM_STACKED : QK_NORM_NONE;
    return decoder_finish(m, l, &c, status);
}

static jang_status cohere2_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 8192,
                                              .rope_theta = 10000,
                                              .tied = true,
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_eps"};
    decoder_config c;
    int64_t every;
    jang_status status = read_common(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = json_get_int(&every, l->config, "sliding_window_pattern", 4, 1, 1 << 12);
    if (status == JANG_OK) {
        status = decoder_read_window(&c.attention.window, l->config, 4096);
    }
    if (status == JANG_OK) {
        status = decoder_read_sliding(&c, l->config, decoder_slides, every);
    }
    if (status == JANG_OK) {
        status = decoder_choose_ropes(&c, m->ctx, -1, 0);
    }
    return decoder_finish(m, l, &c, status);
}

const model_family family_cohere = {.model_type = "cohere", .open = cohere_open};
const model_family family_cohere2 = {.model_type = "cohere2", .open = cohere2_open};
