/* gemma4.c - Gemma 4 (text): layers with windows have heads of another size than
 * full ones, whose RoPE turns a quarter of each head ("proportional"); values are normed, in some
 * checkpoints taken from the keys; the last layers read keys and values of earlier ones.
 *
 * The small models add to each layer what its own embedding of the token says:
 *     p = (norm(project(x)) + embed_per_layer(ids)) / sqrt(2);  x += norm(project(act(gate(x)) p))
 * Where there are experts, they stand beside the MLP, each with norms of its own; their router
 * reads the stream through a third. Norms are plain w here, not 1 + w, and scores are not scaled.
 * Reference: transformers, models/gemma4. */
#include "model/beside.h"
#include "model/moe.h"

#include <math.h>
#include <stdio.h>

enum { SLOT_ROWS = WORK_BLOCK };

/* What a layer's kind decides. */
typedef struct gemma4_config {
    int64_t global_head_dim, n_global_kv, n_shared; /* n_global_kv 0: as in the other layers */
    bool k_eq_v, double_wide;
    int64_t n_ple, n_ple_vocab; /* width of a layer's own embedding; 0: there is none */
    bool has_experts;
    moe_config moe;
} gemma4_config;

/* ---- Embeddings of each layer ---- */

typedef struct ple_input {
    block base;
    const ops_weight *table, *project;
    norm_desc norm;
    int64_t width, n_ple; /* of all layers, of one */
    float scale;          /* of the projection */
} ple_input;

static void multiply(const block_step *s, ops_mat x, float by) {
    s->t->gated(s->o, &(act_desc){.kind = ACT_LINEAR, .a = by}, x, (ops_mat){0}, x);
}

/* Leaves the rows of all layers in WORK_KEPT. */
static void ple_input_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const ple_input *p = (const ple_input *)b;
    ops_mat kept = step_rows(s, WORK_KEPT, p->width), rows = step_rows(s, SLOT_ROWS, p->width);
    (void)y, (void)add;
    s->t->linear(s->o, h, &(linear_item){p->project, kept, false}, 1);
    multiply(s, kept, p->scale);
    s->t->norm(s->o, &p->norm, kept, kept);
    s->t->embed(s->o, p->table, EMBED_IDS, s->batch, sqrtf((float)p->n_ple), rows);
    s->t->add(s->o, 1, rows, kept);
    multiply(s, kept, 0.70710678f);
}

static const block_kind ple_input_kind = {.name = "per-layer embedding", .run = ple_input_run};

static jang_status make_prelude(block **out, decoder *d, loader *l, const decoder_config *c,
                                int layer) {
    const gemma4_config *g = c->own;
    (void)layer;
    ple_input *p = ctx_zero(l->ctx, 1, sizeof *p);
    if (!p) {
        return ctx_fail_memory(l->ctx, sizeof *p);
    }
    p->base.kind = &ple_input_kind;
    p->n_ple = g->n_ple;
    p->width = c->n_layer * g->n_ple;
    p->scale = 1 / sqrtf((float)c->n_embd);
    ops_weight *table, *project = NULL;
    jang_status status =
        load_embedding(&table, l, g->n_ple_vocab, p->width, READ_ROW, "embed_tokens_per_layer");
    if (status == JANG_OK) {
        status = load_matrix(&project, l, p->width, c->n_embd, BIAS_NONE, INPUT_FINE,
                             "per_layer_model_projection");
    }
    if (status == JANG_OK) {
        status = load_norm(&p->norm, l, &c->norm, g->n_ple, g->n_ple, "per_layer_projection_norm");
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, p);
        return status;
    }
    p->table = table;
    p->project = project;
    work_need(&d->work, WORK_KEPT, p->width);
    work_need(&d->work, SLOT_ROWS, p->width);
    *out = &p->base;
    return JANG_OK;
}

typedef struct ple_layer {
    block base;
    const ops_weight *gate, *project;
    act_desc act;
    int64_t width, from, n_ple;
} ple_layer;

static void ple_layer_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const ple_layer *p = (const ple_layer *)b;
    ops_mat gate = step_rows(s, SLOT_ROWS, p->n_ple);
    ops_mat own = ops_columns(step_rows(s, WORK_KEPT, p->width), p->from, p->n_ple);
    s->t->linear(s->o, h, &(linear_item){p->gate, gate, false}, 1);
    s->t->gated(s->o, &p->act, gate, own, gate);
    s->t->linear(s->o, gate, &(linear_item){p->project, y, add}, 1);
}

static const block_kind ple_layer_kind = {.name = "per-layer input", .run = ple_layer_run};

