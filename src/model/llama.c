/* llama.c - Llama 1, 2, 3 and the many models with its config: SmolLM2, TinyLlama, ...
 *
 * attention_bias is for q, k, v and o alike; mlp_bias for gate, up and down. pretraining_tp only
 * says how a training run was split and changes nothing.
 * Reference: transformers, models/llama. */
#include "model/decoder.h"

static jang_status llama_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 2048, .rope_theta = 10000};
    decoder_config c;
    bool attention_bias, mlp_bias;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = json_get_bool(&attention_bias, l->config, "attention_bias", false);
    if (status == JANG_OK) {
        status = json_get_bool(&mlp_bias, l->config, "mlp_bias", false);
    }
    if (status != JANG_OK) {
        rope_free(&c.rope, m->ctx);
        return status;
    }
    c.qkv_bias = c.o_bias = attention_bias ? BIAS_NEEDED : BIAS_NONE;
    c.mlp_bias = mlp_bias ? BIAS_NEEDED : BIAS_NONE;
    return decoder_open(m, l, &c);
}

const model_family family_llama = {"llama", llama_open};
