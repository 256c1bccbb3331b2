/* tune.c - steps along the gradient of the divergence from the original's answers. */
#include "quant/tune_impl.h"

#include "base/file.h"
#include "base/pool.h"
#include "base/softmax.h"
#include "ops/hostbuf.h"
#include "quant/widen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PLACE_RATE 1.5e-3 /* of a step of Adam, in steps of the codes */
#define SCALE_RATE 2e-4
#define FULL_STEPS 1024 /* rates fall with the root of their number beyond these */
#define WARM_UP 20      /* one of so many steps is before the full rates */
#define HELD_OUT 16     /* sequences that the original writes and nothing is learnt from */
#define OWN_PASSES 2    /* steps for each sequence of the text, where nobody says how many ... */
#define OWN_MOST 1024   /* ... but no more */

/* ---- Which matrix is in a weight's place ---- */

/* Puts the original's weights into the latents of a weight. */
static bool fill(tuner *u, latent *l, size_t item, const ops_weight *w) {
    int n = w->d.n_expert ? w->d.n_expert : 1;
    size_t size = (size_t)(w->d.n_out * w->d.n_in);
    float *wide = ctx_array(u->ctx, size, sizeof *wide);
    if (!wide) {
        u->status = ctx_fail_memory(u->ctx, size * sizeof *wide);
        return false;
    }
    for (int e = 0; e < n; e++) {
        weight_desc d = w->d.n_expert ? host_expert(w, e) : w->d;
        weight_widen(u->ctx, &d, wide);
        latent_fill(l, u->t->work, item, wide, e * d.n_out, d.n_out);
    }
    ctx_free(u->ctx, wide);
    return true;
}

/* The latents of a weight whose rows are an item's; NULL: it has none. */
static latent *latent_of(tuner *u, const ops_weight *w) {
    for (size_t i = 0; i < u->n_weights; i++) {
        if (u->weights[i].w == w) {
            return u->weights[i].latent;
        }
    }
    const char *name = model_weight_name(u->tm.m, w);
    size_t item = name ? plan_find_module(u->t->plan, name) : SIZE_MAX;
    latent *l = item == SIZE_MAX ? NULL : u->latents[item];
    int64_t n_expert = w->d.n_expert ? w->d.n_expert : 1;
    if (l && (l->item->part->rows != w->d.n_out * n_expert || l->item->part->columns != w->d.n_in ||
              (!l->filled && !fill(u, l, item, w)))) {
        l = NULL;
    }
    tuned_weight *all = ctx_realloc(u->ctx, u->weights, (u->n_weights + 1) * sizeof *all);
    if (!all) {
        u->status = ctx_fail_memory(u->ctx, (u->n_weights + 1) * sizeof *all);
        return NULL;
    }
    u->weights = all;
    all[u->n_weights++] = (tuned_weight){w, l};
    return l;
}

static bool find_matrix(void *user, const ops_weight *w, int expert, tape_matrix *out) {
    latent *l = latent_of(user, w);
    if (!l) {
        return false;
    }
    int64_t at = expert < 0 ? 0 : expert * w->d.n_out * w->d.n_in;
    *out = (tape_matrix){.value = l->value + at, .grad = l->grad + at};
    return true;
}

/* ---- One sequence ---- */

static void keep_wanted(void *user, int32_t first, int32_t n, float *logits) {
    const tuner *u = user;
    size_t n_vocab = (size_t)model_get_facts(u->tm.m)->n_vocab;
    memcpy(u->wanted + (size_t)first * n_vocab, logits, (size_t)n * n_vocab * sizeof *logits);
}

typedef struct loss_job {
    const float *wanted;
    float *logits; /* become their gradient */
    int32_t n_vocab;
    float weight; /* of a row's divergence in the loss */
    double *kl;   /* of a row */
} loss_job;

/* KL of one row, and its gradient by the logits. */
static void lose(void *arg, int task, int thread) {
    (void)thread;
    loss_job *j = arg;
    int64_t at = (int64_t)task * j->n_vocab;
    j->kl[task] = softmax_divergence_back(j->logits + at, j->wanted + at, j->n_vocab, j->weight);
}

static void lose_rows(void *user, int32_t first, int32_t n, float *logits) {
    const tuner *u = user;
    int32_t n_vocab = model_get_facts(u->tm.m)->n_vocab;
    loss_job j = {.wanted = u->wanted + (int64_t)first * n_vocab,
                  .logits = logits,
                  .n_vocab = n_vocab,
                  .weight = 1.0f / (float)u->t->n_seq,
                  .kl = u->kl + first};
    pool_run(ctx_pool(u->ctx), lose, &j, n);
}

/* Adds the divergence of a sequence's answers; learns: and the gradients of its share of a step. */
static jang_status run_sequence(tuner *u, size_t seq, bool learns, double *kl) {
    const int32_t *ids = u->ids + seq * (size_t)u->t->n_seq;
    jang_status status = tape_model_run(&u->tm, ids, false, false, keep_wanted, u);
    if (status == JANG_OK) {
        status = tape_model_run(&u->tm, ids, true, learns, lose_rows, u);
    }
    for (int32_t i = 0; i < u->t->n_seq && status == JANG_OK; i++) {
        *kl += u->kl[i];
    }
    return status == JANG_OK ? u->status : status;
}

