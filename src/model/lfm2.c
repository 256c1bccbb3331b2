/* lfm2.c - LFM2: gated short convolutions, and attention in some layers.
 *
 * The MLP's width is block_ff_dim as it is, or with block_auto_adjust_ff_dim two thirds of it,
 * times block_ffn_dim_multiplier, rounded up to block_multiple_of. The final norm is called
 * embedding_norm. Reference: transformers, models/lfm2; arXiv:2511.23404. */
#include "model/moe.h"
#include "model/short_conv.h"

#include <string.h>

typedef struct lfm2 {
    short_conv_config conv;
    bool *is_conv; /* [n_layer] */
    moe_config moe;
    int64_t n_dense; /* layers before this one have no experts */
} lfm2;

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const lfm2 *f = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (!f->is_conv[layer]) {
        return decoder_attention(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return short_conv_make(out, l, &d->work, &f->conv, c->n_embd, prefix);
}

/* ---- Config ---- */

static bool listed(const json_t *indices, int64_t i) {
    for (size_t k = 0; k < json_array_size(indices); k++) {
        if (json_integer_value(json_array_get(indices, k)) == i) {
            return true;
        }
    }
    return false;
}

/* layer_types, or the layers in full_attn_idxs are attention; without either all are. */
static jang_status read_layers(lfm2 *f, json_at at, int64_t n_layer) {
    const json_t *types, *indices;
    jang_status status = json_get_array(&types, at, "layer_types");
    if (status == JANG_OK) {
        status = json_get_array(&indices, at, "full_attn_idxs");
    }
    if (status != JANG_OK) {
        return status;
    }
    f->is_conv = ctx_zero(at.ctx, (size_t)n_layer, sizeof *f->is_conv);
    if (!f->is_conv) {
        return ctx_fail_memory(at.ctx, (size_t)n_layer);
    }
    for (int64_t i = 0; i < n_layer; i++) {
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : NULL;
        f->is_conv[i] = types ? type && strcmp(type, "conv") == 0 : indices && !listed(indices, i);
        if (types && !f->is_conv[i] && (!type || strcmp(type, "full_attention") != 0)) {
            return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                            "%s: layer_types[%lld] is %s; allowed are full_attention and conv",
                            at.what, (long long)i, type ? type : "missing");
        }
    }
    return JANG_OK;
}

static jang_status read_conv(lfm2 *f, json_at at) {
    int64_t n_tap;
    jang_status status = json_get_int(&n_tap, at, "conv_L_cache", 3, 1, 16);
    f->conv.n_tap = (int)n_tap;
    return status == JANG_OK ? json_get_bool(&f->conv.bias, at, "conv_bias", false) : status;
}

static jang_status read_width(mlp_config *mlp, json_at at) {
    bool adjust;
    double factor;
    int64_t multiple, n_ff;
    jang_status status = json_get_int(&n_ff, at, "intermediate_size", 12288, 1, 1 << 22);
    if (status == JANG_OK) {
        status = json_get_int(&n_ff, at, "block_ff_dim", n_ff, 1, 1 << 22);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&adjust, at, "block_auto_adjust_ff_dim", true);
    }
    if (status == JANG_OK) {
        status = json_get_double(&factor, at, "block_ffn_dim_multiplier", 1);
    }
    if (status == JANG_OK) {
        status = json_get_int(&multiple, at, "block_multiple_of", 256, 1, 1 << 20);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!(factor > 0 && factor < 1e6)) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: block_ffn_dim_multiplier %g is out of range",
                        at.what, factor);
    }
    if (adjust) {
        double third = (double)(2 * n_ff / 3);
        n_ff = json_is_null(json_object_get(at.object, "block_ffn_dim_multiplier"))
                   ? (int64_t)third
                   : ((int64_t)(factor * third) + multiple - 1) / multiple * multiple;
    }
    *mlp = (mlp_config){.n_ff = n_ff,
                        .act = {.kind = ACT_SILU},
                        .path = "feed_forward",
                        .gate = "w1",
                        .up = "w3",
                        .down = "w2"};
    return JANG_OK;
}

