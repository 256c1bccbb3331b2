/* llama.c - Llama 1, 2, 3 and the many models with its config: SmolLM2, TinyLlama, ...
 *
 * attention_bias is for q, k, v and o alike; mlp_bias for gate, up and down. pretraining_tp only
 * says how a training run was split and changes nothing.
 * Reference: transformers, models/llama. */
#include "model/decoder.h"

static jang_status llama_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 2048, .rope_theta = 10000};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    const bias_key biases[] = {
        {"attention_bias", false, {&a->q_bias, &a->k_bias, &a->v_bias, &a->o_bias}},
        {"mlp_bias", false, {&c.mlp.bias}},
    };
    return decoder_finish(m, l, &c, decoder_read_biases(l->config, biases, 2));
}

const model_family family_llama = {.model_type = "llama", .open = llama_open};
