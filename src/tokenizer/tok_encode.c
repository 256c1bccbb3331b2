/* tok_encode.c - text to ids: added tokens, normalizer, pre-tokenizer, model, post-processor. */
#include "base/utf8.h"
#include "tokenizer/tok_ids.h"
#include "tokenizer/tok_impl.h"

/* ---- Encoders: working memory, lent to one call at a time ---- */

static jang_status take_word(void *user, const char *word, size_t n) {
    tok_encoder *e = user;
    const tok *t = e->t;
    switch (t->kind) {
    case TOK_BPE:
        return bpe_encode(&t->bpe, &e->bpe, e->out, word, n);
    case TOK_UNIGRAM:
        return uni_encode(&t->uni, &e->uni, e->out, word, n);
    case TOK_WORDPIECE:
        return wp_encode(&t->wp, &e->piece, e->out, word, n);
    case TOK_WORDLEVEL:
        return wp_encode_word(&t->wp, e->out, word, n);
    }
    return JANG_OK;
}

void tok_encoder_free(tok_encoder *e) {
    ctx_t *ctx = e->t->ctx;
    pre_scratch_free(&e->pre);
    norm_scratch_free(&e->norm);
    bpe_scratch_free(&e->bpe);
    uni_scratch_free(&e->uni, ctx);
    buf_free(&e->piece);
    buf_free(&e->repaired);
    ctx_free(ctx, e);
}

/* The tokenizer is const to its users; its list of idle encoders is guarded by the lock. */
static tok *shared(const tok *t) {
    return (tok *)(uintptr_t)t;
}

static jang_status borrow_encoder(tok_encoder **out, const tok *t) {
    pthread_mutex_lock(&shared(t)->lock);
    tok_encoder *e = t->idle;
    if (e) {
        shared(t)->idle = e->next;
    }
    pthread_mutex_unlock(&shared(t)->lock);
    if (!e) {
        e = ctx_zero(t->ctx, 1, sizeof *e);
        if (!e) {
            return ctx_fail_memory(t->ctx, sizeof *e);
        }
        e->t = t;
        pre_scratch_init(&e->pre, t->ctx, &t->pre, take_word, e);
        norm_scratch_init(&e->norm, t->ctx);
        bpe_scratch_init(&e->bpe, t->ctx);
        buf_init(&e->piece, t->ctx, BUF_NO_LIMIT);
        buf_init(&e->repaired, t->ctx, BUF_NO_LIMIT);
    }
    *out = e;
    return JANG_OK;
}

static void return_encoder(tok_encoder *e) {
    tok *t = shared(e->t);
    pthread_mutex_lock(&t->lock);
    e->next = t->idle;
    t->idle = e;
    pthread_mutex_unlock(&t->lock);
}

/* ---- Pieces between added tokens ---- */

/* Takes a stretch of text that holds no added token. */
typedef jang_status (*stretch_fn)(tok_encoder *e, const char *text, size_t n, size_t n_origin);

/* Cuts text at the tokens of a trie, appending their ids and sending the rest to fn. */
static jang_status cut(tok_encoder *e, const tok_trie *trie, const char *text, size_t n,
                       size_t n_origin, stretch_fn fn) {
    added_search search = {0, 0};
    added_match m;
    size_t done = 0;
    jang_status status = JANG_OK;
    bool plain = e->flags & TOK_NO_SPECIAL;
    while (status == JANG_OK && added_next(&e->t->added, trie, text, n, plain, &search, &m)) {
        if (done < m.start) {
            status = fn(e, text + done, m.start - done, n_origin > done ? n_origin - done : 0);
        }
        if (status == JANG_OK) {
            status = tok_ids_put(e->t->ctx, e->out, m.id);
        }
        done = m.end;
    }
    return status == JANG_OK && done < n
               ? fn(e, text + done, n - done, n_origin > done ? n_origin - done : 0)
               : status;
}

static jang_status split_words(tok_encoder *e, const char *text, size_t n, size_t n_origin) {
    return pre_run(&e->pre, text, n, n_origin);
}

static jang_status normalize_stretch(tok_encoder *e, const char *text, size_t n, size_t n_origin) {
    const tok *t = e->t;
    jang_status status = JANG_OK;
    bool dummy = t->pre.n_steps > 0 && t->pre.steps[0].kind == PRE_DUMMY_PREFIX;
    if (n_origin > 0 && !dummy && t->norm.n_steps > 0) { /* what the first character becomes */
        const char *first;
        utf8_read(text, &n_origin);
        status = norm_run(&t->norm, &e->norm, text, n_origin, &first, &n_origin);
    }
    if (status == JANG_OK) {
        status = norm_run(&t->norm, &e->norm, text, n, &text, &n);
    }
    n_origin = n_origin < n ? n_origin : n;
    return status == JANG_OK ? cut(e, &t->added.normal, text, n, n_origin, split_words) : status;
}