/* Mean divergence on the sequences held out. */
static jang_status measure(tuner *u, double *out) {
    double kl = 0;
    jang_status status = JANG_OK;
    for (size_t i = u->n_learnt; i < u->n_seqs && status == JANG_OK; i++) {
        status = run_sequence(u, i, false, &kl);
    }
    *out = kl / (double)(HELD_OUT * u->t->n_seq);
    return status;
}

/* ---- Steps ---- */

jang_status tuner_report(const tuner *u, const char *what, size_t done, size_t total) {
    if (!u->t->on_progress) {
        return JANG_OK;
    }
    double bytes = (double)checkpoint_bytes(u->t->source), part = (double)done / (double)total;
    jang_progress p = {what, (uint64_t)(bytes * part), (uint64_t)bytes, clock_seconds() - u->start};
    return u->t->on_progress(u->t->user, &p)
               ? JANG_OK
               : ctx_fail(u->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
}

/* Warms up, then falls along half a cosine to 0. */
static latent_rates rates_at(int32_t step, int32_t n_steps) {
    double warm = (double)(step + 1) / (1 + (double)n_steps / WARM_UP);
    double fall = 0.5 * (1 + cos(3.14159265358979 * step / n_steps));
    double mean_part = 1 - pow((double)TUNE_MEAN_BETA, step + 1);
    double square_part = 1 - pow((double)TUNE_SQUARE_BETA, step + 1);
    double far = n_steps > FULL_STEPS ? sqrt((double)FULL_STEPS / n_steps) : 1;
    double by = (warm < 1 ? warm : 1) * fall * far / mean_part;
    return (latent_rates){.place = (float)(PLACE_RATE * by),
                          .scale = (float)(SCALE_RATE * by),
                          .square = (float)(1 / square_part)};
}

/* A new order of the sequences to learn from (Fisher-Yates, by a fixed seed). */
static void shuffle(uint32_t *order, size_t n, uint64_t *seed) {
    for (size_t i = n; i > 1; i--) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        size_t k = (size_t)(*seed >> 33) % i;
        uint32_t swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
}

/* One step by the gradient of one sequence. */
static jang_status run_step(tuner *u, int32_t step, size_t seq) {
    double kl = 0;
    jang_status status = run_sequence(u, seq, true, &kl);
    const latent_rates rates = rates_at(step, u->t->n_steps);
    for (size_t i = 0; i < u->t->plan->n_items && status == JANG_OK; i++) {
        if (u->latents[i] && u->latents[i]->filled) {
            latent_step(u->latents[i], &rates);
        }
    }
    char what[80];
    snprintf(what, sizeof what, "tuning, step %d of %d: KL %.4f", step + 1, u->t->n_steps,
             kl / u->t->n_seq);
    return status == JANG_OK ? tuner_report(u, what, (size_t)step, (size_t)u->t->n_steps) : status;
}

static jang_status run_steps(tuner *u) {
    size_t n = u->n_learnt;
    uint32_t *order = ctx_array(u->ctx, n, sizeof *order);
    if (!order) {
        return ctx_fail_memory(u->ctx, n * sizeof *order);
    }
    for (size_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
    }
    uint64_t seed = 1;
    jang_status status = JANG_OK;
    for (int32_t step = 0; step < u->t->n_steps && status == JANG_OK; step++) {
        if ((size_t)step % n == 0) {
            shuffle(order, n, &seed);
        }
        status = run_step(u, step, order[(size_t)step % n]);
    }
    ctx_free(u->ctx, order);
    return status;
}

/* ---- Matrices ---- */

static jang_status make_latents(tuner *u) {
    size_t n = u->t->plan->n_items;
    u->latents = ctx_zero(u->ctx, n + 1, sizeof *u->latents);
    jang_status status = u->latents ? JANG_OK : ctx_fail_memory(u->ctx, n * sizeof *u->latents);
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        work_view v;
        if (work_get(&v, u->t->work, i)) {
            status = latent_make(&u->latents[i], u->ctx, u->t->work, i);
        }
    }
    return status;
}

/* Rounds all, and takes the new matrices if answers are better by them. */
static jang_status take_over(tuner *u, double before) {
    const tuning *t = u->t;
    for (size_t i = 0; i < t->plan->n_items; i++) {
        if (u->latents[i] && u->latents[i]->filled) {
            latent_round(u->latents[i]);
        }
    }
    double after;
    jang_status status = measure(u, &after);
    if (status != JANG_OK) {
        return status;
    }
    bool better = after < before;
    ctx_log(u->ctx, "tuning: KL of held out sequences %.4f before, %.4f after%s", before, after,
            better ? "" : "; nothing is changed");
    for (size_t i = 0; i < t->plan->n_items && status == JANG_OK && better; i++) {
        if (u->latents[i] && u->latents[i]->filled) {
            status = latent_store(u->latents[i], t->work, i);
        }
    }
    return status == JANG_OK ? work_take_next(t->work) : status;
}

