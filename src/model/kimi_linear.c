/* kimi_linear.c - Kimi Linear: three layers of Kimi Delta Attention to one of latent attention
 * without positions; experts as DeepSeek-V3 has them.
 *
 * The linear layers' sizes and numbers, counted from 1, are in linear_attn_config. Names are
 * mlx-lm's; the hub puts experts under block_sparse_moe and calls convolutions q_conv1d.
 * Reference: transformers, models/kimi_linear; arXiv:2510.26692. */
#include "model/delta_net.h"
#include "model/mla.h"
#include "model/moe.h"

#include <math.h>
#include <string.h>

typedef struct kimi {
    delta_net_config delta;
    mla_config mla;
    moe_config moe;
    int64_t first_dense;
    bool *is_full; /* [n_layer] latent attention */
} kimi;

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const kimi *k = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    if (!k->is_full[layer]) {
        return kimi_delta_make(out, l, &d->work, &k->delta, c->n_embd, prefix);
    }
    mla_config mla = k->mla;
    mla.kv_layer = layer;
    d->kv_layers[layer] = mla_kv(&mla);
    return mla_make(out, l, &d->work, &mla, c->n_embd, prefix);
}

static jang_status ffn(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const kimi *k = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (layer < k->first_dense) {
        return decoder_mlp(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &k->moe, c->n_embd, prefix);
}

/* ---- Config ---- */

/* Marks the layers listed in linear_attn_config.full_attn_layers; without the list, every fourth
 * but the first. */
static jang_status read_layers(kimi *k, json_at at, json_at linear, int64_t n_layer) {
    const json_t *full;
    jang_status status = json_get_array(&full, linear, "full_attn_layers");
    if (status != JANG_OK) {
        return status;
    }
    k->is_full = ctx_zero(at.ctx, (size_t)n_layer, sizeof *k->is_full);
    if (!k->is_full) {
        return ctx_fail_memory(at.ctx, (size_t)n_layer);
    }
    for (int64_t i = 0; i < n_layer && !full; i++) {
        k->is_full[i] = i > 0 && i % 4 == 0;
    }
    for (size_t i = 0; i < json_array_size(full); i++) {
        json_int_t layer = json_integer_value(json_array_get(full, i));
        if (layer < 1 || layer > n_layer) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                            "%s: full_attn_layers[%zu] is no layer of 1 to %lld", linear.what, i,
                            (long long)n_layer);
        }
        k->is_full[layer - 1] = true;
    }
    return JANG_OK;
}

static jang_status read_linear(kimi *k, json_at at, const decoder_config *c) {
    json_at linear = {at.ctx, "config.json: linear_attn_config", NULL};
    jang_status status = json_get_object(&linear.object, at, "linear_attn_config");
    int64_t n_tap;
    const int_key keys[] = {
        {"num_heads", &k->delta.n_head, 32, 1 << 14},
        {"head_dim", &k->delta.k_dim, 128, 1 << 12},
        {"short_conv_kernel_size", &n_tap, 4, 16},
    };
    if (status == JANG_OK) {
        status = config_ints(linear, keys, sizeof keys / sizeof keys[0]);
    }
    if (status != JANG_OK) {
        return status;
    }
    k->delta.n_k_head = k->delta.n_head;
    k->delta.v_dim = k->delta.k_dim;
    k->delta.n_tap = (int)n_tap;
    k->delta.norm_eps = c->norm.eps;
    k->delta.path = "self_attn";
    status = config_want_silu(at, "hidden_act");
    return status == JANG_OK ? read_layers(k, at, linear, c->n_layer) : status;
}

