/* step.c - one batch: who gets how many rows, and what comes of it.
 *
 * Answers that only lack their last token come first, with one row each (and one for each guess);
 * prompts share what is left of a chunk, in the order of their turns. While others generate, a
 * chunk is cut so that the step takes about twice what it would without. */
#include "engine/embedding.h"
#include "engine/speculation.h"

#include "base/file.h"
#include "base/pool.h"

#include <math.h>
#include <string.h>

#define LEAST_CHUNK 16 /* tokens of prompts in a step, however slow they are */

/* ---- Planning ---- */

static int32_t n_pending(const answer *a) {
    return a->n_ids - a->n_done;
}

static bool generates(const answer *a) {
    return n_pending(a) == 1 && a->n_ids > a->n_prompt;
}

static int32_t chunk_size(const jang_engine *e) {
    bool others = false;
    for (size_t i = 0; i < e->running.n; i++) {
        others = others || generates(e->running.items[i]);
    }
    if (!others || e->costs.decode == 0 || e->costs.prompt_token == 0) {
        return e->o.prefill_chunk;
    }
    double n = e->costs.decode / e->costs.prompt_token;
    return n < LEAST_CHUNK ? LEAST_CHUNK : n > e->o.prefill_chunk ? e->o.prefill_chunk : (int32_t)n;
}

/* Rows whose results are looked at one by one: all of the prompt's. */
static bool wants_all_rows(const answer *a) {
    const jang_request *d = &a->r->d;
    return (d->prompt_logprobs && a->index == 0 && a->n_done < a->n_prompt) ||
           (d->task == JANG_TASK_EMBED && d->pooling == JANG_POOL_MEAN);
}

static void add_out(jang_engine *e, answer *a, int32_t row) {
    a->first_out = a->n_out ? a->first_out : e->desc.n_out;
    a->n_out++;
    e->out[e->desc.n_out++] = row;
}

static void add_to_batch(jang_engine *e, answer *a, int32_t n) {
    batch_desc *d = &e->desc;
    int32_t first = d->n_tok, n_pend = n_pending(a);
    e->seqs[d->n_seq] = (batch_seq){
        .first = first,
        .n_tok = n + a->n_draft,
        .n_past = a->n_done,
        .pages = a->pages,
        .state = a->slot >= 0 ? a->slot : 0,
        .n_known = a->n_form,
    };
    e->batch[d->n_seq++] = a;
    memcpy(e->ids + first, a->ids + a->n_done, (size_t)n * sizeof *e->ids);
    size_t n_rows = (size_t)(n + a->n_draft);
    memset(e->types + first, 0, n_rows * sizeof *e->types);
    if (a->r->d.types && a->n_done + n <= a->n_prompt) {
        memcpy(e->types + first, a->r->d.types + a->n_done, (size_t)n * sizeof *e->types);
    }
    memcpy(e->ids + first + n, a->draft, (size_t)a->n_draft * sizeof *e->ids);
    d->n_tok += n + a->n_draft;
    a->n_rows = n;
    a->n_out = 0;
    bool labels_first = a->r->d.task == JANG_TASK_LABEL && e->model->info.is_encoder;
    bool pools_first =
        (a->r->d.task == JANG_TASK_EMBED && a->r->d.pooling == JANG_POOL_FIRST) || labels_first;
    if (pools_first && a->n_done == 0) {
        add_out(e, a, first);
    }
    for (int32_t i = 0; !pools_first && i < n + a->n_draft; i++) {
        if (wants_all_rows(a) || (n == n_pend && i >= n - 1)) {
            add_out(e, a, first + i);
        }
    }
}

static void plan(jang_engine *e) {
    e->desc = (batch_desc){.ids = e->ids, .seqs = e->seqs, .out = e->out, .types = e->types};
    int32_t chunk = chunk_size(e);
    for (size_t i = 0; i < e->running.n;) {
        answer *a = e->running.items[i];
        int32_t n = n_pending(a);
        if (e->model->info.is_encoder) { /* at once, or with the next step */
            n = n <= chunk || e->desc.n_tok == 0 ? n : 0;
        } else if (!generates(a)) {
            n = sequence_step(e, a, n < chunk ? n : chunk);
        }
        a->n_rows = 0;
        if (n == 0) {
            i++;
            continue;
        }
        if (!schedule_make_room(e, a, a->n_done + n + a->n_draft)) {
            continue; /* it left the list */
        }
        chunk -= generates(a) ? 0 : n;
        add_to_batch(e, a, n);
        i++;
    }
}

/* ---- Drawing ---- */

static void run_draw(void *arg, int task, int thread) {
    jang_engine *e = arg;
    const draw_task *t = &e->draws[task];
    answer_draw(t->a, e->model, &e->pickers[thread], t->logits, t->n_rows);
}

