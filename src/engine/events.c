/* events.c - what an engine tells of its requests. */
#include "engine/embedding.h"
#include "engine/serving.h"

#include "base/file.h"

#include <math.h>
#include <string.h>

jang_status events_init(jang_engine *e) {
    buf_init(&e->event_bytes, e->ctx, BUF_NO_LIMIT);
    size_t n = embedding_room(e->model), n_label = (size_t)e->model->info.n_label;
    n = n > n_label ? n : n_label;
    n = n > 1024 ? n : 1024; /* choices */
    e->values = ctx_array(e->ctx, n, sizeof *e->values);
    return e->values ? JANG_OK : ctx_fail_memory(e->ctx, n * sizeof *e->values);
}

void events_free(jang_engine *e) {
    if (e->event_bytes.ctx) {
        buf_free(&e->event_bytes);
    }
    ctx_free(e->ctx, e->event_tokens);
    ctx_free(e->ctx, e->event_tops);
    ctx_free(e->ctx, e->values);
}

static jang_event new_event(const answer *a, jang_event_kind kind) {
    return (jang_event){
        .kind = kind,
        .request = a->r->id,
        .user = a->r->d.user,
        .index = a->index,
        .text = "",
        .stop = -1,
        .end_id = -1,
        .message = "",
    };
}

static void tell(const jang_engine *e, const jang_event *event) {
    if (e->o.on_event) {
        e->o.on_event(e->o.user, event);
    }
}

/* ---- Tokens ---- */

static jang_status reserve(jang_engine *e, size_t n_tokens, size_t n_tops) {
    if (n_tokens > e->tokens_capacity) {
        jang_token *tokens = ctx_realloc(e->ctx, e->event_tokens, 2 * n_tokens * sizeof *tokens);
        if (!tokens) {
            return ctx_fail_memory(e->ctx, 2 * n_tokens * sizeof *tokens);
        }
        e->event_tokens = tokens;
        e->tokens_capacity = 2 * n_tokens;
    }
    if (n_tops > e->tops_capacity) {
        jang_logprob *tops = ctx_realloc(e->ctx, e->event_tops, 2 * n_tops * sizeof *tops);
        if (!tops) {
            return ctx_fail_memory(e->ctx, 2 * n_tops * sizeof *tops);
        }
        e->event_tops = tops;
        e->tops_capacity = 2 * n_tops;
    }
    return JANG_OK;
}

/* Appends a token's own bytes to the event's; bytes is set when all are there. */
static void describe(jang_engine *e, jang_logprob *out, int32_t id, float logprob) {
    size_t before = e->event_bytes.size;
    const jang_tokenizer *t = e->model->tokenizer;
    if (t && id < tok_size(t->tok) && tok_token_bytes(t->tok, &e->event_bytes, id) != JANG_OK) {
        e->event_bytes.size = before;
    }
    *out = (jang_logprob){id, logprob, NULL, e->event_bytes.size - before};
}

static void point_to_bytes(jang_engine *e, size_t n_tokens, size_t n_top) {
    const char *at = e->event_bytes.data;
    for (size_t i = 0; i < n_tokens; i++) {
        jang_token *token = &e->event_tokens[i];
        token->chosen.bytes = at;
        at += token->chosen.n_bytes;
        for (size_t j = 0; j < token->n_top; j++) {
            jang_logprob *top = &e->event_tops[i * n_top + j];
            top->bytes = at;
            at += top->n_bytes;
        }
    }
}

static void describe_all(jang_engine *e, const out_token *tokens, size_t n,
                         const logprob_entry *tops, size_t n_top) {
    buf_clear(&e->event_bytes);
    for (size_t i = 0; i < n; i++) {
        jang_token *token = &e->event_tokens[i];
        describe(e, &token->chosen, tokens[i].id, tokens[i].logprob);
        token->top = n_top ? &e->event_tops[i * n_top] : NULL;
        token->n_top = n_top;
        for (size_t j = 0; j < n_top; j++) {
            const logprob_entry *top = &tops[i * n_top + j];
            describe(e, &e->event_tops[i * n_top + j], top->id, top->logprob);
        }
    }
    point_to_bytes(e, n, n_top);
}

/* ---- Events ---- */

void event_start(jang_engine *e, answer *a) {
    jang_event event = new_event(a, JANG_EVENT_START);
    event.stats = &a->stats;
    tell(e, &event);
}

static jang_status tell_part(jang_engine *e, answer *a, text_part part) {
    size_t n_top = (size_t)a->text.n_top;
    if (part.n_bytes == 0 && part.n_tokens == 0) {
        return JANG_OK;
    }
    jang_status status = reserve(e, part.n_tokens, part.n_tokens * n_top);
    if (status != JANG_OK) {
        return status;
    }
    describe_all(e, a->text.tokens, part.n_tokens, a->text.tops, n_top);
    status = buf_status(&e->event_bytes);
    a->stats.n_generated += (int32_t)part.n_tokens;
    jang_event event = new_event(a, JANG_EVENT_TEXT);
    event.tokens = e->event_tokens;
    event.n_tokens = part.n_tokens;
    event.n_bytes = part.n_bytes;
    /* A text ends with a 0 byte: what is held back stands behind it for this time. */
    char *end = a->text.held.data + part.n_bytes, after = *end;
    *end = 0;
    event.text = a->text.held.data;
    if (status == JANG_OK) {
        tell(e, &event);
    }
    *end = after;
    return status;
}

void event_text(jang_engine *e, answer *a) {
    jang_status status = a->has_ended ? text_out_finish(&a->text) : JANG_OK;
    text_part part = text_out_ready(&a->text, a->has_ended);
    if (status == JANG_OK) {
        status = tell_part(e, a, part);
    }
    if (status != JANG_OK) {
        answer_fail(a, status, jang_context_error(e->ctx));
    }
    text_out_take(&a->text, part);
    if (part.stop >= 0 && a->finish != JANG_FINISH_ERROR) {
        a->has_ended = true;
        a->finish = JANG_FINISH_STOP;
        a->stop = part.stop;
        a->end_id = -1;
    }
}

void event_prompt(jang_engine *e, answer *a, int32_t id, float logprob, const logprob_entry *top) {
    size_t n_top = top ? (size_t)a->text.n_top : 0;
    const out_token token = {id, logprob, 0};
    jang_status status = reserve(e, 1, n_top);
    if (status != JANG_OK) {
        answer_fail(a, status, jang_context_error(e->ctx));
        return;
    }
    describe_all(e, &token, 1, top, n_top);
    jang_event event = new_event(a, JANG_EVENT_PROMPT);
    event.tokens = e->event_tokens;
    event.n_tokens = 1;
    tell(e, &event);
}

void event_result(jang_engine *e, answer *a, const float *values, size_t n) {
    jang_event event = new_event(a, JANG_EVENT_RESULT);
    event.values = values;
    event.n_values = n;
    tell(e, &event);
}

void event_end(jang_engine *e, answer *a) {
    double now = clock_seconds();
    double answered = a->answered > 0 ? a->answered : now;
    if (a->started > 0) {
        a->stats.prompt_seconds = answered - a->started;
        a->stats.generate_seconds = now - answered;
    }
    jang_event event = new_event(a, JANG_EVENT_END);
    event.last = a->r->n_left == 0;
    event.finish = a->finish;
    event.stop = a->stop;
    event.end_id = a->end_id;
    event.status = a->status;
    event.message = a->message;
    event.stats = &a->stats;
    tell(e, &event);
}
