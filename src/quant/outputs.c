/* outputs.c - gradients of the original's own answers by the outputs of its matrices. */
#include "quant/outputs.h"

#include "base/file.h"
#include "base/pool.h"
#include "base/softmax.h"
#include "model/model.h"
#include "ops/hostbuf.h"
#include "quant/draw.h"
#include "quant/gptq.h"
#include "quant/tape.h"

#define LOGIT_ROWS 256 /* computed at once */

typedef struct student {
    const output_study *s;
    ctx_t *ctx;
    output_moments *moments;
    ops *o;
    tape *tape;
    model *m;
    model_cache cache;
    float *logits; /* [LOGIT_ROWS, n_vocab] */
    int32_t *pages, *out;
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
    const char *name = model_weight_name(st->m, w);
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

/* The turn number `turn` to go back from a sequence. */
static jang_status run_sequence(student *st, size_t turn) {
    const output_study *s = st->s;
    int32_t n = s->n_seq, n_vocab = model_get_facts(st->m)->n_vocab;
    batch_seq one = {.n_tok = n, .pages = st->pages};
    const batch_desc b = {.n_tok = n,
                          .ids = s->ids + turn % s->n_seqs * (size_t)n,
                          .n_seq = 1,
                          .seqs = &one,
                          .n_out = n,
                          .out = st->out};
    tape_record(st->tape);
    jang_status status = model_step(st->m, &b, &st->cache);
    for (int32_t i = 0; i < n && status == JANG_OK; i += LOGIT_ROWS) {
        int32_t k = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        status = model_logits(st->m, i, k, st->logits);
        answer_job j = {st->logits, n_vocab, turn * (uint64_t)n + (uint64_t)i};
        if (status == JANG_OK) {
            pool_run(ctx_pool(st->ctx), answer, &j, k);
            tape_seed(st->tape, st->logits, (int64_t)k * n_vocab);
        }
    }
    if (status == JANG_OK) {
        status = tape_back(st->tape);
    }
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

static jang_status make_arrays(student *st) {
    int32_t n_seq = st->s->n_seq, n_pages = (n_seq + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    size_t n_vocab = (size_t)model_get_facts(st->m)->n_vocab;
    st->logits = ctx_array(st->ctx, LOGIT_ROWS, n_vocab * sizeof(float));
    st->pages = ctx_array(st->ctx, (size_t)n_pages, sizeof *st->pages);
    st->out = ctx_array(st->ctx, (size_t)n_seq, sizeof *st->out);
    if (!st->logits || !st->pages || !st->out) {
        return ctx_fail_memory(st->ctx, LOGIT_ROWS * n_vocab * sizeof(float));
    }
    for (int32_t i = 0; i < n_pages; i++) {
        st->pages[i] = i;
    }
    for (int32_t i = 0; i < n_seq; i++) {
        st->out[i] = i;
    }
    jang_status status = model_reserve(st->m, n_seq);
    if (status == JANG_OK) {
        status = model_reserve_logits(st->m, LOGIT_ROWS);
    }
    if (status == JANG_OK) {
        status = model_cache_new(&st->cache, st->m, KV_F32);
    }
    return status == JANG_OK ? model_cache_grow(&st->cache, st->m, n_pages, 1) : status;
}

static jang_status open_student(student *st) {
    const ops_options exact = {.exact = true};
    jang_status status = ops_open(&st->o, st->ctx, "cpu", &exact);
    if (status == JANG_OK) {
        status = tape_open(&st->tape, st->o, find_matrix, st, true);
    }
    if (status == JANG_OK) {
        tape_use_matrices(st->tape, true);
        status = model_open(&st->m, st->ctx, st->s->run, st->o);
    }
    return status;
}

static void close_student(student *st) {
    ctx_free(st->ctx, st->logits);
    ctx_free(st->ctx, st->pages);
    ctx_free(st->ctx, st->out);
    if (st->m) {
        model_cache_free(&st->cache, st->m);
        model_close(st->m);
    }
    tape_close(st->tape);
    ops_close(st->o);
}

uint64_t outputs_bytes(const quant_plan *plan, int32_t n_seq) {
    uint64_t n = 0, n_embd = 1, moments = 0, experts = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const model_part *part = plan->items[i].part;
        n += (uint64_t)part->params;
        experts += part->n_dim == 3 ? (uint64_t)part->params : 0; /* are widened */
        moments += has_moments(&plan->items[i]) ? (uint64_t)(part->rows * block_of(part)) : 0;
        n_embd = part->role == ROLE_EMBEDDING ? (uint64_t)part->columns : n_embd;
    }
    return (moments + experts + (uint64_t)n_seq * 2 * n / n_embd) * sizeof(float);
}

jang_status outputs_study(output_moments *moments, const output_study *s) {
    student st = {.s = s, .ctx = s->ctx, .moments = moments, .start = clock_seconds()};
    jang_status status = open_student(&st);
    bool writes =
        status == JANG_OK && !model_get_facts(st.m)->no_output && !model_get_facts(st.m)->whole;
    if (writes) {
        status = make_arrays(&st);
    }
    size_t n_turns = (size_t)((s->n_tok + s->n_seq - 1) / s->n_seq);
    for (size_t i = 0; writes && i < n_turns && status == JANG_OK; i++) {
        status = report(&st, i, n_turns);
        if (status == JANG_OK) {
            status = run_sequence(&st, i);
        }
    }
    close_student(&st);
    return status;
}

void outputs_free(output_moments *moments, ctx_t *ctx, size_t n_items) {
    for (size_t i = 0; moments && i < n_items; i++) {
        ctx_free(ctx, moments[i].squares);
        ctx_free(ctx, moments[i].n_tok);
    }
    ctx_free(ctx, moments);
}
