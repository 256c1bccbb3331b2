/* names.c - the table of families whose tensors a conversion knows. */
#include "quant/names_impl.h"

#include "base/file.h"
#include "model/survey.h"

#include <stdio.h>
#include <string.h>

static const name_rule base_rules[] = {
    {"model.embed_tokens.weight", false, NEED_ALWAYS, SIZE_VOCAB, SIZE_HIDDEN},
    {"model.norm.weight", false, NEED_ALWAYS, SIZE_HIDDEN, SIZE_NONE},
    {"lm_head.weight", false, NEED_HEAD, SIZE_VOCAB, SIZE_HIDDEN},
    {"model.rotary_emb.inv_freq", false, NEED_DROP, SIZE_NONE, SIZE_NONE},
    {"rope_freqs.weight", false, NEED_DROP, SIZE_NONE, SIZE_NONE},
    {"input_layernorm.weight", true, NEED_ALWAYS, SIZE_HIDDEN, SIZE_NONE},
    {"post_attention_layernorm.weight", true, NEED_ALWAYS, SIZE_HIDDEN, SIZE_NONE},
    {NULL, false, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
};

static const name_rule attention_rules[] = {
    {"self_attn.q_proj.weight", true, NEED_ALWAYS, SIZE_Q, SIZE_HIDDEN},
    {"self_attn.k_proj.weight", true, NEED_ALWAYS, SIZE_KV, SIZE_HIDDEN},
    {"self_attn.v_proj.weight", true, NEED_ALWAYS, SIZE_KV, SIZE_HIDDEN},
    {"self_attn.o_proj.weight", true, NEED_ALWAYS, SIZE_HIDDEN, SIZE_Q},
    {"self_attn.q_proj.bias", true, NEED_MAYBE, SIZE_Q, SIZE_NONE},
    {"self_attn.k_proj.bias", true, NEED_MAYBE, SIZE_KV, SIZE_NONE},
    {"self_attn.v_proj.bias", true, NEED_MAYBE, SIZE_KV, SIZE_NONE},
    {"self_attn.o_proj.bias", true, NEED_MAYBE, SIZE_HIDDEN, SIZE_NONE},
    {"self_attn.rotary_emb.inv_freq", true, NEED_DROP, SIZE_NONE, SIZE_NONE},
    {NULL, false, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
};

static const name_rule mlp_rules[] = {
    {"mlp.gate_proj.weight", true, NEED_DENSE, SIZE_FF, SIZE_HIDDEN},
    {"mlp.up_proj.weight", true, NEED_DENSE, SIZE_FF, SIZE_HIDDEN},
    {"mlp.down_proj.weight", true, NEED_DENSE, SIZE_HIDDEN, SIZE_FF},
    {"mlp.gate_proj.bias", true, NEED_MAYBE, SIZE_FF, SIZE_NONE},
    {"mlp.up_proj.bias", true, NEED_MAYBE, SIZE_FF, SIZE_NONE},
    {"mlp.down_proj.bias", true, NEED_MAYBE, SIZE_HIDDEN, SIZE_NONE},
    {NULL, false, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
};

static const name_rule qk_norm_rules[] = {
    {"self_attn.q_norm.weight", true, NEED_ALWAYS, SIZE_HEAD, SIZE_NONE},
    {"self_attn.k_norm.weight", true, NEED_ALWAYS, SIZE_HEAD, SIZE_NONE},
    {NULL, false, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
};

static const name_family families[] = {
    {"llama", {base_rules, attention_rules, mlp_rules}, 0, {NULL}},
    {"mistral", {base_rules, attention_rules, mlp_rules}, 0, {NULL}},
    {"qwen2", {base_rules, attention_rules, mlp_rules}, 0, {NULL}},
    {"qwen3", {base_rules, attention_rules, mlp_rules, qk_norm_rules}, 128, {NULL}},
    {"qwen3_moe",
     {base_rules, attention_rules, mlp_rules, qk_norm_rules, names_mlp_experts},
     0,
     {names_stack_mlp}},
    {"qwen2_moe",
     {base_rules, attention_rules, mlp_rules, names_mlp_experts, names_shared_expert},
     0,
     {names_stack_mlp}},
    {"mixtral", {base_rules, attention_rules, names_sparse_experts}, 0, {names_stack_sparse}},
};

#define N_FAMILIES (sizeof families / sizeof *families)
#define LAYERS "model.layers."

jang_status names_find(const name_family **out, ctx_t *ctx, const char *model_type) {
    buf list;
    buf_init(&list, ctx, 4096);
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i].model_type, model_type) == 0) {
            *out = &families[i];
            buf_free(&list);
            return JANG_OK;
        }
        buf_printf(&list, "%s%s", i ? ", " : "", families[i].model_type);
    }
    if (model_is_known(model_type)) {
        static const name_family plain;
        *out = &plain;
        buf_free(&list);
        return JANG_OK;
    }
    jang_status status =
        ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "model_type \"%s\" cannot be converted; known are %s",
                 model_type, list.data);
    buf_free(&list);
    return status;
}

