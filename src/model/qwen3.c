/* qwen3.c - Qwen3, dense: as Qwen2 without its biases, q and k normed head by head before RoPE.
 *
 * attention_bias, false in all published models, is for q, k, v and o. Windows as in qwen2.c.
 * Reference: transformers, models/qwen3; arXiv:2505.09388. */
#include "model/decoder.h"

static jang_status qwen3_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 32768, .head_dim = 128, .rope_theta = 10000};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = decoder_read_windows(&c, l->config);
    attention_config *a = &c.attention;
    a->qk_norm = QK_NORM_HEAD;
    const bias_key bias = {
        "attention_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}};
    if (status == JANG_OK) {
        status = decoder_read_biases(l->config, &bias, 1);
    }
    return decoder_finish(m, l, &c, status);
}

const model_family family_qwen3 = {.model_type = "qwen3", .open = qwen3_open};
