/* gguf_vocab.c - tokenizer.json to GGUF's vocabulary.
 *
 * Byte-level BPE keeps its list of merges, and the name of the way in which it cuts words. Merges
 * of SentencePiece's BPE are not listed in GGUF: its readers join the neighbours that make the
 * token of the highest score, so a token's score is minus the rank of the first merge that makes
 * it. */
#include "export/gguf_vocab.h"

#include "base/strmap.h"
#include "format/gguf_splits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

/* Of a token that no merge makes: it is joined last, if ever. */
#define NO_SCORE (-1e9f)

typedef struct vocabulary {
    ctx_t *ctx;
    checkpoint *source;
    json_t *tokenizer;                         /* tokenizer.json */
    const json_t *model, *config, *generation; /* of it; tokenizer_config, generation_config */
    int64_t n;
    const char **texts; /* [n]; NULL: no such token */
    int32_t *types;     /* [n] */
    float *scores;      /* [n], of SentencePiece */
    strmap by_text;
} vocabulary;

static const char *text_at(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* ---- Tokens ---- */

static jang_status set_token(vocabulary *v, const char *text, const json_t *id, int type) {
    json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (!text || i < 0) {
        return ctx_fail(v->ctx, JANG_ERR_FORMAT, "tokenizer.json: a token without a text or an id");
    }
    if (i >= v->n) {
        return ctx_fail(v->ctx, JANG_ERR_UNSUPPORTED,
                        "tokenizer.json: token %lld, but the embedding has %lld rows", (long long)i,
                        (long long)v->n);
    }
    v->texts[i] = text;
    v->types[i] = type;
    return strmap_put(&v->by_text, text, strlen(text), (int32_t)i, NULL);
}

static bool is_byte_token(const char *text) {
    unsigned byte;
    int n = 0;
    return sscanf(text, "<0x%2X>%n", &byte, &n) == 1 && n == 6 && !text[6];
}

static jang_status read_tokens(vocabulary *v) {
    json_t *list = json_object_get(v->model, "vocab");
    const char *unknown = text_at(v->model, "unk_token"), *text;
    bool bytes = json_is_true(json_object_get(v->model, "byte_fallback"));
    json_t *id;
    jang_status status = JANG_OK;
    json_object_foreach(list, text, id) {
        int type = *unknown && strcmp(text, unknown) == 0 ? TOKEN_UNKNOWN
                   : bytes && is_byte_token(text)         ? TOKEN_BYTE
                                                          : TOKEN_NORMAL;
        status = set_token(v, text, id, type);
        if (status != JANG_OK) {
            return status;
        }
    }
    size_t i;
    const json_t *added;
    json_array_foreach(json_object_get(v->tokenizer, "added_tokens"), i, added) {
        text = json_string_value(json_object_get(added, "content"));
        bool special = json_is_true(json_object_get(added, "special"));
        bool is_unknown = text && *unknown && strcmp(text, unknown) == 0;
        status = set_token(v, text, json_object_get(added, "id"),
                           is_unknown ? TOKEN_UNKNOWN
                           : special  ? TOKEN_CONTROL
                                      : TOKEN_USER);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

static void put_tokens(gguf_writer *w, const vocabulary *v) {
    gguf_meta_texts(w, "tokenizer.ggml.tokens", (size_t)v->n);
    for (int64_t i = 0; i < v->n; i++) {
        char name[32];
        snprintf(name, sizeof name, "[PAD%lld]", (long long)i);
        const char *text = v->texts[i] ? v->texts[i] : name;
        gguf_meta_item(w, text, strlen(text));
        v->types[i] = v->texts[i] ? v->types[i] : TOKEN_UNUSED;
    }
    gguf_meta_i32s(w, "tokenizer.ggml.token_type", v->types, (size_t)v->n);
}

/* ---- Merges ---- */

/* A merge's two parts: "left right", or a list of the two. False: neither. */
static bool merge_parts(const char **left, size_t *n_left, const char **right,
                        const json_t *merge) {
    const char *text = json_string_value(merge);
    if (text) {
        const char *space = *text ? strchr(text + 1, ' ') : NULL;
        *left = text;
        *n_left = space ? (size_t)(space - text) : 0;
        *right = space ? space + 1 : NULL;
        return space != NULL;
    }
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    *n_left = *left ? strlen(*left) : 0;
    return *left && *right;
}

/* out becomes the two parts of merge i with a text between them. */
static jang_status read_merge(buf *out, const vocabulary *v, const json_t *merges, size_t i,
                              const char *between) {
    const char *left, *right;
    size_t n_left;
    if (!merge_parts(&left, &n_left, &right, json_array_get(merges, i))) {
        return ctx_fail(v->ctx, JANG_ERR_FORMAT, "tokenizer.json: merge %zu is not of two parts",
                        i);
    }
    buf_clear(out);
    buf_put(out, left, n_left);
    buf_puts(out, between);
    buf_puts(out, right);
    return buf_status(out);
}

static jang_status put_merges(gguf_writer *w, const vocabulary *v) {
    const json_t *merges = json_object_get(v->model, "merges");
    buf line;
    buf_init(&line, v->ctx, 1 << 20);
    jang_status status = JANG_OK;
    gguf_meta_texts(w, "tokenizer.ggml.merges", json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges) && status == JANG_OK; i++) {
        status = read_merge(&line, v, merges, i, " ");
        if (status == JANG_OK) {
            gguf_meta_item(w, line.data, line.size);
        }
    }
    buf_free(&line);
    return status;
}

static jang_status put_scores(gguf_writer *w, vocabulary *v) {
    const json_t *merges = json_object_get(v->model, "merges");
    for (int64_t i = 0; i < v->n; i++) {
        v->scores[i] = v->types[i] == TOKEN_NORMAL ? NO_SCORE : 0;
    }
    buf whole;
    buf_init(&whole, v->ctx, 1 << 20);
    jang_status status = JANG_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == JANG_OK; i++) {
        status = read_merge(&whole, v, merges, i, "");
        int32_t id = -1;
        if (status == JANG_OK) {
            id = strmap_get(&v->by_text, whole.data, whole.size);
        }
        if (id >= 0 && v->scores[id] == NO_SCORE) {
            v->scores[id] = -(float)i;
        }
    }
    buf_free(&whole);
    if (status == JANG_OK) {
        gguf_meta_f32s(w, "tokenizer.ggml.scores", v->scores, (size_t)v->n);
    }
    return status;
}

/* ---- Special tokens ---- */

/* A token by tokenizer_config.json, where it is a text or an object with one; -1: none. */
static int64_t named_token(const vocabulary *v, const char *key) {
    const json_t *value = json_object_get(v->config, key);
    const char *text =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    return text ? strmap_get(&v->by_text, text, strlen(text)) : -1;
}

/* The first or last item of a post-processor's template, if that is a special token. */
static const char *template_token(const json_t *processor, bool last) {
    const json_t *list = json_object_get(processor, "processors"), *items;
    if (list) {
        for (size_t i = 0; i < json_array_size(list); i++) {
            const char *found = template_token(json_array_get(list, i), last);
            if (found) {
                return found;
            }
        }
        return NULL;
    }
    items = json_object_get(processor, "single");
    size_t n = json_array_size(items);
    const json_t *item = json_array_get(items, last && n ? n - 1 : 0);
    return json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
}

static void put_id(gguf_writer *w, const char *key, int64_t id) {
    if (id >= 0) {
        gguf_meta_u32(w, key, (uint32_t)id);
    }
}

/* The first id of generation_config.json's list that ends an answer and is not eos; -1: none. */
static int64_t other_end(const vocabulary *v, int64_t eos) {
    const json_t *ids = json_object_get(v->generation, "eos_token_id");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        if (id != eos && id >= 0 && id < v->n) {
            return id;
        }
    }
    return -1;
}

