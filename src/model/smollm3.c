/* smollm3.c - SmolLM3: Llama of which every fourth layer has no RoPE (no_rope_layers holds 1 for
 * those that have it), and windows there when use_sliding_window says so.
 *
 * Reference: transformers, models/smollm3; NoPE: arXiv:2501.18795. */
#include "model/decoder.h"

/* ropes by no_rope_layers, or by the interval. */
static jang_status read_ropes(decoder_config *c, json_at config) {
    const json_t *list;
    int64_t every;
    jang_status status = json_get_array(&list, config, "no_rope_layers");
    if (status == JANG_OK) {
        status = json_get_int(&every, config, "no_rope_layer_interval", 4, 1, 1 << 12);
    }
    if (status == JANG_OK && list && json_array_size(list) != (size_t)c->n_layer) {
        status = ctx_fail(config.ctx, JANG_ERR_FORMAT, "%s: no_rope_layers must have %lld entries",
                          config.what, (long long)c->n_layer);
    }
    if (status == JANG_OK) {
        status = decoder_choose_ropes(c, config.ctx, 0, 0);
    }
    for (int64_t i = 0; status == JANG_OK && i < c->n_layer; i++) {
        const json_t *entry = json_array_get(list, (size_t)i);
        bool has =
            list ? json_integer_value(entry) != 0 || json_is_true(entry) : (i + 1) % every != 0;
        c->rope_of[i] = has ? 0 : -1;
    }
    return status;
}

static jang_status read_windows(decoder_config *c, json_at config) {
    bool use;
    jang_status status = json_get_bool(&use, config, "use_sliding_window", false);
    if (status != JANG_OK || !use) {
        return status;
    }
    status = decoder_read_window(&c->attention.window, config, 0);
    if (status == JANG_OK) {
        status = decoder_read_sliding(c, config, NULL, 0);
    }
    for (int64_t i = 0; status == JANG_OK && i < c->n_layer; i++) {
        c->sliding[i] |= !json_has(config.object, "layer_types") && c->rope_of[i] < 0;
    }
    return status;
}

static jang_status adapt(decoder_config *c, json_at config) {
    jang_status status = read_ropes(c, config);
    return status == JANG_OK ? read_windows(c, config) : status;
}

const model_family family_smollm3 = {
    .model_type = "smollm3",
    .defaults = &(const decoder_defaults){.n_context = 32768,
                                          .n_kv_head = 4,
                                          .rope_theta = 2000000,
                                          .tied = true,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION},
                                                     {"mlp_bias", false, BIAS_ON_MLP}}},
    .adapt = adapt};
