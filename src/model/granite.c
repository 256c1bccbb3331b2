/* granite.c - Granite 3 (dense): Llama with four multipliers, of embeddings, scores, what each
 * block adds, and (as a divisor) logits.
 *
 * Reference: transformers, models/granite. */
#include "model/granite.h"

jang_status granite_read_multipliers(decoder_config *c, json_at config) {
    double logits;
    const struct {
        const char *key;
        double *out;
    } keys[] = {
        {"embedding_multiplier", &c->embed_scale},
        {"residual_multiplier", &c->residual_scale},
        {"attention_multiplier", &c->attention.scale},
        {"logits_scaling", &logits},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        jang_status status = json_get_double(keys[i].out, config, keys[i].key, 1);
        if (status == JANG_OK && !(*keys[i].out > 0)) {
            status = ctx_fail(config.ctx, JANG_ERR_FORMAT, "%s: %s must be above 0", config.what,
                              keys[i].key);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    c->logit_scale = 1 / logits;
    return JANG_OK;
}

static jang_status granite_open(model *m, loader *l) {
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
    status = granite_read_multipliers(&c, l->config);
    return decoder_finish(m, l, &c,
                          status == JANG_OK ? decoder_read_biases(l->config, biases, 2) : status);
}

const model_family family_granite = {.model_type = "granite", .open = granite_open};
