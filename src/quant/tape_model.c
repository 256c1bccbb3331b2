/* tape_model.c - a model on a tape. */
#include "quant/tape_model.h"

#define LOGIT_ROWS 256 /* computed at once */

jang_status tape_model_open(tape_model *tm, ctx_t *ctx, checkpoint *run, int32_t n_seq,
                            tape_matrix_fn matrix, void *user) {
    const ops_options exact = {.exact = true};
    *tm = (tape_model){.ctx = ctx, .n_seq = n_seq};
    jang_status status = ops_open(&tm->o, ctx, "cpu", &exact);
    if (status == JANG_OK) {
        status = tape_open(&tm->tape, tm->o, matrix, user, true);
    }
    return status == JANG_OK ? model_open(&tm->m, ctx, run, tm->o) : status;
}

void tape_model_close(tape_model *tm) {
    ctx_free(tm->ctx, tm->logits);
    ctx_free(tm->ctx, tm->pages);
    ctx_free(tm->ctx, tm->out);
    if (tm->m) {
        model_cache_free(&tm->cache, tm->m);
        model_close(tm->m);
    }
    tape_close(tm->tape);
    ops_close(tm->o);
}

bool tape_model_writes_text(const tape_model *tm) {
    const model_facts *f = model_get_facts(tm->m);
    return !f->no_output && !f->whole;
}

static jang_status make_arrays(tape_model *tm, int32_t n_pages) {
    size_t n_vocab = (size_t)model_get_facts(tm->m)->n_vocab;
    tm->logits = ctx_array(tm->ctx, LOGIT_ROWS, n_vocab * sizeof *tm->logits);
    tm->pages = ctx_array(tm->ctx, (size_t)n_pages, sizeof *tm->pages);
    tm->out = ctx_array(tm->ctx, (size_t)tm->n_seq, sizeof *tm->out);
    if (!tm->logits || !tm->pages || !tm->out) {
        return ctx_fail_memory(tm->ctx, LOGIT_ROWS * n_vocab * sizeof *tm->logits);
    }
    for (int32_t i = 0; i < n_pages; i++) {
        tm->pages[i] = i;
    }
    for (int32_t i = 0; i < tm->n_seq; i++) {
        tm->out[i] = i;
    }
    return JANG_OK;
}

jang_status tape_model_make_room(tape_model *tm) {
    int32_t n_pages = (tm->n_seq + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    jang_status status = make_arrays(tm, n_pages);
    if (status == JANG_OK) {
        status = model_reserve(tm->m, tm->n_seq);
    }
    if (status == JANG_OK) {
        status = model_reserve_logits(tm->m, LOGIT_ROWS);
    }
    if (status == JANG_OK) {
        status = model_cache_new(&tm->cache, tm->m, KV_F32);
    }
    return status == JANG_OK ? model_cache_grow(&tm->cache, tm->m, n_pages, 1) : status;
}

jang_status tape_model_run(tape_model *tm, const int32_t *ids, bool matrices, bool back,
                           tape_model_fn *fn, void *user) {
    int32_t n = tm->n_seq;
    int64_t n_vocab = model_get_facts(tm->m)->n_vocab;
    const batch_seq one = {.n_tok = n, .pages = tm->pages};
    const batch_desc b = {
        .n_tok = n, .ids = ids, .n_seq = 1, .seqs = &one, .n_out = n, .out = tm->out};
    tape_use_matrices(tm->tape, matrices);
    if (back) {
        tape_record(tm->tape);
    }
    jang_status status = model_step(tm->m, &b, &tm->cache);
    for (int32_t i = 0; i < n && status == JANG_OK; i += LOGIT_ROWS) {
        int32_t k = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        status = model_logits(tm->m, i, k, tm->logits);
        if (status == JANG_OK) {
            fn(user, i, k, tm->logits);
        }
        if (status == JANG_OK && back) {
            tape_seed(tm->tape, tm->logits, k * n_vocab);
        }
    }
    return status == JANG_OK && back ? tape_back(tm->tape) : status;
}

uint64_t tape_model_bytes(uint64_t n, int64_t n_embd, int32_t n_seq) {
    return (uint64_t)n_seq * 2 * n / (uint64_t)n_embd * sizeof(float);
}
