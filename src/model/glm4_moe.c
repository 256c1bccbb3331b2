/* glm4_moe.c - GLM-4.5, 4.6, 4.7: dense attention with partial RoPE, experts as DeepSeek-V3's.
 *
 * Biases on q, k and v alone; q and k normed head by head where use_qk_norm says so. Reference:
 * transformers, models/glm4_moe; arXiv:2508.06471. */
#include "model/decoder.h"
#include "model/moe.h"

typedef struct glm4_moe {
    moe_config moe;
    int64_t first_dense; /* layers from here on have experts */
} glm4_moe;

static jang_status make_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                            int layer) {
    const glm4_moe *g = c->own;
    if (layer < g->first_dense) {
        return decoder_mlp(out, d, l, c, layer);
    }
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &g->moe, c->n_embd, prefix);
}

static jang_status read_experts(glm4_moe *g, const decoder_config *c, json_at at) {
    static const char *const expert_keys[] = {"n_routed_experts", "num_local_experts", NULL};
    moe_config *m = &g->moe;
    double scale;
    int64_t n_shared;
    *g = (glm4_moe){.moe = {.names = &moe_names_mlp,
                            .act = c->mlp.act,
                            .route = {.score = ROUTE_SIGMOID, .sum_eps = 1e-20f},
                            .select_bias = BIAS_NEEDED}};
    jang_status status = moe_read_counts(m, at, expert_keys, "num_experts_per_tok", 128, 8);
    if (status == JANG_OK) {
        status = moe_read_groups(m, at, 1, 1);
        m->route.group_pairs = true;
    }
    if (status == JANG_OK) {
        status = json_get_int(&m->n_ff, at, "moe_intermediate_size", 1408, 1, 1 << 22);
    }
    if (status == JANG_OK) {
        status = json_get_int(&n_shared, at, "n_shared_experts", 1, 0, 1024);
    }
    if (status == JANG_OK) {
        status = json_get_int(&g->first_dense, at, "first_k_dense_replace", 1, 0, 1 << 12);
    }
    if (status == JANG_OK) {
        status = json_get_double(&scale, at, "routed_scaling_factor", 1);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->route.renormalise, at, "norm_topk_prob", true);
    }
    if (status == JANG_OK) {
        m->n_shared_ff = n_shared * m->n_ff;
        m->route.scale = (float)scale;
    }
    return status;
}

static jang_status glm4_moe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 131072,
                                              .rope_theta = 10000,
                                              .n_kv_head = 8,
                                              .norm_eps = 1e-5,
                                              .partial_rotary = 0.5,
                                              .biases = {{"attention_bias", false, BIAS_ON_QKV}}};
    decoder_config c;
    glm4_moe g;
    bool qk_norm = false;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = json_get_bool(&qk_norm, l->config, "use_qk_norm", false);
    if (status == JANG_OK) {
        status = read_experts(&g, &c, l->config);
    }
    c.attention.qk_norm = qk_norm ? QK_NORM_HEAD : QK_NORM_NONE;
    c.ffn = make_ffn;
    c.own = &g;
    return decoder_finish(m, l, &c, status);
}

const model_family family_glm4_moe = {.model_type = "glm4_moe", .open = glm4_moe_open};
