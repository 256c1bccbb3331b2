/* qwen2.c - Qwen2 and Qwen2.5: Llama with biases on q, k and v.
 *
 * sliding_window counts only with use_sliding_window, and then for the layers from
 * max_window_layers on, unless layer_types says it layer by layer.
 * Reference: transformers, models/qwen2; arXiv:2407.10671. */
#include "model/decoder.h"

static jang_status qwen2_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 32768, .rope_theta = 10000};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = decoder_read_windows(&c, l->config);
    if (status != JANG_OK) {
        rope_free(&c.rope, m->ctx);
        return status;
    }
    c.qkv_bias = BIAS_NEEDED;
    return decoder_open(m, l, &c);
}

const model_family family_qwen2 = {"qwen2", qwen2_open};
