/* session.c - jang_session: one sequence, its pages of keys and values, its last logits. */
#include "engine/session.h"

#include <string.h>

jang_session_options jang_session_options_default(void) {
    return (jang_session_options){.n_batch = 512};
}

/* ---- Life ---- */

static jang_status check_options(jang_session_options *o, const jang_model *m) {
    int32_t limit = model_get_facts(m->model)->n_context;
    if (o->n_context == 0) {
        o->n_context = limit;
    }
    if (o->n_context < 1 || o->n_context > limit) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                        "a context of %d tokens; this model allows 1 to %d", o->n_context, limit);
    }
    if (o->n_batch < 1 || o->n_batch > 1 << 16) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "n_batch %d; 1 to 65536 is allowed", o->n_batch);
    }
    if (o->kv_type != JANG_KV_F16 && o->kv_type != JANG_KV_F32) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "kv_type %d is unknown", (int)o->kv_type);
    }
    return JANG_OK;
}

jang_status jang_session_new(jang_session **out, jang_model *m,
                             const jang_session_options *options) {
    jang_session_options o = options ? *options : jang_session_options_default();
    jang_status status = check_options(&o, m);
    if (status != JANG_OK) {
        return status;
    }
    size_t n_vocab = (size_t)model_get_facts(m->model)->n_vocab;
    jang_session *s = ctx_zero(m->ctx, 1, sizeof *s);
    if (s) {
        s->ctx = m->ctx;
        s->model = m;
        s->n_context = o.n_context;
        s->n_batch = o.n_batch;
        s->logits = ctx_array(m->ctx, n_vocab, sizeof *s->logits);
    }
    if (!s || !s->logits) {
        jang_session_free(s);
        return ctx_fail_memory(m->ctx, n_vocab * sizeof *s->logits);
    }
    kv_type type = o.kv_type == JANG_KV_F32 ? KV_F32 : KV_F16;
    status = model_cache_new(&s->cache, m->model, type);
    if (status != JANG_OK) {
        jang_session_free(s);
        return status;
    }
    *out = s;
    return JANG_OK;
}

void jang_session_free(jang_session *s) {
    if (s) {
        model_cache_free(&s->cache, s->model->model);
        ctx_free(s->ctx, s->pages);
        ctx_free(s->ctx, s->ids);
        ctx_free(s->ctx, s->logits);
        ctx_free(s->ctx, s->all_rows);
        ctx_free(s->ctx, s);
    }
}

/* ---- Growing ---- */

/* Makes pages for n_ids tokens, half as many again as there are to keep growing rare. */
static jang_status grow_pages(jang_session *s, size_t n_ids) {
    int32_t need = (int32_t)((n_ids + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS);
    if (need <= s->n_pages) {
        return JANG_OK;
    }
    int32_t most = (s->n_context + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    int32_t n = s->n_pages + s->n_pages / 2;
    n = n < need ? need : n > most ? most : n;
    int32_t *pages = ctx_realloc(s->ctx, s->pages, (size_t)n * sizeof *pages);
    if (!pages) {
        return ctx_fail_memory(s->ctx, (size_t)n * sizeof *pages);
    }
    s->pages = pages;
    jang_status status = model_cache_grow(&s->cache, s->model->model, n, 1);
    if (status != JANG_OK) {
        return status;
    }
    for (int32_t i = s->n_pages; i < n; i++) {
        pages[i] = i;
    }
    s->n_pages = n;
    return JANG_OK;
}

static jang_status grow_ids(jang_session *s, size_t n_ids) {
    if (n_ids <= s->ids_capacity) {
        return JANG_OK;
    }
    size_t capacity = s->ids_capacity + s->ids_capacity / 2;
    capacity = capacity < n_ids ? n_ids + 64 : capacity;
    int32_t *ids = ctx_realloc(s->ctx, s->ids, capacity * sizeof *ids);
    if (!ids) {
        return ctx_fail_memory(s->ctx, capacity * sizeof *ids);
    }
    s->ids = ids;
    s->ids_capacity = capacity;
    return JANG_OK;
}

static jang_status check_append(jang_session *s, const int32_t *ids, size_t n_ids) {
    int32_t n_vocab = model_get_facts(s->model->model)->n_vocab;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= n_vocab) {
            return ctx_fail(s->ctx, JANG_ERR_ARGUMENT,
                            "token id %d is out of range; the model knows 0 to %d", ids[i],
                            n_vocab - 1);
        }
    }
    if (n_ids > (size_t)s->n_context - s->n_ids) {
        return ctx_fail(s->ctx, JANG_ERR_FULL,
                        "%zu tokens more than the %zu held pass the context of %d", n_ids, s->n_ids,
                        s->n_context);
    }
    return JANG_OK;
}

