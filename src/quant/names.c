/* names.c - which parts of a checkpoint are written, and which are made of others. */
#include "quant/names.h"

#include "model/survey.h"
#include "quant/left_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- How mlx-lm's tensors are made of the hub's ---- */

#define SPARSE "block_sparse_moe."
#define FF "feed_forward."
#define END                                                                                        \
    { NULL, NULL, TAKE_ALL, false }

/* One tensor an expert, or gate and up fused: what names like these mean is the same everywhere. */
static const map_rule stack_experts[] = {
    {"mlp.experts.*.gate_proj.weight", "mlp.switch_mlp.gate_proj.weight", TAKE_ALL, false},
    {"mlp.experts.*.up_proj.weight", "mlp.switch_mlp.up_proj.weight", TAKE_ALL, false},
    {"mlp.experts.*.down_proj.weight", "mlp.switch_mlp.down_proj.weight", TAKE_ALL, false},
    {"mlp.experts.gate_up_proj", "mlp.switch_mlp.gate_proj.weight", TAKE_FIRST_HALF, false},
    {"mlp.experts.gate_up_proj", "mlp.switch_mlp.up_proj.weight", TAKE_SECOND_HALF, false},
    {"mlp.experts.down_proj", "mlp.switch_mlp.down_proj.weight", TAKE_ALL, false},
    {SPARSE "experts.*.w1.weight", SPARSE "switch_mlp.gate_proj.weight", TAKE_ALL, false},
    {SPARSE "experts.*.w3.weight", SPARSE "switch_mlp.up_proj.weight", TAKE_ALL, false},
    {SPARSE "experts.*.w2.weight", SPARSE "switch_mlp.down_proj.weight", TAKE_ALL, false},
    {SPARSE "input_linear.weight", SPARSE "switch_mlp.gate_proj.weight", TAKE_FIRST_HALF, false},
    {SPARSE "input_linear.weight", SPARSE "switch_mlp.up_proj.weight", TAKE_SECOND_HALF, false},
    {SPARSE "output_linear.weight", SPARSE "switch_mlp.down_proj.weight", TAKE_ALL, false},
    {FF "experts.*.gate_proj.weight", FF "switch_mlp.gate_proj.weight", TAKE_ALL, false},
    {FF "experts.*.up_proj.weight", FF "switch_mlp.up_proj.weight", TAKE_ALL, false},
    {FF "experts.*.down_proj.weight", FF "switch_mlp.down_proj.weight", TAKE_ALL, false},
    {FF "experts.*.w1.weight", FF "switch_mlp.gate_proj.weight", TAKE_ALL, false},
    {FF "experts.*.w3.weight", FF "switch_mlp.up_proj.weight", TAKE_ALL, false},
    {FF "experts.*.w2.weight", FF "switch_mlp.down_proj.weight", TAKE_ALL, false},
    {"mixer.experts.*.up_proj.weight", "mixer.switch_mlp.fc1.weight", TAKE_ALL, false},
    {"mixer.experts.*.down_proj.weight", "mixer.switch_mlp.fc2.weight", TAKE_ALL, false},
    {"experts.gate_up_proj", "experts.switch_glu.gate_proj.weight", TAKE_FIRST_HALF, false},
    {"experts.gate_up_proj", "experts.switch_glu.up_proj.weight", TAKE_SECOND_HALF, false},
    {"experts.down_proj", "experts.switch_glu.down_proj.weight", TAKE_ALL, false},
    END,
};

/* gpt-oss: gate and up in turn, as columns, or in MXFP4 as rows. */
static const map_rule split_gpt_oss[] = {
    {"mlp.experts.gate_up_proj", "mlp.experts.gate_proj.weight", TAKE_EVEN, true},
    {"mlp.experts.gate_up_proj", "mlp.experts.up_proj.weight", TAKE_ODD, true},
    {"mlp.experts.down_proj", "mlp.experts.down_proj.weight", TAKE_ALL, true},
    {"mlp.experts.gate_up_proj_bias", "mlp.experts.gate_proj.bias", TAKE_EVEN, false},
    {"mlp.experts.gate_up_proj_bias", "mlp.experts.up_proj.bias", TAKE_ODD, false},
    {"mlp.experts.down_proj_bias", "mlp.experts.down_proj.bias", TAKE_ALL, false},
    END,
};