/* ---- The whole ---- */

/* As many as make one for each step, with the text's own: those that come round are soon known by
 * heart. */
static size_t n_written(int32_t n_steps, size_t n_own) {
    size_t n = (size_t)n_steps;
    return n > n_own ? n - n_own : 0;
}

int32_t tune_own_steps(size_t n_seqs) {
    size_t most = OWN_MOST / OWN_PASSES;
    return n_seqs < TUNE_LEAST_SEQS ? 0 : OWN_PASSES * (int32_t)(n_seqs < most ? n_seqs : most);
}

uint64_t tune_bytes(const quant_plan *plan, int32_t n_seq) {
    uint64_t n = 0, n_vocab = 0;
    int64_t n_embd = 1;
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        n += item->bits && !item->kept ? (uint64_t)item->part->params : 0;
        if (item->part->role == ROLE_EMBEDDING) {
            n_vocab = (uint64_t)item->part->rows;
            n_embd = item->part->columns;
        }
    }
    return (5 * n + (uint64_t)n_seq * n_vocab) * sizeof(float) + tape_model_bytes(n, n_embd, n_seq);
}

static jang_status make_arrays(tuner *u) {
    const model_facts *f = model_get_facts(u->tm.m);
    size_t n_seq = (size_t)u->t->n_seq, n_vocab = (size_t)f->n_vocab;
    u->n_own = u->t->n_ids / n_seq;
    if (u->n_own < TUNE_LEAST_SEQS) {
        return ctx_fail(u->ctx, JANG_ERR_ARGUMENT,
                        "tuning needs %d sequences of %d tokens of calibration text, but there "
                        "are %zu",
                        TUNE_LEAST_SEQS, u->t->n_seq, u->n_own);
    }
    u->n_learnt = u->n_own + n_written(u->t->n_steps, u->n_own);
    u->n_seqs = u->n_learnt + HELD_OUT;
    bool made = true;
    made &= (u->ids = ctx_zero(u->ctx, u->n_seqs * n_seq, sizeof *u->ids)) != NULL;
    made &= (u->wanted = ctx_array(u->ctx, n_seq, n_vocab * sizeof(float))) != NULL;
    made &= (u->kl = ctx_array(u->ctx, n_seq, sizeof *u->kl)) != NULL;
    if (!made) {
        return ctx_fail_memory(u->ctx, (u->n_seqs + n_vocab) * n_seq * sizeof(float));
    }
    memcpy(u->ids, u->t->ids, u->n_own * n_seq * sizeof *u->ids);
    return JANG_OK;
}

static jang_status open_tuner(tuner *u) {
    const tuning *t = u->t;
    jang_status status = tape_model_open(&u->tm, u->ctx, t->run, t->n_seq, find_matrix, u);
    if (status == JANG_OK && !tape_model_writes_text(&u->tm)) {
        return ctx_fail(u->ctx, JANG_ERR_UNSUPPORTED,
                        "a %s model is not tuned, since it writes no text",
                        model_get_family(u->tm.m));
    }
    if (status == JANG_OK) {
        status = make_arrays(u);
    }
    return status == JANG_OK ? tape_model_make_room(&u->tm) : status;
}

static void close_tuner(tuner *u) {
    for (size_t i = 0; u->latents && i < u->t->plan->n_items; i++) {
        latent_free(u->latents[i]);
    }
    void *all[] = {u->latents, u->weights, u->ids, u->wanted, u->kl};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(u->ctx, all[i]);
    }
    tape_model_close(&u->tm);
}

jang_status tune(const tuning *t) {
    if (work_took_next(t->work)) {
        return JANG_OK; /* an earlier, killed run came so far */
    }
    tuner *u = ctx_zero(t->ctx, 1, sizeof *u);
    if (!u) {
        return ctx_fail_memory(t->ctx, sizeof *u);
    }
    u->t = t;
    u->ctx = t->ctx;
    u->start = clock_seconds();
    double before = 0;
    jang_status status = tuner_finish_matrices(t);
    if (status == JANG_OK) {
        status = open_tuner(u);
    }
    if (status == JANG_OK) {
        size_t n = u->n_own * (size_t)t->n_seq;
        status = tuner_write_text(u, u->ids + n, u->n_seqs - u->n_own);
    }
    if (status == JANG_OK) {
        status = make_latents(u);
    }
    if (status == JANG_OK) {
        status = measure(u, &before);
    }
    if (status == JANG_OK) {
        status = run_steps(u);
    }
    if (status == JANG_OK) {
        status = take_over(u, before);
    }
    if (status == JANG_ERR_UNSUPPORTED && t->optional && u->tm.m &&
        !tape_model_writes_text(&u->tm)) {
        ctx_log(u->ctx, "nothing is tuned: a %s model writes no text", model_get_family(u->tm.m));
        status = JANG_OK;
    }
    close_tuner(u);
    ctx_free(t->ctx, u);
    return status;
}
