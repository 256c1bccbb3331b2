/* tune_text.c - text that a model writes by itself, for it to be tuned by. */
#include "quant/tune_impl.h"

#include "base/pool.h"
#include "base/softmax.h"
#include "quant/draw.h"

#include <string.h>

#define WRITERS 128  /* sequences written at once */
#define BEGINNING 16 /* tokens of each that are taken from the text */

typedef struct writing {
    tuner *u;
    int32_t *ids; /* [WRITERS, n_seq] */
    int32_t *pages;
    int32_t n, at; /* sequences; tokens of each that are there */
    float *logits; /* [WRITERS, n_vocab] */
    uint64_t seed;
} writing;

/* The next token of a row, drawn by the model's probabilities. */
static void draw(void *arg, int task, int thread) {
    (void)thread;
    const writing *w = arg;
    int32_t n_vocab = model_get_facts(w->u->tm.m)->n_vocab, n_seq = w->u->t->n_seq;
    float *p = w->logits + (int64_t)task * n_vocab;
    softmax(p, p, n_vocab);
    double goal = draw_chance(w->seed, (uint64_t)task, (uint64_t)w->at);
    w->ids[task * n_seq + w->at] = draw_token(p, n_vocab, goal);
}

/* Computes the tokens from..at-1 of all sequences and draws the next. */
static jang_status write_step(writing *w, const model_cache *cache, int32_t from) {
    tuner *u = w->u;
    int32_t n_tok = w->at - from, n_seq = u->t->n_seq;
    int32_t n_pages = (n_seq + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    batch_seq seqs[WRITERS];
    int32_t ids[WRITERS * BEGINNING], out[WRITERS];
    for (int32_t s = 0; s < w->n; s++) {
        memcpy(ids + s * n_tok, w->ids + s * n_seq + from, (size_t)n_tok * sizeof *ids);
        seqs[s] = (batch_seq){.first = s * n_tok,
                              .n_tok = n_tok,
                              .n_past = from,
                              .pages = w->pages + s * n_pages,
                              .state = s};
        out[s] = (s + 1) * n_tok - 1;
    }
    const batch_desc b = {
        .n_tok = w->n * n_tok, .ids = ids, .n_seq = w->n, .seqs = seqs, .n_out = w->n, .out = out};
    jang_status status = model_step(u->tm.m, &b, cache);
    if (status == JANG_OK) {
        status = model_logits(u->tm.m, 0, w->n, w->logits);
    }
    if (status == JANG_OK) {
        pool_run(ctx_pool(u->ctx), draw, w, w->n);
    }
    return status;
}

/* The beginning of a sequence: some place of the text's. */
static void begin(writing *w, size_t number, int32_t row) {
    tuner *u = w->u;
    size_t n_seq = (size_t)u->t->n_seq;
    size_t places = n_seq > BEGINNING ? n_seq - BEGINNING : 1;
    size_t at = (size_t)(draw_chance(7, number, 0) * (double)places);
    const int32_t *from = u->ids + number % u->n_own * n_seq + at;
    memcpy(w->ids + (size_t)row * n_seq, from, BEGINNING * sizeof *from);
}

static jang_status write_all(writing *w, size_t n_seqs, int32_t *ids, const model_cache *cache) {
    jang_status status = JANG_OK;
    size_t n_seq = (size_t)w->u->t->n_seq;
    for (size_t at = 0; at < n_seqs && status == JANG_OK; at += WRITERS) {
        w->n = n_seqs - at < WRITERS ? (int32_t)(n_seqs - at) : WRITERS;
        w->seed = at;
        for (int32_t s = 0; s < w->n; s++) {
            begin(w, at + (size_t)s, s);
        }
        w->at = BEGINNING;
        status = write_step(w, cache, 0);
        while (status == JANG_OK && ++w->at < (int32_t)n_seq) {
            status = write_step(w, cache, w->at - 1);
        }
        memcpy(ids + at * n_seq, w->ids, (size_t)w->n * n_seq * sizeof *ids);
        if (status == JANG_OK) {
            status = tuner_report(w->u, "writing text to tune by", at, n_seqs);
        }
    }
    return status;
}

static jang_status make_room(writing *w, model_cache *cache) {
    tuner *u = w->u;
    model *m = u->tm.m;
    size_t n_seq = (size_t)u->t->n_seq, n_vocab = (size_t)model_get_facts(m)->n_vocab;
    int32_t n_pages = WRITERS * ((u->t->n_seq + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS);
    w->ids = ctx_array(u->ctx, WRITERS * n_seq, sizeof *w->ids);
    w->logits = ctx_array(u->ctx, WRITERS * n_vocab, sizeof *w->logits);
    w->pages = ctx_array(u->ctx, (size_t)n_pages, sizeof *w->pages);
    if (!w->ids || !w->logits || !w->pages) {
        return ctx_fail_memory(u->ctx, WRITERS * n_vocab * sizeof(float));
    }
    for (int32_t i = 0; i < n_pages; i++) {
        w->pages[i] = i;
    }
    jang_status status = model_reserve(m, WRITERS * BEGINNING);
    if (status == JANG_OK) {
        status = model_cache_new(cache, m, KV_F16);
    }
    return status == JANG_OK ? model_cache_grow(cache, m, n_pages, WRITERS) : status;
}

jang_status tuner_write_text(tuner *u, int32_t *ids, size_t n_seqs) {
    writing w = {.u = u};
    model_cache cache = {0};
    jang_status status = make_room(&w, &cache);
    if (status == JANG_OK) {
        tape_use_matrices(u->tm.tape, false);
        status = write_all(&w, n_seqs, ids, &cache);
    }
    model_cache_free(&cache, u->tm.m);
    ctx_free(u->ctx, w.ids);
    ctx_free(u->ctx, w.logits);
    ctx_free(u->ctx, w.pages);
    return status;
}
