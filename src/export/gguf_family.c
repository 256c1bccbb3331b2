/* gguf_family.c - families, tensors and settings as GGUF's readers call them. */
#include "export/gguf_family.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Tables ---- */

enum {
    LLAMA = 1 << 0,
    MIXTRAL = 1 << 1,
    QWEN2 = 1 << 2,
    QWEN2_MOE = 1 << 3,
    QWEN3 = 1 << 4,
    QWEN3_MOE = 1 << 5,
    GEMMA = 1 << 6,
    GEMMA2 = 1 << 7,
    GEMMA3 = 1 << 8,
    PHI3 = 1 << 9,
    ANY = (1 << 10) - 1,
    GEMMAS = GEMMA | GEMMA2 | GEMMA3,
    FOUR_NORMS = GEMMA2 | GEMMA3,
    EXPERTS = MIXTRAL | QWEN2_MOE | QWEN3_MOE,
};

struct gguf_family {
    const char *model_type, *arch;
    unsigned id;
    bool interleaved; /* the halves of each head of q and k */
    bool norms_plus_one;
    int64_t slides_but; /* readers take each n-th layer as full, all others slide; 0: none slides */
};

static const gguf_family families[] = {
    {"llama", "llama", LLAMA, true, false, 0},
    {"mistral", "llama", LLAMA, true, false, 0},
    {"mixtral", "llama", MIXTRAL, true, false, 0},
    {"qwen2", "qwen2", QWEN2, false, false, 0},
    {"qwen2_moe", "qwen2moe", QWEN2_MOE, false, false, 0},
    {"qwen3", "qwen3", QWEN3, false, false, 0},
    {"qwen3_moe", "qwen3moe", QWEN3_MOE, false, false, 0},
    {"gemma", "gemma", GEMMA, false, true, 0},
    {"gemma2", "gemma2", GEMMA2, false, true, 2},
    {"gemma3", "gemma3", GEMMA3, false, true, 6},
    {"gemma3_text", "gemma3", GEMMA3, false, true, 6},
    {"phi3", "phi3", PHI3, false, false, 0},
};

#define N_FAMILIES (sizeof families / sizeof families[0])

/* Names as mlx-lm and GGUF have them, without ".weight" or ".bias", below a layer's or the
 * model's. */
typedef struct tensor_row {
    const char *ours, *gguf;
    unsigned of;   /* families */
    unsigned bias; /* those whose readers know a bias of it */
    char heads;    /* 'q' or 'k': whose rows are interleaved in some families */
    bool exact;
} tensor_row;

static const tensor_row layer_rows[] = {
    {"input_layernorm", "attn_norm", ANY, 0, 0, true},
    {"post_attention_layernorm", "ffn_norm", ANY & ~FOUR_NORMS, 0, 0, true},
    {"post_attention_layernorm", "post_attention_norm", FOUR_NORMS, 0, 0, true},
    {"pre_feedforward_layernorm", "ffn_norm", FOUR_NORMS, 0, 0, true},
    {"post_feedforward_layernorm", "post_ffw_norm", FOUR_NORMS, 0, 0, true},
    {"self_attn.q_proj", "attn_q", ANY & ~PHI3, LLAMA | QWEN2 | QWEN2_MOE, 'q', false},
    {"self_attn.k_proj", "attn_k", ANY & ~PHI3, LLAMA | QWEN2 | QWEN2_MOE, 'k', false},
    {"self_attn.v_proj", "attn_v", ANY & ~PHI3, LLAMA | QWEN2 | QWEN2_MOE, 0, false},
    {"self_attn.qkv_proj", "attn_qkv", PHI3, 0, 0, false},
    {"self_attn.o_proj", "attn_output", ANY, LLAMA, 0, false},
    {"self_attn.q_norm", "attn_q_norm", QWEN3 | QWEN3_MOE | GEMMA3, 0, 0, true},
    {"self_attn.k_norm", "attn_k_norm", QWEN3 | QWEN3_MOE | GEMMA3, 0, 0, true},
    {"mlp.gate_proj", "ffn_gate", ANY & ~(EXPERTS | PHI3), LLAMA, 0, false},
    {"mlp.up_proj", "ffn_up", ANY & ~(EXPERTS | PHI3), LLAMA, 0, false},
    {"mlp.gate_up_proj", "ffn_up", PHI3, 0, 0, false},
    {"mlp.down_proj", "ffn_down", ANY & ~EXPERTS, LLAMA, 0, false},
    {"mlp.gate", "ffn_gate_inp", QWEN2_MOE | QWEN3_MOE, 0, 0, true},
    {"mlp.switch_mlp.gate_proj", "ffn_gate_exps", QWEN2_MOE | QWEN3_MOE, 0, 0, false},
    {"mlp.switch_mlp.up_proj", "ffn_up_exps", QWEN2_MOE | QWEN3_MOE, 0, 0, false},
    {"mlp.switch_mlp.down_proj", "ffn_down_exps", QWEN2_MOE | QWEN3_MOE, 0, 0, false},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp", QWEN2_MOE, 0, 0, false},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp", QWEN2_MOE, 0, 0, false},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp", QWEN2_MOE, 0, 0, false},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp", QWEN2_MOE, 0, 0, true},
    {"block_sparse_moe.gate", "ffn_gate_inp", MIXTRAL, 0, 0, true},
    {"block_sparse_moe.switch_mlp.gate_proj", "ffn_gate_exps", MIXTRAL, 0, 0, false},
    {"block_sparse_moe.switch_mlp.up_proj", "ffn_up_exps", MIXTRAL, 0, 0, false},
    {"block_sparse_moe.switch_mlp.down_proj", "ffn_down_exps", MIXTRAL, 0, 0, false},
    {0},
};

