/* constraint.c - an answer's grammar, which waits while reasoning is open. */
#include "engine/constraint.h"

/* What grammars ask of a tokenizer. */
typedef struct vocab_source {
    const jang_model *m;
    buf text; /* of the token asked for last */
} vocab_source;

/* Tokens that mean nothing in a text (markers of turns, padding) are named by their spelling. */
static const char *token_bytes(void *user, int32_t id, size_t *n_bytes, bool *special) {
    vocab_source *s = user;
    const tok *t = s->m->tokenizer->tok;
    if (id >= tok_size(t)) {
        return NULL;
    }
    buf_clear(&s->text);
    *special = tok_is_special(t, id);
    if (*special) {
        return tok_token(t, id, n_bytes);
    }
    if (tok_token_bytes(t, &s->text, id) != JANG_OK) {
        return NULL;
    }
    *n_bytes = s->text.size;
    return s->text.data;
}

jang_status constraint_vocab_new(grammar_vocab **out, const jang_model *m) {
    if (!m->tokenizer) {
        return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED, "a grammar needs a model with a tokenizer");
    }
    vocab_source source = {.m = m};
    buf_init(&source.text, m->ctx, BUF_NO_LIMIT);
    const grammar_tokens tokens = {
        .n_vocab = model_get_facts(m->model)->n_vocab,
        .token = token_bytes,
        .user = &source,
        .end_ids = m->ends.ids,
        .n_end_ids = m->ends.n,
    };
    jang_status status = grammar_vocab_new(out, m->ctx, &tokens);
    if (status == JANG_OK) {
        status = buf_status(&source.text);
    }
    buf_free(&source.text);
    return status;
}

jang_status constraint_init(constraint *c, grammar *g, grammar_vocab *vocab) {
    return g ? grammar_state_new(&c->state, g, vocab) : JANG_OK;
}

void constraint_free(constraint *c) {
    grammar_state_free(c->state);
    c->state = NULL;
}

jang_status constraint_mask(constraint *c, uint64_t *bits) {
    return grammar_mask(c->state, bits);
}

jang_status constraint_accept(bool *ok, constraint *c, int32_t id) {
    return grammar_accept(c->state, id, ok);
}

bool constraint_is_done(const constraint *c) {
    return grammar_is_done(c->state);
}
