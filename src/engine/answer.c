/* answer.c - one sequence that an engine computes: its life, and how its tokens are drawn. */
#include "engine/answer.h"

#include "engine/embedding.h"

#include <math.h>
#include <string.h>

/* ---- Pickers ---- */

jang_status picker_init(picker *p, const jang_model *m) {
    size_t n = (size_t)model_get_facts(m->model)->n_vocab;
    *p = (picker){.n_vocab = (int32_t)n};
    p->logits = ctx_array(m->ctx, n, sizeof *p->logits);
    p->mask = ctx_array(m->ctx, (n + 63) / 64, sizeof *p->mask);
    p->top = ctx_array(m->ctx, JANG_LOGPROBS_MAX, sizeof *p->top);
    jang_status status = sampler_new(&p->sampler, m->ctx, model_n_drawable(m));
    if (status == JANG_OK && (!p->logits || !p->mask || !p->top)) {
        status = ctx_fail_memory(m->ctx, n * sizeof *p->logits);
    }
    if (status != JANG_OK) {
        picker_free(p, m->ctx);
    }
    return status;
}

void picker_free(picker *p, ctx_t *ctx) {
    sampler_free(p->sampler);
    ctx_free(ctx, p->logits);
    ctx_free(ctx, p->mask);
    ctx_free(ctx, p->top);
    *p = (picker){0};
}

/* ---- Life ---- */

static int32_t length_limit(const request *r, int32_t n_context) {
    int64_t n_prompt = (int64_t)r->d.n_prompt;
    int64_t n = r->d.task != JANG_TASK_GENERATE ? n_prompt
                : r->d.n_max < 0                ? n_context
                                                : n_prompt + r->d.n_max;
    return (int32_t)(n < n_context ? n : n_context);
}