static const tensor_row model_rows[] = {
    {"embed_tokens", "token_embd", ANY, 0, 0, false},
    {"norm", "output_norm", ANY, 0, 0, true},
    {"lm_head", "output", ANY & ~GEMMAS, 0, 0, false},
    {0},
};

/* Numbers of the config that are written as they are. */
typedef struct fact_row {
    const char *gguf; /* below the architecture's name */
    const char *key;
    unsigned of;
    bool real;
    double fallback; /* NAN: the key is needed */
} fact_row;

static const fact_row fact_rows[] = {
    {".block_count", "num_hidden_layers", ANY, false, NAN},
    {".context_length", "max_position_embeddings", ANY, false, NAN},
    {".embedding_length", "hidden_size", ANY, false, NAN},
    {".feed_forward_length", "intermediate_size", ANY, false, NAN},
    {".attention.layer_norm_rms_epsilon", "rms_norm_eps", ANY, true, 1e-6},
    {".attn_logit_softcapping", "attn_logit_softcapping", GEMMA2, true, 50},
    {".final_logit_softcapping", "final_logit_softcapping", GEMMA2, true, 30},
    {".attention.sliding_window", "sliding_window", FOUR_NORMS, false, 4096},
    {".expert_used_count", "num_experts_per_tok", EXPERTS, false, NAN},
    {".expert_feed_forward_length", "moe_intermediate_size", QWEN2_MOE | QWEN3_MOE, false, NAN},
    {".expert_shared_feed_forward_length", "shared_expert_intermediate_size", QWEN2_MOE, false,
     NAN},
};

/* Settings that the readers take for granted: another value is refused. */
typedef struct given_row {
    const char *key;
    unsigned of;
    bool value, fallback;
} given_row;

static const given_row given_rows[] = {
    {"norm_topk_prob", QWEN3_MOE, true, false},
    {"norm_topk_prob", QWEN2_MOE, false, false},
    {"tie_word_embeddings", GEMMAS, true, true},
};

/* ---- Notes ---- */

static jang_status note(const gguf_facts *f, const char *text) {
    return json_array_append_new(f->notes, json_string(text)) ? ctx_fail_memory(f->ctx, 256)
                                                              : JANG_OK;
}

static jang_status refuse(const gguf_facts *f, const char *key, const char *why) {
    return ctx_fail(f->ctx, JANG_ERR_UNSUPPORTED, "config.json: %s: %s", key, why);
}

/* ---- The family ---- */