/* Reads the sizes that shapes are made of. */
static jang_status read_sizes(name_model *m, json_at at) {
    int64_t n_layer, n_head, n_kv_head, head_dim;
    const struct {
        const char *key;
        int64_t *out, max;
    } keys[] = {
        {"vocab_size", &m->sizes[SIZE_VOCAB], 1 << 28},
        {"hidden_size", &m->sizes[SIZE_HIDDEN], 1 << 24},
        {"intermediate_size", &m->sizes[SIZE_FF], 1 << 24},
        {"num_hidden_layers", &n_layer, 1 << 16},
        {"num_attention_heads", &n_head, 1 << 20},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!json_has(at.object, keys[i].key)) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: %s is missing", at.what, keys[i].key);
        }
        jang_status status = json_get_int(keys[i].out, at, keys[i].key, 1, 1, keys[i].max);
        if (status != JANG_OK) {
            return status;
        }
    }
    jang_status status = json_get_int(&n_kv_head, at, "num_key_value_heads", n_head, 1, 1 << 20);
    if (status == JANG_OK) {
        int64_t usual = m->family->head_dim ? m->family->head_dim : m->sizes[SIZE_HIDDEN] / n_head;
        status = json_get_int(&head_dim, at, "head_dim", usual, 1, 1 << 20);
    }
    if (status == JANG_OK) {
        m->n_layer = (int)n_layer;
        m->sizes[SIZE_HEAD] = head_dim;
        m->sizes[SIZE_Q] = n_head * head_dim;
        m->sizes[SIZE_KV] = n_kv_head * head_dim;
    }
    return status;
}

/* Numbers of experts and of latent attention; 0 where there is none. */
static jang_status read_map_sizes(name_model *m, json_at at) {
    static const char *const experts[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                          "moe_num_experts"};
    const struct {
        const char *key;
        int64_t *out;
    } keys[] = {
        {"num_attention_heads", &m->maps.n_head},
        {"qk_nope_head_dim", &m->maps.key_dim},
        {"v_head_dim", &m->maps.value_dim},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == JANG_OK; i++) {
        status = json_get_int(keys[i].out, at, keys[i].key, 0, 0, 1 << 20);
    }
    for (size_t i = 0; i < sizeof experts / sizeof *experts && status == JANG_OK; i++) {
        status = json_get_int(&m->n_expert, at, experts[i], m->n_expert, 0, 1 << 20);
    }
    return status;
}

jang_status names_model(name_model *out, ctx_t *ctx, const json_t *config, const char *what,
                        const part_list *parts) {
    json_at at = {ctx, what, config};
    const char *model_type;
    name_model m = {0};
    jang_status status = json_get_string(&model_type, at, "model_type", "");
    if (status == JANG_OK) {
        status = names_find(&m.family, ctx, model_type);
    }
    m.model_type = model_type;
    m.surveyed = status == JANG_OK && model_is_known(model_type);
    if (status == JANG_OK && !m.surveyed) {
        status = read_sizes(&m, at);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m.tied, at, "tie_word_embeddings",
                               part_find(parts, "lm_head.weight") == NULL);
    }
    if (status == JANG_OK) {
        status = read_map_sizes(&m, at);
    }
    if (status == JANG_OK) {
        *out = m;
    }
    return status;
}

jang_status names_map(part_list *parts, const name_model *nm) {
    return part_list_map(parts, nm->family->maps, &nm->maps);
}

/* Whether layer i has experts: their first tensor is there. */
static bool has_experts(const name_model *nm, const part_list *parts, int i) {
    for (const name_rule *const *table = nm->family->rules; *table; table++) {
        for (const name_rule *rule = *table; rule->name; rule++) {
            if (rule->need == NEED_EXPERTS) {
                char name[128];
                snprintf(name, sizeof name, LAYERS "%d.%s", i, rule->name);
                return part_find(parts, name) != NULL;
            }
        }
    }
    return false;
}

static bool is_needed(const name_rule *rule, const name_model *nm, const part_list *parts,
                      int layer) {
    switch (rule->need) {
    case NEED_ALWAYS:
        return true;
    case NEED_HEAD:
        return !nm->tied;
    case NEED_EXPERTS:
        return has_experts(nm, parts, layer);
    case NEED_DENSE:
        return !has_experts(nm, parts, layer);
    case NEED_MAYBE:
    case NEED_DROP:
        break;
    }
    return false;
}

