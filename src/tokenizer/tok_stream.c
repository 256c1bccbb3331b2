/* tok_stream.c - ids to text, all at once or one by one. */
#include "tokenizer/tok_impl.h"

struct tok_stream {
    const tok *t;
    unsigned flags;
    dec_run run;
};

jang_status tok_stream_new(tok_stream **out, const tok *t, unsigned flags) {
    tok_stream *s = ctx_zero(t->ctx, 1, sizeof *s);
    if (!s) {
        return ctx_fail_memory(t->ctx, sizeof *s);
    }
    s->t = t;
    s->flags = flags;
    dec_run_init(&s->run, t->ctx, &t->dec);
    *out = s;
    return JANG_OK;
}

void tok_stream_free(tok_stream *s) {
    if (s) {
        dec_run_free(&s->run);
        ctx_free(s->t->ctx, s);
    }
}

static jang_status check_id(const tok *t, int32_t id) {
    return id >= 0 && id < t->size ? JANG_OK
                                   : ctx_fail(t->ctx, JANG_ERR_ARGUMENT,
                                              "token id %d is out of range, 0 to %d is allowed",
                                              (int)id, (int)t->size - 1);
}

jang_status tok_stream_push(tok_stream *s, buf *out, int32_t id) {
    jang_status status = check_id(s->t, id);
    size_t n;
    const char *text = status == JANG_OK ? tok_token(s->t, id, &n) : NULL;
    if (!text || ((s->flags & TOK_SKIP_SPECIAL) && tok_is_special(s->t, id))) {
        return status; /* ids without a token say nothing */
    }
    return dec_push(&s->run, out, text, n);
}

jang_status tok_stream_finish(tok_stream *s, buf *out) {
    return dec_finish(&s->run, out);
}

jang_status tok_decode(const tok *t, buf *out, const int32_t *ids, size_t n, unsigned flags) {
    tok_stream *s = NULL;
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        status = check_id(t, ids[i]); /* nothing is appended if one is wrong */
    }
    if (status == JANG_OK) {
        status = tok_stream_new(&s, t, flags);
    }
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        status = tok_stream_push(s, out, ids[i]);
    }
    if (status == JANG_OK) {
        status = tok_stream_finish(s, out);
    }
    tok_stream_free(s);
    return status;
}

jang_status tok_token_bytes(const tok *t, buf *out, int32_t id) {
    jang_status status = check_id(t, id);
    size_t n;
    const char *text = status == JANG_OK ? tok_token(t, id, &n) : NULL;
    if (!text) {
        return status;
    }
    dec_run run;
    dec_run_init(&run, t->ctx, &t->dec);
    status = dec_bytes(&t->dec, &run, out, text, n);
    dec_run_free(&run);
    return status;
}