static void put_special(gguf_writer *w, const vocabulary *v) {
    const json_t *processor = json_object_get(v->tokenizer, "post_processor");
    const char *first = template_token(processor, false), *last = template_token(processor, true);
    int64_t bos = first ? strmap_get(&v->by_text, first, strlen(first)) : -1;
    int64_t eos = named_token(v, "eos_token");
    bos = bos >= 0 ? bos : named_token(v, "bos_token");
    const json_t *ids = json_object_get(v->generation, "eos_token_id");
    if (eos < 0 && ids) {
        const json_t *id = json_is_array(ids) ? json_array_get(ids, 0) : ids;
        eos = json_is_integer(id) && json_integer_value(id) < v->n ? json_integer_value(id) : -1;
    }
    put_id(w, "tokenizer.ggml.bos_token_id", bos);
    put_id(w, "tokenizer.ggml.eos_token_id", eos);
    put_id(w, "tokenizer.ggml.eot_token_id", other_end(v, eos));
    put_id(w, "tokenizer.ggml.unknown_token_id", named_token(v, "unk_token"));
    put_id(w, "tokenizer.ggml.padding_token_id", named_token(v, "pad_token"));
    gguf_meta_bool(w, "tokenizer.ggml.add_bos_token", first != NULL);
    gguf_meta_bool(w, "tokenizer.ggml.add_eos_token", last != NULL && last != first);
}

static jang_status put_template(gguf_writer *w, const vocabulary *v) {
    const char *text;
    size_t n;
    jang_status status = checkpoint_chat_template(&text, &n, v->source);
    if (status == JANG_OK && text) {
        gguf_meta_text(w, "tokenizer.chat_template", text, n);
    }
    return status;
}

/* ---- The two kinds ---- */