static const map_rule split_llama4[] = {
    {FF "experts.gate_up_proj", FF "experts.gate_proj.weight", TAKE_FIRST_HALF, true},
    {FF "experts.gate_up_proj", FF "experts.up_proj.weight", TAKE_SECOND_HALF, true},
    {FF "experts.down_proj", FF "experts.down_proj.weight", TAKE_ALL, true},
    END,
};

/* GPT-2's matrices are [inputs, outputs] on the hub. */
static const map_rule turn_gpt2[] = {
    {"attn.c_attn.weight", "attn.c_attn.weight", TAKE_ALL, true},
    {"attn.c_proj.weight", "attn.c_proj.weight", TAKE_ALL, true},
    {"mlp.c_fc.weight", "mlp.c_fc.weight", TAKE_ALL, true},
    {"mlp.c_proj.weight", "mlp.c_proj.weight", TAKE_ALL, true},
    END,
};

/* Latent attention, where mlx-lm applies it absorbed. */
static const map_rule split_mla[] = {
    {"self_attn.kv_b_proj.weight", "self_attn.embed_q.weight", TAKE_HEAD_KEYS, true},
    {"self_attn.kv_b_proj.weight", "self_attn.unembed_out.weight", TAKE_HEAD_VALUES, false},
    END,
};

/* Granite 4 without experts: mlx-lm calls the shared MLP by the usual names. */
static const map_rule split_shared_mlp[] = {
    {"shared_mlp.input_linear.weight", "mlp.gate_proj.weight", TAKE_FIRST_HALF, false},
    {"shared_mlp.input_linear.weight", "mlp.up_proj.weight", TAKE_SECOND_HALF, false},
    {"shared_mlp.output_linear.weight", "mlp.down_proj.weight", TAKE_ALL, false},
    END,
};

typedef struct name_maps {
    const char *model_type;    /* NULL: all others */
    const map_rule *tables[3]; /* the last is NULL */
    /* Of stack_experts' rules, those of the hub's own checkpoints: their sources begin so, and of
     * one beginning there may be two sets of names, told apart by what follows it. NULL: none. */
    const char *hub, *then;
    bool dense;         /* for models without experts only */
    const char *unless; /* a tensor that says that they are mlx-lm's already; NULL: none */
} name_maps;

#define EACH "mlp.experts.*."
#define EACH_SPARSE SPARSE "experts.*."
#define BOTH_FUSED "gate_up_proj down_proj"
#define BOTH_LINEAR "input_linear output_linear"

static const name_maps all_maps[] = {
    {.model_type = "gpt_oss", .tables = {split_gpt_oss}},
    {.model_type = "llama4", .tables = {split_llama4}},
    {.model_type = "llama4_text", .tables = {split_llama4}},
    {.model_type = "gpt2", .tables = {turn_gpt2}, .unless = "model.wte.weight"},
    {.model_type = "qwen2_moe", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "qwen3_moe", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "qwen3_next", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "qwen3_5_moe",
     .tables = {stack_experts},
     .hub = "mlp.experts.",
     .then = BOTH_FUSED},
    {.model_type = "qwen3_5_moe_text", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "olmoe", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "deepseek_v2", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "deepseek_v3", .tables = {stack_experts, split_mla}, .hub = EACH},
    {.model_type = "kimi_k2", .tables = {stack_experts, split_mla}, .hub = EACH},
    {.model_type = "glm4_moe", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "glm4_moe_lite", .tables = {stack_experts, split_mla}, .hub = EACH},
    {.model_type = "ernie4_5_moe", .tables = {stack_experts}, .hub = EACH},
    {.model_type = "mixtral", .tables = {stack_experts}, .hub = EACH_SPARSE},
    {.model_type = "phimoe", .tables = {stack_experts}, .hub = EACH_SPARSE},
    {.model_type = "minimax_m2", .tables = {stack_experts}, .hub = EACH_SPARSE},
    {.model_type = "kimi_linear", .tables = {stack_experts, split_mla}, .hub = EACH_SPARSE},
    {.model_type = "granitemoe", .tables = {stack_experts}, .hub = SPARSE, .then = BOTH_LINEAR},
    {.model_type = "granitemoehybrid", .tables = {split_shared_mlp}, .dense = true},
    {.model_type = "granitemoehybrid",
     .tables = {stack_experts},
     .hub = SPARSE,
     .then = BOTH_LINEAR},
    {.model_type = "jamba",
     .tables = {stack_experts},
     .hub = FF "experts.*.",
     .then = "gate_proj up_proj down_proj"},
    {.model_type = "lfm2_moe",
     .tables = {stack_experts},
     .hub = FF "experts.*.",
     .then = "w1 w2 w3"},
    {.model_type = "nemotron_h", .tables = {stack_experts}, .hub = "mixer.experts.*."},
    {.model_type = "gemma4", .tables = {stack_experts}, .hub = "experts.", .then = BOTH_FUSED},
    {.model_type = "gemma4_text", .tables = {stack_experts}, .hub = "experts.", .then = BOTH_FUSED},
    {.tables = {stack_experts}},
};

