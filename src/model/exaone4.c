/* exaone4.c - EXAONE 4.0: blocks read the stream as it is and are normed after; q and k are normed
 * head by head; where there are windows, layers without them have no RoPE.
 *
 * Reference: transformers, models/exaone4; arXiv:2507.11407. */
#include "model/decoder.h"

#include <string.h>

/* sliding_window_pattern is a number, or letters of which L stands for a window: "LLLG". */
static jang_status read_layers(decoder_config *c, json_at config) {
    int64_t every = 4;
    const json_t *pattern = json_object_get(config.object, "sliding_window_pattern");
    const char *letters = json_string_value(pattern);
    if (letters && strcmp(letters, "LLLG") != 0) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: sliding_window_pattern %s is not supported; LLLG or a number is",
                        config.what, letters);
    }
    jang_status status = JANG_OK;
    if (!letters) {
        status = json_get_int(&every, config, "sliding_window_pattern", 4, 0, 1 << 12);
    }
    if (status == JANG_OK) {
        status = decoder_read_window(&c->attention.window, config, 4096);
    }
    if (status != JANG_OK || c->attention.window == 0) {
        return status; /* all layers are full and have RoPE */
    }
    status = decoder_read_sliding(c, config, decoder_slides, every);
    return status == JANG_OK ? decoder_choose_ropes(c, config.ctx, -1, 0) : status;
}

static jang_status adapt(decoder_config *c, json_at config) {
    c->attention.qk_norm = QK_NORM_HEAD;
    c->norms = (layer_norms){.mixer_after = "post_attention_layernorm",
                             .ffn_after = "post_feedforward_layernorm"};
    return read_layers(c, config);
}

const model_family family_exaone4 = {.model_type = "exaone4",
                                     .defaults = &(const decoder_defaults){.n_context = 2048,
                                                                           .n_kv_head = 32,
                                                                           .rope_theta = 10000,
                                                                           .norm_eps = 1e-5},
                                     .adapt = adapt};
