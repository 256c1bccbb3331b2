/* names.c - the table of families whose tensors a conversion knows. */
#include "quant/names.h"

#include <stdio.h>
#include <string.h>

typedef enum name_need {
    NEED_ALWAYS,
    NEED_NEVER, /* may be there: a bias */
    NEED_HEAD,  /* needed unless embeddings are tied, and dropped if they are */
    NEED_DROP,  /* found in old checkpoints, of no use */
} name_need;

typedef struct name_rule {
    const char *name; /* within a layer: what follows "model.layers.N." */
    bool in_layer;
    name_need need;
} name_rule;

struct name_family {
    const char *model_type;
    const name_rule *rules[3]; /* tables ended by a NULL name; the last is NULL */
};

static const name_rule llama_rules[] = {
    {"model.embed_tokens.weight", false, NEED_ALWAYS},
    {"model.norm.weight", false, NEED_ALWAYS},
    {"lm_head.weight", false, NEED_HEAD},
    {"model.rotary_emb.inv_freq", false, NEED_DROP},
    {"rope_freqs.weight", false, NEED_DROP},
    {"input_layernorm.weight", true, NEED_ALWAYS},
    {"post_attention_layernorm.weight", true, NEED_ALWAYS},
    {"self_attn.q_proj.weight", true, NEED_ALWAYS},
    {"self_attn.k_proj.weight", true, NEED_ALWAYS},
    {"self_attn.v_proj.weight", true, NEED_ALWAYS},
    {"self_attn.o_proj.weight", true, NEED_ALWAYS},
    {"self_attn.q_proj.bias", true, NEED_NEVER},
    {"self_attn.k_proj.bias", true, NEED_NEVER},
    {"self_attn.v_proj.bias", true, NEED_NEVER},
    {"self_attn.o_proj.bias", true, NEED_NEVER},
    {"self_attn.rotary_emb.inv_freq", true, NEED_DROP},
    {"mlp.gate_proj.weight", true, NEED_ALWAYS},
    {"mlp.up_proj.weight", true, NEED_ALWAYS},
    {"mlp.down_proj.weight", true, NEED_ALWAYS},
    {"mlp.gate_proj.bias", true, NEED_NEVER},
    {"mlp.up_proj.bias", true, NEED_NEVER},
    {"mlp.down_proj.bias", true, NEED_NEVER},
    {NULL, false, NEED_NEVER},
};

static const name_rule qk_norm_rules[] = {
    {"self_attn.q_norm.weight", true, NEED_ALWAYS},
    {"self_attn.k_norm.weight", true, NEED_ALWAYS},
    {NULL, false, NEED_NEVER},
};

static const name_family families[] = {
    {"llama", {llama_rules}},
    {"mistral", {llama_rules}},
    {"qwen2", {llama_rules}},
    {"qwen3", {llama_rules, qk_norm_rules}},
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
    jang_status status =
        ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "model_type \"%s\" cannot be converted; known are %s",
                 model_type, list.data);
    buf_free(&list);
    return status;
}

jang_status names_model(name_model *out, ctx_t *ctx, const json_t *config, const char *what,
                        const part_list *parts) {
    json_at at = {ctx, what, config};
    const char *model_type;
    int64_t n_layer;
    name_model m = {0};
    jang_status status = json_get_string(&model_type, at, "model_type", "");
    if (status == JANG_OK) {
        status = names_find(&m.family, ctx, model_type);
    }
    if (status == JANG_OK) {
        status = json_get_int(&n_layer, at, "num_hidden_layers", 0, 1, 1 << 16);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m.tied, at, "tie_word_embeddings",
                               part_find(parts, "lm_head.weight") == NULL);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (n_layer == 0) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: num_hidden_layers is missing", what);
    }
    m.n_layer = (int)n_layer;
    *out = m;
    return JANG_OK;
}

static bool is_needed(const name_rule *rule, const name_model *model) {
    return rule->need == NEED_ALWAYS || (rule->need == NEED_HEAD && !model->tied);
}

static jang_status check_rule(ctx_t *ctx, const name_model *model, const part_list *parts,
                              const name_rule *rule) {
    int n = !is_needed(rule, model) ? 0 : rule->in_layer ? model->n_layer : 1;
    for (int i = 0; i < n; i++) {
        char name[128];
        if (rule->in_layer) {
            snprintf(name, sizeof name, LAYERS "%d.%s", i, rule->name);
        } else {
            snprintf(name, sizeof name, "%s", rule->name);
        }
        if (!part_find(parts, name)) {
            return ctx_fail(ctx, JANG_ERR_FORMAT, "the model has no tensor %s", name);
        }
    }
    return JANG_OK;
}

jang_status names_check(ctx_t *ctx, const name_model *model, const part_list *parts) {
    for (const name_rule *const *table = model->family->rules; *table; table++) {
        for (const name_rule *rule = *table; rule->name; rule++) {
            jang_status status = check_rule(ctx, model, parts, rule);
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

jang_status names_keep(bool *keep, ctx_t *ctx, const name_model *model, const char *name) {
    const name_rule *rule = find_rule(model->family, name);
    if (!rule) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "tensor %s: no such tensor in a %s model", name,
                        model->family->model_type);
    }
    *keep = rule->need != NEED_DROP && !(rule->need == NEED_HEAD && model->tied) &&
            (!rule->in_layer || role_layer(name) < model->n_layer);
    return JANG_OK;
}
