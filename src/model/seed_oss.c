/* seed_oss.c - Seed-OSS: Llama with biases of q, k and v, and of the others by their own keys.
 *
 * Reference: transformers, models/seed_oss. */
#include "model/decoder.h"

static jang_status seed_oss_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 524288, .head_dim = 128, .n_kv_head = 8, .rope_theta = 10000};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    const bias_key biases[] = {
        {"attention_bias", true, {&a->q_bias, &a->k_bias, &a->v_bias}},
        {"attention_out_bias", false, {&a->o_bias}},
        {"mlp_bias", false, {&c.mlp.bias}},
    };
    return decoder_finish(m, l, &c, decoder_read_biases(l->config, biases, 3));
}

const model_family family_seed_oss = {.model_type = "seed_oss", .open = seed_oss_open};