static jang_status put_byte_level(gguf_writer *w, vocabulary *v) {
    const gguf_split *split;
    jang_status status = gguf_split_of(&split, v->ctx, v->tokenizer);
    if (status == JANG_OK && !split) {
        status = ctx_fail(v->ctx, JANG_ERR_UNSUPPORTED,
                          "tokenizer.json: its pre_tokenizer cuts words in a way that GGUF has no "
                          "name for");
    }
    if (status != JANG_OK) {
        return status;
    }
    gguf_meta_text(w, "tokenizer.ggml.model", "gpt2", 4);
    gguf_meta_text(w, "tokenizer.ggml.pre", split->name, strlen(split->name));
    put_tokens(w, v);
    return put_merges(w, v);
}

/* Whether a step of the normalizer, or the pre_tokenizer, puts a space before the text. */
static bool adds_space(const json_t *step) {
    const json_t *list = json_object_get(step, "normalizers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (adds_space(json_array_get(list, i))) {
            return true;
        }
    }
    const char *type = text_at(step, "type");
    return strcmp(type, "Prepend") == 0 ||
           (strcmp(type, "Metaspace") == 0 &&
            strcmp(text_at(step, "prepend_scheme"), "never") != 0 &&
            !json_is_false(json_object_get(step, "add_prefix_space")));
}

static jang_status put_sentencepiece(gguf_writer *w, vocabulary *v) {
    gguf_meta_text(w, "tokenizer.ggml.model", "llama", 5);
    gguf_meta_text(w, "tokenizer.ggml.pre", "default", 7);
    gguf_meta_bool(w, "tokenizer.ggml.add_space_prefix",
                   adds_space(json_object_get(v->tokenizer, "normalizer")) ||
                       adds_space(json_object_get(v->tokenizer, "pre_tokenizer")));
    put_tokens(w, v);
    return put_scores(w, v);
}

static bool has_step(const json_t *pre_tokenizer, const char *type) {
    const json_t *list = json_object_get(pre_tokenizer, "pretokenizers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (has_step(json_array_get(list, i), type)) {
            return true;
        }
    }
    return strcmp(text_at(pre_tokenizer, "type"), type) == 0;
}

static jang_status put_model(gguf_writer *w, vocabulary *v) {
    const char *type = text_at(v->model, "type");
    bool bytes = has_step(json_object_get(v->tokenizer, "pre_tokenizer"), "ByteLevel");
    bool bpe =
        strcmp(type, "BPE") == 0 || (!*type && json_is_array(json_object_get(v->model, "merges")));
    if (!bpe || (!bytes && !json_is_true(json_object_get(v->model, "byte_fallback")))) {
        return ctx_fail(v->ctx, JANG_ERR_UNSUPPORTED,
                        "tokenizer.json: a tokenizer of type \"%.40s\" is not written as GGUF; "
                        "byte-level BPE and SentencePiece's BPE with byte fallback are",
                        *type ? type : "BPE");
    }
    return bytes ? put_byte_level(w, v) : put_sentencepiece(w, v);
}

/* ---- The whole ---- */

static jang_status open_vocabulary(vocabulary *v) {
    const char *text;
    size_t n;
    jang_status status = checkpoint_text(&text, &n, v->source, "tokenizer.json");
    if (status == JANG_OK && !text) {
        status = ctx_fail(v->ctx, JANG_ERR_UNSUPPORTED, "%s: no tokenizer.json",
                          checkpoint_path(v->source));
    }
    if (status == JANG_OK) {
        status = json_parse(&v->tokenizer, v->ctx, "tokenizer.json", text, n);
    }
    if (status == JANG_OK) {
        status = checkpoint_json(&v->config, v->source, "tokenizer_config.json");
    }
    if (status == JANG_OK) {
        status = checkpoint_json(&v->generation, v->source, "generation_config.json");
    }
    if (status != JANG_OK) {
        return status;
    }
    v->model = json_object_get(v->tokenizer, "model");
    v->texts = ctx_zero(v->ctx, (size_t)v->n + 1, sizeof *v->texts);
    v->types = ctx_zero(v->ctx, (size_t)v->n + 1, sizeof *v->types);
    v->scores = ctx_zero(v->ctx, (size_t)v->n + 1, sizeof *v->scores);
    return v->texts && v->types && v->scores
               ? JANG_OK
               : ctx_fail_memory(v->ctx, (size_t)v->n * sizeof *v->texts);
}

jang_status gguf_vocab_put(gguf_writer *w, ctx_t *ctx, checkpoint *c, int64_t n_vocab) {
    vocabulary v = {.ctx = ctx, .source = c, .n = n_vocab};
    strmap_init(&v.by_text, ctx);
    jang_status status = open_vocabulary(&v);
    if (status == JANG_OK) {
        status = read_tokens(&v);
    }
    if (status == JANG_OK) {
        status = put_model(w, &v);
    }
    if (status == JANG_OK) {
        put_special(w, &v);
        status = put_template(w, &v);
    }
    strmap_free(&v.by_text);
    json_decref(v.tokenizer);
    ctx_free(ctx, v.texts);
    ctx_free(ctx, v.types);
    ctx_free(ctx, v.scores);
    return status;
}
