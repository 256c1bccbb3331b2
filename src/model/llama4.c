/* llama4.c - Llama 4 (text): layers with RoPE look back to the start of their chunk, every fourth
 * has no positions, sees all, and sharpens its queries with their position; a shared expert beside
 * one of many, whose input is multiplied by the sigmoid of its score; dense layers in between.
 *
 * q and k are normed after RoPE, without weights. MobileLLM-R1 is this family without experts.
 * Reference: transformers, models/llama4; temperature: arXiv:2501.19399. */
#include "model/decoder.h"
#include "model/moe.h"

#include <string.h>

typedef struct llama4 {
    moe_config moe;
    int64_t n_chunk;                             /* 0: no layer is chunked */
    bool qk_norm, tuned;                         /* of layers with RoPE; of those without */
    const json_t *types, *ropes, *expert_layers; /* of the config; NULL: the rules below hold */
    int64_t plain_interval, expert_step;
} llama4;

static const moe_names names = {
    .router = "feed_forward.router",
    .stacked = {"feed_forward.experts.gate_proj", "feed_forward.experts.up_proj",
                "feed_forward.experts.down_proj"},
    .fused_in = "feed_forward.experts.gate_up_proj",
    .in_order = FUSED_COLUMNS,
    .fused_out = "feed_forward.experts.down_proj",
    .out_order = FUSED_COLUMNS,
    .shared = "feed_forward.shared_expert",
};

/* ---- Layers ---- */

static bool has_rope(const llama4 *f, int64_t layer) {
    const json_t *flag = json_array_get(f->ropes, (size_t)layer);
    return json_array_size(f->ropes) ? json_number_value(flag) != 0 || json_is_true(flag)
                                     : (layer + 1) % f->plain_interval != 0;
}

static bool has_experts(const llama4 *f, int64_t layer) {
    size_t i;
    const json_t *number;
    json_array_foreach(f->expert_layers, i, number) {
        if (json_integer_value(number) == layer) {
            return true;
        }
    }
    return !f->expert_layers && (layer + 1) % f->expert_step == 0;
}

static void tune_attention(attention_config *a, const decoder_config *c, int layer) {
    const llama4 *f = c->own;
    bool turns = has_rope(f, layer);
    a->chunk = c->sliding[layer] ? f->n_chunk : 0;
    a->qk_norm = turns && f->qk_norm ? QK_NORM_HEAD : QK_NORM_NONE;
    a->temper = !turns && f->tuned ? a->temper : 0;
}

static jang_status make_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                            int layer) {
    const llama4 *f = c->own;
    if (!has_experts(f, layer)) {
        return decoder_mlp(out, d, l, c, layer);
    }
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &f->moe, c->n_embd, prefix);
}

/* ---- Config ---- */

static jang_status read_layer_rules(llama4 *f, json_at at) {
    const struct {
        const char *key;
        const json_t **out;
    } lists[] = {
        {"layer_types", &f->types},
        {"no_rope_layers", &f->ropes},
        {"moe_layers", &f->expert_layers},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; i < sizeof lists / sizeof *lists && status == JANG_OK; i++) {
        status = json_get_array(lists[i].out, at, lists[i].key);
    }
    if (status == JANG_OK) {
        status = json_get_int(&f->plain_interval, at, "no_rope_layer_interval", 4, 1, 1 << 12);
    }
    if (status == JANG_OK && !f->expert_layers) {
        status = json_get_int(&f->expert_step, at, "interleave_moe_layer_step", 1, 1, 1 << 12);
    }
    return status;
}

/* Whether a layer is chunked: *sliding; and which RoPE it has, or none: *rope. */
static jang_status read_layer(bool *sliding, int8_t *rope, const llama4 *f, json_at at, int64_t i) {
    const char *type = json_string_value(json_array_get(f->types, (size_t)i));
    *rope = has_rope(f, i) ? 0 : -1;
    *sliding = f->types ? type && strcmp(type, "chunked_attention") == 0 : *rope == 0 && f->n_chunk;
    if (f->types && (!type || (!*sliding && strcmp(type, "full_attention") != 0))) {
        return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: layer_types[%lld] is %s; allowed are full_attention and "
                        "chunked_attention",
                        at.what, (long long)i, type ? type : "missing");
    }
    if (*sliding && !f->n_chunk) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                        "%s: layer_types has chunked_attention, but there is no "
                        "attention_chunk_size",
                        at.what);
    }
    return JANG_OK;
}

