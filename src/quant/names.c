/* names.c - which parts of a checkpoint are written, and which are made of others. */
#include "quant/names.h"

#include "model/survey.h"
#include "quant/left_out.h"

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
    bool dense;                /* for models without experts only */
    const char *unless;        /* a tensor that says that they are mlx-lm's already; NULL: none */
} name_maps;

static const name_maps all_maps[] = {
    {.model_type = "gpt_oss", .tables = {split_gpt_oss}},
    {.model_type = "llama4", .tables = {split_llama4}},
    {.model_type = "llama4_text", .tables = {split_llama4}},
    {.model_type = "gpt2", .tables = {turn_gpt2}, .unless = "model.wte.weight"},
    {.model_type = "deepseek_v3", .tables = {stack_experts, split_mla}},
    {.model_type = "kimi_k2", .tables = {stack_experts, split_mla}},
    {.model_type = "glm4_moe_lite", .tables = {stack_experts, split_mla}},
    {.model_type = "kimi_linear", .tables = {stack_experts, split_mla}},
    {.model_type = "granitemoehybrid", .tables = {split_shared_mlp}, .dense = true},
    {.tables = {stack_experts}},
};

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
    const name_maps *maps = all_maps;
    while (maps->model_type &&
           (strcmp(maps->model_type, nm->model_type) != 0 || (maps->dense && nm->n_expert > 0) ||
            (maps->unless && part_find(parts, maps->unless)))) {
        maps++;
    }
    return part_list_map(parts, maps->tables, &nm->maps);
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