static jang_status read_mla(kimi *k, json_at at, const decoder_config *c) {
    mla_config *m = &k->mla;
    const int_key keys[] = {
        {"kv_lora_rank", &m->kv_lora, 512, 1 << 16},
        {"qk_nope_head_dim", &m->nope_dim, 128, 1 << 12},
        {"qk_rope_head_dim", &m->rope_dim, 64, 1 << 12},
        {"v_head_dim", &m->v_dim, 128, 1 << 12},
    };
    bool bias = false;
    *m = (mla_config){.n_head = c->attention.n_head, .norm = {.kind = NORM_RMS, .eps = 1e-6}};
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    if (status == JANG_OK) {
        status = json_get_int(&m->q_lora, at, "q_lora_rank", 0, 0, 1 << 16);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&bias, at, "attention_bias", false);
    }
    m->a_bias = m->o_bias = bias ? BIAS_NEEDED : BIAS_NONE;
    m->scale = 1 / sqrt((double)(m->nope_dim + m->rope_dim));
    return status == JANG_OK ? decoder_want_bool(at, "mla_use_nope", true, true) : status;
}

static const moe_names experts = {
    .router = "mlp.gate",
    .select_bias = "mlp.e_score_correction_bias",
    .stacked = {"mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"},
    .before = "mlp.experts.",
    .after = {".w1", ".w3", ".w2"},
    .shared = "mlp.shared_experts",
};

static jang_status read_experts(kimi *k, json_at at, const decoder_config *c) {
    static const char *const expert_keys[] = {"num_experts", NULL};
    moe_config *m = &k->moe;
    int64_t n_group = 1, n_group_used = 1, n_shared = 1, every = 1;
    double scale = 1;
    *m = (moe_config){.names = &experts,
                      .act = c->mlp.act,
                      .select_bias = BIAS_NEEDED,
                      .route = {.score = ROUTE_SIGMOID, .group_pairs = true, .sum_eps = 1e-20f}};
    jang_status status = moe_read_counts(m, at, expert_keys, "num_experts_per_token", 256, 8);
    const int_key keys[] = {
        {"moe_intermediate_size", &m->n_ff, 1024, 1 << 22},
        {"num_expert_group", &n_group, 1, OPS_MAX_EXPERTS},
        {"topk_group", &n_group_used, 1, OPS_MAX_EXPERTS},
        {"num_shared_experts", &n_shared, 1, 1 << 10},
        {"moe_layer_freq", &every, 1, 1 << 10},
    };
    if (status == JANG_OK) {
        status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->route.renormalise, at, "moe_renormalize", true);
    }
    if (status == JANG_OK) {
        status = json_get_double(&scale, at, "routed_scaling_factor", 2.446);
    }
    if (status == JANG_OK) {
        status = json_get_int(&k->first_dense, at, "first_k_dense_replace", 1, 0, 1 << 12);
    }
    if (status == JANG_OK && (every != 1 || m->n_expert % n_group != 0 ||
                              m->n_expert / n_group * n_group_used < m->n_used)) {
        status = ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                          "%s: moe_layer_freq %lld, %lld experts in %lld groups, %lld of them used",
                          at.what, (long long)every, (long long)m->n_expert, (long long)n_group,
                          (long long)n_group_used);
    }
    m->n_shared_ff = n_shared * m->n_ff;
    m->route.n_group = (int)n_group;
    m->route.n_group_used = (int)n_group_used;
    m->route.scale = (float)scale;
    return status;
}

static jang_status kimi_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 1048576, .head_dim = 64, .norm_eps = 1e-5, .n_ff = 9216};
    decoder_config c;
    kimi k = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = json_get_int(&c.n_context, l->config, "model_max_length", c.n_context, 1, 1 << 28);
    if (status == JANG_OK) {
        status = read_linear(&k, l->config, &c);
    }
    if (status == JANG_OK) {
        status = read_mla(&k, l->config, &c);
    }
    if (status == JANG_OK) {
        status = read_experts(&k, l->config, &c);
    }
    c.own = &k;
    c.mixer = mixer;
    c.ffn = ffn;
    status = decoder_finish(m, l, &c, status);
    ctx_free(m->ctx, k.is_full);
    return status;
}

static const name_alias aliases[] = {{"mlp", "block_sparse_moe"},
                                     {"e_score_correction_bias", "gate.e_score_correction_bias"},
                                     {"q_conv", "q_conv1d"},
                                     {"k_conv", "k_conv1d"},
                                     {"v_conv", "v_conv1d"},
                                     {"conv", ""},
                                     {NULL, NULL}};

const model_family family_kimi_linear = {
    .model_type = "kimi_linear", .open = kimi_open, .aliases = aliases};