/* Logits of neighbouring rows come from one product: the output matrix is read once for them. */
static jang_status fetch_logits(jang_engine *e) {
    jang_status status = JANG_OK;
    for (int32_t i = 0, end; status == JANG_OK && i < e->n_draws; i = end) {
        const draw_task *t = e->draws;
        int32_t n_rows = t[i].n_rows;
        for (end = i + 1; end < e->n_draws && t[end].row == t[i].row + n_rows; end++) {
            n_rows += t[end].n_rows;
        }
        status = model_logits(e->model->model, t[i].row, n_rows, t[i].logits);
    }
    return status;
}

/* Draws for all that wait for it, on all threads, and tells what came of it. */
static void flush_draws(jang_engine *e) {
    jang_status status = fetch_logits(e);
    if (status == JANG_OK) {
        pool_run(ctx_pool(e->ctx), run_draw, e, e->n_draws);
    }
    double now = clock_seconds();
    for (int32_t i = 0; i < e->n_draws; i++) {
        answer *a = e->draws[i].a;
        if (status != JANG_OK) {
            answer_fail(a, status, jang_context_error(e->ctx));
            continue;
        }
        a->answered = a->answered > 0 ? a->answered : now;
        a->n_done += a->n_accepted;
        a->stats.n_draft += a->n_draft;
        a->stats.n_draft_accepted += a->n_accepted;
        speculation_learn(e, a);
        sequence_publish(e, a);
        event_text(e, a);
    }
    e->n_draws = 0;
    e->n_draw_rows = 0;
}

/* Has tokens drawn from out rows [row, row + n) for a. */
static void add_draw(jang_engine *e, answer *a, int32_t row, int32_t n) {
    if (e->n_draw_rows + n > e->n_logit_rows || e->n_draws == e->o.n_parallel) {
        flush_draws(e);
    }
    float *logits = e->logits + (size_t)e->n_draw_rows * (size_t)e->n_vocab;
    e->draws[e->n_draws++] = (draw_task){a, logits, row, n};
    e->n_draw_rows += n;
}

/* The others of the request begin with the same logits. */
static void draw_forks(jang_engine *e, answer *a, int32_t row) {
    for (size_t i = 0; i < e->running.n; i++) {
        answer *other = e->running.items[i];
        if (other != a && other->r == a->r && other->n_done == other->n_ids) {
            other->n_draft = 0;
            add_draw(e, other, row, 1);
        }
    }
}

static void draw_for(jang_engine *e, answer *a) {
    int32_t n = 1 + a->n_draft, row = a->first_out + a->n_out - n;
    bool is_first = a->index == 0 && !a->r->has_prompt;
    if (a->r->d.n_max == 0) {
        answer_end(a, JANG_FINISH_LENGTH);
        a->answered = clock_seconds();
        return;
    }
    add_draw(e, a, row, n);
    if (is_first) {
        schedule_fork(e, a);
        draw_forks(e, a, row);
    }
}

/* ---- Other results ---- */

/* Log-probabilities of the prompt: each row's logits tell of the token after it. A prompt that is
 * computed again goes on where it was stopped. */
static jang_status tell_prompt(jang_engine *e, answer *a, int32_t n_past) {
    flush_draws(e);
    picker *p = &e->pickers[0];
    int32_t n_top = a->r->d.n_logprobs > 0 ? a->r->d.n_logprobs : 0;
    n_top = n_top < e->n_vocab ? n_top : e->n_vocab;
    if (a->n_told == 0) {
        event_prompt(e, a, a->ids[a->n_told++], NAN, NULL);
    }
    for (int32_t i = a->n_told - 1 - n_past; i < a->n_rows && a->n_told < a->n_prompt; i++) {
        int32_t id = a->ids[a->n_told++];
        jang_status status = model_logits(e->model->model, a->first_out + i, 1, e->logits);
        if (status != JANG_OK) {
            return status;
        }
        double sum = logprobs_top(p->top, n_top, e->logits, e->n_vocab);
        event_prompt(e, a, id, (float)((double)e->logits[id] - sum), p->top);
    }
    return JANG_OK;
}

static jang_status pool_hidden(jang_engine *e, answer *a, int32_t n_past) {
    int32_t n_embd = model_get_facts(e->model->model)->n_embd;
    if (n_past == 0) {
        memset(a->pooled, 0, (size_t)n_embd * sizeof *a->pooled);
        a->n_pooled = 0;
    }
    for (int32_t i = 0; i < a->n_out; i++) {
        jang_status status = model_hidden(e->model->model, a->first_out + i, 1, e->values);
        if (status != JANG_OK) {
            return status;
        }
        for (int32_t j = 0; j < n_embd; j++) {
            a->pooled[j] += (double)e->values[j];
        }
        a->n_pooled++;
    }
    return JANG_OK;
}

static void tell_embedding(jang_engine *e, answer *a) {
    embedding_finish(e->model, a->pooled, a->n_pooled, e->values);
    event_result(e, a, e->values, (size_t)embedding_size(e->model));
    answer_end(a, JANG_FINISH_END);
}

static jang_status tell_labels(jang_engine *e, answer *a) {
    int32_t row = a->first_out + a->n_out - 1;
    jang_status status = model_labels(e->model->model, row, 1, e->values);
    if (status == JANG_OK) {
        event_result(e, a, e->values, (size_t)e->model->info.n_label);
        answer_end(a, JANG_FINISH_END);
    }
    return status;
}