static jang_status check_rule(ctx_t *ctx, const name_model *nm, const part_list *parts,
                              const name_rule *rule) {
    int n = rule->in_layer ? nm->n_layer : 1;
    for (int i = 0; i < n; i++) {
        char name[128];
        if (rule->in_layer) {
            snprintf(name, sizeof name, LAYERS "%d.%s", i, rule->name);
        } else {
            snprintf(name, sizeof name, "%s", rule->name);
        }
        if (is_needed(rule, nm, parts, i) && !part_find(parts, name)) {
            return ctx_fail(ctx, JANG_ERR_FORMAT, "there is no tensor %s", name);
        }
    }
    return JANG_OK;
}

jang_status names_check(ctx_t *ctx, const name_model *nm, const part_list *parts) {
    for (const name_rule *const *table = nm->family->rules; *table; table++) {
        for (const name_rule *rule = *table; rule->name; rule++) {
            jang_status status = check_rule(ctx, nm, parts, rule);
            if (status != JANG_OK) {
                return status;
            }
        }
    }
    return JANG_OK;
}

/* What follows "model.layers.N." in a name, or NULL. */
static const char *after_layer(const char *name) {
    if (strncmp(name, LAYERS, strlen(LAYERS)) != 0) {
        return NULL;
    }
    const char *dot = strchr(name + strlen(LAYERS), '.');
    return dot ? dot + 1 : NULL;
}

static const name_rule *find_rule(const name_family *family, const char *name) {
    const char *local = role_layer(name) >= 0 ? after_layer(name) : NULL;
    for (const name_rule *const *table = family->rules; *table; table++) {
        for (const name_rule *rule = *table; rule->name; rule++) {
            const char *candidate = rule->in_layer ? local : name;
            if (candidate && strcmp(candidate, rule->name) == 0) {
                return rule;
            }
        }
    }
    return NULL;
}

/* A shape as text: "[64, 128]". */
static const char *shape_text(char *out, size_t n_bytes, int n_dim, const int64_t *shape) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < n_dim && at + 1 < n_bytes; i++) {
        snprintf(out + at, n_bytes - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
        at += strlen(out + at);
    }
    return out;
}

static jang_status check_shape(ctx_t *ctx, const name_model *nm, const name_rule *rule,
                               const model_part *part) {
    int64_t wanted[2] = {nm->sizes[rule->rows], nm->sizes[rule->columns]};
    int n_dim = rule->columns == SIZE_NONE ? 1 : 2;
    bool fits = part->n_dim == n_dim;
    for (int i = 0; i < n_dim && fits; i++) {
        fits = part->shape[i] == wanted[i];
    }
    if (fits || rule->rows == SIZE_NONE) {
        return JANG_OK;
    }
    char has[128], should[128];
    return ctx_fail(ctx, JANG_ERR_FORMAT, "tensor %s is [%s], by config.json it should be [%s]",
                    part->name, shape_text(has, sizeof has, part->n_dim, part->shape),
                    shape_text(should, sizeof should, n_dim, wanted));
}

/* What conversions leave out: other parts of checkpoints with several, layers that predict further
 * tokens, and buffers. */
static bool may_be_dropped(const name_model *nm, const char *name) {
    static const char *const beginnings[] = {
        "vision_tower.",
        "model.vision_tower.",
        "multi_modal_projector.",
        "model.visual.",
        "visual.",
        "model.multi_modal_projector.",
        "audio_tower.",
        "model.audio_tower.",
        "embed_vision.",
        "model.embed_vision.",
        "embed_audio.",
        "model.embed_audio.",
        "vision_model.",
        "mtp.",
        "model.mtp.",
        "model.vision_embed_tokens.",
    };
    static const char *const ends[] = {"rotary_emb.inv_freq", "rope_freqs.weight"};
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (path_has_suffix(name, ends[i])) {
            return true;
        }
    }
    for (const char *const *end = nm->dropped; end && *end; end++) {
        if (path_has_suffix(name, *end)) {
            return true;
        }
    }
    return (nm->tied && path_has_suffix(name, "lm_head.weight")) || role_layer(name) >= nm->n_layer;
}

static jang_status keep_used(bool *keep, ctx_t *ctx, const name_model *nm, const model_part *part) {
    if (!part->used && !may_be_dropped(nm, part->name)) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "tensor %s: no such tensor in a %s model",
                        part->name, nm->model_type);
    }
    *keep = part->used;
    return JANG_OK;
}

jang_status names_keep(bool *keep, ctx_t *ctx, const name_model *nm, const model_part *part) {
    const char *name = part->name;
    if (nm->surveyed) {
        return keep_used(keep, ctx, nm, part);
    }
    const name_rule *rule = find_rule(nm->family, name);
    if (!rule) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "tensor %s: no such tensor in a %s model", name,
                        nm->model_type);
    }
    bool wanted = rule->need != NEED_DROP && !(rule->need == NEED_HEAD && nm->tied) &&
                  (!rule->in_layer || role_layer(name) < nm->n_layer);
    jang_status status = wanted ? check_shape(ctx, nm, rule, part) : JANG_OK;
    if (status == JANG_OK) {
        *keep = wanted;
    }
    return status;
}