static jang_status find_family(gguf_facts *f, const char *model_type) {
    buf known;
    buf_init(&known, f->ctx, 1024);
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i].model_type, model_type) == 0) {
            f->family = &families[i];
            buf_free(&known);
            return JANG_OK;
        }
        buf_printf(&known, "%s%s", i ? ", " : "", families[i].model_type);
    }
    jang_status status =
        ctx_fail(f->ctx, JANG_ERR_UNSUPPORTED,
                 "a model of type \"%s\" is not written as GGUF; %s are", model_type, known.data);
    buf_free(&known);
    return status;
}

/* The part of layer 0, or of the model, whose name ends so. */
static const model_part *find_part(const model_source *s, const char *end) {
    size_t n = strlen(end);
    for (size_t i = 0; i < s->n_kept; i++) {
        size_t length = strlen(s->kept[i]->name);
        if (length >= n && strcmp(s->kept[i]->name + length - n, end) == 0) {
            return s->kept[i];
        }
    }
    return NULL;
}

static jang_status read_sizes(gguf_facts *f, const model_source *s) {
    const model_part *embedding = find_part(s, "embed_tokens.weight");
    const model_part *q = find_part(s, "layers.0.self_attn.q_proj.weight");
    const model_part *k = find_part(s, "layers.0.self_attn.k_proj.weight");
    const model_part *qkv = find_part(s, "layers.0.self_attn.qkv_proj.weight");
    gguf_sizes *z = &f->sizes;
    int64_t said;
    jang_status status = json_get_int(&z->n_head, f->config, "num_attention_heads", 0, 1, 1 << 16);
    if (status == JANG_OK) {
        status = json_get_int(&said, f->config, "head_dim", 0, 0, 1 << 16);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!embedding || z->n_head < 1 || !(q ? k != NULL : qkv != NULL)) {
        return ctx_fail(f->ctx, JANG_ERR_FORMAT, "no embedding, no heads or no attention found");
    }
    z->n_vocab = embedding->rows;
    z->n_expert = f->family->id & EXPERTS ? s->model.n_expert : 0;
    if (q) {
        z->head_dim = q->rows / z->n_head;
        z->n_kv_head = z->head_dim ? k->rows / z->head_dim : 0;
    } else {
        z->head_dim = said ? said : qkv->columns / z->n_head;
        z->n_kv_head = z->head_dim ? (qkv->rows / z->head_dim - z->n_head) / 2 : 0;
    }
    if (z->head_dim < 2 || z->head_dim % 2 || z->n_kv_head < 1) {
        return ctx_fail(f->ctx, JANG_ERR_FORMAT, "config.json: %lld heads do not fit the tensors",
                        (long long)z->n_head);
    }
    return JANG_OK;
}

/* ---- What readers take for granted ---- */

