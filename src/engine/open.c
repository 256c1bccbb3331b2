/* open.c - jang_model: a checkpoint, a backend, a model and its texts put together. */
#include "engine/embedding.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

jang_model_options jang_model_options_default(void) {
    return (jang_model_options){0};
}

/* ---- What the model says of itself ---- */

static const char *dtype_profile(dtype type) {
    return type == DT_F16 ? "f16" : type == DT_BF16 ? "bf16" : "f32";
}

/* jang_config.json's profile; else the width or widths found. */
static jang_status find_profile(jang_model *m) {
    const json_t *config;
    jang_status status = checkpoint_json(&config, m->checkpoint, "jang_config.json");
    if (status != JANG_OK) {
        return status;
    }
    const model_totals *t = model_get_totals(m->model);
    const char *named =
        json_string_value(json_object_get(json_object_get(config, "quantization"), "profile"));
    char text[64];
    if (t->n_quantized == 0) {
        snprintf(text, sizeof text, "%s", dtype_profile(t->largest_type));
    } else if (t->min_bits == t->max_bits) {
        snprintf(text, sizeof text, "%d-bit", t->min_bits);
    } else {
        snprintf(text, sizeof text, "mixed %d-%d-bit", t->min_bits, t->max_bits);
    }
    m->profile = ctx_strdup(m->ctx, named ? named : text);
    return m->profile ? JANG_OK : ctx_fail_memory(m->ctx, sizeof text);
}

static void fill_info(jang_model *m, double seconds) {
    const model_facts *f = model_get_facts(m->model);
    const model_totals *t = model_get_totals(m->model);
    double float_bits = 8.0 * dtype_table[t->largest_type].block_bytes;
    m->info = (jang_model_info){
        .path = m->path,
        .family = model_get_family(m->model),
        .profile = m->profile,
        .backend = m->ops->table->name,
        .n_params = t->n_params,
        .weight_bytes = t->weight_bytes,
        .nominal_bits =
            t->n_quantized ? (double)t->quantized_bits / (double)t->n_quantized : float_bits,
        .true_bits = 8.0 * (double)t->weight_bytes / (double)t->n_params,
        .token_bytes = t->token_bytes,
        .n_vocab = f->n_vocab,
        .n_layer = f->n_layer,
        .n_embd = f->n_embd,
        .n_context = f->n_context,
        .load_seconds = seconds,
        .writes = !f->no_output,
        .is_encoder = f->whole,
        .n_label = f->n_label,
        .n_embedding = embedding_size(m),
        .pooling = embedding_pooling(m),
        .has_chat_template = m->tokenizer && (m->tokenizer->chat || m->tokenizer->chat_error),
        .has_sampling = m->info.has_sampling, /* read_sampling was there before */
    };
}

/* Whether generation_config.json says anything of sampling. */
static bool mentions_sampling(const json_t *config) {
    static const char *const keys[] = {"do_sample", "temperature", "top_p", "top_k", "min_p"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (json_has(config, keys[i])) {
            return true;
        }
    }
    return false;
}

/* What generation_config.json says; do_sample false means the likeliest token. Models that say
 * nothing get 0.7 and 0.95: drawing from the whole of a small model's distribution rambles. */
static jang_status read_sampling(jang_model *m) {
    const json_t *config;
    jang_status status = checkpoint_json(&config, m->checkpoint, "generation_config.json");
    json_at at = {m->ctx, "generation_config.json", config};
    bool silent = !mentions_sampling(config), do_sample;
    double temperature, top_p, min_p, typical_p, repetition;
    int64_t top_k;
    if (status == JANG_OK) {
        status = json_get_bool(&do_sample, at, "do_sample", true);
    }
    if (status == JANG_OK) {
        status = json_get_double(&temperature, at, "temperature", silent ? 0.7 : 1);
    }
    if (status == JANG_OK) {
        status = json_get_double(&top_p, at, "top_p", silent ? 0.95 : 1);
    }
    if (status == JANG_OK) {
        status = json_get_double(&min_p, at, "min_p", 0);
    }
    if (status == JANG_OK) {
        status = json_get_double(&typical_p, at, "typical_p", 1);
    }
    if (status == JANG_OK) {
        status = json_get_double(&repetition, at, "repetition_penalty", 1);
    }
    if (status == JANG_OK) {
        status = json_get_int(&top_k, at, "top_k", 0, 0, INT32_MAX);
    }
    if (status == JANG_OK) {
        m->sampling = (jang_sampling){
            .temperature = temperature >= 0 && temperature <= 100 ? (float)temperature : 1,
            .top_p = top_p > 0 && top_p <= 1 ? (float)top_p : 1,
            .top_k = (int32_t)top_k,
            .min_p = min_p >= 0 && min_p <= 1 ? (float)min_p : 0,
            .typical_p = typical_p > 0 && typical_p < 1 ? (float)typical_p : 0,
            .repetition_penalty = repetition > 0 && repetition <= 10 ? (float)repetition : 1,
        };
        m->info.has_sampling = !silent;
        m->sampling.temperature = do_sample ? m->sampling.temperature : 0;
    }
    return status;
}

