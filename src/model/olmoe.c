/* olmoe.c - OLMoE: experts in every layer; q and k normed as a whole, and clipped with v.
 *
 * Reference: transformers, models/olmoe; arXiv:2409.02060. */
#include "model/decoder.h"
#include "model/moe.h"

static jang_status olmoe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 4096,
        .rope_theta = 10000,
        .norm_eps = 1e-5,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    static const char *const expert_keys[] = {"num_experts", "num_local_experts", NULL};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    a->qk_norm = QK_NORM_WHOLE;
    moe_config moe = {.names = &moe_names_mlp,
                      .n_ff = c.mlp.n_ff,
                      .act = c.mlp.act,
                      .route = {.score = ROUTE_SOFTMAX, .scale = 1}};
    status = moe_read_counts(&moe, l->config, expert_keys, "num_experts_per_tok", 64, 8);
    if (status == JANG_OK) {
        status = json_get_bool(&moe.route.renormalise, l->config, "norm_topk_prob", false);
    }
    if (status == JANG_OK) {
        status = json_get_double(&a->clip, l->config, "clip_qkv", 0);
    }
    c.ffn = moe_in_every_layer;
    c.own = &moe;
    return decoder_finish(m, l, &c, status);
}

const model_family family_olmoe = {.model_type = "olmoe", .open = olmoe_open};
