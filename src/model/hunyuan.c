/* hunyuan.c - Tencent's dense Hunyuan: Llama whose queries and keys are normed head by head, after
 * RoPE, and whose RoPE has a base that a fixed number of the config stretches (rope.h: alpha).
 *
 * Reference: transformers, models/hunyuan_v1_dense. */
#include "model/decoder.h"

static jang_status hunyuan_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 2048, .norm_eps = 1e-5, .rope_theta = 10000, .has_alpha = true};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    a->qk_norm = QK_NORM_HEAD;
    a->norm_after_rope = true;
    a->q_norm = "query_layernorm";
    a->k_norm = "key_layernorm";
    const bias_key biases[] = {
        {"attention_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}},
    };
    status = decoder_read_biases(l->config, biases, 1);
    if (status == JANG_OK) {
        status = decoder_want_bool(l->config, "use_qk_norm", true, true);
    }
    if (status == JANG_OK) { /* keys and values shared between layers */
        status = decoder_want_bool(l->config, "use_cla", false, false);
    }
    return decoder_finish(m, l, &c, status);
}

const model_family family_hunyuan = {.model_type = "hunyuan_v1_dense", .open = hunyuan_open};
