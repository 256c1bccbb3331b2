/* session.c - jang_session: one sequence, its pages of keys and values, its last logits. */
#include "engine/session.h"

#include <string.h>

jang_session_options jang_session_options_default(void) {
    return (jang_session_options){.n_batch = 512};
}

/* An input's last pass is cut at a page border, so that there is a copy of the state not far from
 * its end, only if the border comes after so many tokens: cutting costs a pass over the weights. */
#define LAST_CUT 192

/* ---- Life ---- */

static jang_status check_options(jang_session_options *o, const jang_model *m) {
    int32_t limit = model_get_facts(m->model)->n_context;
    if (!m->info.writes) {
        return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: this %s model writes no text; it embeds (jang embed, jang serve)",
                        m->path, m->info.family);
    }
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
    if ((unsigned)o->kv_type > JANG_KV_Q5) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "kv_type %d is unknown", (int)o->kv_type);
    }
    return JANG_OK;
}

static uint64_t state_bytes(const model *m) {
    const model_facts *f = model_get_facts(m);
    uint64_t n = 0;
    for (int i = 0; i < f->n_state; i++) {
        n += (uint64_t)f->state_sizes[i] * sizeof(float);
    }
    return n;
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
    snapshots_init(&s->snapshots, state_bytes(m->model));
    kv_type type = (kv_type)o.kv_type; /* the same numbers */
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

/* Slots of state that n_ids tokens may want: their own, and the copies'. */
static int32_t slots_for(const jang_session *s, size_t n_ids) {
    size_t copies = n_ids / OPS_PAGE_TOKENS, max = (size_t)s->snapshots.max;
    return 1 + (int32_t)(copies < max ? copies : max);
}

/* Makes pages and slots for n_ids tokens, half as many pages again as there are to keep growing
 * rare. */
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
    jang_status status =
        model_cache_grow(&s->cache, s->model->model, n, slots_for(s, (size_t)n * OPS_PAGE_TOKENS));
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

/* Opens the pages of the next n tokens; seals those that are full after them. */
static jang_status open_pages(jang_session *s, int32_t n) {
    size_t page = s->n_done / OPS_PAGE_TOKENS, last = (s->n_done + (size_t)n - 1) / OPS_PAGE_TOKENS;
    jang_status status = JANG_OK;
    for (; status == JANG_OK && page <= last; page++) {
        status = model_cache_open_page(&s->cache, s->model->model, (int32_t)page);
    }
    return status;
}

static void seal_pages(jang_session *s, int32_t n) {
    size_t page = s->n_done / OPS_PAGE_TOKENS, end = (s->n_done + (size_t)n) / OPS_PAGE_TOKENS;
    for (; page < end; page++) {
        model_cache_seal_page(&s->cache, s->model->model, (int32_t)page);
    }
}

/* One pass over the n ids that follow those done. logits takes all n rows, or, when NULL, the last
 * row goes to s->logits if last is set. */
static jang_status pass(jang_session *s, int32_t n, bool last, float *logits) {
    model *m = s->model->model;
    batch_seq seq = {.n_tok = n,
                     .n_past = (int32_t)s->n_done,
                     .pages = s->pages,
                     .n_known = (int32_t)s->n_known};
    int32_t last_row = n - 1;
    batch_desc desc = {.n_tok = n, .ids = s->ids + s->n_done, .n_seq = 1, .seqs = &seq};
    desc.n_out = logits ? n : last ? 1 : 0;
    desc.out = logits ? s->all_rows : &last_row;
    jang_status status = open_pages(s, n);
    if (status == JANG_OK) {
        status = model_step(m, &desc, &s->cache);
        seal_pages(s, n);
    }
    if (status == JANG_OK && desc.n_out) {
        status = model_logits(m, 0, desc.n_out, logits ? logits : s->logits);
    }
    return status;
}

/* Only the first n tokens count as computed; of a page that is left behind none do, where pages
 * have a form that they lose when they are full. */
static void cut_done(jang_session *s, size_t n) {
    size_t page = s->n_done / OPS_PAGE_TOKENS;
    if (n >= s->n_done) {
        return;
    }
    if (kv_type_opens(s->cache.type) && n / OPS_PAGE_TOKENS < page) {
        n -= n % OPS_PAGE_TOKENS;
        if (page < (size_t)s->n_pages) {
            model_cache_seal_page(&s->cache, s->model->model, (int32_t)page);
        }
    }
    s->n_done = n;
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

/* For n_todo tokens to compute, of which n_ids are new. */
static jang_status prepare(jang_session *s, size_t n_todo, size_t n_ids, bool all_logits) {
    jang_status status = grow_ids(s, s->n_ids + n_ids);
    if (status == JANG_OK) {
        status = grow_pages(s, s->n_ids + n_ids);
    }
    if (status == JANG_OK && all_logits) {
        status = make_rows(s);
    }
    size_t step = n_todo < (size_t)s->n_batch ? n_todo : (size_t)s->n_batch;
    return status == JANG_OK ? model_reserve(s->model->model, (int32_t)step) : status;
}

/* Tokens of the next pass, of `left` that are to come. */
static int32_t pass_length(const jang_session *s, size_t left) {
    size_t n = left < (size_t)s->n_batch ? left : (size_t)s->n_batch;
    size_t end = s->n_done + n, border = end - end % OPS_PAGE_TOKENS;
    if (!s->cache.state || border <= s->n_done || (n == left && border < s->n_done + LAST_CUT)) {
        return (int32_t)n;
    }
    return (int32_t)(border - s->n_done);
}

/* Copies the state at page borders. */
static void keep_state(jang_session *s) {
    if (s->cache.state && s->n_done % OPS_PAGE_TOKENS == 0 &&
        !snapshots_reach(&s->snapshots, s->n_done)) {
        ops *o = s->model->ops;
        o->table->state_copy(o, s->cache.state, 0, snapshots_add(&s->snapshots, s->n_done));
    }
}

/* Goes back to the last copy of the state that holds no token but those held. */
static void restore_state(jang_session *s) {
    int32_t slot;
    if (s->n_done > s->n_ids) {
        cut_done(s, snapshots_back(&s->snapshots, s->n_ids, &slot));
        if (s->n_done) {
            ops *o = s->model->ops;
            o->table->state_copy(o, s->cache.state, slot, 0);
        }
    }
}

/* Computes what is not done of ids, up to `end`. logits are those from token `first` on. */
static jang_status compute(jang_session *s, size_t first, size_t end, float *logits,
                           session_pause_fn pause, void *user) {
    size_t n_vocab = (size_t)model_get_facts(s->model->model)->n_vocab;
    while (s->n_done < end) {
        bool again = s->n_done < first; /* tokens held before whose state is lost */
        int32_t n = pass_length(s, (again ? first : end) - s->n_done);
        float *rows = logits && !again ? logits + (s->n_done - first) * n_vocab : NULL;
        jang_status status = pass(s, n, !again && s->n_done + (size_t)n == end, rows);
        if (status != JANG_OK) {
            return status;
        }
        s->n_done += (size_t)n;
        s->n_ids = s->n_done > s->n_ids ? s->n_done : s->n_ids;
        keep_state(s);
        if (pause && s->n_done < end && !pause(user)) {
            return JANG_ERR_CANCELLED;
        }
    }
    return JANG_OK;
}

/* RoPE by length: where a sequence passes the border, either way, the keys that it holds are of the
 * other form, and all is computed again, once, as transformers does. */
static void choose_form(jang_session *s, size_t n_ids) {
    int32_t from = model_get_facts(s->model->model)->long_from;
    bool is_long = from && n_ids > (size_t)from;
    cut_done(s, is_long == s->is_long ? s->n_done : 0);
    s->is_long = is_long;
    s->n_known = n_ids;
}

/* After a failure: only the first n_ids tokens count, and of the state nothing. */
static void forget(jang_session *s, size_t n_ids) {
    int32_t slot;
    s->n_ids = n_ids;
    cut_done(s, n_ids);
    s->n_done = s->cache.state ? SIZE_MAX : s->n_done;
    (void)snapshots_back(&s->snapshots, n_ids, &slot);
}

jang_status session_append(jang_session *s, const int32_t *ids, size_t n_ids, float *logits,
                           session_pause_fn pause, void *user) {
    jang_status status = check_append(s, ids, n_ids);
    if (status != JANG_OK || n_ids == 0) {
        return status;
    }
    restore_state(s);
    size_t before = s->n_ids, end = before + n_ids;
    choose_form(s, end);
    size_t n_vocab = (size_t)model_get_facts(s->model->model)->n_vocab;
    status = prepare(s, end - s->n_done, n_ids, logits != NULL);
    if (status == JANG_OK) {
        memcpy(s->ids + before, ids, n_ids * sizeof *ids);
        status = compute(s, before, end, logits, pause, user);
        if (status != JANG_OK && status != JANG_ERR_CANCELLED) {
            forget(s, before);
        }
    }
    if (status != JANG_OK) {
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
    if (!s->cache.state && s->n_done > n_ids) {
        cut_done(s, n_ids);
    }
    int32_t slot; /* copies that hold more must not be taken for those of the tokens to come */
    (void)snapshots_back(&s->snapshots, n_ids, &slot);
    s->n_ids = n_ids;
    return JANG_OK;
}
