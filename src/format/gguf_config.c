/* gguf_config.c - config.json and generation_config.json from a GGUF's metadata, and the names of
 * its tensors.
 *
 * Adding an architecture: one row in architectures[], and rows in tensor_names[] where it has
 * tensors that none of the others has. */
#include "format/gguf_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Tables ---- */

typedef struct architecture {
    const char *name; /* general.architecture */
    const char *model_type, *class_name;
    bool interleaved;   /* rows of q and k have the halves of each head interleaved */
    bool rope_head_dim; /* rope.dimension_count is the head's size */
} architecture;

static const architecture architectures[] = {
    {"llama", "llama", "LlamaForCausalLM", true, true},
    {"mistral", "mistral", "MistralForCausalLM", true, true},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false, false},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false, false},
};

#define N_ARCHITECTURES (sizeof architectures / sizeof architectures[0])

/* Names without ".weight" or ".bias"; %d is the layer. heads: whose heads the rows are. */
typedef struct tensor_name {
    const char *gguf, *hf;
    char heads; /* 'q', 'k' or 0 */
} tensor_name;

static const tensor_name tensor_names[] = {
    {"token_embd", "model.embed_tokens", 0},
    {"output_norm", "model.norm", 0},
    {"output", "lm_head", 0},
    {"attn_norm", "input_layernorm", 0},
    {"attn_q", "self_attn.q_proj", 'q'},
    {"attn_k", "self_attn.k_proj", 'k'},
    {"attn_v", "self_attn.v_proj", 0},
    {"attn_output", "self_attn.o_proj", 0},
    {"attn_q_norm", "self_attn.q_norm", 0},
    {"attn_k_norm", "self_attn.k_norm", 0},
    {"ffn_norm", "post_attention_layernorm", 0},
    {"ffn_gate", "mlp.gate_proj", 0},
    {"ffn_up", "mlp.up_proj", 0},
    {"ffn_down", "mlp.down_proj", 0},
};

/* Tensors that config.json stands for. */
static const char *const implied_tensors[] = {"rope_freqs", "attn_rot_embd"};

/* ---- Architecture ---- */

void gguf_architecture(char out[32], const gguf_file *g) {
    const gguf_value *v = gguf_find(g, "general.architecture");
    size_t n = v && v->type == GGUF_STRING && v->n_bytes < 32 ? v->n_bytes : 0;
    if (n) {
        memcpy(out, v->data, n);
    }
    out[n] = 0;
}

static jang_status find_architecture(const architecture **out, const gguf_file *g) {
    char name[32], known[256] = "";
    gguf_architecture(name, g);
    size_t at = 0;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        if (strcmp(architectures[i].name, name) == 0) {
            *out = &architectures[i];
            return JANG_OK;
        }
        int n =
            snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", architectures[i].name);
        at += n > 0 ? (size_t)n : 0;
    }
    return ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                    "%s: GGUF architecture \"%s\" is not known; %s are", g->path, name, known);
}

/* "llama.block_count" of "%s.block_count". */
typedef struct arch_key {
    char text[96];
} arch_key;

static arch_key key_of(const architecture *a, const char *rest) {
    arch_key key;
    snprintf(key.text, sizeof key.text, "%s.%s", a->name, rest);
    return key;
}

/* ---- Sizes ---- */

typedef struct sizes {
    int64_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_context, n_vocab;
    int64_t window;
    double rms_eps, rope_theta;
} sizes;

/* A count that must be there; some files give one a layer, which must then all be equal. */
static jang_status get_count(int64_t *out, const gguf_file *g, const architecture *a,
                             const char *rest, int64_t fallback, int64_t max) {
    arch_key key = key_of(a, rest);
    const gguf_value *v = gguf_find(g, key.text);
    if (!v && fallback <= 0) {
        return ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: no metadata %s", g->path, key.text);
    }
    if (v && v->type == GGUF_ARRAY && v->n_items && v->item_type != GGUF_STRING) {
        double first = gguf_item_number(v, 0);
        for (uint64_t i = 1; i < v->n_items; i++) {
            if (gguf_item_number(v, i) != first) {
                return ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                                "%s: metadata %s differs from layer to layer", g->path, key.text);
            }
        }
        if (!(first >= 1 && first <= (double)max)) { /* or not a number */
            return ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: metadata %s is out of range", g->path,
                            key.text);
        }
        *out = (int64_t)first;
        return JANG_OK;
    }
    return gguf_get_int(out, g, key.text, fallback, 1, max);
}

