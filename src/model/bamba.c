/* bamba.c - Bamba and Granite 4: Mamba-2 layers with attention in between.
 *
 * Bamba lists its attention layers in attn_layer_indices and turns half of a head. Granite names
 * each layer's kind in layer_types, has four multipliers (logits_scaling divides), and RoPE only
 * where position_embedding_type is "rope"; its MLP holds gate and up in one matrix.
 * Reference: transformers, models/{bamba,granitemoehybrid}. */
#include "model/beside.h"
#include "model/granite.h"
#include "model/mamba2.h"
#include "model/moe.h"

#include <string.h>

typedef struct bamba {
    mamba2_config mamba;
    moe_config moe;     /* n_expert 0: none */
    bool *is_attention; /* [n_layer] */
} bamba;

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const bamba *b = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (b->is_attention[layer]) {
        return decoder_attention(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return mamba2_make(out, l, &d->work, &b->mamba, c->n_embd, prefix);
}

/* ---- Config ---- */

/* mamba_d_head may be "auto". */
static jang_status read_head_dim(mamba2_config *m, json_at at, int64_t n_inner) {
    const json_t *size = json_object_get(at.object, "mamba_d_head");
    jang_status status = JANG_OK;
    m->head_dim = n_inner / m->n_head;
    if (!json_is_string(size) || strcmp(json_string_value(size), "auto") != 0) {
        status = json_get_int(&m->head_dim, at, "mamba_d_head", m->head_dim, 1, 1 << 16);
    }
    if (status == JANG_OK && m->n_head * m->head_dim != n_inner) {
        status =
            ctx_fail(at.ctx, JANG_ERR_FORMAT,
                     "%s: %lld Mamba heads of %lld are not mamba_expand * hidden_size = %lld",
                     at.what, (long long)m->n_head, (long long)m->head_dim, (long long)n_inner);
    }
    return status;
}

static jang_status read_mamba(mamba2_config *m, json_at at, const decoder_config *c) {
    int64_t n_tap, expand;
    const int_key keys[] = {
        {"mamba_n_heads", &m->n_head, 128, 1 << 16},  {"mamba_n_groups", &m->n_group, 1, 1 << 16},
        {"mamba_d_state", &m->n_state, 256, 1 << 12}, {"mamba_d_conv", &n_tap, 4, 16},
        {"mamba_expand", &expand, 2, 1 << 10},
    };
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    if (status != JANG_OK) {
        return status;
    }
    *m = (mamba2_config){.n_head = m->n_head,
                         .n_group = m->n_group,
                         .n_state = m->n_state,
                         .n_tap = (int)n_tap,
                         .norm = MAMBA2_GATE_FIRST,
                         .norm_groups = 1,
                         .norm_eps = c->norm.eps,
                         .path = "mamba"};
    status = read_head_dim(m, at, expand * c->n_embd);
    if (status == JANG_OK) {
        status = json_get_bool(&m->conv_bias, at, "mamba_conv_bias", true);
    }
    bool bias = false;
    if (status == JANG_OK) {
        status = json_get_bool(&bias, at, "mamba_proj_bias", false);
    }
    m->in_bias = m->out_bias = bias;
    if (status == JANG_OK) {
        status = mamba2_read_limits(m, at);
    }
    return status == JANG_OK ? config_want_silu(at, "hidden_act") : status;
}

static jang_status new_layers(bamba *b, json_at at, int64_t n_layer) {
    b->is_attention = ctx_zero(at.ctx, (size_t)n_layer, sizeof *b->is_attention);
    return b->is_attention ? JANG_OK : ctx_fail_memory(at.ctx, (size_t)n_layer);
}

/* ---- Bamba ---- */

static jang_status read_indices(bamba *b, json_at at, int64_t n_layer) {
    const json_t *indices;
    jang_status status = json_get_array(&indices, at, "attn_layer_indices");
    if (status == JANG_OK) {
        status = new_layers(b, at, n_layer);
    }
    for (size_t i = 0; status == JANG_OK && i < json_array_size(indices); i++) {
        json_int_t layer = json_integer_value(json_array_get(indices, i));
        if (layer >= 0 && layer < n_layer) {
            b->is_attention[layer] = true;
        }
    }
    return status;
}

static jang_status bamba_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 262144,
        .rope_theta = 10000,
        .partial_rotary = 0.5,
        .norm_eps = 1e-5,
        .n_kv_head = 8,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}, {"mlp_bias", false, BIAS_ON_MLP}}};
    decoder_config c;
    bamba b = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_mamba(&b.mamba, l->config, &c);
    if (status == JANG_OK) {
        status = read_indices(&b, l->config, c.n_layer);
    }
    c.mlp.path = "feed_forward";
    c.norms.ffn_before = "pre_ff_layernorm";
    c.norm_name = "final_layernorm";
    c.own = &b;
    c.mixer = mixer;
    status = decoder_finish(m, l, &c, status);
    ctx_free(m->ctx, b.is_attention);
    return status;
}

/* ---- Granite ---- */