static jang_status make_ple_layer(layer_tail *out, loader *l, const decoder_config *c, int layer,
                                  const char *prefix) {
    const gemma4_config *g = c->own;
    ple_layer *p = ctx_zero(l->ctx, 1, sizeof *p);
    if (!p) {
        return ctx_fail_memory(l->ctx, sizeof *p);
    }
    ops_weight *gate, *project = NULL;
    jang_status status = load_matrix(&gate, l, g->n_ple, c->n_embd, BIAS_NONE, INPUT_FINE,
                                     "%sper_layer_input_gate", prefix);
    if (status == JANG_OK) {
        status = load_matrix(&project, l, c->n_embd, g->n_ple, BIAS_NONE, INPUT_FINE,
                             "%sper_layer_projection", prefix);
    }
    if (status == JANG_OK) {
        status = load_norm(&out->after, l, &c->norm, c->n_embd, c->n_embd,
                           "%spost_per_layer_input_norm", prefix);
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, p);
        return status;
    }
    *p = (ple_layer){.base = {&ple_layer_kind},
                     .gate = gate,
                     .project = project,
                     .act = c->mlp.act,
                     .width = c->n_layer * g->n_ple,
                     .from = layer * g->n_ple,
                     .n_ple = g->n_ple};
    out->block = &p->base;
    return JANG_OK;
}

/* ---- Layers ---- */

static jang_status make_tail(layer_tail *out, decoder *d, loader *l, const decoder_config *c,
                             int layer) {
    char prefix[DECODER_PREFIX_BYTES], name[128];
    (void)d;
    decoder_prefix(prefix, c, layer);
    snprintf(name, sizeof name, "%slayer_scalar", prefix);
    jang_status status = loader_read_numbers(&out->stream_scale, l, 1, name);
    const gemma4_config *g = c->own;
    return status == JANG_OK && g->n_ple ? make_ple_layer(out, l, c, layer, prefix) : status;
}

static bool is_shared(const decoder_config *c, int64_t layer) {
    const gemma4_config *g = c->own;
    return layer >= c->n_layer - g->n_shared;
}

static void tune_attention(attention_config *a, const decoder_config *c, int layer) {
    const gemma4_config *g = c->own;
    if (!c->sliding[layer]) {
        a->head_dim = g->global_head_dim;
        a->n_kv_head = g->k_eq_v && g->n_global_kv ? g->n_global_kv : a->n_kv_head;
        a->v_is_k = g->k_eq_v;
    }
    if (is_shared(c, layer)) { /* the last layer of its kind that has keys of its own */
        int64_t from = c->n_layer - g->n_shared - 1;
        while (from > 0 && c->sliding[from] != c->sliding[layer]) {
            from--;
        }
        a->kv_is_read = true;
        a->kv_layer = (int)from;
    }
}

static jang_status make_mlp(block **out, decoder *d, loader *l, const decoder_config *c,
                            int layer) {
    const gemma4_config *g = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    mlp_config m = c->mlp;
    decoder_prefix(prefix, c, layer);
    m.n_ff *= g->double_wide && is_shared(c, layer) ? 2 : 1;
    return mlp_make(out, l, &d->work, &m, c->n_embd, prefix);
}

/* ---- Experts ---- */

static const moe_names names = {
    .router = "router.proj",
    .stacked = {"experts.switch_glu.gate_proj", "experts.switch_glu.up_proj",
                "experts.switch_glu.down_proj"},
    .fused_in = "experts.gate_up_proj",
    .in_order = FUSED_ROWS,
    .fused_out = "experts.down_proj",
    .out_order = FUSED_ROWS,
    .expert_scale = "router.per_expert_scale",
};

/* norm(x) * scale / sqrt(n_embd) */
static jang_status load_router_norm(norm_desc *out, loader *l, const decoder_config *c,
                                    const char *prefix) {
    char name[128];
    ops_weight *weight;
    snprintf(name, sizeof name, "%srouter.scale", prefix);
    float *scale = ctx_array(l->ctx, (size_t)c->n_embd, sizeof *scale);
    jang_status status = scale ? loader_read_numbers(scale, l, c->n_embd, name)
                               : ctx_fail_memory(l->ctx, (size_t)c->n_embd * sizeof *scale);
    for (int64_t i = 0; status == JANG_OK && i < c->n_embd; i++) {
        scale[i] /= sqrtf((float)c->n_embd);
    }
    if (status == JANG_OK) {
        status = load_computed(&weight, l, scale, c->n_embd, "router scale");
    }
    if (status == JANG_OK) {
        *out = (norm_desc){
            .kind = c->norm.kind, .width = c->n_embd, .weight = weight, .eps = (float)c->norm.eps};
    }
    ctx_free(l->ctx, scale);
    return status;
}

