/* gpt_oss.c - gpt-oss: windows and full attention in turn, a sink for each head, experts in every
 * layer with biases and a clamped SwiGLU.
 *
 * The router takes the best logits and a softmax over them. Reference: transformers,
 * models/gpt_oss; arXiv:2508.10925. */
#include "model/decoder.h"
#include "model/moe.h"

static const moe_names names = {
    .router = "mlp.router",
    .stacked = {"mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"},
    .fused_in = "mlp.experts.gate_up_proj",
    .in_order = FUSED_ALTERNATING,
    .fused_out = "mlp.experts.down_proj",
    .out_order = FUSED_COLUMNS,
};

/* Where the config has no layer_types: the first of each two slides. */
static bool slides(int64_t i, int64_t arg) {
    (void)arg;
    return i % 2 == 0;
}

static jang_status read_experts(moe_config *moe, json_at at) {
    static const char *const expert_keys[] = {"num_local_experts", "num_experts", NULL};
    const char *used =
        json_has(at.object, "num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token";
    jang_status status = moe_read_counts(moe, at, expert_keys, used, 128, 4);
    if (status == JANG_OK) {
        status = json_get_double(&moe->clamp, at, "swiglu_limit", 7);
    }
    if (status == JANG_OK) {
        status = json_get_double(&moe->clamp_alpha, at, "swiglu_alpha", 1.702);
    }
    if (status == JANG_OK && !(moe->clamp > 0)) {
        status =
            ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED, "%s: swiglu_limit must be above 0", at.what);
    }
    return status;
}

static jang_status gpt_oss_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 131072,
        .head_dim = 64,
        .rope_theta = 150000,
        .needs_scaling = true,
        .n_kv_head = 8,
        .norm_eps = 1e-5,
        .biases = {{"attention_bias", true, BIAS_ON_ATTENTION}}};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    attention_config *a = &c.attention;
    a->sinks = true;
    moe_config moe = {.names = &names,
                      .n_ff = c.mlp.n_ff,
                      .route = {.score = ROUTE_SOFTMAX_CHOSEN, .scale = 1},
                      .router_bias = BIAS_NEEDED,
                      .expert_bias = BIAS_NEEDED};
    status = read_experts(&moe, l->config);
    if (status == JANG_OK) {
        status = decoder_read_window(&a->window, l->config, 128);
    }
    if (status == JANG_OK) {
        status = decoder_read_sliding(&c, l->config, slides, 0);
    }
    c.ffn = moe_in_every_layer;
    c.own = &moe;
    return decoder_finish(m, l, &c, status);
}

const model_family family_gpt_oss = {.model_type = "gpt_oss", .open = gpt_oss_open};
