/* mistral.c - Mistral 7B, Nemo and their like: Llama with a sliding window and without biases.
 *
 * A window of w tokens is the token itself and the w - 1 before it. sliding_window null means no
 * window; when the key is absent the reference class's default of 4096 holds.
 * Reference: transformers, models/mistral; arXiv:2310.06825. */
#include "model/decoder.h"

static jang_status read_sliding_window(int64_t *out, json_at config) {
    *out = 0;
    if (json_is_null(json_object_get(config.object, "sliding_window"))) {
        return JANG_OK;
    }
    return json_get_int(out, config, "sliding_window", 4096, 1, 1 << 28);
}

static jang_status mistral_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 131072, .rope_theta = 10000};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_sliding_window(&c.window, l->config);
    if (status != JANG_OK) {
        rope_free(&c.rope, m->ctx);
        return status;
    }
    return decoder_open(m, l, &c);
}

const model_family family_mistral = {"mistral", mistral_open};