static jang_status make_parts(answer *a, const jang_model *m, grammar_vocab *vocab) {
    size_t n = (size_t)a->n_limit, room = embedding_room(m);
    size_t n_pages = (n + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    a->ids = ctx_array(m->ctx, n, sizeof *a->ids);
    a->pages = ctx_array(m->ctx, n_pages, sizeof *a->pages);
    bool pools = a->r->d.task == JANG_TASK_EMBED;
    a->pooled = pools ? ctx_zero(m->ctx, room, sizeof *a->pooled) : NULL;
    if (!a->ids || !a->pages || (pools && !a->pooled)) {
        return ctx_fail_memory(m->ctx, n * sizeof *a->ids + room * sizeof *a->pooled);
    }
    memcpy(a->ids, a->r->d.prompt, a->r->d.n_prompt * sizeof *a->ids);
    reasoning_init(&a->thinking, m->ctx, &a->r->d.thinking);
    const tok *t = m->tokenizer ? m->tokenizer->tok : NULL;
    jang_status status = text_out_init(&a->text, m->ctx, t, &a->r->d);
    return status == JANG_OK ? constraint_init(&a->constraint, a->r->d.grammar, vocab) : status;
}

jang_status answer_new(answer **out, const jang_model *m, request *r, int32_t index,
                       int32_t n_context, grammar_vocab *vocab) {
    answer *a = ctx_zero(m->ctx, 1, sizeof *a);
    if (!a) {
        return ctx_fail_memory(m->ctx, sizeof *a);
    }
    int32_t n_prompt = (int32_t)r->d.n_prompt;
    *a = (answer){
        .r = r,
        .index = index,
        .n_ids = n_prompt,
        .n_prompt = n_prompt,
        .n_form = n_prompt,
        .n_limit = length_limit(r, n_context),
        .slot = -1,
        .looking = {.right = 0.5, .found = -1},
        .end_id = -1,
        .stop = -1,
        .stats = {.n_prompt = n_prompt},
    };
    jang_status status = make_parts(a, m, vocab);
    if (status != JANG_OK) {
        answer_free(a);
        return status;
    }
    *out = a;
    return JANG_OK;
}

void answer_free(answer *a) {
    if (a) {
        ctx_t *ctx = a->r->ctx;
        text_out_free(&a->text);
        constraint_free(&a->constraint);
        reasoning_free(&a->thinking);
        ctx_free(ctx, a->ids);
        ctx_free(ctx, a->pages);
        ctx_free(ctx, a->pooled);
        ctx_free(ctx, a);
    }
}

void answer_end(answer *a, jang_finish finish) {
    if (!a->has_ended) {
        a->has_ended = true;
        a->finish = finish;
    }
}

void answer_fail(answer *a, jang_status status, const char *message) {
    if (!a->has_ended) {
        a->status = status;
        size_t n = strlen(message);
        n = n < sizeof a->message ? n : sizeof a->message - 1;
        memcpy(a->message, message, n);
        a->message[n] = 0;
    }
    answer_end(a, JANG_FINISH_ERROR);
}

/* ---- Drawing ---- */

/* Tokens of the model's own end, or more. */
static bool is_end(const answer *a, int32_t id) {
    for (size_t i = 0; i < a->r->n_ends; i++) {
        if (a->r->ends[i] == id) {
            return true;
        }
    }
    return false;
}

/* The next of the ids that must come; -1: none. Used up reasoning is closed. */
static int32_t forced_id(answer *a) {
    const jang_thinking *d = &a->r->d.thinking;
    if (a->n_forced == 0 && reasoning_is_over(&a->thinking)) {
        a->forced = d->close_ids;
        a->n_forced = d->n_close_ids;
    }
    if (a->n_forced == 0) {
        return -1;
    }
    a->n_forced--;
    return *a->forced++;
}

static bool is_constrained(const answer *a) {
    return a->constraint.state && !a->thinking.is_open && !a->is_opening;
}

/* What may come: what the grammar allows, and at the very start the marker that opens reasoning. */
static jang_status make_mask(answer *a, picker *p) {
    jang_status status = constraint_mask(&a->constraint, p->mask);
    if (answer_n_drawn(a) == 0 && a->r->n_open_ids) {
        int32_t id = a->r->open_ids[0];
        p->mask[id >> 6] |= (uint64_t)1 << (id & 63);
    }
    return status;
}

/* Draws from logits, which are changed. */
static jang_status pick(int32_t *id, answer *a, picker *p, float *logits) {
    const jang_request *d = &a->r->d;
    bool may_end = !d->ignore_eos && answer_n_drawn(a) >= d->min_tokens;
    const sample_task task = {
        .options = &d->sampling,
        .seed = d->sampling.seed + (uint64_t)a->index,
        .logits = logits,
        .ids = a->ids,
        .n_ids = (size_t)a->n_ids,
        .n_prompt = (size_t)a->n_prompt,
        .mask = is_constrained(a) ? p->mask : NULL,
        .banned = a->r->ends,
        .n_banned = may_end ? 0 : a->r->n_ends,
    };
    if (task.mask) {
        jang_status status = make_mask(a, p);
        if (status != JANG_OK) {
            return status;
        }
    }
    *id = sampler_pick(p->sampler, &task);
    return JANG_OK;
}

/* Adds a token that came to everything that follows the text. */
static jang_status take(answer *a, const jang_model *m, int32_t id, float logprob,
                        const logprob_entry *top) {
    bool may_stop = answer_n_drawn(a) >= a->r->d.min_tokens, constrained = is_constrained(a);
    a->ids[a->n_ids++] = id;
    a->stats.n_thinking += a->thinking.is_open;
    jang_status status = text_out_push(&a->text, id, logprob, top, may_stop);
    bool belongs = true;
    if (status == JANG_OK && constrained) {
        status = constraint_accept(&belongs, &a->constraint, id);
    }
    if (!belongs) { /* only what opens reasoning may be outside the grammar */
        a->is_opening = true;
        a->forced = a->r->open_ids + 1;
        a->n_forced = a->r->n_open_ids - 1;
    }
    if (status == JANG_OK && m->tokenizer) {
        status = reasoning_push(&a->thinking, m->tokenizer->tok, id, !constrained);
    }
    a->is_opening = a->is_opening && !a->thinking.is_open && a->n_forced > 0;
    return status;
}

/* Draws and takes one token, or ends the answer. */
static jang_status draw_one(answer *a, const jang_model *m, picker *p, float *logits) {
    int32_t n_top = a->r->d.n_logprobs, id = forced_id(a);
    double sum = 0;
    float *own = logits;
    jang_status status = JANG_OK;
    if (n_top >= 0) {
        sum = logprobs_top(p->top, n_top < p->n_vocab ? n_top : p->n_vocab, logits, p->n_vocab);
        memcpy(p->logits, logits, (size_t)p->n_vocab * sizeof *logits);
        own = p->logits;
    }
    if (id < 0) {
        status = pick(&id, a, p, own);
        if (status == JANG_OK && (id < 0 || is_end(a, id))) {
            a->end_id = id;
            answer_end(a, JANG_FINISH_END);
        }
    }
    if (status != JANG_OK || a->has_ended) {
        return status;
    }
    status = take(a, m, id, n_top >= 0 ? (float)((double)logits[id] - sum) : NAN, p->top);
    if (status == JANG_OK && is_constrained(a) && constraint_is_done(&a->constraint)) {
        answer_end(a, JANG_FINISH_END);
    }
    if (status == JANG_OK && a->n_ids == a->n_limit) {
        answer_end(a, JANG_FINISH_LENGTH);
    }
    return status;
}

void answer_draw(answer *a, const jang_model *m, picker *p, float *logits, int32_t n_rows) {
    a->n_accepted = 0;
    for (int32_t i = 0; i < n_rows; i++) {
        jang_status status = draw_one(a, m, p, logits + (size_t)i * (size_t)p->n_vocab);
        if (status != JANG_OK) {
            answer_fail(a, status, jang_context_error(m->ctx));
        }
        if (a->has_ended || i == n_rows - 1 || a->ids[a->n_ids - 1] != a->draft[i]) {
            return;
        }
        a->n_accepted++;
    }
}