static jang_status get_vocabulary(int64_t *out, const gguf_file *g) {
    const tensor_view *embedding = gguf_tensor(g, "token_embd.weight");
    const gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    if (embedding && embedding->n_dim == 2) {
        *out = embedding->shape[0];
        return JANG_OK;
    }
    if (tokens && tokens->type == GGUF_ARRAY) {
        *out = (int64_t)tokens->n_items;
        return JANG_OK;
    }
    return ctx_fail(g->ctx, JANG_ERR_FORMAT,
                    "%s: neither tensor token_embd.weight nor a vocabulary", g->path);
}

/* attention.key_length, or what rotates, or an equal share. */
static jang_status get_head_dim(sizes *s, const gguf_file *g, const architecture *a) {
    int64_t rotated;
    jang_status status =
        gguf_get_int(&s->head_dim, g, key_of(a, "attention.key_length").text, 0, 1, 1 << 16);
    if (status == JANG_OK) {
        status = gguf_get_int(&rotated, g, key_of(a, "rope.dimension_count").text, 0, 1, 1 << 16);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!s->head_dim) {
        s->head_dim = a->rope_head_dim && rotated ? rotated : s->n_embd / s->n_head;
    }
    if (s->head_dim < 2 || s->head_dim % 2) {
        return ctx_fail(g->ctx, JANG_ERR_FORMAT,
                        "%s: heads of %lld dimensions, an even number is needed", g->path,
                        (long long)s->head_dim);
    }
    if (rotated && rotated != s->head_dim) {
        return ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: %lld of %lld dimensions of a head are rotated, %s needs all", g->path,
                        (long long)rotated, (long long)s->head_dim, a->name);
    }
    return JANG_OK;
}

static jang_status read_sizes(sizes *s, const gguf_file *g, const architecture *a) {
    struct {
        int64_t *out;
        const char *key;
        int64_t max;
    } counts[] = {
        {&s->n_layer, "block_count", 1 << 14},        {&s->n_embd, "embedding_length", 1 << 24},
        {&s->n_ff, "feed_forward_length", 1 << 26},   {&s->n_head, "attention.head_count", 1 << 16},
        {&s->n_context, "context_length", INT32_MAX},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < sizeof counts / sizeof counts[0]; i++) {
        status = get_count(counts[i].out, g, a, counts[i].key, 0, counts[i].max);
    }
    if (status == JANG_OK) {
        status = get_count(&s->n_head_kv, g, a, "attention.head_count_kv", s->n_head, 1 << 16);
    }
    if (status == JANG_OK) {
        status = get_head_dim(s, g, a);
    }
    if (status == JANG_OK) {
        status = get_vocabulary(&s->n_vocab, g);
    }
    if (status == JANG_OK) {
        status = gguf_get_float(&s->rms_eps, g, key_of(a, "attention.layer_norm_rms_epsilon").text,
                                1e-5);
    }
    if (status == JANG_OK) {
        status = gguf_get_float(&s->rope_theta, g, key_of(a, "rope.freq_base").text, 10000.0);
    }
    if (status == JANG_OK) {
        status = gguf_get_int(&s->window, g, key_of(a, "attention.sliding_window").text, 0, 0,
                              INT32_MAX);
    }
    return status;
}

/* ---- RoPE scaling ---- */

/* The divisor that Llama 3's scaling gives to a frequency (transformers,
 * _compute_llama3_parameters). */
static double llama3_divisor(double frequency, double factor, double low, double high,
                             double context) {
    double wavelength = 2.0 * M_PI / frequency;
    if (wavelength < context / high) {
        return 1.0;
    }
    if (wavelength > context / low) {
        return factor;
    }
    double smooth = (context / wavelength - low) / (high - low);
    return 1.0 / ((1.0 - smooth) / factor + smooth);
}

