/* tok_load.c - tokenizer.json to a tokenizer.
 *
 * The vocabulary and the merges, nearly all of the file, are read straight from the text into
 * their tables. The small parts are noted where they lie and parsed afterwards: normalizer,
 * pre-tokenizer, decoder and post-processor by jansson, the added tokens by a second pull reader
 * once the model's vocabulary is known. */
#include "tokenizer/tok_impl.h"

#include <string.h>

/* Where the parts of the file lie; data NULL: absent or null. */
typedef struct tok_parts {
    jsonpull_str normalizer, pre_tokenizer, post_processor, decoder, added_tokens;
    bool have_model;
    char *unk; /* the model's unknown token; owned */
} tok_parts;

/* ---- The file ---- */

static jang_status read_top(tok *t, jsonpull *p, tok_parts *parts) {
    const struct {
        const char *key;
        jsonpull_str *where;
    } small[] = {{"normalizer", &parts->normalizer},
                 {"pre_tokenizer", &parts->pre_tokenizer},
                 {"post_processor", &parts->post_processor},
                 {"decoder", &parts->decoder},
                 {"added_tokens", &parts->added_tokens}};
    jang_status status = jsonpull_enter(p, '{');
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        jsonpull_str *where = NULL;
        for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
            where = jsonpull_key_is(p, small[i].key) ? small[i].where : where;
        }
        if (where && jsonpull_null(p)) {
            continue;
        }
        if (where) {
            status = jsonpull_raw(p, where);
        } else if (jsonpull_key_is(p, "model") && !parts->have_model) {
            parts->have_model = true;
            status = tok_read_model(t, p, &parts->unk);
        } else {
            status = jsonpull_skip(p);
        }
    }
    if (status == JANG_OK) {
        status = jsonpull_end(p);
    }
    if (status == JANG_OK && !parts->have_model) {
        status = ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: there is no model", p->what);
    }
    return status;
}

/* Parses one of the small parts; *out is NULL when it is absent. */
static jang_status parse_part(tok *t, const char *what, jsonpull_str where, json_t **out) {
    *out = NULL;
    return where.data ? json_parse(out, t->ctx, what, where.data, where.n_bytes) : JANG_OK;
}

static jang_status read_small_parts(tok *t, const char *what, const tok_parts *parts) {
    json_t *json = NULL;
    jang_status status = parse_part(t, what, parts->normalizer, &json);
    if (status == JANG_OK) {
        status = norm_read(&t->norm, t->ctx, what, json);
        json_decref(json);
    }
    if (status == JANG_OK) {
        status = parse_part(t, what, parts->pre_tokenizer, &json);
    }
    if (status == JANG_OK) {
        status = pre_read(&t->pre, t->ctx, what, json);
        json_decref(json);
    }
    if (status == JANG_OK) {
        status = parse_part(t, what, parts->decoder, &json);
    }
    if (status == JANG_OK) {
        status = dec_read(&t->dec, t->ctx, what, json);
        json_decref(json);
    }
    if (status == JANG_OK) {
        status = parse_part(t, what, parts->post_processor, &json);
    }
    if (status == JANG_OK) {
        status = tok_read_post(t, what, json);
        json_decref(json);
    }
    return status;
}

/* ---- Finishing ---- */

/* The spellings that added tokens have after normalization. */
static jang_status normalize_added(tok *t) {
    norm_scratch scratch;
    norm_scratch_init(&scratch, t->ctx);
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && t->norm.n_steps > 0 && i < t->added.n; i++) {
        added_token *a = &t->added.tokens[i];
        const char *text;
        size_t n;
        if (!a->normalized) {
            continue;
        }
        status = norm_run(&t->norm, &scratch, a->content, a->n_content, &text, &n);
        if (status == JANG_OK && (n != a->n_content || memcmp(text, a->content, n) != 0)) {
            a->normalized_content = ctx_strndup(t->ctx, text, n);
            a->n_normalized = n;
            status = a->normalized_content ? JANG_OK : ctx_fail_memory(t->ctx, n);
        }
    }
    norm_scratch_free(&scratch);
    return status;
}

static jang_status read_added(tok *t, const char *what, const tok_parts *parts) {
    jang_status status = JANG_OK;
    if (parts->added_tokens.data) {
        jsonpull p;
        jsonpull_init(&p, t->ctx, what, parts->added_tokens.data, parts->added_tokens.n_bytes);
        status = added_read(&t->added, &p, &t->vocab);
        jsonpull_free(&p);
    }
    return status;
}

/* A last step that spells bytes as characters is left out: the model then takes the bytes. */
static jang_status finish_bpe(tok *t) {
    pre_chain *pre = &t->pre;
    bool bytes = pre->n_steps > 0 && pre->steps[pre->n_steps - 1].kind == PRE_BYTE_CHARS;
    jang_status status = bpe_finish(&t->bpe, bytes);
    if (status == JANG_OK && t->bpe.raw) {
        pre->n_steps--;
    }
    return status;
}

