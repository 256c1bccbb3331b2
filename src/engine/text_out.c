/* text_out.c - an answer's text on its way out. */
#include "engine/text_out.h"

#include <string.h>

jang_status text_out_init(text_out *t, ctx_t *ctx, const tok *tokenizer, const jang_request *r) {
    *t = (text_out){.ctx = ctx, .stops = r->stop, .n_stops = r->n_stop};
    t->n_top = r->n_logprobs > 0 ? r->n_logprobs : 0;
    buf_init(&t->held, ctx, BUF_NO_LIMIT);
    if (!tokenizer) {
        return JANG_OK;
    }
    return tok_stream_new(&t->stream, tokenizer, r->special_text ? 0 : TOK_SKIP_SPECIAL);
}

void text_out_free(text_out *t) {
    if (t->ctx) {
        tok_stream_free(t->stream);
        buf_free(&t->held);
        ctx_free(t->ctx, t->tokens);
        ctx_free(t->ctx, t->tops);
    }
    *t = (text_out){0};
}

static jang_status grow(text_out *t) {
    size_t n = t->capacity ? 2 * t->capacity : 16, n_top = (size_t)t->n_top;
    out_token *tokens = ctx_realloc(t->ctx, t->tokens, n * sizeof *tokens);
    t->tokens = tokens ? tokens : t->tokens;
    logprob_entry *tops = ctx_realloc(t->ctx, t->tops, (n * n_top + 1) * sizeof *tops);
    t->tops = tops ? tops : t->tops;
    if (!tokens || !tops) {
        return ctx_fail_memory(t->ctx, n * sizeof *tokens + n * n_top * sizeof *tops);
    }
    t->capacity = n;
    return JANG_OK;
}

jang_status text_out_push(text_out *t, int32_t id, float logprob, const logprob_entry *top,
                          bool may_stop) {
    if (t->n_tokens == t->capacity) {
        jang_status status = grow(t);
        if (status != JANG_OK) {
            return status;
        }
    }
    size_t n_top = (size_t)t->n_top;
    if (n_top) {
        memcpy(t->tops + t->n_tokens * n_top, top, n_top * sizeof *top);
    }
    t->tokens[t->n_tokens++] = (out_token){id, logprob, t->n_out + t->held.size};
    jang_status status = t->stream ? tok_stream_push(t->stream, &t->held, id) : JANG_OK;
    if (status == JANG_OK) {
        status = buf_status(&t->held);
    }
    t->watched = may_stop ? t->watched : t->held.size;
    return status;
}

jang_status text_out_finish(text_out *t) {
    if (!t->stream) {
        return JANG_OK;
    }
    jang_status status = tok_stream_finish(t->stream, &t->held);
    return status == JANG_OK ? buf_status(&t->held) : status;
}

/* ---- Stop strings ---- */

/* Where a stop string begins first in the text held, from `watched` on; SIZE_MAX: nowhere. */
static size_t find_stop(const text_out *t, int32_t *which) {
    size_t best = SIZE_MAX;
    const char *from = t->held.data + t->watched;
    for (size_t i = 0; i < t->n_stops; i++) {
        const char *at = memmem(from, t->held.size - t->watched, t->stops[i], strlen(t->stops[i]));
        if (at && (size_t)(at - t->held.data) < best) {
            best = (size_t)(at - t->held.data);
            *which = (int32_t)i;
        }
    }
    return best;
}

/* Bytes at the end of a text that may be the beginning of a stop string. */
static size_t undecided(const char *text, size_t n, const char *stop) {
    size_t n_stop = strlen(stop);
    for (size_t k = n < n_stop - 1 ? n : n_stop - 1; k > 0; k--) {
        if (memcmp(text + n - k, stop, k) == 0) {
            return k;
        }
    }
    return 0;
}

static size_t count_tokens(const text_out *t, size_t n_bytes) {
    size_t n = 0;
    while (n < t->n_tokens && t->tokens[n].at < t->n_out + n_bytes) {
        n++;
    }
    return n;
}

text_part text_out_ready(const text_out *t, bool has_ended) {
    text_part part = {.stop = -1};
    size_t at = find_stop(t, &part.stop);
    if (at != SIZE_MAX) {
        part.n_bytes = at;
        part.n_tokens = count_tokens(t, at);
        return part;
    }
    if (has_ended || !t->stream) {
        return (text_part){t->held.size, t->n_tokens, -1};
    }
    size_t most = 0;
    for (size_t i = 0; i < t->n_stops; i++) {
        size_t k = undecided(t->held.data + t->watched, t->held.size - t->watched, t->stops[i]);
        most = k > most ? k : most;
    }
    part.n_bytes = t->held.size - most;
    part.n_tokens = count_tokens(t, part.n_bytes);
    return part;
}

void text_out_take(text_out *t, text_part part) {
    size_t n_top = (size_t)t->n_top, left = t->n_tokens - part.n_tokens;
    memmove(t->held.data, t->held.data + part.n_bytes, t->held.size - part.n_bytes + 1);
    t->held.size -= part.n_bytes;
    t->watched -= part.n_bytes < t->watched ? part.n_bytes : t->watched;
    t->n_out += part.n_bytes;
    if (part.n_tokens && left) {
        memmove(t->tokens, t->tokens + part.n_tokens, left * sizeof *t->tokens);
        memmove(t->tops, t->tops + part.n_tokens * n_top, left * n_top * sizeof *t->tops);
    }
    t->n_tokens = left;
}