static jang_status make_experts(block **out, decoder *d, loader *l, const decoder_config *c,
                                const char *prefix) {
    const gemma4_config *g = c->own;
    moe_config moe = g->moe;
    jang_status status = load_router_norm(&moe.router_norm, l, c, prefix);
    if (status == JANG_OK) {
        status = load_norm(&moe.input_norm, l, &c->norm, c->n_embd, c->n_embd,
                           "%spre_feedforward_layernorm_2", prefix);
    }
    return status == JANG_OK ? moe_make(out, l, &d->work, &moe, c->n_embd, prefix) : status;
}

/* The MLP and the experts, side by side. */
static jang_status make_both(block **out, decoder *d, loader *l, const decoder_config *c,
                             int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    beside_part parts[2] = {{.in = 1, .out = 1}, {.in = 1, .out = 1}};
    const struct {
        const char *name;
        norm_desc *out;
    } norms[] = {
        {"pre_feedforward_layernorm", &parts[0].before},
        {"post_feedforward_layernorm_1", &parts[0].after},
        {"post_feedforward_layernorm_2", &parts[1].after},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; i < sizeof norms / sizeof *norms && status == JANG_OK; i++) {
        status = load_norm(norms[i].out, l, &c->norm, c->n_embd, c->n_embd, "%s%s", prefix,
                           norms[i].name);
    }
    if (status == JANG_OK) {
        status = make_mlp(&parts[0].block, d, l, c, layer);
    }
    if (status == JANG_OK) {
        status = make_experts(&parts[1].block, d, l, c, prefix);
    }
    if (status != JANG_OK) {
        block_close(parts[0].block, l->ctx);
        return status;
    }
    return beside_make(out, l, &d->work, parts, 2, c->n_embd);
}

static jang_status read_experts(gemma4_config *g, json_at config, const decoder_config *c) {
    static const char *const keys[] = {"num_experts", NULL};
    g->moe = (moe_config){
        .names = &names,
        .act = c->mlp.act,
        .route = {.score = ROUTE_SOFTMAX, .renormalise = true, .scale = 1},
    };
    const char *const needed[] = {"num_experts", "top_k_experts", "moe_intermediate_size"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (!json_has(config.object, needed[i])) {
            return ctx_fail(config.ctx, JANG_ERR_FORMAT,
                            "%s: %s is missing, which enable_moe_block needs", config.what,
                            needed[i]);
        }
    }
    jang_status status = moe_read_counts(&g->moe, config, keys, "top_k_experts", 1, 1);
    return status == JANG_OK
               ? json_get_int(&g->moe.n_ff, config, "moe_intermediate_size", 1, 1, 1 << 22)
               : status;
}

/* ---- Config ---- */

/* Newer configs say of each full layer how it differs: "per_layer_config": {"5": {"head_dim":
 * ...}}. One and the same for all of them, and none for those with windows. */
static jang_status read_layer_overrides(gemma4_config *g, json_at config, const decoder_config *c) {
    const json_t *all, *first = NULL;
    jang_status status = json_get_object(&all, config, "per_layer_config");
    size_t n_full = 0;
    for (int64_t i = 0; status == JANG_OK && all && i < c->n_layer; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", (int)i);
        const json_t *one = json_object_get(all, key);
        first = first ? first : one;
        n_full += !c->sliding[i];
        if (c->sliding[i] == (one != NULL) || (one && !json_equal(first, one))) {
            return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                            "%s: per_layer_config is not the same for all full layers, and none "
                            "for others",
                            config.what);
        }
    }
    if (status != JANG_OK || !first) {
        return status;
    }
    json_at at = {config.ctx, config.what, first};
    size_t n_known = (size_t)json_has(first, "head_dim") + json_has(first, "num_key_value_heads");
    if (json_object_size(all) != n_full || json_object_size(first) != n_known) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: per_layer_config: head_dim and num_key_value_heads of full layers are "
                        "known",
                        config.what);
    }
    status = json_get_int(&g->global_head_dim, at, "head_dim", g->global_head_dim, 2, OPS_HEAD_MAX);
    return status == JANG_OK ? json_get_int(&g->n_global_kv, at, "num_key_value_heads",
                                            g->n_global_kv, 1, c->attention.n_head)
                             : status;
}

