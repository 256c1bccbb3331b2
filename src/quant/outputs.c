/* outputs.c - gradients of the original's own answers by the outputs of its matrices. */
#include "quant/outputs.h"

#include "base/file.h"
#include "base/pool.h"
#include "base/softmax.h"
#include "ops/hostbuf.h"
#include "quant/draw.h"
#include "quant/gptq.h"
#include "quant/tape_model.h"

typedef struct student {
    const output_study *s;
    ctx_t *ctx;
    output_moments *moments;
    tape_model tm;
    uint64_t first; /* number of the sequence's first answer */
    jang_status status;
    double start;
} student;

/* ---- Matrices ---- */

static bool has_moments(const plan_item *item) {
    tensor_role role = item->part->role;
    return item->bits && !item->kept && role != ROLE_EMBEDDING && role != ROLE_LM_HEAD;
}

/* Rows of an item's squares: of stacked experts, those of one. */
static int64_t block_of(const model_part *part) {
    return gptq_block(part->n_dim > 2 ? part->shape[part->n_dim - 2] : part->rows);
}

/* Makes room for what is known of an item's outputs, of which n_expert share the rows. */
static bool make_room(student *st, output_moments *m, int64_t rows, int64_t n_expert) {
    m->block = gptq_block(rows / n_expert);
    m->squares = ctx_zero(st->ctx, (size_t)rows, (size_t)m->block * sizeof(float));
    m->n_tok = ctx_zero(st->ctx, (size_t)n_expert, sizeof *m->n_tok);
    if (m->squares && m->n_tok) {
        return true;
    }
    ctx_free(st->ctx, m->squares);
    ctx_free(st->ctx, m->n_tok);
    st->status = ctx_fail_memory(st->ctx, (size_t)(rows * m->block) * sizeof(float));
    *m = (output_moments){0};
    return false;
}

static bool find_matrix(void *user, const ops_weight *w, int expert, tape_matrix *out) {
    student *st = user;
    const char *name = model_weight_name(st->tm.m, w);
    size_t i = name ? plan_find_module(st->s->plan, name) : SIZE_MAX;
    const plan_item *item = i == SIZE_MAX ? NULL : &st->s->plan->items[i];
    int64_t n_expert = w->d.n_expert ? w->d.n_expert : 1, rows = w->d.n_out * n_expert;
    if (!item || !has_moments(item) || item->part->rows != rows ||
        item->part->columns != w->d.n_in) {
        return false;
    }
    output_moments *m = &st->moments[i];
    if (!m->squares && !make_room(st, m, rows, n_expert)) {
        return false;
    }
    int64_t at = expert < 0 ? 0 : expert;
    *out = (tape_matrix){.moments = m->squares + at * w->d.n_out * m->block,
                         .block = m->block,
                         .n_tok = m->n_tok + at};
    return true;
}

/* ---- One sequence ---- */

typedef struct answer_job {
    float *logits; /* become the gradient of -log p(answer) */
    int32_t n_vocab;
    uint64_t first; /* number of an answer */
} answer_job;

/* Draws an answer by the model's probabilities p; the gradient is p, less 1 at the answer. */
static void answer(void *arg, int task, int thread) {
    (void)thread;
    const answer_job *j = arg;
    float *p = j->logits + (int64_t)task * j->n_vocab;
    softmax(p, p, j->n_vocab);
    double goal = draw_chance(0, 0, j->first + (uint64_t)task);
    p[draw_token(p, j->n_vocab, goal)] -= 1;
}

static void answer_rows(void *user, int32_t first, int32_t n, float *logits) {
    const student *st = user;
    answer_job j = {logits, model_get_facts(st->tm.m)->n_vocab, st->first + (uint64_t)first};
    pool_run(ctx_pool(st->ctx), answer, &j, n);
}

/* The turn number `turn` to go back from a sequence. */
static jang_status run_sequence(student *st, size_t turn) {
    const output_study *s = st->s;
    size_t n = (size_t)s->n_seq;
    st->first = turn * n;
    const int32_t *ids = s->ids + turn % s->n_seqs * n;
    jang_status status = tape_model_run(&st->tm, ids, true, true, answer_rows, st);
    return status == JANG_OK ? st->status : status;
}

/* ---- The whole ---- */

static jang_status report(const student *st, size_t turn, size_t n_turns) {
    const output_study *s = st->s;
    if (!s->on_progress) {
        return JANG_OK;
    }
    uint64_t total = checkpoint_bytes(s->run);
    jang_progress p = {"gradients of outputs", total / n_turns * turn, total,
                       clock_seconds() - st->start};
    return s->on_progress(s->user, &p)
               ? JANG_OK
               : ctx_fail(st->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
}

uint64_t outputs_bytes(const quant_plan *plan, int32_t n_seq) {
    uint64_t n = 0, moments = 0, experts = 0;
    int64_t n_embd = 1;
    for (size_t i = 0; i < plan->n_items; i++) {
        const model_part *part = plan->items[i].part;
        n += (uint64_t)part->params;
        experts += part->n_dim == 3 ? (uint64_t)part->params : 0; /* are widened */
        moments += has_moments(&plan->items[i]) ? (uint64_t)(part->rows * block_of(part)) : 0;
        n_embd = part->role == ROLE_EMBEDDING ? part->columns : n_embd;
    }
    return (moments + experts) * sizeof(float) + tape_model_bytes(n, n_embd, n_seq);
}

jang_status outputs_study(output_moments *moments, const output_study *s) {
    student st = {.s = s, .ctx = s->ctx, .moments = moments, .start = clock_seconds()};
    jang_status status = tape_model_open(&st.tm, s->ctx, s->run, s->n_seq, find_matrix, &st);
    bool writes = status == JANG_OK && tape_model_writes_text(&st.tm);
    if (writes) {
        status = tape_model_make_room(&st.tm);
    }
    size_t n_turns = (size_t)((s->n_tok + s->n_seq - 1) / s->n_seq);
    for (size_t i = 0; writes && i < n_turns && status == JANG_OK; i++) {
        status = report(&st, i, n_turns);
        if (status == JANG_OK) {
            status = run_sequence(&st, i);
        }
    }
    tape_model_close(&st.tm);
    return status;
}

void outputs_free(output_moments *moments, ctx_t *ctx, size_t n_items) {
    for (size_t i = 0; moments && i < n_items; i++) {
        ctx_free(ctx, moments[i].squares);
        ctx_free(ctx, moments[i].n_tok);
    }
    ctx_free(ctx, moments);
}