static bool matches_llama3(const float *divisors, int64_t n, double theta, double factor,
                           double context) {
    for (int64_t i = 0; i < n; i++) {
        double frequency = pow(theta, -(double)i / (double)n);
        double wanted = llama3_divisor(frequency, factor, 1.0, 4.0, context);
        if (!(fabs(divisors[i] - wanted) <= 1e-3 * wanted)) { /* nor NaN */
            return false;
        }
    }
    return true;
}

/* rope_freqs.weight holds the divisors of Llama 3's scaling; the numbers they came from are found
 * again: the factor is the last one, the context one of those in use. */
static jang_status llama3_scaling(json_t **out, const gguf_file *g, const tensor_view *t,
                                  const sizes *s) {
    static const int contexts[] = {8192, 4096, 2048, 16384, 32768, 65536, 131072};
    int64_t n = tensor_count(t);
    float divisors[512];
    if (t->type != DT_F32 || n != s->head_dim / 2 || n < 1 || n > 512) {
        return ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: tensor %s: expected %lld F32 elements",
                        g->path, t->name, (long long)(s->head_dim / 2));
    }
    memcpy(divisors, t->data, (size_t)n * 4);
    double factor = divisors[n - 1];
    bool none = true;
    for (int64_t i = 0; i < n; i++) {
        none = none && divisors[i] == 1.0f;
    }
    if (none) {
        return JANG_OK;
    }
    for (size_t i = 0; i < sizeof contexts / sizeof contexts[0]; i++) {
        if (factor > 1.0 && factor < 1e6 &&
            matches_llama3(divisors, n, s->rope_theta, factor, contexts[i])) {
            *out = json_pack("{s:s,s:f,s:f,s:f,s:i}", "rope_type", "llama3", "factor", factor,
                             "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                             "original_max_position_embeddings", contexts[i]);
            return *out ? JANG_OK : ctx_fail_memory(g->ctx, 256);
        }
    }
    return ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                    "%s: tensor %s: not the frequencies of Llama 3's RoPE scaling", g->path,
                    t->name);
}

/* *out stays NULL where there is no scaling. */
static jang_status rope_scaling(json_t **out, const gguf_file *g, const architecture *a,
                                const sizes *s) {
    const tensor_view *divisors = gguf_tensor(g, "rope_freqs.weight");
    if (divisors) {
        return llama3_scaling(out, g, divisors, s);
    }
    const char *type;
    size_t n;
    double factor, old_linear;
    int64_t context;
    jang_status status = gguf_get_string(&type, &n, g, key_of(a, "rope.scaling.type").text);
    if (status == JANG_OK) {
        status = gguf_get_float(&old_linear, g, key_of(a, "rope.scale_linear").text, 0.0);
    }
    if (status == JANG_OK) {
        status = gguf_get_float(&factor, g, key_of(a, "rope.scaling.factor").text, 0.0);
    }
    if (status == JANG_OK) {
        status = gguf_get_int(&context, g, key_of(a, "rope.scaling.original_context_length").text,
                              s->n_context, 1, INT32_MAX);
    }
    if (status != JANG_OK) {
        return status;
    }
    factor = factor > 0.0 ? factor : old_linear;
    bool linear = type ? n == 6 && memcmp(type, "linear", 6) == 0 : old_linear > 0.0;
    bool yarn = type && n == 4 && memcmp(type, "yarn", 4) == 0;
    if (linear && factor > 0.0) {
        *out = json_pack("{s:s,s:f}", "rope_type", "linear", "factor", factor);
    } else if (yarn && factor > 0.0) {
        *out = json_pack("{s:s,s:f,s:I}", "rope_type", "yarn", "factor", factor,
                         "original_max_position_embeddings", (json_int_t)context);
    } else if (type && !(n == 4 && memcmp(type, "none", 4) == 0)) {
        return ctx_fail(
            g->ctx, JANG_ERR_UNSUPPORTED,
            "%s: RoPE scaling \"%.*s\" is not known; none, linear and yarn with a factor "
            "are",
            g->path, (int)(n < 40 ? n : 40), type);
    } else {
        return JANG_OK;
    }
    return *out ? JANG_OK : ctx_fail_memory(g->ctx, 256);
}