static jang_status encode_text(tok_encoder *e, const char *text, size_t n) {
    if (utf8_valid_prefix(text, n) < n) {
        buf_clear(&e->repaired);
        utf8_repair(&e->repaired, text, n);
        text = e->repaired.data;
        n = e->repaired.size;
    }
    jang_status status = buf_status(&e->repaired);
    return status == JANG_OK ? cut(e, &e->t->added.plain, text, n, n > 0, normalize_stretch)
                             : status;
}

/* ---- The whole ---- */

/* Puts the post-processor's ids around the text's, which start at before. */
static jang_status post_process(tok_encoder *e, size_t before) {
    const tok *t = e->t;
    tok_ids *out = e->out;
    bool add = e->flags & TOK_ADD_SPECIAL;
    if (t->n_post_texts == 1 && (!add || t->n_post == 1)) {
        return JANG_OK;
    }
    tok_ids text = {0};
    jang_status status = tok_ids_reserve(t->ctx, &text, out->n - before + 1);
    for (size_t i = before; status == JANG_OK && i < out->n; i++) {
        text.ids[text.n++] = out->ids[i];
    }
    out->n = before;
    for (size_t i = 0; status == JANG_OK && i < t->n_post; i++) {
        if (t->post[i] >= 0) {
            status = add ? tok_ids_put(t->ctx, out, t->post[i]) : JANG_OK;
            continue;
        }
        status = tok_ids_reserve(t->ctx, out, text.n);
        for (size_t k = 0; status == JANG_OK && k < text.n; k++) {
            out->ids[out->n++] = text.ids[k];
        }
    }
    tok_ids_free(t->ctx, &text);
    return status;
}

jang_status tok_encode(const tok *t, tok_ids *out, const char *text, size_t n_bytes,
                       unsigned flags) {
    tok_encoder *e = NULL;
    jang_status status = borrow_encoder(&e, t);
    if (status != JANG_OK) {
        return status;
    }
    size_t before = out->n;
    e->out = out;
    e->flags = flags;
    status = encode_text(e, text, n_bytes);
    if (status == JANG_OK) {
        status = post_process(e, before);
    }
    if (status != JANG_OK) {
        out->n = before;
    }
    return_encoder(e);
    return status;
}

/* ---- Pairs ---- */

static jang_status append_place(tok_ids *ids, tok_ids *types, const tok *t, const tok_ids *text,
                                int32_t id, int32_t type) {
    size_t n = text ? text->n : 1;
    jang_status status = tok_ids_reserve(t->ctx, ids, n);
    if (status == JANG_OK) {
        status = tok_ids_reserve(t->ctx, types, n);
    }
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        ids->ids[ids->n++] = text ? text->ids[i] : id;
        types->ids[types->n++] = type;
    }
    return status;
}

static jang_status put_together(tok_ids *ids, tok_ids *types, const tok *t, const tok_ids *texts,
                                bool add) {
    const tok_pair *p = &t->pair;
    const tok_pair_item plain[] = {{POST_TEXT, 0}, {POST_SECOND_TEXT, p->plain_type}};
    bool as_listed = p->n > 0 && (add || p->always);
    const tok_pair_item *items = as_listed ? p->items : plain;
    size_t n = as_listed ? p->n : 2;
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        const tok_ids *text = items[i].id == POST_TEXT          ? &texts[0]
                              : items[i].id == POST_SECOND_TEXT ? &texts[1]
                                                                : NULL;
        if (text || add) {
            status = append_place(ids, types, t, text, items[i].id, items[i].type);
        }
    }
    return status;
}

jang_status tok_encode_pair(const tok *t, tok_ids *ids, tok_ids *types, const char *first,
                            size_t n_first, const char *second, size_t n_second, unsigned flags) {
    bool add = flags & TOK_ADD_SPECIAL;
    if (add && t->pair.mixed) {
        return ctx_fail(t->ctx, JANG_ERR_UNSUPPORTED,
                        "this tokenizer has several post-processors that add tokens; it cannot "
                        "put two texts together");
    }
    size_t ids_before = ids->n, types_before = types->n;
    tok_ids texts[2] = {{0}, {0}};
    jang_status status = tok_encode(t, &texts[0], first, n_first, flags & ~TOK_ADD_SPECIAL);
    if (status == JANG_OK) {
        status = tok_encode(t, &texts[1], second, n_second, flags & ~TOK_ADD_SPECIAL);
    }
    if (status == JANG_OK) {
        status = put_together(ids, types, t, texts, add);
    }
    if (status != JANG_OK) {
        ids->n = ids_before;
        types->n = types_before;
    }
    tok_ids_free(t->ctx, &texts[0]);
    tok_ids_free(t->ctx, &texts[1]);
    return status;
}