/* layer_types, or layers_block_type; without either all layers are Mamba's. */
static jang_status read_types(bamba *b, json_at at, int64_t n_layer) {
    const json_t *types;
    bool old = !json_has(at.object, "layer_types");
    jang_status status = json_get_array(&types, at, old ? "layers_block_type" : "layer_types");
    if (status == JANG_OK) {
        status = new_layers(b, at, n_layer);
    }
    for (int64_t i = 0; status == JANG_OK && types && i < n_layer; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        type = type ? type : "missing";
        b->is_attention[i] = strcmp(type, "attention") == 0 || strcmp(type, "full_attention") == 0;
        if (!b->is_attention[i] && strcmp(type, "mamba") != 0 &&
            strcmp(type, "linear_attention") != 0) {
            status = ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                              "%s: layer_types[%lld] is %s; allowed are mamba and attention",
                              at.what, (long long)i, type);
        }
    }
    return status;
}

/* RoPE where the config asks for it by name. */
static jang_status read_positions(decoder_config *c, json_at at) {
    const char *type;
    jang_status status = json_get_string(&type, at, "position_embedding_type", "nope");
    if (status == JANG_OK && strcmp(type, "rope") != 0) {
        rope_free(&c->ropes[0], at.ctx);
        c->ropes[0] = (rope_config){0};
    }
    return status;
}

static const moe_names granite_experts = {
    .router = "block_sparse_moe.router.layer",
    .stacked = {"block_sparse_moe.switch_mlp.gate_proj", "block_sparse_moe.switch_mlp.up_proj",
                "block_sparse_moe.switch_mlp.down_proj"},
    .fused_in = "block_sparse_moe.input_linear.weight",
    .in_order = FUSED_ROWS,
    .fused_out = "block_sparse_moe.output_linear.weight",
    .out_order = FUSED_ROWS,
};

/* Experts, where there are any, and the shared MLP. */
static jang_status granite_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                               int layer) {
    const bamba *b = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (b->moe.n_expert == 0) {
        return decoder_mlp(out, d, l, c, layer);
    }
    block *experts, *shared;
    decoder_prefix(prefix, c, layer);
    jang_status status = moe_make(&experts, l, &d->work, &b->moe, c->n_embd, prefix);
    if (status != JANG_OK) {
        return status;
    }
    status = decoder_mlp(&shared, d, l, c, layer);
    if (status != JANG_OK) {
        block_close(experts, l->ctx);
        return status;
    }
    const beside_part parts[2] = {{.block = experts, .in = 1, .out = 1},
                                  {.block = shared, .in = 1, .out = 1}};
    return beside_make(out, l, &d->work, parts, 2, c->n_embd);
}

/* The hub has the shared MLP's gate and up in one matrix; mlx-lm has two, under the usual names,
 * where there are no experts, and so it is run then. */
static void set_shared_mlp(mlp_config *c, bool dense) {
    if (dense) {
        c->path = "";
        c->gate = "mlp.gate_proj";
        c->up = "mlp.up_proj";
        c->down = "mlp.down_proj";
        c->stored_in = "shared_mlp.input_linear";
        c->stored_out = "shared_mlp.output_linear";
    } else {
        c->layout = MLP_GATE_UP;
        c->path = "shared_mlp";
        c->gate_up = "input_linear";
        c->down = "output_linear";
    }
}

static jang_status read_granite_ffn(bamba *b, decoder_config *c, loader *l) {
    static const char *const expert_keys[] = {"num_local_experts", NULL};
    int64_t n_expert;
    jang_status status = json_get_int(&n_expert, l->config, "num_local_experts", 8, 0, 1024);
    if (status == JANG_OK && n_expert > 0) {
        b->moe = (moe_config){.names = &granite_experts,
                              .n_ff = c->mlp.n_ff,
                              .act = c->mlp.act,
                              .route = {.score = ROUTE_SOFTMAX_CHOSEN, .scale = 1}};
        status = moe_read_counts(&b->moe, l->config, expert_keys, "num_experts_per_tok", 8, 2);
    }
    if (status == JANG_OK) {
        status =
            json_get_int(&c->mlp.n_ff, l->config, "shared_intermediate_size", 1024, 1, 1 << 22);
    }
    if (status == JANG_OK && loader_tensor(l, "layers.0.shared_mlp.input_linear.weight")) {
        set_shared_mlp(&c->mlp, n_expert == 0);
    }
    c->ffn = granite_ffn;
    return status;
}

static jang_status granite_hybrid_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 2048,
        .rope_theta = 10000,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    decoder_config c;
    bamba b = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_mamba(&b.mamba, l->config, &c);
    if (status == JANG_OK) {
        status = read_types(&b, l->config, c.n_layer);
    }
    if (status == JANG_OK) {
        status = granite_read_multipliers(&c, l->config);
    }
    if (status == JANG_OK) {
        status = read_positions(&c, l->config);
    }
    if (status == JANG_OK) {
        status = read_granite_ffn(&b, &c, l);
    }
    c.own = &b;
    c.mixer = mixer;
    status = decoder_finish(m, l, &c, status);
    ctx_free(m->ctx, b.is_attention);
    return status;
}

const model_family family_bamba = {.model_type = "bamba", .open = bamba_open};
const model_family family_granitemoehybrid = {.model_type = "granitemoehybrid",
                                              .open = granite_hybrid_open};
