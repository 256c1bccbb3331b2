/* phimoe.c - Phi-3.5-MoE: LayerNorm, biases in attention and on the output, two experts a token by
 * the sparse mixer, each weighed against the experts near it.
 *
 * Reference: transformers, models/phimoe; arXiv:2404.14219, arXiv:2409.12136. */
#include "model/decoder.h"
#include "model/moe.h"

static jang_status phimoe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 131072,
        .rope_theta = 1000000,
        .n_kv_head = 8,
        .norm_eps = 1e-5,
        .has_mscales = true,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION},
                   {"lm_head_bias", false, BIAS_ON_OUTPUT}}};
    static const char *const expert_keys[] = {"num_local_experts", NULL};
    decoder_config c;
    double jitter = 0;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    c.norm.kind = NORM_LAYER;
    c.norm.bias = BIAS_NEEDED;
    moe_config moe = {.names = &moe_names_sparse,
                      .n_ff = c.mlp.n_ff,
                      .act = c.mlp.act,
                      .route = {.score = ROUTE_SPARSEMIXER, .scale = 1}};
    status = moe_read_counts(&moe, l->config, expert_keys, "num_experts_per_tok", 16, 2);
    if (status == JANG_OK && moe.n_used != 2) { /* whatever the config says, two are taken */
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED, "%s: num_experts_per_tok %lld: must be 2",
                          l->config.what, (long long)moe.n_used);
    }
    if (status == JANG_OK) {
        status = json_get_double(&jitter, l->config, "router_jitter_noise", 0.01);
    }
    if (status == JANG_OK) {
        status = decoder_read_window(&c.attention.window, l->config, 0);
    }
    moe.route.jitter = (float)jitter;
    c.ffn = moe_in_every_layer;
    c.own = &moe;
    return decoder_finish(m, l, &c, status);
}

const model_family family_phimoe = {.model_type = "phimoe", .open = phimoe_open};
