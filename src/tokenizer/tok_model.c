/* tok_model.c - the "model" object of tokenizer.json: BPE, Unigram, WordPiece, WordLevel.
 *
 * Members come in any order. Old files have no "type"; then the members tell. */
#include "tokenizer/tok_impl.h"

#include <string.h>

/* What is known of the model so far. */
typedef struct model_parts {
    jsonpull_str merges; /* where they lie, if they come before the vocabulary */
    bool have_vocab, have_list, have_merges, have_max_chars;
    char type[16];
    char **unk;
} model_parts;

static jang_status read_vocab(tok *t, jsonpull *p) {
    /* a line of vocabulary or merges takes about 30 bytes */
    jang_status status = vocab_reserve(&t->vocab, p->n_bytes / 128, p->n_bytes / 16);
    if (status == JANG_OK) {
        status = jsonpull_enter(p, '{');
    }
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        int64_t id = 0;
        status = jsonpull_int(p, &id);
        if (status == JANG_OK && (id < 0 || id >= TOK_MAX_IDS)) {
            status = jsonpull_fail(p, "a token's id is out of range");
        }
        if (status == JANG_OK) {
            status = vocab_add(&t->vocab, p->key.data, p->key.n_bytes, (int32_t)id);
        }
    }
    return status;
}

/* A string member that may be null; an empty one counts as none. */
static jang_status read_affix(tok *t, jsonpull *p, char **out) {
    if (jsonpull_null(p)) {
        return JANG_OK;
    }
    jsonpull_str s;
    jang_status status = jsonpull_string(p, &s);
    if (status == JANG_OK && s.n_bytes > 0 && !*out) {
        *out = ctx_strndup(t->ctx, s.data, s.n_bytes);
        status = *out ? JANG_OK : ctx_fail_memory(t->ctx, s.n_bytes);
    }
    return status;
}

static jang_status read_flag(jsonpull *p, bool *out) {
    return jsonpull_null(p) ? JANG_OK : jsonpull_bool(p, out);
}

static jang_status read_type(jsonpull *p, model_parts *parts) {
    jsonpull_str s;
    jang_status status = jsonpull_string(p, &s);
    if (status == JANG_OK && s.n_bytes < sizeof parts->type) {
        memcpy(parts->type, s.data, s.n_bytes);
        parts->type[s.n_bytes] = 0;
    }
    return status;
}

static jang_status read_merges(tok *t, jsonpull *p, model_parts *parts) {
    parts->have_merges = true;
    if (!parts->have_vocab) {
        return jsonpull_raw(p, &parts->merges); /* their tokens are not known yet */
    }
    return bpe_read_merges(&t->bpe, p);
}

static jang_status read_any_vocab(tok *t, jsonpull *p, model_parts *parts) {
    if (parts->have_vocab) {
        return jsonpull_fail(p, "a second vocabulary");
    }
    parts->have_vocab = true;
    parts->have_list = jsonpull_peek(p) == '[';
    return parts->have_list ? uni_read_vocab(&t->uni, p) : read_vocab(t, p);
}

static jang_status read_unk_id(tok *t, jsonpull *p) {
    int64_t id = -1;
    jang_status status = jsonpull_null(p) ? JANG_OK : jsonpull_int(p, &id);
    if (status == JANG_OK && (id < -1 || id >= TOK_MAX_IDS)) {
        status = jsonpull_fail(p, "unk_id is out of range");
    }
    t->uni.unk = status == JANG_OK ? (int32_t)id : -1;
    return status;
}

static jang_status read_byte_fallback(tok *t, jsonpull *p) {
    bool on = false;
    jang_status status = read_flag(p, &on);
    t->bpe.byte_fallback = t->uni.byte_fallback = on;
    return status;
}

static jang_status read_model_member(tok *t, jsonpull *p, model_parts *parts) {
    if (jsonpull_key_is(p, "type")) {
        return read_type(p, parts);
    }
    if (jsonpull_key_is(p, "vocab")) {
        return read_any_vocab(t, p, parts);
    }
    if (jsonpull_key_is(p, "merges")) {
        return read_merges(t, p, parts);
    }
    if (jsonpull_key_is(p, "unk_token")) {
        return read_affix(t, p, parts->unk);
    }
    if (jsonpull_key_is(p, "unk_id")) {
        return read_unk_id(t, p);
    }
    if (jsonpull_key_is(p, "continuing_subword_prefix")) {
        return read_affix(t, p, &t->bpe.prefix);
    }
    if (jsonpull_key_is(p, "end_of_word_suffix")) {
        return read_affix(t, p, &t->bpe.suffix);
    }
    if (jsonpull_key_is(p, "max_input_chars_per_word")) {
        parts->have_max_chars = true;
        return jsonpull_int(p, &t->wp.max_chars);
    }
    if (jsonpull_key_is(p, "fuse_unk")) {
        return read_flag(p, &t->bpe.fuse_unk);
    }
    if (jsonpull_key_is(p, "byte_fallback")) {
        return read_byte_fallback(t, p);
    }
    if (jsonpull_key_is(p, "ignore_merges")) {
        return read_flag(p, &t->bpe.ignore_merges);
    }
    return jsonpull_skip(p);
}

static jang_status choose_kind(tok *t, const char *what, const model_parts *parts) {
    static const char *const names[] = {[TOK_BPE] = "BPE",
                                        [TOK_UNIGRAM] = "Unigram",
                                        [TOK_WORDPIECE] = "WordPiece",
                                        [TOK_WORDLEVEL] = "WordLevel"};
    if (!parts->type[0]) {
        t->kind = parts->have_list        ? TOK_UNIGRAM
                  : parts->have_merges    ? TOK_BPE
                  : parts->have_max_chars ? TOK_WORDPIECE
                                          : TOK_WORDLEVEL;
        return JANG_OK;
    }
    for (int i = 0; i <= TOK_WORDLEVEL; i++) {
        if (strcmp(parts->type, names[i]) == 0) {
            t->kind = (tok_kind)i;
            return JANG_OK;
        }
    }
    return ctx_fail(
        t->ctx, JANG_ERR_UNSUPPORTED,
        "%s: model type '%s' is unknown; BPE, Unigram, WordPiece and WordLevel are known", what,
        parts->type);
}

static jang_status check_parts(tok *t, const char *what, const model_parts *parts) {
    const char *lack = !parts->have_vocab                          ? "vocab"
                       : t->kind == TOK_BPE && !parts->have_merges ? "merges"
                       : t->kind == TOK_WORDPIECE && !parts->have_max_chars
                           ? "max_input_chars_per_word"
                           : NULL;
    if (lack) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: the model has no %s", what, lack);
    }
    if (parts->have_list != (t->kind == TOK_UNIGRAM)) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: the model's vocab must be %s", what,
                        parts->have_list ? "an object" : "an array");
    }
    return JANG_OK;
}

jang_status tok_read_model(tok *t, jsonpull *p, char **unk) {
    model_parts parts = {.unk = unk};
    jang_status status = jsonpull_enter(p, '{');
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        status = read_model_member(t, p, &parts);
    }
    if (status == JANG_OK) {
        status = choose_kind(t, p->what, &parts);
    }
    if (status == JANG_OK) {
        status = check_parts(t, p->what, &parts);
    }
    if (status == JANG_OK && parts.merges.data && t->kind == TOK_BPE) {
        jsonpull merges;
        jsonpull_init(&merges, t->ctx, p->what, parts.merges.data, parts.merges.n_bytes);
        status = bpe_read_merges(&t->bpe, &merges);
        jsonpull_free(&merges);
    }
    return status;
}
