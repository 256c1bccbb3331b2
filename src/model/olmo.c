/* olmo.c - OLMo 2 and 3: blocks read the stream as it is and are normed after, q and k are normed
 * over their whole width; three of four layers of OLMo 3 have windows, and those an unscaled RoPE.
 *
 * References: transformers, models/olmo2 and olmo3; arXiv:2501.00656. */
#include "model/decoder.h"

static jang_status adapt_olmo2(decoder_config *c, json_at config) {
    (void)config;
    c->attention.qk_norm = QK_NORM_WHOLE;
    c->norms = (layer_norms){.mixer_after = "post_attention_layernorm",
                             .ffn_after = "post_feedforward_layernorm"};
    return JANG_OK;
}

static jang_status adapt_olmo3(decoder_config *c, json_at config) {
    const rope_wanted local = {.head_dim = (int)c->attention.head_dim,
                               .n_context = c->n_context,
                               .theta = 500000,
                               .unscaled = true,
                               .layer_type = "sliding_attention"};
    jang_status status = adapt_olmo2(c, config);
    if (status == JANG_OK) {
        status = decoder_read_window(&c->attention.window, config, 4096);
    }
    if (status == JANG_OK) {
        status = decoder_read_sliding(c, config, decoder_slides, 4);
    }
    if (status == JANG_OK) {
        status = rope_read(&c->ropes[1], config, &local);
    }
    return status == JANG_OK ? decoder_choose_ropes(c, config.ctx, 0, 1) : status;
}

const model_family family_olmo2 = {
    .model_type = "olmo2",
    .defaults = &(const decoder_defaults){.n_context = 2048,
                                          .rope_theta = 10000,
                                          .norm_eps = 1e-5,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt_olmo2};
const model_family family_olmo3 = {
    .model_type = "olmo3",
    .defaults = &(const decoder_defaults){.n_context = 2048,
                                          .rope_theta = 500000,
                                          .norm_eps = 1e-5,
                                          .rope_layers = "full_attention",
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt_olmo3};
