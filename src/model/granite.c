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

const model_family family_granite = {
    .model_type = "granite",
    .defaults = &(const decoder_defaults){.n_context = 2048,
                                          .rope_theta = 10000,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION},
                                                     {"mlp_bias", false, BIAS_ON_MLP}}},
    .adapt = granite_read_multipliers};