/* The row of a model; of a checkpoint as it was found, where parts are given. */
static const name_maps *find_maps(const name_model *nm, const part_list *parts) {
    const name_maps *maps = all_maps;
    while (maps->model_type &&
           (strcmp(maps->model_type, nm->model_type) != 0 || (maps->dense && nm->n_expert > 0) ||
            (parts && maps->unless && part_find(parts, maps->unless)))) {
        maps++;
    }
    return maps;
}

/* ---- The config ---- */

/* A number of the text model's: of the config itself, or of its text_config. 0: there is none. */
static jang_status read_number(int64_t *out, json_at at, const char *key) {
    const json_t *text = json_object_get(at.object, "text_config");
    if (json_is_object(text) && !json_has(at.object, key)) {
        at.object = text;
    }
    return json_get_int(out, at, key, 0, 0, 1 << 20);
}

static jang_status read_sizes(name_model *m, json_at at) {
    static const char *const experts[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                          "moe_num_experts"};
    jang_status status = read_number(&m->maps.n_head, at, "num_attention_heads");
    if (status == JANG_OK) {
        status = read_number(&m->maps.key_dim, at, "qk_nope_head_dim");
    }
    if (status == JANG_OK) {
        status = read_number(&m->maps.value_dim, at, "v_head_dim");
    }
    for (size_t i = 0; i < sizeof experts / sizeof *experts && status == JANG_OK; i++) {
        int64_t n = 0;
        status = read_number(&n, at, experts[i]);
        m->n_expert = n > 0 ? n : m->n_expert;
    }
    return status;
}

jang_status names_model(name_model *out, ctx_t *ctx, const json_t *config, const char *what) {
    json_at at = {ctx, what, config};
    name_model m = {0};
    jang_status status = json_get_string(&m.model_type, at, "model_type", "");
    if (status == JANG_OK) {
        status = read_sizes(&m, at);
    }
    if (status == JANG_OK) {
        *out = m;
    }
    return status;
}

jang_status names_map(part_list *parts, const name_model *nm) {
    return part_list_map(parts, find_maps(nm, parts)->tables, &nm->maps);
}

/* ---- The hub's names ---- */

static bool is_hub_rule(const map_rule *table, const map_rule *rule, const void *arg) {
    const name_maps *maps = arg;
    if (table != stack_experts) {
        return true; /* the family's own */
    }
    size_t n = maps->hub ? strlen(maps->hub) : 0;
    if (n == 0 || strncmp(rule->source, maps->hub, n) != 0) {
        return false;
    }
    char word[32];
    size_t length = strcspn(rule->source + n, ".");
    length = length < sizeof word ? length : sizeof word - 1;
    memcpy(word, rule->source + n, length);
    word[length] = 0;
    return !maps->then || strstr(maps->then, word);
}

/* Pieces of names that the hub spells otherwise. */
typedef struct hub_spelling {
    const char *model_type, *ours, *hub;
} hub_spelling;