static jang_status check_given(const gguf_facts *f) {
    for (size_t i = 0; i < sizeof given_rows / sizeof given_rows[0]; i++) {
        const given_row *r = &given_rows[i];
        bool value;
        if (!(r->of & f->family->id)) {
            continue;
        }
        jang_status status = json_get_bool(&value, f->config, r->key, r->fallback);
        if (status == JANG_OK && value != r->value) {
            status = refuse(f, r->key, "GGUF's readers take it for the opposite");
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

/* Of Gemma 2 and 3 the scale of scores is that of a head, but in the largest, which have it by the
 * width of the model. */
static jang_status check_scale(const gguf_facts *f) {
    double scalar;
    int64_t n_layer, n_embd;
    jang_status status = json_get_double(&scalar, f->config, "query_pre_attn_scalar", 256);
    if (status == JANG_OK) {
        status = json_get_int(&n_layer, f->config, "num_hidden_layers", 0, 0, 1 << 20);
    }
    if (status == JANG_OK) {
        status = json_get_int(&n_embd, f->config, "hidden_size", 0, 0, 1 << 24);
    }
    if (status != JANG_OK) {
        return status;
    }
    bool largest = n_layer == (f->family->id == GEMMA2 ? 46 : 62);
    double read = (double)(largest ? n_embd / f->sizes.n_head : f->sizes.head_dim);
    return scalar == read ? JANG_OK
                          : refuse(f, "query_pre_attn_scalar",
                                   "GGUF's readers take the size of a head for it");
}

static jang_status check_pattern(const gguf_facts *f) {
    const json_t *types;
    int64_t pattern;
    jang_status status = json_get_array(&types, f->config, "layer_types");
    if (status == JANG_OK) {
        status = json_get_int(&pattern, f->config, "sliding_window_pattern", f->family->slides_but,
                              1, 1 << 20);
    }
    bool fits = status == JANG_OK && (types || pattern == f->family->slides_but);
    for (size_t i = 0; status == JANG_OK && i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool full = (int64_t)(i + 1) % f->family->slides_but == 0;
        fits = fits && type && strcmp(type, full ? "full_attention" : "sliding_attention") == 0;
    }
    if (status == JANG_OK && !fits) {
        status = refuse(f, types ? "layer_types" : "sliding_window_pattern",
                        "GGUF's readers know one order of full and sliding layers");
    }
    return status;
}

/* A window that GGUF's readers leave out: they are right for texts that fit it. */
static jang_status note_window(const gguf_facts *f) {
    int64_t window;
    bool used;
    unsigned qwen = QWEN2 | QWEN2_MOE | QWEN3 | QWEN3_MOE;
    jang_status status = json_get_int(&window, f->config, "sliding_window", 0, 0, INT64_MAX);
    if (status == JANG_OK) {
        status = json_get_bool(&used, f->config, "use_sliding_window", !(f->family->id & qwen));
    }
    if (status != JANG_OK || !window || !used || (f->family->id & (FOUR_NORMS | PHI3 | GEMMA))) {
        return status;
    }
    char text[160];
    snprintf(text, sizeof text,
             "GGUF has no sliding window of %s: texts of more than %lld tokens are attended to as "
             "a whole",
             f->family->model_type, (long long)window);
    return note(f, text);
}

static jang_status check_experts(const gguf_facts *f, const model_source *s) {
    for (size_t i = 0; (f->family->id & EXPERTS) && i < s->n_kept; i++) {
        const char *name = s->kept[i]->name, *mlp = strstr(name, ".mlp.");
        if (mlp && strncmp(mlp, ".mlp.gate_proj", 14) == 0) {
            return ctx_fail(f->ctx, JANG_ERR_UNSUPPORTED,
                            "tensor %s: GGUF's readers want experts in all layers", name);
        }
    }
    return JANG_OK;
}

static jang_status check_settings(gguf_facts *f, const model_source *s) {
    jang_status status = check_given(f);
    if (status == JANG_OK && (f->family->id & FOUR_NORMS)) {
        status = check_scale(f);
    }
    if (status == JANG_OK && f->family->slides_but) {
        status = check_pattern(f);
    }
    if (status == JANG_OK) {
        status = note_window(f);
    }
    return status == JANG_OK ? check_experts(f, s) : status;
}

/* ---- RoPE ---- */

typedef struct rope_facts {
    const json_t *scaling; /* NULL: none */
    const char *type;      /* "default" where there is none */
    double theta, local_theta, part;
} rope_facts;

/* Where a config of Gemma 3 has RoPE by kind of layer, those of this kind. */
static const json_t *rope_of(const json_t *rope, const char *kind) {
    const json_t *own = json_object_get(rope, kind);
    return json_is_object(own) ? own : rope;
}

static jang_status read_rope(rope_facts *out, const gguf_facts *f) {
    const json_t *newer, *older;
    jang_status status = json_get_object(&newer, f->config, "rope_parameters");
    if (status == JANG_OK) {
        status = json_get_object(&older, f->config, "rope_scaling");
    }
    if (status != JANG_OK) {
        return status;
    }
    const json_t *full = rope_of(newer, "full_attention");
    const json_t *local = rope_of(newer, "sliding_attention");
    json_at at = {f->ctx, f->config.what, older ? older : full};
    rope_facts r = {.scaling = at.object};
    bool gemma3 = f->family->id == GEMMA3;
    status = json_get_double(&r.theta, f->config, "rope_theta", gemma3 ? 1e6 : 1e4);
    if (status == JANG_OK) {
        status = json_get_double(&r.theta, (json_at){f->ctx, "rope_parameters", full}, "rope_theta",
                                 r.theta);
    }
    if (status == JANG_OK) {
        status = json_get_double(&r.local_theta, f->config, "rope_local_base_freq", 1e4);
    }
    if (status == JANG_OK) {
        status = json_get_double(&r.local_theta, (json_at){f->ctx, "rope_parameters", local},
                                 "rope_theta", r.local_theta);
    }
    if (status == JANG_OK) {
        status = json_get_double(&r.part, f->config, "partial_rotary_factor", 1);
    }
    if (status == JANG_OK) {
        status = json_get_string(&r.type, at, "type", "default");
    }
    if (status == JANG_OK) {
        status = json_get_string(&r.type, at, "rope_type", r.type);
    }
    if (status == JANG_OK) {
        *out = r;
    }
    return status;
}

static jang_status add_extra(gguf_facts *f, const char *name, int64_t n, float **values) {
    *values = ctx_zero(f->ctx, (size_t)n, sizeof **values);
    if (!*values) {
        return ctx_fail_memory(f->ctx, (size_t)n * sizeof **values);
    }
    f->extras[f->n_extras++] = (gguf_extra){name, *values, n};
    return JANG_OK;
}

/* Llama 3's scaling as divisors of the frequencies (transformers, _compute_llama3_parameters). */
static jang_status llama3_extras(gguf_facts *f, const rope_facts *r) {
    json_at at = {f->ctx, "rope_scaling", r->scaling};
    double factor, low, high, context;
    jang_status status = json_get_double(&factor, at, "factor", 8);
    if (status == JANG_OK) {
        status = json_get_double(&low, at, "low_freq_factor", 1);
    }
    if (status == JANG_OK) {
        status = json_get_double(&high, at, "high_freq_factor", 4);
    }
    if (status == JANG_OK) {
        status = json_get_double(&context, at, "original_max_position_embeddings", 8192);
    }
    float *values = NULL;
    int64_t n = f->sizes.head_dim / 2;
    if (status == JANG_OK) {
        status = add_extra(f, "rope_freqs.weight", n, &values);
    }
    for (int64_t i = 0; status == JANG_OK && i < n; i++) {
        double length = 2 * M_PI * pow(r->theta, (double)i / (double)n);
        double smooth = (context / length - low) / (high - low);
        double divisor = length < context / high  ? 1
                         : length > context / low ? factor
                                                  : 1 / ((1 - smooth) / factor + smooth);
        values[i] = (float)divisor;
    }
    return status;
}

static jang_status longrope_extras(gguf_facts *f, const rope_facts *r) {
    static const char *const lists[][2] = {{"long_factor", "rope_factors_long.weight"},
                                           {"short_factor", "rope_factors_short.weight"}};
    for (size_t i = 0; i < 2; i++) {
        const json_t *list = json_object_get(r->scaling, lists[i][0]);
        int64_t n = (int64_t)json_array_size(list);
        float *values;
        if (n != (int64_t)((double)f->sizes.head_dim * r->part) / 2) {
            return ctx_fail(f->ctx, JANG_ERR_FORMAT,
                            "config.json: rope_scaling: %s: %lld numbers, not one for each pair of "
                            "dimensions",
                            lists[i][0], (long long)n);
        }
        jang_status status = add_extra(f, lists[i][1], n, &values);
        if (status != JANG_OK) {
            return status;
        }
        for (int64_t k = 0; k < n; k++) {
            values[k] = (float)json_number_value(json_array_get(list, (size_t)k));
        }
    }
    return JANG_OK;
}

static jang_status make_extras(gguf_facts *f) {
    rope_facts r;
    jang_status status = read_rope(&r, f);
    if (status != JANG_OK) {
        return status;
    }
    if (f->family->id == GEMMA3 && r.local_theta != 1e4) {
        return refuse(f, "rope_local_base_freq", "GGUF's readers take 10000 for it");
    }
    if (r.part != 1 && f->family->id != PHI3) {
        return refuse(f, "partial_rotary_factor", "GGUF's readers rotate whole heads");
    }
    if (strcmp(r.type, "llama3") == 0) {
        return llama3_extras(f, &r);
    }
    if (strcmp(r.type, "longrope") == 0 && f->family->id == PHI3) {
        return longrope_extras(f, &r);
    }
    static const char *const plain[] = {"default", "linear", "yarn"};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (strcmp(r.type, plain[i]) == 0) {
            return JANG_OK;
        }
    }
    return ctx_fail(f->ctx, JANG_ERR_UNSUPPORTED,
                    "config.json: rope_scaling: \"%.40s\" has no place in GGUF for a %s", r.type,
                    f->family->model_type);
}

static jang_status put_yarn(gguf_writer *w, const gguf_facts *f, const rope_facts *r) {
    static const char *const own[] = {"attention_factor", "beta_fast", "beta_slow", "mscale",
                                      "mscale_all_dim"};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (json_has(r->scaling, own[i])) {
            jang_status status = note(f, "GGUF's readers take YaRN's usual settings, and not those "
                                         "of rope_scaling");
            if (status != JANG_OK) {
                return status;
            }
            break;
        }
    }
    gguf_meta_text(w, ".rope.scaling.type", "yarn", 4);
    return JANG_OK;
}

static jang_status put_scaling(gguf_writer *w, const gguf_facts *f, const rope_facts *r) {
    json_at at = {f->ctx, "rope_scaling", r->scaling};
    bool yarn = strcmp(r->type, "yarn") == 0, longrope = strcmp(r->type, "longrope") == 0;
    double factor;
    int64_t context, whole;
    jang_status status = json_get_double(&factor, at, "factor", 1);
    if (status == JANG_OK) {
        status =
            json_get_int(&whole, f->config, "max_position_embeddings", 0, 0, (int64_t)UINT32_MAX);
    }
    if (status == JANG_OK) {
        status = json_get_int(&context, f->config, "original_max_position_embeddings", whole, 1,
                              (int64_t)UINT32_MAX);
    }
    if (status == JANG_OK) {
        status = json_get_int(&context, at, "original_max_position_embeddings", context, 1,
                              (int64_t)UINT32_MAX);
    }
    if (status == JANG_OK && yarn) {
        status = put_yarn(w, f, r);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (strcmp(r->type, "linear") == 0) {
        gguf_meta_text(w, ".rope.scaling.type", "linear", 6);
    }
    if (yarn || strcmp(r->type, "linear") == 0) {
        gguf_meta_f32(w, ".rope.scaling.factor", (float)factor);
    }
    if (yarn || f->family->id == PHI3) {
        gguf_meta_u32(w, ".rope.scaling.original_context_length", (uint32_t)context);
    }
    if (longrope) {
        double scale = (double)whole / (double)context;
        double attention = scale > 1 ? sqrt(1 + log(scale) / log((double)context)) : 1;
        gguf_meta_f32(w, ".rope.scaling.attn_factor", (float)attention);
    }
    return JANG_OK;
}

/* ---- All facts ---- */

jang_status gguf_facts_make(gguf_facts *out, const model_source *source, json_t *notes) {
    const json_t *text = json_object_get(source->config, "text_config");
    gguf_facts f = {
        .ctx = source->ctx,
        .config = {source->ctx, "config.json", json_is_object(text) ? text : source->config},
        .notes = notes};
    jang_status status = find_family(&f, source->model.model_type);
    if (status == JANG_OK) {
        status = read_sizes(&f, source);
    }
    if (status == JANG_OK) {
        status = check_settings(&f, source);
    }
    if (status == JANG_OK) {
        status = make_extras(&f);
    }
    if (status != JANG_OK) {
        gguf_facts_free(&f);
        return ctx_prefix(source->ctx, status, "%s", source->path);
    }
    *out = f;
    return JANG_OK;
}

void gguf_facts_free(gguf_facts *f) {
    for (int i = 0; i < f->n_extras; i++) {
        ctx_free(f->ctx, f->extras[i].values);
    }
    f->n_extras = 0;
}

static jang_status put_rows(gguf_writer *w, const gguf_facts *f) {
    for (size_t i = 0; i < sizeof fact_rows / sizeof fact_rows[0]; i++) {
        const fact_row *r = &fact_rows[i];
        double value;
        if (!(r->of & f->family->id)) {
            continue;
        }
        jang_status status = json_get_double(&value, f->config, r->key, r->fallback);
        if (status != JANG_OK) {
            return status;
        }
        if (!(r->real ? isfinite(value) : value >= 0 && value <= UINT32_MAX)) {
            return ctx_fail(f->ctx, JANG_ERR_FORMAT, "config.json: %s: a number is needed", r->key);
        }
        if (r->real) {
            gguf_meta_f32(w, r->gguf, (float)value);
        } else {
            gguf_meta_u32(w, r->gguf, (uint32_t)value);
        }
    }
    return JANG_OK;
}

/* Of Phi-3 the key is there in any case: readers refuse a file without it. */
static jang_status put_window(gguf_writer *w, const gguf_facts *f) {
    int64_t window = 0;
    if (f->family->id != PHI3) {
        return JANG_OK;
    }
    jang_status status =
        json_get_int(&window, f->config, "sliding_window", 0, 0, (int64_t)UINT32_MAX);
    if (status == JANG_OK) {
        gguf_meta_u32(w, ".attention.sliding_window", (uint32_t)window);
    }
    return status;
}

jang_status gguf_facts_put(gguf_writer *w, const gguf_facts *f) {
    const gguf_sizes *z = &f->sizes;
    rope_facts r;
    gguf_writer_prefix(w, f->family->arch);
    gguf_meta_text(w, "general.architecture", f->family->arch, strlen(f->family->arch));
    jang_status status = put_rows(w, f);
    if (status == JANG_OK) {
        status = put_window(w, f);
    }
    if (status == JANG_OK) {
        status = read_rope(&r, f);
    }
    if (status != JANG_OK) {
        return status;
    }
    gguf_meta_u32(w, ".vocab_size", (uint32_t)z->n_vocab);
    gguf_meta_u32(w, ".attention.head_count", (uint32_t)z->n_head);
    gguf_meta_u32(w, ".attention.head_count_kv", (uint32_t)z->n_kv_head);
    gguf_meta_u32(w, ".attention.key_length", (uint32_t)z->head_dim);
    gguf_meta_u32(w, ".attention.value_length", (uint32_t)z->head_dim);
    if (z->n_expert) {
        gguf_meta_u32(w, ".expert_count", (uint32_t)z->n_expert);
    }
    gguf_meta_u32(w, ".rope.dimension_count", (uint32_t)((double)z->head_dim * r.part));
    gguf_meta_f32(w, ".rope.freq_base", (float)r.theta);
    return put_scaling(w, f, &r);
}

/* ---- Tensors ---- */

static const tensor_row *find_row(const tensor_row *rows, const gguf_facts *f, const char *name,
                                  size_t n) {
    for (const tensor_row *r = rows; r->ours; r++) {
        if ((r->of & f->family->id) && strlen(r->ours) == n && memcmp(r->ours, name, n) == 0) {
            return r;
        }
    }
    return NULL;
}

/* The name below "layers.N.", which *layer becomes; or below "model.", and *layer is -1. */
static const char *cut_name(const char *name, long *layer) {
    const char *at = strstr(name, "layers.");
    *layer = -1;
    if (at && (at == name || at[-1] == '.')) {
        char *end;
        *layer = strtol(at + 7, &end, 10);
        return *end == '.' ? end + 1 : end;
    }
    at = strstr(name, "model.");
    for (; at; at = strstr(name, "model.")) {
        name = at + 6;
    }
    at = strstr(name, "lm_head.");
    return at ? at : name;
}

jang_status gguf_tensor_of(buf *name, gguf_tensor_form *form, const gguf_facts *f,
                           const model_part *part) {
    long layer;
    const char *rest = cut_name(part->name, &layer), *dot = strrchr(rest, '.');
    bool bias = dot && strcmp(dot, ".bias") == 0;
    const tensor_row *r =
        dot ? find_row(layer < 0 ? model_rows : layer_rows, f, rest, (size_t)(dot - rest)) : NULL;
    if (!r || (bias ? !(r->bias & f->family->id) : strcmp(dot, ".weight") != 0)) {
        return ctx_fail(f->ctx, JANG_ERR_UNSUPPORTED, "tensor %s: has no place in a GGUF of a %s",
                        part->name, f->family->model_type);
    }
    if (layer >= 0) {
        buf_printf(name, "blk.%ld.", layer);
    }
    buf_printf(name, "%s%s", r->gguf, dot);
    bool norm = strstr(r->ours, "norm") != NULL;
    *form = (gguf_tensor_form){.add = norm && f->family->norms_plus_one ? 1 : 0,
                               .exact = r->exact || bias};
    if (r->heads && f->family->interleaved) {
        form->row_heads = r->heads == 'q' ? f->sizes.n_head : f->sizes.n_kv_head;
    }
    return buf_status(name);
}