/* ---- config.json ---- */

/* The decimal number that a person wrote, of the f32 that became of it: 1e-05, not
 * 9.999999747378752e-06. */
static double decimal_of(double x) {
    char text[64];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        double y = strtod(text, NULL);
        if ((float)y == (float)x) {
            return y;
        }
    }
    return x;
}

/* What the weights had before they were quantized, as far as the file tells. */
static const char *weight_dtype(const gguf_file *g) {
    bool all_f32 = true;
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (g->tensors[i].type == DT_BF16) {
            return "bfloat16";
        }
        all_f32 = all_f32 && g->tensors[i].type == DT_F32;
    }
    return all_f32 ? "float32" : "float16";
}

static bool has_bias(const gguf_file *g, const char *part) {
    char name[64];
    snprintf(name, sizeof name, "blk.0.%s.bias", part);
    return gguf_tensor(g, name) != NULL;
}

static jang_status set_token_ids(json_t *config, const gguf_file *g) {
    static const struct {
        const char *gguf, *hf;
    } ids[] = {
        {"tokenizer.ggml.bos_token_id", "bos_token_id"},
        {"tokenizer.ggml.eos_token_id", "eos_token_id"},
        {"tokenizer.ggml.padding_token_id", "pad_token_id"},
    };
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        int64_t id;
        jang_status status = gguf_get_int(&id, g, ids[i].gguf, -1, 0, UINT32_MAX);
        if (status != JANG_OK) {
            return status;
        }
        if (id >= 0 && id < INT32_MAX &&
            json_object_set_new(config, ids[i].hf, json_integer(id)) != 0) {
            return ctx_fail_memory(g->ctx, 64);
        }
    }
    return JANG_OK;
}

static jang_status make_config(json_t **out, const gguf_file *g, const architecture *a,
                               const sizes *s) {
    const char *model_type =
        s->window && strcmp(a->model_type, "llama") == 0 ? "mistral" : a->model_type;
    bool mistral = strcmp(model_type, "mistral") == 0;
    json_t *scaling = NULL;
    jang_status status = rope_scaling(&scaling, g, a, s);
    if (status != JANG_OK) {
        return status;
    }
    json_t *config = json_pack(
        "{s:[s],s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:o?,s:b,s:b,s:b,s:s}",
        "architectures", mistral ? "MistralForCausalLM" : a->class_name, "model_type", model_type,
        "hidden_act", "silu", "hidden_size", (json_int_t)s->n_embd, "intermediate_size",
        (json_int_t)s->n_ff, "num_hidden_layers", (json_int_t)s->n_layer, "num_attention_heads",
        (json_int_t)s->n_head, "num_key_value_heads", (json_int_t)s->n_head_kv, "head_dim",
        (json_int_t)s->head_dim, "max_position_embeddings", (json_int_t)s->n_context, "vocab_size",
        (json_int_t)s->n_vocab, "rms_norm_eps", decimal_of(s->rms_eps), "rope_theta",
        decimal_of(s->rope_theta), "rope_scaling", scaling, "attention_bias", has_bias(g, "attn_q"),
        "mlp_bias", has_bias(g, "ffn_up"), "tie_word_embeddings", !gguf_tensor(g, "output.weight"),
        "torch_dtype", weight_dtype(g));
    if (!config) {
        return ctx_fail_memory(g->ctx, 1024);
    }
    if (s->window && json_object_set_new(config, "sliding_window", json_integer(s->window)) != 0) {
        status = ctx_fail_memory(g->ctx, 64);
    }
    if (status == JANG_OK) {
        status = set_token_ids(config, g);
    }
    if (status != JANG_OK) {
        json_decref(config);
        return status;
    }
    *out = config;
    return JANG_OK;
}

