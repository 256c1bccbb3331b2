/* gemma.c - Gemma 1, 2 and 3 (text): RMS norms of 1 + w, embeddings times sqrt(hidden_size), GELU.
 *
 * Gemma 2 has a norm on both sides of each block, softcaps of scores and logits, and windows in
 * every other layer; Gemma 3 norms q and k head by head and has a RoPE of its own, unscaled, in the
 * five of six layers with windows. Scores are scaled by query_pre_attn_scalar^-0.5 and not by the
 * head's size. References: transformers, models/gemma, gemma2, gemma3; arXiv:2403.08295,
 * arXiv:2408.00118, arXiv:2503.19786. */
#include "model/decoder.h"

#include <math.h>
#include <string.h>

static const layer_norms sandwich = {
    .mixer_before = "input_layernorm",
    .mixer_after = "post_attention_layernorm",
    .ffn_before = "pre_feedforward_layernorm",
    .ffn_after = "post_feedforward_layernorm",
};

/* What all three have. */
static jang_status adapt_all(decoder_config *c, json_at config) {
    c->norm.offset = c->attention.norm.offset = 1;
    c->embed_scale = sqrt((double)c->n_embd);
    return json_get_bool(&c->attention.whole, config, "use_bidirectional_attention", false);
}

/* Configs of the first Gemma say gelu and mean its tanh form. */
static jang_status adapt_gemma(decoder_config *c, json_at config) {
    jang_status status = adapt_all(c, config);
    if (status == JANG_OK) {
        status = decoder_want_bool(config, "use_bidirectional_attention", false, false);
    }
    if (c->mlp.act.kind == ACT_GELU) {
        c->mlp.act.kind = ACT_GELU_TANH;
    }
    return status;
}

const model_family family_gemma = {
    .model_type = "gemma",
    .defaults = &(const decoder_defaults){.n_context = 8192,
                                          .head_dim = 256,
                                          .rope_theta = 10000,
                                          .tied = true,
                                          .act = "gelu_pytorch_tanh",
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt_gemma};

/* What Gemma 2 and 3 have in common. Null or absent softcaps are none (Gemma 3) or Gemma 2's. */
static jang_status adapt_later(decoder_config *c, json_at config, double score_cap,
                               double logit_cap, int64_t every) {
    double scalar = 256;
    c->norms = sandwich;
    jang_status status = adapt_all(c, config);
    if (status == JANG_OK) {
        status = json_get_double(&scalar, config, "query_pre_attn_scalar", 256);
    }
    if (status == JANG_OK && !(scalar > 0)) {
        status = ctx_fail(config.ctx, JANG_ERR_FORMAT, "%s: query_pre_attn_scalar must be above 0",
                          config.what);
    }
    c->attention.scale = 1 / sqrt(scalar);
    if (status == JANG_OK &&
        !json_is_null(json_object_get(config.object, "attn_logit_softcapping"))) {
        status =
            json_get_double(&c->attention.softcap, config, "attn_logit_softcapping", score_cap);
    }
    if (status == JANG_OK &&
        !json_is_null(json_object_get(config.object, "final_logit_softcapping"))) {
        status = json_get_double(&c->logit_softcap, config, "final_logit_softcapping", logit_cap);
    }
    if (status == JANG_OK) {
        status = decoder_read_window(&c->attention.window, config, 4096);
    }
    return status == JANG_OK ? decoder_read_sliding(c, config, decoder_slides, every) : status;
}

static jang_status adapt_gemma2(decoder_config *c, json_at config) {
    return adapt_later(c, config, 50, 30, 2);
}

const model_family family_gemma2 = {
    .model_type = "gemma2",
    .defaults = &(const decoder_defaults){.n_context = 8192,
                                          .head_dim = 256,
                                          .rope_theta = 10000,
                                          .tied = true,
                                          .act = "gelu_pytorch_tanh",
                                          .act_key = "hidden_activation",
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt_gemma2};

/* ropes[0] is that of full layers, ropes[1] that of windows, which no scaling touches. */
static jang_status read_local_rope(decoder_config *c, json_at config) {
    const rope_wanted local = {.head_dim = (int)c->attention.head_dim,
                               .n_context = c->n_context,
                               .theta = 10000,
                               .theta_key = "rope_local_base_freq",
                               .unscaled = true,
                               .layer_type = "sliding_attention"};
    jang_status status = rope_read(&c->ropes[1], config, &local);
    return status == JANG_OK ? decoder_choose_ropes(c, config.ctx, 0, 1) : status;
}

/* Configs of checkpoints with a vision tower say only what differs from the defaults. */
static json_at with_sizes(json_t **owned, json_at config) {
    static const struct {
        const char *key;
        int64_t value;
    } usual[] = {{"vocab_size", 262208},    {"hidden_size", 2304},      {"intermediate_size", 9216},
                 {"num_hidden_layers", 26}, {"num_attention_heads", 8}, {"num_key_value_heads", 4}};
    json_t *all = json_copy((json_t *)(uintptr_t)config.object);
    for (size_t i = 0; all && i < sizeof usual / sizeof *usual; i++) {
        if (!json_has(all, usual[i].key)) {
            json_object_set_new(all, usual[i].key, json_integer(usual[i].value));
        }
    }
    *owned = all;
    return (json_at){config.ctx, config.what, all};
}

static const decoder_defaults gemma3_defaults = {
    .n_context = 131072,
    .head_dim = 256,
    .rope_theta = 1000000,
    .rope_layers = "full_attention",
    .tied = true,
    .act = "gelu_pytorch_tanh",
    .act_key = "hidden_activation",
    .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};

static jang_status adapt_gemma3(decoder_config *c, json_at config) {
    int64_t every;
    c->attention.qk_norm = QK_NORM_HEAD;
    jang_status status = json_get_int(&every, config, "sliding_window_pattern", 6, 1, 1 << 12);
    if (status == JANG_OK) {
        status = adapt_later(c, config, 0, 0, every);
    }
    if (status == JANG_OK) {
        status = read_local_rope(c, config);
    }
    if (c->attention.whole && c->attention.window > 0) {
        c->attention.window = c->attention.window / 2 + 1; /* to either side (EmbeddingGemma) */
    }
    return status;
}

static jang_status gemma3_open(model *m, loader *l) {
    decoder_config c;
    json_t *owned;
    json_at config = with_sizes(&owned, l->config);
    if (!owned) {
        return ctx_fail_memory(m->ctx, 64);
    }
    jang_status status = decoder_read_config(&c, config, &gemma3_defaults);
    if (status == JANG_OK) {
        status = decoder_finish(m, l, &c, adapt_gemma3(&c, config));
    }
    json_decref(owned);
    return status;
}

const model_family family_gemma3_text = {.model_type = "gemma3_text", .open = gemma3_open};
const model_family family_gemma3 = {
    .model_type = "gemma3", .open = gemma3_open, .text_config = true};
