/* text.c - jang_tokenizer: text to ids and back, streaming decode. */
#include "engine/engine.h"

#include <string.h>

/* ---- Opening ---- */

/* The names that transformers hands to a template, with the strings they stand for. A token is
 * given as a string or as an object with "content". */
static jang_status read_specials(jang_tokenizer *t) {
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    const json_t *config = tok_config(t->tok);
    t->specials = json_object();
    if (!t->specials) {
        return ctx_fail_memory(t->ctx, 64);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_t *value = json_object_get(config, keys[i]);
        value = json_is_object(value) ? json_object_get(value, "content") : value;
        if (json_is_string(value) && json_object_set(t->specials, keys[i], value) != 0) {
            return ctx_fail_memory(t->ctx, 64);
        }
    }
    return JANG_OK;
}

/* A template that does not compile must not keep the model from running: the error waits until
 * somebody asks for a chat. */
static jang_status read_template(jang_tokenizer *t, checkpoint *c) {
    const char *text;
    size_t n;
    jang_status status = checkpoint_chat_template(&text, &n, c);
    if (status != JANG_OK || !text) {
        return status;
    }
    t->chat_text = ctx_alloc(t->ctx, n + 1);
    if (!t->chat_text) {
        return ctx_fail_memory(t->ctx, n + 1);
    }
    memcpy(t->chat_text, text, n);
    t->chat_text[n] = 0;
    status = tmpl_compile(&t->chat, t->ctx, "chat template", text, n);
    if (status == JANG_ERR_MEMORY || status == JANG_OK) {
        return status;
    }
    t->chat_error = ctx_strdup(t->ctx, jang_context_error(t->ctx));
    return t->chat_error ? JANG_OK : ctx_fail_memory(t->ctx, 1);
}

/* t->tok stays NULL when the model has no vocabulary. */
static jang_status open_vocabulary(jang_tokenizer *t, checkpoint *c) {
    const char *data, *config;
    size_t n, n_config;
    jang_status status = checkpoint_text(&config, &n_config, c, "tokenizer_config.json");
    for (size_t i = 0; status == JANG_OK && i < tok_n_files; i++) {
        const tok_file *file = &tok_files[i];
        status = checkpoint_text(&data, &n, c, file->name);
        if (status == JANG_OK && data) {
            return file->open(&t->tok, t->ctx, file->name, data, n, config, n_config);
        }
    }
    return status;
}

jang_status text_open(jang_tokenizer **out, ctx_t *ctx, checkpoint *c) {
    jang_tokenizer *t = ctx_zero(ctx, 1, sizeof *t);
    if (!t) {
        return ctx_fail_memory(ctx, sizeof *t);
    }
    t->ctx = ctx;
    jang_status status = open_vocabulary(t, c);
    bool found = t->tok != NULL;
    if (status == JANG_OK && found) {
        status = read_specials(t);
    }
    if (status == JANG_OK && found) {
        status = read_template(t, c);
    }
    if (status != JANG_OK || !found) {
        jang_tokenizer_free(t);
        t = NULL;
    }
    if (status == JANG_OK) {
        *out = t;
    }
    return status;
}

jang_status jang_tokenizer_open(jang_tokenizer **out, jang_context *ctx, const char *path) {
    checkpoint *c;
    jang_status status = checkpoint_open(&c, ctx, path, CHECKPOINT_TEXT_ONLY);
    if (status != JANG_OK) {
        return status;
    }
    jang_tokenizer *t;
    status = text_open(&t, ctx, c);
    if (status == JANG_OK && !t) {
        status = ctx_fail(ctx, JANG_ERR_FORMAT,
                          "%s: the model has no tokenizer.json or tokenizer.model", path);
    }
    if (status != JANG_OK) {
        checkpoint_close(c);
        return status;
    }
    t->own = c;
    *out = t;
    return JANG_OK;
}

void jang_tokenizer_free(jang_tokenizer *t) {
    if (t) {
        tok_close(t->tok);
        tmpl_free(t->chat);
        json_decref(t->specials);
        ctx_free(t->ctx, t->chat_text);
        ctx_free(t->ctx, t->chat_error);
        checkpoint_close(t->own);
        ctx_free(t->ctx, t);
    }
}

const char *jang_chat_template(const jang_tokenizer *t) {
    return t->chat_text;
}

int32_t jang_tokenizer_size(const jang_tokenizer *t) {
    return tok_size(t->tok);
}

/* ---- Whole texts ---- */