jang_status gguf_config(const json_t **out, gguf_file *g) {
    if (!g->config) {
        const architecture *a;
        sizes s = {0};
        int64_t experts;
        jang_status status = find_architecture(&a, g);
        if (status == JANG_OK) {
            status = gguf_get_int(&experts, g, key_of(a, "expert_count").text, 0, 0, INT32_MAX);
        }
        if (status == JANG_OK && experts) {
            status = ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                              "%s: %s with %lld experts cannot be read from a GGUF", g->path,
                              a->name, (long long)experts);
        }
        if (status == JANG_OK) {
            status = read_sizes(&s, g, a);
        }
        if (status == JANG_OK) {
            status = make_config(&g->config, g, a, &s);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    *out = g->config;
    return JANG_OK;
}

/* ---- generation_config.json ---- */

static bool list_has(const json_t *list, int64_t id) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (json_integer_value(json_array_get(list, i)) == id) {
            return true;
        }
    }
    return false;
}

/* The ids that end an answer: of the text, of a turn, of a message. */
static jang_status end_ids(json_t *list, const gguf_file *g) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t id;
        jang_status status = gguf_get_int(&id, g, keys[i], -1, 0, UINT32_MAX);
        if (status != JANG_OK) {
            return status;
        }
        if (id >= 0 && id < INT32_MAX && !list_has(list, id) &&
            json_array_append_new(list, json_integer(id)) != 0) {
            return ctx_fail_memory(g->ctx, 64);
        }
    }
    return JANG_OK;
}

jang_status gguf_generation_config(const json_t **out, gguf_file *g) {
    if (!g->generation_config) {
        json_t *config = json_pack("{s:b}", "_from_model_config", 1), *list = json_array();
        jang_status status =
            config && list ? set_token_ids(config, g) : ctx_fail_memory(g->ctx, 64);
        if (status == JANG_OK) {
            status = end_ids(list, g);
        }
        if (status == JANG_OK && json_array_size(list) > 1 &&
            json_object_set(config, "eos_token_id", list) != 0) {
            status = ctx_fail_memory(g->ctx, 64);
        }
        json_decref(list);
        if (status != JANG_OK) {
            json_decref(config);
            return status;
        }
        g->generation_config = config;
    }
    *out = g->generation_config;
    return JANG_OK;
}

/* ---- Names of tensors ---- */

/* Cuts "blk.12." off; *layer is -1 when there is none. */
static const char *cut_layer(const char *name, int *layer) {
    int n = 0, value = 0;
    *layer = -1;
    if (sscanf(name, "blk.%5d.%n", &value, &n) == 1 && n && value >= 0) {
        *layer = value;
        return name + n;
    }
    return name;
}

static bool is_part(const char *name, size_t n, const char *part) {
    return strlen(part) == n && memcmp(name, part, n) == 0;
}

jang_status gguf_hf_name(buf *out, int32_t *row_heads, gguf_file *g, const char *name) {
    const architecture *a;
    const json_t *config;
    jang_status status = find_architecture(&a, g);
    if (status == JANG_OK) {
        status = gguf_config(&config, g);
    }
    if (status != JANG_OK) {
        return status;
    }
    int layer;
    const char *rest = cut_layer(name, &layer), *dot = strrchr(rest, '.');
    size_t n = dot ? (size_t)(dot - rest) : 0;
    *row_heads = 0;
    for (size_t i = 0; i < sizeof implied_tensors / sizeof implied_tensors[0]; i++) {
        if (is_part(rest, n, implied_tensors[i])) {
            return JANG_OK;
        }
    }
    for (size_t i = 0; dot && i < sizeof tensor_names / sizeof tensor_names[0]; i++) {
        const tensor_name *t = &tensor_names[i];
        bool of_layer = i > 2;
        if (of_layer != (layer >= 0) || !is_part(rest, n, t->gguf) ||
            (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0)) {
            continue;
        }
        if (of_layer) {
            buf_printf(out, "model.layers.%d.", layer);
        }
        buf_printf(out, "%s%s", t->hf, dot);
        if (t->heads && a->interleaved) {
            const char *key = t->heads == 'q' ? "num_attention_heads" : "num_key_value_heads";
            *row_heads = (int32_t)json_integer_value(json_object_get(config, key));
        }
        return JANG_OK;
    }
    return ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED, "%s: tensor %s has no place in a %s model",
                    g->path, name, a->name);
}
