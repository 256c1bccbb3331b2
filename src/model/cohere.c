/* cohere.c - Command R, Aya and their successors Command R7B and A (cohere2): attention and MLP
 * side by side on one LayerNorm without bias; RoPE of neighbouring pairs. Of cohere, large models
 * norm each head of q and k with a weight of its own; of cohere2, three of four layers have windows
 * and RoPE, the fourth sees all and has none.
 *
 * Reference: transformers, models/{cohere,cohere2}. */
#include "model/decoder.h"

/* What both have. */
static jang_status adapt_both(decoder_config *c, json_at config) {
    c->norm.kind = c->attention.norm.kind = NORM_LAYER;
    c->norms = (layer_norms){.mixer_before = "input_layernorm"};
    c->beside = BESIDE_SAME;
    c->ropes[0].interleaved = true;
    return json_get_double(&c->logit_scale, config, "logit_scale", 0.0625);
}

static jang_status adapt_cohere(decoder_config *c, json_at config) {
    bool normed = false;
    jang_status status = adapt_both(c, config);
    if (status == JANG_OK) {
        status = json_get_bool(&normed, config, "use_qk_norm", false);
    }
    c->attention.qk_norm = normed ? QK_NORM_STACKED : QK_NORM_NONE;
    return status;
}

static jang_status adapt_cohere2(decoder_config *c, json_at config) {
    int64_t every;
    jang_status status = adapt_both(c, config);
    if (status == JANG_OK) {
        status = json_get_int(&every, config, "sliding_window_pattern", 4, 1, 1 << 12);
    }
    if (status == JANG_OK) {
        status = decoder_read_window(&c->attention.window, config, 4096);
    }
    if (status == JANG_OK) {
        status = decoder_read_sliding(c, config, decoder_slides, every);
    }
    return status == JANG_OK ? decoder_choose_ropes(c, config.ctx, -1, 0) : status;
}

const model_family family_cohere = {
    .model_type = "cohere",
    .defaults = &(const decoder_defaults){.n_context = 8192,
                                          .rope_theta = 500000,
                                          .tied = true,
                                          .norm_eps = 1e-5,
                                          .eps_key = "layer_norm_eps",
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt_cohere};
const model_family family_cohere2 = {
    .model_type = "cohere2",
    .defaults = &(const decoder_defaults){.n_context = 8192,
                                          .rope_theta = 10000,
                                          .tied = true,
                                          .norm_eps = 1e-5,
                                          .eps_key = "layer_norm_eps",
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt_cohere2};
