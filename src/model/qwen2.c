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
    c.attention.q_bias = c.attention.k_bias = c.attention.v_bias = BIAS_NEEDED;
    return decoder_finish(m, l, &c, decoder_read_windows(&c, l->config));
}

const model_family family_qwen2 = {.model_type = "qwen2", .open = qwen2_open};