static unsigned encode_flags(unsigned flags) {
    return (flags & JANG_TOKENIZE_ADD_SPECIAL ? TOK_ADD_SPECIAL : 0) |
           (flags & JANG_TOKENIZE_NO_SPECIAL ? TOK_NO_SPECIAL : 0);
}

/* A caller gets memory to free, also where there are no ids. */
static jang_status never_null(tok_ids *list, ctx_t *ctx) {
    if (!list->ids) {
        list->ids = ctx_alloc(ctx, sizeof *list->ids);
    }
    return list->ids ? JANG_OK : ctx_fail_memory(ctx, sizeof *list->ids);
}

jang_status jang_tokenize(int32_t **ids, size_t *n_ids, jang_tokenizer *t, const char *text,
                          size_t n_bytes, unsigned flags) {
    tok_ids list = {0};
    jang_status status = tok_encode(t->tok, &list, text, n_bytes, encode_flags(flags));
    if (status == JANG_OK) {
        status = never_null(&list, t->ctx);
    }
    if (status != JANG_OK) {
        tok_ids_free(t->ctx, &list);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.n;
    return JANG_OK;
}

jang_status jang_tokenize_pair(int32_t **ids, int32_t **types, size_t *n_ids, jang_tokenizer *t,
                               const char *first, size_t n_first, const char *second,
                               size_t n_second, unsigned flags) {
    tok_ids list = {0}, kinds = {0};
    jang_status status = tok_encode_pair(t->tok, &list, &kinds, first, n_first, second, n_second,
                                         encode_flags(flags));
    if (status == JANG_OK) {
        status = never_null(&list, t->ctx);
    }
    if (status == JANG_OK) {
        status = never_null(&kinds, t->ctx);
    }
    if (status != JANG_OK) {
        tok_ids_free(t->ctx, &list);
        tok_ids_free(t->ctx, &kinds);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.n;
    if (types) {
        *types = kinds.ids;
    } else {
        tok_ids_free(t->ctx, &kinds);
    }
    return JANG_OK;
}

static unsigned text_flags(unsigned flags) {
    return flags & JANG_TEXT_SKIP_SPECIAL ? TOK_SKIP_SPECIAL : 0;
}

jang_status jang_detokenize(char **text, size_t *n_bytes, jang_tokenizer *t, const int32_t *ids,
                            size_t n_ids, unsigned flags) {
    buf b;
    buf_init(&b, t->ctx, BUF_NO_LIMIT);
    jang_status status = tok_decode(t->tok, &b, ids, n_ids, text_flags(flags));
    if (status == JANG_OK) {
        status = buf_take(&b, text, n_bytes);
    }
    buf_free(&b);
    return status;
}

/* ---- Streaming ---- */

struct jang_text {
    ctx_t *ctx;
    tok_stream *stream;
    buf piece;
};

jang_status jang_text_new(jang_text **out, jang_tokenizer *t, unsigned flags) {
    jang_text *text = ctx_zero(t->ctx, 1, sizeof *text);
    if (!text) {
        return ctx_fail_memory(t->ctx, sizeof *text);
    }
    text->ctx = t->ctx;
    buf_init(&text->piece, t->ctx, BUF_NO_LIMIT);
    jang_status status = tok_stream_new(&text->stream, t->tok, text_flags(flags));
    if (status != JANG_OK) {
        ctx_free(t->ctx, text);
        return status;
    }
    *out = text;
    return JANG_OK;
}

void jang_text_free(jang_text *text) {
    if (text) {
        tok_stream_free(text->stream);
        buf_free(&text->piece);
        ctx_free(text->ctx, text);
    }
}

static jang_status hand_out(const char **piece, size_t *n_bytes, jang_text *text,
                            jang_status status) {
    if (status == JANG_OK) {
        status = buf_status(&text->piece);
    }
    if (status == JANG_OK) {
        *piece = text->piece.data;
        *n_bytes = text->piece.size;
    }
    return status;
}

jang_status jang_text_push(const char **piece, size_t *n_bytes, jang_text *text, int32_t id) {
    buf_clear(&text->piece);
    return hand_out(piece, n_bytes, text, tok_stream_push(text->stream, &text->piece, id));
}

jang_status jang_text_finish(const char **piece, size_t *n_bytes, jang_text *text) {
    buf_clear(&text->piece);
    return hand_out(piece, n_bytes, text, tok_stream_finish(text->stream, &text->piece));
}
