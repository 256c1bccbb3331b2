/* mixtral.c - Mixtral: Mistral with experts in every layer, softmax over the chosen.
 *
 * Reference: transformers, models/mixtral; arXiv:2401.04088. */
#include "model/decoder.h"
#include "model/moe.h"

static jang_status mixtral_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 131072, .rope_theta = 10000, .n_kv_head = 8, .norm_eps = 1e-5};
    static const char *const expert_keys[] = {"num_local_experts", NULL};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    moe_config moe = {.names = &moe_names_sparse,
                      .n_ff = c.mlp.n_ff,
                      .act = c.mlp.act,
                      .route = {.score = ROUTE_SOFTMAX, .renormalise = true, .scale = 1}};
    status = moe_read_counts(&moe, l->config, expert_keys, "num_experts_per_tok", 8, 2);
    if (status == JANG_OK) {
        status = decoder_read_window(&c.attention.window, l->config, 0);
    }
    c.ffn = moe_in_every_layer;
    c.own = &moe;
    return decoder_finish(m, l, &c, status);
}

const model_family family_mixtral = {.model_type = "mixtral", .open = mixtral_open};
