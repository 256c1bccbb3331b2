/* hunyuan.c - Tencent's dense Hunyuan: Llama whose queries and keys are normed head by head, after
 * RoPE, and whose RoPE has a base that a fixed number of the config stretches (rope.h: alpha).
 *
 * Reference: transformers, models/hunyuan_v1_dense. */
#include "model/decoder.h"

static jang_status adapt(decoder_config *c, json_at config) {
    attention_config *a = &c->attention;
    a->qk_norm = QK_NORM_HEAD;
    a->norm_after_rope = true;
    a->q_norm = "query_layernorm";
    a->k_norm = "key_layernorm";
    jang_status status = decoder_want_bool(config, "use_qk_norm", true, true);
    if (status == JANG_OK) { /* keys and values shared between layers */
        status = decoder_want_bool(config, "use_cla", false, false);
    }
    return status;
}

const model_family family_hunyuan = {
    .model_type = "hunyuan_v1_dense",
    .defaults = &(const decoder_defaults){.n_context = 2048,
                                          .norm_eps = 1e-5,
                                          .rope_theta = 10000,
                                          .has_alpha = true,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt};
