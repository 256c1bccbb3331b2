/* granite_moe.c - Granite 3 MoE: Llama with four multipliers and experts in every layer.
 *
 * The embedding, the residual additions and attention's scores are multiplied, the logits divided;
 * the router takes a softmax over the chosen. Reference: transformers, models/granitemoe. */
#include "model/granite.h"
#include "model/moe.h"

static const moe_names names = {
    .router = "block_sparse_moe.router.layer",
    .stacked = {"block_sparse_moe.switch_mlp.gate_proj", "block_sparse_moe.switch_mlp.up_proj",
                "block_sparse_moe.switch_mlp.down_proj"},
    .fused_in = "block_sparse_moe.input_linear.weight",
    .in_order = FUSED_ROWS,
    .fused_out = "block_sparse_moe.output_linear.weight",
    .out_order = FUSED_ROWS,
};

static jang_status granitemoe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 2048,
        .rope_theta = 10000,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    static const char *const expert_keys[] = {"num_local_experts", NULL};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    moe_config moe = {.names = &names,
                      .n_ff = c.mlp.n_ff,
                      .act = c.mlp.act,
                      .route = {.score = ROUTE_SOFTMAX_CHOSEN, .scale = 1}};
    status = granite_read_multipliers(&c, l->config);
    if (status == JANG_OK) {
        status = moe_read_counts(&moe, l->config, expert_keys, "num_experts_per_tok", 8, 2);
    }
    c.ffn = moe_in_every_layer;
    c.own = &moe;
    return decoder_finish(m, l, &c, status);
}

const model_family family_granitemoe = {.model_type = "granitemoe", .open = granitemoe_open};
