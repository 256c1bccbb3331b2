/* minimax_m2.c - MiniMax M2: q and k normed as a whole, partial RoPE by rotary_dim, experts in
 * every layer scored by sigmoid with a bias that only chooses.
 *
 * Reference: transformers, models/minimax_m2. */
#include "model/decoder.h"
#include "model/moe.h"

static jang_status minimax_m2_open(model *m, loader *l) {
    static const char *const expert_keys[] = {"num_local_experts", NULL};
    int64_t head_dim, rotary_dim;
    decoder_defaults defaults = {
        .n_context = 196608, .head_dim = 128, .rope_theta = 5000000, .n_kv_head = 8};
    jang_status status = json_get_int(&head_dim, l->config, "head_dim", 128, 2, OPS_HEAD_MAX);
    if (status == JANG_OK) {
        status = json_get_int(&rotary_dim, l->config, "rotary_dim", head_dim, 2, head_dim);
    }
    if (status != JANG_OK) {
        return status;
    }
    defaults.partial_rotary = (double)rotary_dim / (double)head_dim;
    decoder_config c;
    status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    c.attention.qk_norm = QK_NORM_WHOLE;
    moe_config moe = {.names = &moe_names_sparse,
                      .n_ff = c.mlp.n_ff,
                      .act = c.mlp.act,
                      .route = {.score = ROUTE_SIGMOID, .renormalise = true, .scale = 1},
                      .select_bias = BIAS_NEEDED};
    status = moe_read_counts(&moe, l->config, expert_keys, "num_experts_per_tok", 256, 8);
    if (status == JANG_OK) {
        status = decoder_want_bool(l->config, "use_qk_norm", true, true);
    }
    if (status == JANG_OK) {
        status = decoder_want_bool(l->config, "use_routing_bias", true, true);
    }
    c.ffn = moe_in_every_layer;
    c.own = &moe;
    return decoder_finish(m, l, &c, status);
}

const model_family family_minimax_m2 = {.model_type = "minimax_m2", .open = minimax_m2_open};