/* Sets what all LFM2 models' layers have in common. */
static void name_layers(decoder_config *c) {
    c->norms = (layer_norms){.mixer_before = "operator_norm", .ffn_before = "ffn_norm"};
    c->norm_name = "embedding_norm";
    c->attention.qk_norm = QK_NORM_HEAD;
    c->attention.q_norm = "q_layernorm";
    c->attention.k_norm = "k_layernorm";
    c->attention.o = "out_proj";
}

static const decoder_defaults lfm2_defaults = {
    .n_context = 128000,
    .rope_theta = 1000000,
    .tied = true,
    .norm_eps = 1e-5,
    .eps_key = "norm_eps",
    .n_kv_head = 8,
    .n_ff = 12288,
};

static jang_status read_common(decoder_config *c, lfm2 *f, loader *l) {
    jang_status status = json_get_bool(&c->tied, l->config, "tie_embedding", c->tied);
    if (status == JANG_OK) {
        status = read_layers(f, l->config, c->n_layer);
    }
    return status == JANG_OK ? read_conv(f, l->config) : status;
}

static jang_status end_open(model *m, loader *l, decoder_config *c, lfm2 *f, jang_status status) {
    name_layers(c);
    c->own = f;
    c->mixer = mixer;
    status = decoder_finish(m, l, c, status);
    ctx_free(m->ctx, f->is_conv);
    return status;
}

static jang_status lfm2_open(model *m, loader *l) {
    decoder_config c;
    lfm2 f = {0};
    jang_status status = decoder_read_config(&c, l->config, &lfm2_defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_common(&c, &f, l);
    if (status == JANG_OK) {
        status = read_width(&c.mlp, l->config);
    }
    return end_open(m, l, &c, &f, status);
}

/* ---- With experts: names as mlx-lm has them, w1, w2 and w3 on the hub ---- */

static const moe_names experts = {
    .router = "feed_forward.gate",
    .select_bias = "feed_forward.expert_bias",
    .stacked = {"feed_forward.switch_mlp.gate_proj", "feed_forward.switch_mlp.up_proj",
                "feed_forward.switch_mlp.down_proj"},
    .before = "feed_forward.experts.",
    .after = {".gate_proj", ".up_proj", ".down_proj"},
};

static jang_status moe_ffn(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const lfm2 *f = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (layer < f->n_dense) {
        return decoder_mlp(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &f->moe, c->n_embd, prefix);
}

static jang_status read_experts(lfm2 *f, decoder_config *c, json_at at) {
    static const char *const expert_keys[] = {"num_experts", NULL};
    bool bias = false;
    double scale = 1;
    f->moe = (moe_config){
        .names = &experts, .act = c->mlp.act, .route = {.score = ROUTE_SIGMOID, .sum_eps = 1e-6f}};
    jang_status status = moe_read_counts(&f->moe, at, expert_keys, "num_experts_per_tok", 32, 4);
    if (status == JANG_OK) {
        status = json_get_int(&f->moe.n_ff, at, "moe_intermediate_size", 1792, 1, 1 << 22);
    }
    if (status == JANG_OK) {
        status = json_get_int(&f->n_dense, at, "num_dense_layers", 2, 0, 1 << 12);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&f->moe.route.renormalise, at, "norm_topk_prob", true);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&bias, at, "use_expert_bias", true);
    }
    if (status == JANG_OK) {
        status = json_get_double(&scale, at, "routed_scaling_factor", 1);
    }
    f->moe.select_bias = bias ? BIAS_NEEDED : BIAS_NONE;
    f->moe.route.scale = (float)scale;
    c->ffn = moe_ffn;
    return status;
}

static jang_status lfm2_moe_open(model *m, loader *l) {
    decoder_config c;
    lfm2 f = {0};
    jang_status status = decoder_read_config(&c, l->config, &lfm2_defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_common(&c, &f, l);
    c.mlp.path = "feed_forward";
    if (status == JANG_OK) {
        status = read_experts(&f, &c, l->config);
    }
    return end_open(m, l, &c, &f, status);
}

static const name_alias moe_aliases[] = {
    {"gate_proj", "w1"}, {"up_proj", "w3"}, {"down_proj", "w2"}, {NULL, NULL}};

const model_family family_lfm2 = {.model_type = "lfm2", .open = lfm2_open};
const model_family family_lfm2_moe = {
    .model_type = "lfm2_moe", .open = lfm2_moe_open, .aliases = moe_aliases};