static jang_status read_own(gemma4_config *g, json_at config, const decoder_config *c) {
    const struct {
        const char *key;
        int64_t *out, fallback, least, most;
    } keys[] = {
        {"global_head_dim", &g->global_head_dim, 512, 2, OPS_HEAD_MAX},
        {"num_global_key_value_heads", &g->n_global_kv, 0, 0, c->attention.n_head},
        {"num_kv_shared_layers", &g->n_shared, 0, 0, c->n_layer - 1},
        {"hidden_size_per_layer_input", &g->n_ple, 256, 0, 1 << 16},
        {"vocab_size_per_layer_input", &g->n_ple_vocab, 262144, 1, 1 << 24},
    };
    jang_status status = json_get_bool(&g->has_experts, config, "enable_moe_block", false);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == JANG_OK; i++) {
        status = json_get_int(keys[i].out, config, keys[i].key, keys[i].fallback, keys[i].least,
                              keys[i].most);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&g->k_eq_v, config, "attention_k_eq_v", false);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&g->double_wide, config, "use_double_wide_mlp", false);
    }
    if (status == JANG_OK) {
        status = read_layer_overrides(g, config, c);
    }
    if (status == JANG_OK && g->has_experts) {
        status = read_experts(g, config, c);
    }
    if (status != JANG_OK) {
        return status;
    }
    int64_t n_kv = g->k_eq_v && g->n_global_kv ? g->n_global_kv : c->attention.n_kv_head;
    if (g->global_head_dim % 2 != 0 || c->attention.n_head % n_kv != 0 ||
        (g->n_ple && g->n_ple_vocab < c->n_vocab)) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: global_head_dim must be even, num_attention_heads a multiple of "
                        "num_global_key_value_heads, vocab_size_per_layer_input no less than "
                        "vocab_size",
                        config.what);
    }
    return JANG_OK;
}

static jang_status read_ropes(decoder_config *c, const gemma4_config *g, json_at config) {
    if (!json_is_object(json_object_get(config.object, "rope_parameters"))) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: rope_parameters is missing, which this family needs", config.what);
    }
    rope_wanted full = {.head_dim = (int)g->global_head_dim,
                        .n_context = c->n_context,
                        .theta = 1000000,
                        .layer_type = "full_attention"};
    rope_wanted local = full;
    local.head_dim = (int)c->attention.head_dim;
    local.theta = 10000;
    local.layer_type = "sliding_attention";
    jang_status status = rope_read(&c->ropes[0], config, &full);
    if (status == JANG_OK) {
        status = rope_read(&c->ropes[1], config, &local);
    }
    return status == JANG_OK ? decoder_choose_ropes(c, config.ctx, 0, 1) : status;
}

static jang_status read_rest(decoder_config *c, gemma4_config *g, json_at config) {
    attention_config *a = &c->attention;
    jang_status status = JANG_OK;
    if (json_string_value(json_object_get(config.object, "use_bidirectional_attention"))) {
        const char *value = "vision"; /* images alone see both ways: text does not */
        status = json_get_string(&value, config, "use_bidirectional_attention", value);
        if (status == JANG_OK && value[0] != 'v') {
            status =
                ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                         "%s: use_bidirectional_attention %s is not supported", config.what, value);
        }
    }
    if (status == JANG_OK) {
        status = json_get_double(&c->logit_softcap, config, "final_logit_softcapping", 0);
    }
    if (status == JANG_OK) {
        status = decoder_read_window(&a->window, config, 512);
    }
    if (status == JANG_OK) {
        status = decoder_read_sliding(c, config, decoder_slides, 6);
    }
    if (status == JANG_OK) {
        c->sliding[c->n_layer - 1] = false; /* as the reference insists */
        status = read_own(g, config, c);
    }
    return status == JANG_OK ? read_ropes(c, g, config) : status;
}

static jang_status gemma4_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 131072,
        .head_dim = 256,
        .n_kv_head = 4,
        .tied = true,
        .act = "gelu_pytorch_tanh",
        .act_key = "hidden_activation",
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    decoder_config c;
    gemma4_config g = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    c.own = &g;
    c.norms = (layer_norms){.mixer_before = "input_layernorm",
                            .mixer_after = "post_attention_layernorm",
                            .ffn_before = "pre_feedforward_layernorm",
                            .ffn_after = "post_feedforward_layernorm"};
    c.embed_scale = sqrt((double)c.n_embd);
    c.attention.scale = 1;
    c.attention.qk_norm = QK_NORM_HEAD;
    c.attention.v_norm = true;
    c.layer_attention = tune_attention;
    c.ffn = make_mlp;
    c.tail = make_tail;
    status = read_rest(&c, &g, l->config);
    if (g.has_experts) {
        c.norms.ffn_before = NULL;
        c.ffn = make_both;
    }
    c.prelude = g.n_ple ? make_prelude : NULL;
    return decoder_finish(m, l, &c, status);
}

static const char *const dropped[] = {"self_attn.k_proj.weight", "self_attn.v_proj.weight",
                                      "self_attn.k_norm.weight", NULL};

const model_family family_gemma4_text = {
    .model_type = "gemma4_text", .open = gemma4_open, .dropped = dropped};
const model_family family_gemma4 = {
    .model_type = "gemma4", .open = gemma4_open, .text_config = true, .dropped = dropped};
