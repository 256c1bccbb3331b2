/* qwen3.c - Qwen3, dense: as Qwen2 without its biases, q and k normed head by head before RoPE.
 *
 * attention_bias, false in all published models, is for q, k, v and o. Windows as in qwen2.c.
 * Reference: transformers, models/qwen3; arXiv:2505.09388. */
#include "model/decoder.h"

static jang_status qwen3_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 32768, .head_dim = 128, .rope_theta = 10000};
    decoder_config c;
    bool attention_bias;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = decoder_read_windows(&c, l->config);
    if (status == JANG_OK) {
        status = json_get_bool(&attention_bias, l->config, "attention_bias", false);
    }
    if (status != JANG_OK) {
        rope_free(&c.rope, m->ctx);
        return status;
    }
    c.qkv_bias = c.o_bias = attention_bias ? BIAS_NEEDED : BIAS_NONE;
    c.qk_norm = true;
    return decoder_open(m, l, &c);
}

const model_family family_qwen3 = {"qwen3", qwen3_open};