static jang_status tell_choices(jang_engine *e, answer *a) {
    flush_draws(e);
    const jang_request *d = &a->r->d;
    int32_t row = a->first_out + a->n_out - 1;
    jang_status status = model_logits(e->model->model, row, 1, e->logits);
    if (status != JANG_OK) {
        return status;
    }
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < d->n_choices; i++) {
        max = fmax(max, (double)e->logits[d->choices[i]]);
    }
    for (size_t i = 0; i < d->n_choices; i++) {
        sum += exp((double)e->logits[d->choices[i]] - max);
    }
    for (size_t i = 0; i < d->n_choices; i++) {
        e->values[i] = (float)(exp((double)e->logits[d->choices[i]] - max) / sum);
    }
    event_result(e, a, e->values, d->n_choices);
    answer_end(a, JANG_FINISH_END);
    return JANG_OK;
}

/* What an answer's rows of this batch are for. */
static jang_status use_rows(jang_engine *e, answer *a) {
    const jang_request *d = &a->r->d;
    int32_t n_past = a->n_done;
    a->n_done += a->n_rows;
    sequence_publish(e, a);
    sequence_snapshot(e, a);
    bool is_whole = a->n_done == a->n_ids;
    jang_status status = JANG_OK;
    if (d->prompt_logprobs && a->index == 0 && n_past < a->n_prompt && a->n_ids == a->n_prompt) {
        status = tell_prompt(e, a, n_past);
    }
    if (status == JANG_OK && d->task == JANG_TASK_EMBED) {
        status = pool_hidden(e, a, n_past);
    }
    if (status != JANG_OK || !is_whole) {
        return status;
    }
    if (d->task == JANG_TASK_EMBED) {
        tell_embedding(e, a);
        return JANG_OK;
    }
    if (d->task == JANG_TASK_SCORE) {
        return tell_choices(e, a);
    }
    if (d->task == JANG_TASK_LABEL) {
        return tell_labels(e, a);
    }
    draw_for(e, a);
    return JANG_OK;
}

/* ---- A step ---- */

static double blend(double old, double seen) {
    return old == 0 ? seen : 0.8 * old + 0.2 * seen;
}

/* Slower than thought counts at once, faster little by little: a chunk that is too long is felt by
 * all who wait for it. */
static double blend_cautiously(double old, double seen) {
    return old == 0 || seen <= old ? blend(old, seen) : 0.5 * old + 0.5 * seen;
}

static void learn_costs(jang_engine *e, int32_t n_prompt, double seconds) {
    step_costs *c = &e->costs;
    if (n_prompt == 0) {
        c->decode = blend(c->decode, seconds);
        speculation_learn_cost(c, e->desc.n_tok, seconds);
    } else if (e->desc.n_tok == n_prompt) {
        c->prompt_token =
            n_prompt >= LEAST_CHUNK ? blend(c->prompt_token, seconds / n_prompt) : c->prompt_token;
    } else if (c->decode > 0 && seconds > c->decode) {
        c->prompt_token = blend_cautiously(c->prompt_token, (seconds - c->decode) / n_prompt);
    }
}

/* A request that ended takes its answer out of the lists. */
static void finish_ended(jang_engine *e) {
    for (size_t i = e->running.n; i-- > 0;) {
        if (e->running.items[i]->has_ended) {
            schedule_finish(e, e->running.items[i]);
        }
    }
}

static void fail_batch(jang_engine *e, jang_status status) {
    for (int32_t i = 0; i < e->desc.n_seq; i++) {
        answer_fail(e->batch[i], status, jang_context_error(e->ctx));
    }
}

jang_status step_run(jang_engine *e) {
    speculate(e);
    plan(e);
    if (e->desc.n_tok == 0) {
        return JANG_OK;
    }
    double start = clock_seconds();
    int32_t n_prompt = 0;
    for (int32_t i = 0; i < e->desc.n_seq; i++) {
        n_prompt += generates(e->batch[i]) ? 0 : e->batch[i]->n_rows;
    }
    jang_status status = model_step(e->model->model, &e->desc, &e->cache);
    if (status != JANG_OK) {
        fail_batch(e, status);
    }
    for (int32_t i = 0; status == JANG_OK && i < e->desc.n_seq; i++) {
        status = use_rows(e, e->batch[i]);
        if (status != JANG_OK) {
            answer_fail(e->batch[i], status, jang_context_error(e->ctx));
            status = JANG_OK;
        }
    }
    flush_draws(e);
    learn_costs(e, n_prompt, clock_seconds() - start);
    int32_t size = 0;
    while (size < 7 && e->desc.n_seq > 1 << size) {
        size++;
    }
    e->stats.batch_sizes[size]++;
    e->stats.n_steps++;
    e->stats.n_step_answers += (uint64_t)e->desc.n_seq;
    e->stats.n_step_tokens += (uint64_t)e->desc.n_tok;
    finish_ended(e);
    return JANG_OK;
}