jang_status tok_finish(tok *t, const char *what, const char *unk) {
    int32_t unk_id = unk ? vocab_get(&t->vocab, unk, strlen(unk)) : -1;
    t->bpe.unk = unk_id;
    t->wp = (wp_model){t->ctx, &t->vocab, t->bpe.prefix, t->wp.max_chars, unk_id};
    jang_status status = normalize_added(t);
    if (status == JANG_OK) {
        status = added_finish(&t->added);
    }
    if (status == JANG_OK && t->kind == TOK_BPE) {
        status = finish_bpe(t);
    }
    if (status == JANG_OK && t->kind == TOK_UNIGRAM) {
        status = uni_finish(&t->uni, what);
    }
    t->size = t->vocab.n_ids;
    for (size_t i = 0; i < t->added.n; i++) {
        t->size = t->added.tokens[i].id >= t->size ? t->added.tokens[i].id + 1 : t->size;
    }
    return status;
}

jang_status tok_take_config(tok *t, const char *config, size_t n_config) {
    const char *what = "tokenizer_config.json";
    const json_t *added = NULL;
    jang_status status = JANG_OK;
    if (config) {
        status = json_parse(&t->config, t->ctx, what, config, n_config);
    }
    if (status == JANG_OK) {
        status =
            json_get_object(&added, (json_at){t->ctx, what, t->config}, "added_tokens_decoder");
    }
    return status == JANG_OK && added ? added_read_decoder(&t->added, what, added) : status;
}

jang_status tok_new(tok **out, ctx_t *ctx) {
    tok *t = ctx_zero(ctx, 1, sizeof *t);
    if (!t) {
        return ctx_fail_memory(ctx, sizeof *t);
    }
    t->ctx = ctx;
    pthread_mutex_init(&t->lock, NULL);
    vocab_init(&t->vocab, ctx);
    bpe_init(&t->bpe, ctx, &t->vocab);
    uni_init(&t->uni, ctx, &t->vocab);
    added_init(&t->added, ctx);
    *out = t;
    return JANG_OK;
}

jang_status tok_open(tok **out, ctx_t *ctx, const char *what, const char *json, size_t n_json,
                     const char *config, size_t n_config) {
    tok *t = NULL;
    jang_status status = tok_new(&t, ctx);
    if (status != JANG_OK) {
        return status;
    }
    tok_parts parts = {.have_model = false};
    jsonpull p;
    jsonpull_init(&p, ctx, what, json, n_json);
    status = read_top(t, &p, &parts);
    jsonpull_free(&p);
    if (status == JANG_OK) {
        status = read_small_parts(t, what, &parts);
    }
    if (status == JANG_OK) {
        status = read_added(t, what, &parts);
    }
    if (status == JANG_OK) {
        status = tok_finish(t, what, parts.unk);
    }
    if (status == JANG_OK && config) {
        status = json_parse(&t->config, ctx, "tokenizer_config.json", config, n_config);
    }
    ctx_free(ctx, parts.unk);
    if (status != JANG_OK) {
        tok_close(t);
        return status;
    }
    *out = t;
    return JANG_OK;
}

void tok_close(tok *t) {
    if (!t) {
        return;
    }
    while (t->idle) {
        tok_encoder *e = t->idle;
        t->idle = e->next;
        tok_encoder_free(e);
    }
    pthread_mutex_destroy(&t->lock);
    norm_free(&t->norm);
    pre_free(&t->pre);
    dec_free(&t->dec);
    added_free(&t->added);
    bpe_free(&t->bpe);
    uni_free(&t->uni);
    vocab_free(&t->vocab);
    ctx_free(t->ctx, t->post);
    ctx_free(t->ctx, t->pair.items);
    json_decref(t->config);
    ctx_free(t->ctx, t);
}

/* ---- Looking up ---- */

int32_t tok_size(const tok *t) {
    return t->size;
}

int32_t tok_id(const tok *t, const char *token, size_t n_bytes) {
    int32_t id = vocab_get(&t->added.map, token, n_bytes);
    return id >= 0 ? id : vocab_get(&t->vocab, token, n_bytes);
}

const char *tok_token(const tok *t, int32_t id, size_t *n_bytes) {
    const added_token *a = added_of_id(&t->added, id);
    if (!a) {
        return vocab_text(&t->vocab, id, n_bytes);
    }
    if (n_bytes) {
        *n_bytes = a->normalized_content ? a->n_normalized : a->n_content;
    }
    return a->normalized_content ? a->normalized_content : a->content;
}

bool tok_is_special(const tok *t, int32_t id) {
    const added_token *a = added_of_id(&t->added, id);
    return a && a->special;
}

const json_t *tok_config(const tok *t) {
    return t->config;
}
