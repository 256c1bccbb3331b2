/* olmo.c - OLMo 2 and 3: blocks read the stream as it is and are normed after, q and k are normed
 * over their whole width; three of four layers of OLMo 3 have windows, and those an unscaled RoPE.
 *
 * References: transformers, models/olmo2 and olmo3; arXiv:2501.00656. */
#include "model/decoder.h"

static const decoder_defaults olmo2 = {.n_context = 2048, .rope_theta = 10000, .norm_eps = 1e-5};
static const decoder_defaults olmo3 = {
    .n_context = 2048, .rope_theta = 500000, .norm_eps = 1e-5, .rope_layers = "full_attention"};

static jang_status read_both(decoder_config *c, json_at config, const decoder_defaults *defaults) {
    jang_status status = decoder_read_config(c, config, defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c->attention;
    const bias_key bias = {
        "attention_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}};
    a->qk_norm = QK_NORM_WHOLE;
    c->norms = (layer_norms){.mixer_after = "post_attention_layernorm",
                             .ffn_after = "post_feedforward_layernorm"};
    status = decoder_read_biases(config, &bias, 1);
    if (status != JANG_OK) {
        decoder_config_free(c, config.ctx);
    }
    return status;
}

static jang_status olmo2_open(model *m, loader *l) {
    decoder_config c;
    jang_status status = read_both(&c, l->config, &olmo2);
    return status == JANG_OK ? decoder_open(m, l, &c) : status;
}

static jang_status olmo3_open(model *m, loader *l) {
    decoder_config c;
    jang_status status = read_both(&c, l->config, &olmo3);
    if (status != JANG_OK) {
        return status;
    }
    const rope_wanted local = {.head_dim = (int)c.attention.head_dim,
                               .n_context = c.n_context,
                               .theta = 500000,
                               .unscaled = true,
                               .layer_type = "sliding_attention"};
    status = decoder_read_window(&c.attention.window, l->config, 4096);
    if (status == JANG_OK) {
        status = decoder_read_sliding(&c, l->config, decoder_slides, 4);
    }
    if (status == JANG_OK) {
        status = rope_read(&c.ropes[1], l->config, &local);
    }
    if (status == JANG_OK) {
        status = decoder_choose_ropes(&c, m->ctx, 0, 1);
    }
    return decoder_finish(m, l, &c, status);
}

const model_family family_olmo2 = {.model_type = "olmo2", .open = olmo2_open};
const model_family family_olmo3 = {.model_type = "olmo3", .open = olmo3_open};