jang_sampling jang_sampling_default(const jang_model *m) {
    return m->sampling;
}

/* ---- Life ---- */

static jang_status check_tokenizer(jang_model *m) {
    int32_t n_vocab = model_get_facts(m->model)->n_vocab;
    if (m->tokenizer && tok_size(m->tokenizer->tok) > n_vocab) {
        ctx_log(m->ctx, "the tokenizer has %d ids, the model only %d: the rest cannot be used",
                tok_size(m->tokenizer->tok), n_vocab);
    }
    return JANG_OK;
}

static jang_status open_parts(jang_model *m, const char *path, const jang_model_options *o) {
    const ops_options options = {.exact = o->exact};
    m->exact = o->exact;
    jang_status status = checkpoint_open(&m->checkpoint, m->ctx, path, 0);
    if (status == JANG_OK && checkpoint_get_kind(m->checkpoint) == CHECKPOINT_GGUF) {
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                          "%s: a GGUF file is a source to convert from: jang convert --model %s "
                          "--profile JANG_4M --output DIR",
                          path, path);
    }
    if (status == JANG_OK && (o->prefault || o->lock)) {
        status = checkpoint_prefault(m->checkpoint, o->lock);
    }
    if (status == JANG_OK) {
        status = ops_open(&m->ops, m->ctx, o->backend, &options);
    }
    if (status == JANG_OK) {
        status = model_open(&m->model, m->ctx, m->checkpoint, m->ops);
    }
    if (status == JANG_OK) {
        status = embedding_open(m);
    }
    if (status == JANG_OK) {
        status = text_open(&m->tokenizer, m->ctx, m->checkpoint);
    }
    if (status == JANG_OK) {
        status = check_tokenizer(m);
    }
    if (status == JANG_OK) {
        status = chat_find_ends(&m->ends, m);
    }
    if (status == JANG_OK) {
        status = read_sampling(m);
    }
    return status == JANG_OK ? find_profile(m) : status;
}

jang_status jang_model_open(jang_model **out, jang_context *ctx, const char *path,
                            const jang_model_options *options) {
    double start = clock_seconds();
    jang_model_options o = options ? *options : jang_model_options_default();
    jang_model *m = ctx_zero(ctx, 1, sizeof *m);
    if (!m) {
        return ctx_fail_memory(ctx, sizeof *m);
    }
    m->ctx = ctx;
    m->path = ctx_strdup(ctx, path);
    jang_status status = m->path ? open_parts(m, path, &o) : ctx_fail_memory(ctx, strlen(path));
    if (status != JANG_OK) {
        jang_model_free(m);
        return status;
    }
    fill_info(m, clock_seconds() - start);
    *out = m;
    return JANG_OK;
}

void jang_model_free(jang_model *m) {
    if (m) {
        jang_tokenizer_free(m->tokenizer);
        embedding_close(m);
        model_close(m->model);
        ops_close(m->ops);
        checkpoint_close(m->checkpoint);
        tok_ids_free(m->ctx, &m->ends);
        ctx_free(m->ctx, m->profile);
        ctx_free(m->ctx, m->path);
        ctx_free(m->ctx, m);
    }
}

const jang_model_info *jang_model_get_info(const jang_model *m) {
    return &m->info;
}

jang_tokenizer *jang_model_tokenizer(jang_model *m) {
    return m->tokenizer;
}

int32_t model_n_drawable(const jang_model *m) {
    int32_t n_vocab = model_get_facts(m->model)->n_vocab;
    int32_t n_known = m->tokenizer ? jang_tokenizer_size(m->tokenizer) : n_vocab;
    return n_known < n_vocab ? n_known : n_vocab;
}

bool jang_model_is_end(const jang_model *m, int32_t id) {
    for (size_t i = 0; i < m->ends.n; i++) {
        if (m->ends.ids[i] == id) {
            return true;
        }
    }
    return false;
}