static const hub_spelling hub_spellings[] = {
    {"qwen3_5", "language_model.model.", "model.language_model."},
    {"qwen3_5", "language_model.lm_head.", "lm_head."},
    {"qwen3_5_moe", "language_model.model.", "model.language_model."},
    {"qwen3_5_moe", "language_model.lm_head.", "lm_head."},
    {"gemma3", "language_model.", ""},
    {"gemma4", "language_model.", ""},
    {"llama4", "language_model.", ""},
    {"mistral3", "language_model.", ""},
    {"gpt2", "model.", "transformer."},
    {"kimi_linear", "mlp.gate.", SPARSE "gate."},
    {"kimi_linear", "mlp.e_score_correction_bias", SPARSE "gate.e_score_correction_bias"},
    {"kimi_linear", "mlp.shared_experts.", SPARSE "shared_experts."},
    {"kimi_linear", "mlp.switch_mlp.", SPARSE "switch_mlp."},
    {"kimi_linear", "q_conv.conv.", "q_conv1d."},
    {"kimi_linear", "k_conv.conv.", "k_conv1d."},
    {"kimi_linear", "v_conv.conv.", "v_conv1d."},
    {"lfm2_moe", FF "gate_proj.", FF "w1."},
    {"lfm2_moe", FF "up_proj.", FF "w3."},
    {"lfm2_moe", FF "down_proj.", FF "w2."},
    {"gpt_neox", "model.h.", "gpt_neox.layers."},
    {"gpt_neox", "model.embed_out.", "embed_out."},
    {"gpt_neox", "model.", "gpt_neox."},
};

/* The name with its first piece that a row has replaced; NULL: no row has one. */
static char *respelled(ctx_t *ctx, const name_model *nm, const char *name, bool *found) {
    for (size_t i = 0; i < sizeof hub_spellings / sizeof hub_spellings[0]; i++) {
        const hub_spelling *s = &hub_spellings[i];
        const char *at = strcmp(s->model_type, nm->model_type) == 0 ? strstr(name, s->ours) : NULL;
        if (!at || (at != name && at[-1] != '.')) {
            continue;
        }
        size_t before = (size_t)(at - name), n = strlen(name) + strlen(s->hub) + 1;
        char *out = ctx_alloc(ctx, n);
        *found = true;
        if (out) {
            memcpy(out, name, before);
            snprintf(out + before, n - before, "%s%s", s->hub, at + strlen(s->ours));
        }
        return out;
    }
    return NULL;
}

static int compare_names(const void *a, const void *b) {
    return part_compare_names(((const model_part *)a)->name, ((const model_part *)b)->name);
}

static jang_status respell_all(part_list *parts, const name_model *nm) {
    ctx_t *ctx = parts->ctx;
    char **names =
        ctx_realloc(ctx, parts->names, (parts->n_names + parts->n_parts + 1) * sizeof *names);
    if (!names) {
        return ctx_fail_memory(ctx, parts->n_parts * sizeof *names);
    }
    parts->names = names;
    for (size_t i = 0; i < parts->n_parts; i++) {
        bool found = false;
        char *name = parts->parts[i].used ? respelled(ctx, nm, parts->parts[i].name, &found) : NULL;
        if (found && !name) {
            return ctx_fail_memory(ctx, strlen(parts->parts[i].name));
        }
        if (name) {
            parts->parts[i].name = names[parts->n_names++] = name;
        }
    }
    qsort(parts->parts, parts->n_parts, sizeof *parts->parts, compare_names);
    return JANG_OK;
}

jang_status names_to_hub(part_list *parts, const name_model *nm) {
    const name_maps *maps = find_maps(nm, NULL);
    jang_status status = respell_all(parts, nm);
    return status == JANG_OK ? part_list_unmap(parts, maps->tables, is_hub_rule, maps) : status;
}

/* ---- What is written ---- */

jang_status names_keep(bool *keep, ctx_t *ctx, const name_model *nm, const model_part *part) {
    if (!part->used && !left_out_kind(nm, part->name)) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "tensor %s: no such tensor in a %s model",
                        part->name, nm->model_type);
    }
    *keep = part->used;
    return JANG_OK;
}
