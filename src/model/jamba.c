/* jamba.c - Jamba: Mamba layers with attention every attn_layer_period-th, experts every
 * expert_layer_period-th.
 *
 * Mamba's dt, b and c are normed; attention has no positions; a router's softmax is over all
 * experts and not normed again. num_logits_to_keep only says what a reference computes, and there
 * is no sliding window in its code. Reference: transformers, models/jamba; arXiv:2403.19887. */
#include "model/mamba1.h"
#include "model/moe.h"

#include <string.h>

typedef struct jamba {
    mamba1_config mamba;
    moe_config moe;
    int64_t attn_period, attn_offset, expert_period, expert_offset;
} jamba;

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const jamba *j = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (layer % j->attn_period == j->attn_offset) {
        return decoder_attention(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return mamba1_make(out, l, &d->work, &j->mamba, c->n_embd, prefix);
}

static jang_status ffn(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const jamba *j = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (layer % j->expert_period != j->expert_offset || j->moe.n_expert == 1) {
        return decoder_mlp(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &j->moe, c->n_embd, prefix);
}

/* ---- Config ---- */

static const moe_names experts = {
    .router = "feed_forward.router",
    .stacked = {"feed_forward.switch_mlp.gate_proj", "feed_forward.switch_mlp.up_proj",
                "feed_forward.switch_mlp.down_proj"},
    .before = "feed_forward.experts.",
    .after = {".gate_proj", ".up_proj", ".down_proj"},
};

static jang_status read_periods(jamba *j, json_at at) {
    jang_status status = json_get_int(&j->attn_period, at, "attn_layer_period", 8, 1, 1 << 12);
    if (status == JANG_OK) {
        status = json_get_int(&j->attn_offset, at, "attn_layer_offset", 4, 0, 1 << 12);
    }
    if (status == JANG_OK) {
        status = json_get_int(&j->expert_period, at, "expert_layer_period", 2, 1, 1 << 12);
    }
    return status == JANG_OK
               ? json_get_int(&j->expert_offset, at, "expert_layer_offset", 1, 0, 1 << 12)
               : status;
}

/* mamba_dt_rank may be "auto". */
static jang_status read_rank(int64_t *out, json_at at, int64_t n_embd) {
    const json_t *rank = json_object_get(at.object, "mamba_dt_rank");
    if (json_is_string(rank) && strcmp(json_string_value(rank), "auto") == 0) {
        *out = (n_embd + 15) / 16;
        return JANG_OK;
    }
    return json_get_int(out, at, "mamba_dt_rank", (n_embd + 15) / 16, 1, 1 << 20);
}

static jang_status read_mamba(mamba1_config *m, json_at at, const decoder_config *c) {
    int64_t expand, n_tap;
    const int_key sizes[] = {
        {"mamba_d_state", &m->n_state, 16, 1 << 12},
        {"mamba_d_conv", &n_tap, 4, 16},
        {"mamba_expand", &expand, 2, 1 << 10},
    };
    jang_status status = config_ints(at, sizes, sizeof sizes / sizeof sizes[0]);
    if (status != JANG_OK) {
        return status;
    }
    m->n_tap = (int)n_tap;
    m->n_inner = expand * c->n_embd;
    m->norm = MAMBA1_NORM_NAMED;
    m->norm_eps = c->norm.eps;
    m->path = "mamba";
    status = read_rank(&m->dt_rank, at, c->n_embd);
    if (status == JANG_OK) {
        status = json_get_bool(&m->bias, at, "mamba_proj_bias", false);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->conv_bias, at, "mamba_conv_bias", true);
    }
    return status == JANG_OK ? config_want_silu(at, "hidden_act") : status;
}

static jang_status jamba_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 262144, .n_kv_head = 8};
    static const char *const expert_keys[] = {"num_experts", "num_local_experts", NULL};
    decoder_config c;
    jamba j = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    j.moe = (moe_config){.names = &experts,
                         .n_ff = c.mlp.n_ff,
                         .act = c.mlp.act,
                         .route = {.score = ROUTE_SOFTMAX, .scale = 1}};
    status = moe_read_counts(&j.moe, l->config, expert_keys, "num_experts_per_tok", 16, 2);
    if (status == JANG_OK) {
        status = read_periods(&j, l->config);
    }
    if (status == JANG_OK) {
        status = read_mamba(&j.mamba, l->config, &c);
    }
    c.mlp.path = "feed_forward";
    c.norms.ffn_before = "pre_ff_layernorm";
    c.norm_name = "final_layernorm";
    c.own = &j;
    c.mixer = mixer;
    c.ffn = ffn;
    return decoder_finish(m, l, &c, status);
}

const model_family family_jamba = {.model_type = "jamba", .open = jamba_open};