static jang_status read_layers(llama4 *f, decoder_config *c, json_at at) {
    jang_status status = read_layer_rules(f, at);
    size_t n = json_array_size(f->ropes);
    if (status == JANG_OK && n && n < (size_t)c->n_layer) {
        status = ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: no_rope_layers has %zu of %lld layers",
                          at.what, n, (long long)c->n_layer);
    }
    if (status != JANG_OK) {
        return status;
    }
    c->sliding = ctx_zero(at.ctx, (size_t)c->n_layer, sizeof *c->sliding);
    c->rope_of = ctx_zero(at.ctx, (size_t)c->n_layer, sizeof *c->rope_of);
    if (!c->sliding || !c->rope_of) {
        return ctx_fail_memory(at.ctx, (size_t)c->n_layer);
    }
    for (int64_t i = 0; i < c->n_layer && status == JANG_OK; i++) {
        status = read_layer(&c->sliding[i], &c->rope_of[i], f, at, i);
    }
    return status;
}

/* attn_temperature_tuning is true or false, or a number in the first checkpoints. */
static jang_status read_attention(llama4 *f, decoder_config *c, json_at at) {
    attention_config *a = &c->attention;
    const json_t *tuning = json_object_get(at.object, "attn_temperature_tuning");
    jang_status status = json_get_bool(&f->qk_norm, at, "use_qk_norm", true);
    f->tuned = true;
    if (status == JANG_OK && json_is_number(tuning)) {
        f->tuned = json_number_value(tuning) != 0;
    } else if (status == JANG_OK) {
        status = json_get_bool(&f->tuned, at, "attn_temperature_tuning", true);
    }
    if (status == JANG_OK) {
        status = json_get_double(&a->temper, at, "attn_scale", 0.1);
    }
    if (status == JANG_OK) {
        status = json_get_int(&a->temper_span, at, "floor_scale", 8192, 1, 1 << 28);
    }
    bool whole = json_is_null(json_object_get(at.object, "attention_chunk_size"));
    if (status == JANG_OK && !whole) {
        status = json_get_int(&f->n_chunk, at, "attention_chunk_size", 8192, 1, 1 << 28);
    }
    a->temper_shift = 1;
    a->norm_after_rope = true;
    a->norm.plain = true;
    return status;
}

static jang_status read_experts(llama4 *f, const decoder_config *c, json_at at) {
    static const char *const keys[] = {"num_local_experts", NULL};
    bool any = false;
    for (int64_t i = 0; i < c->n_layer; i++) {
        any = any || has_experts(f, i);
    }
    f->moe = (moe_config){.names = &names,
                          .n_ff = c->mlp.n_ff,
                          .n_shared_ff = c->mlp.n_ff,
                          .act = c->mlp.act,
                          .scale_input = true,
                          .route = {.score = ROUTE_SIGMOID, .scale = 1}};
    return any ? moe_read_counts(&f->moe, at, keys, "num_experts_per_tok", 16, 1) : JANG_OK;
}

static jang_status llama4_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_vocab = 202048,
        .n_embd = 5120,
        .n_ff = 8192,
        .n_layer = 48,
        .n_head = 40,
        .n_kv_head = 8,
        .head_dim = 128,
        .n_context = 131072,
        .rope_theta = 500000,
        .norm_eps = 1e-5,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    decoder_config c;
    llama4 f = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    c.ropes[0].interleaved = true;
    c.own = &f;
    c.ffn = make_ffn;
    c.layer_attention = tune_attention;
    status = read_attention(&f, &c, l->config);
    if (status == JANG_OK) {
        status = read_layers(&f, &c, l->config);
    }
    if (status == JANG_OK) {
        status = read_experts(&f, &c, l->config);
    }
    if (status == JANG_OK) { /* of dense layers; those of experts have intermediate_size */
        status = json_get_int(&c.mlp.n_ff, l->config, "intermediate_size_mlp", 16384, 1, 1 << 22);
    }
    if (status == JANG_OK) {
        status = decoder_want_bool(l->config, "for_llm_compressor", false, false);
    }
    c.mlp.path = "feed_forward";
    return decoder_finish(m, l, &c, status);
}

const model_family family_llama4_text = {.model_type = "llama4_text", .open = llama4_open};
const model_family family_llama4 = {
    .model_type = "llama4", .open = llama4_open, .text_config = true};