/* ---- Computing ---- */

/* One pass over n ids that follow those computed so far. logits takes all n rows, or, when NULL,
 * the last row goes to s->logits if last is set. */
static jang_status pass(jang_session *s, const int32_t *ids, int32_t n, bool last, float *logits) {
    model *m = s->model->model;
    batch_seq seq = {.n_tok = n, .n_past = (int32_t)s->n_ids, .pages = s->pages};
    int32_t last_row = n - 1;
    batch_desc desc = {.n_tok = n, .ids = ids, .n_seq = 1, .seqs = &seq};
    desc.n_out = logits ? n : last ? 1 : 0;
    desc.out = logits ? s->all_rows : &last_row;
    jang_status status = model_step(m, &desc, &s->cache);
    if (status == JANG_OK && desc.n_out) {
        status = model_logits(m, 0, desc.n_out, logits ? logits : s->logits);
    }
    return status;
}

/* Row numbers 0 .. n_batch-1, for passes that want all logits. */
static jang_status make_rows(jang_session *s) {
    if (s->all_rows) {
        return JANG_OK;
    }
    s->all_rows = ctx_array(s->ctx, (size_t)s->n_batch, sizeof *s->all_rows);
    if (!s->all_rows) {
        return ctx_fail_memory(s->ctx, (size_t)s->n_batch * sizeof *s->all_rows);
    }
    for (int32_t i = 0; i < s->n_batch; i++) {
        s->all_rows[i] = i;
    }
    return JANG_OK;
}

static jang_status prepare(jang_session *s, size_t n_ids, bool all_logits) {
    jang_status status = grow_ids(s, s->n_ids + n_ids);
    if (status == JANG_OK) {
        status = grow_pages(s, s->n_ids + n_ids);
    }
    if (status == JANG_OK && all_logits) {
        status = make_rows(s);
    }
    size_t step = n_ids < (size_t)s->n_batch ? n_ids : (size_t)s->n_batch;
    return status == JANG_OK ? model_reserve(s->model->model, (int32_t)step) : status;
}

jang_status session_append(jang_session *s, const int32_t *ids, size_t n_ids, float *logits,
                           session_pause_fn pause, void *user) {
    jang_status status = check_append(s, ids, n_ids);
    if (status != JANG_OK || n_ids == 0) {
        return status;
    }
    status = prepare(s, n_ids, logits != NULL);
    size_t before = s->n_ids, n_vocab = (size_t)model_get_facts(s->model->model)->n_vocab;
    for (size_t i = 0; status == JANG_OK && i < n_ids;) {
        size_t left = n_ids - i;
        int32_t n = left < (size_t)s->n_batch ? (int32_t)left : s->n_batch;
        status = pass(s, ids + i, n, (size_t)n == left, logits ? logits + i * n_vocab : NULL);
        if (status == JANG_OK) {
            memcpy(s->ids + s->n_ids, ids + i, (size_t)n * sizeof *ids);
            s->n_ids += (size_t)n;
            i += (size_t)n;
        }
        if (status == JANG_OK && pause && i < n_ids && !pause(user)) {
            return JANG_ERR_CANCELLED;
        }
    }
    if (status != JANG_OK) {
        s->n_ids = before;
        return status;
    }
    if (logits) {
        memcpy(s->logits, logits + (n_ids - 1) * n_vocab, n_vocab * sizeof *logits);
    }
    s->n_logits = s->n_ids;
    return JANG_OK;
}

jang_status jang_session_append(jang_session *s, const int32_t *ids, size_t n_ids, float *logits) {
    return session_append(s, ids, n_ids, logits, NULL, NULL);
}

/* ---- Questions ---- */

const float *jang_session_logits(const jang_session *s) {
    return s->n_ids && s->n_logits == s->n_ids ? s->logits : NULL;
}

size_t jang_session_length(const jang_session *s) {
    return s->n_ids;
}

jang_status jang_session_truncate(jang_session *s, size_t n_ids) {
    if (n_ids > s->n_ids) {
        return ctx_fail(s->ctx, JANG_ERR_ARGUMENT, "truncating to %zu of %zu tokens", n_ids,
                        s->n_ids);
    }
    if (n_ids < s->n_ids) {
        s->n_logits = 0; /* an equal number of other tokens must not pass for those */
    }
    s->n_ids = n_ids;
    return JANG_OK;
}
