/* serving.c - jang_engine: options, life, submission, questions. */
#include "engine/saving.h"
#include "engine/speculation.h"

#include "base/pool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SAVED_BUSY 1 /* pages written to disk in a step, and in one without other work */
#define SAVED_IDLE 8
#define MOST_SNAPSHOTS 256
#define LOGIT_ROWS 32 /* drawn at once, or as many as answers run */

jang_engine_options jang_engine_options_default(void) {
    return (jang_engine_options){
        .n_parallel = 16,
        .n_queue = 256,
        .prefill_chunk = 512,
        .disk_cache_bytes = (uint64_t)10 << 30,
        .lookup = true,
        .n_draft = 8,
    };
}

/* ---- Options ---- */

static uint64_t quarter_of_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGE_SIZE);
    return pages > 0 && bytes > 0 ? (uint64_t)pages * (uint64_t)bytes / 4 : (uint64_t)1 << 30;
}

static jang_status check_options(jang_engine_options *o, const jang_model *m) {
    int32_t limit = model_get_facts(m->model)->n_context;
    o->n_context = o->n_context ? o->n_context : limit;
    o->kv_budget = o->kv_budget ? o->kv_budget : quarter_of_memory();
    if (m->info.is_encoder) { /* nothing outlives a step */
        o->kv_type = JANG_KV_F32;
        o->no_cache = true;
        o->disk_cache = NULL;
        o->lookup = false;
    }
    const struct {
        const char *name;
        int64_t value, min, max;
    } ranges[] = {
        {"n_parallel", o->n_parallel, 1, 1024},
        {"n_queue", o->n_queue, 0, 1 << 20},
        {"n_context", o->n_context, 1, limit},
        {"prefill_chunk", o->prefill_chunk, 1, 1 << 16},
        {"kv_type", (int64_t)o->kv_type, JANG_KV_F16, JANG_KV_Q5},
        {"n_draft", o->n_draft, 1, DRAFT_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max) {
            return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "%s %lld; %lld to %lld is allowed",
                            ranges[i].name, (long long)ranges[i].value, (long long)ranges[i].min,
                            (long long)ranges[i].max);
        }
    }
    return JANG_OK;
}

/* How many snapshots of recurrent state there may be: an eighth of the budget's, but some. */
static void count_snapshots(jang_engine *e) {
    uint64_t n = e->stats.state_bytes ? e->o.kv_budget / 8 / e->stats.state_bytes : 0;
    n = n > MOST_SNAPSHOTS ? MOST_SNAPSHOTS : n;
    e->max_snapshots = e->o.no_cache ? 0 : (int32_t)n;
}

/* Pages that may be open at once: the last of each answer and one that its guesses reach, and those
 * of a chunk of prompts. */
static uint64_t most_open(const jang_engine *e) {
    return 2 * (uint64_t)e->o.n_parallel + (uint64_t)e->o.prefill_chunk / OPS_PAGE_TOKENS + 1;
}

/* How many pages the budget allows, states set aside and what pages take besides while they are
 * open; at least one sequence of two pages. */
static jang_status count_pages(int32_t *n_pages, const jang_engine *e) {
    uint64_t page = e->stats.page_bytes, states = e->stats.state_bytes;
    states *= (uint64_t)e->o.n_parallel + (uint64_t)e->max_snapshots;
    if (page == 0) { /* nothing but states: pages are names only */
        *n_pages = (int32_t)(((int64_t)e->n_context / OPS_PAGE_TOKENS + 1) *
                             (e->o.n_parallel + e->max_snapshots));
        return JANG_OK;
    }
    uint64_t left = e->o.kv_budget > states ? e->o.kv_budget - states : 0;
    uint64_t open = e->stats.open_bytes, n_open = most_open(e), n = left / (page + open);
    n = n < n_open ? n : (left - n_open * open) / page;
    if (n < 2) {
        return ctx_fail(e->ctx, JANG_ERR_ARGUMENT,
                        "kv_budget of %llu bytes; a page of %d tokens has %llu, states %llu, and "
                        "two pages are the least",
                        (unsigned long long)e->o.kv_budget, OPS_PAGE_TOKENS,
                        (unsigned long long)(page + open), (unsigned long long)states);
    }
    *n_pages = n > 1 << 24 ? 1 << 24 : (int32_t)n;
    return JANG_OK;
}

/* ---- Life ---- */

static jang_status make_cache(jang_engine *e) {
    model *m = e->model->model, *draft = e->o.draft ? e->o.draft->model : NULL;
    kv_type type = (kv_type)e->o.kv_type; /* the same numbers */
    /* Its guesses lag behind, so that a page of its may be written to when it is full already. */
    kv_type draft_type = kv_type_opens(type) ? KV_Q8 : type;
    int32_t n_pages = 0;
    jang_status status = model_cache_new(&e->cache, m, type);
    if (status == JANG_OK && draft) {
        status = model_cache_new(&e->draft_cache, draft, draft_type);
    }
    if (status == JANG_OK) {
        e->stats.page_bytes = model_cache_page_bytes(&e->cache, m) +
                              (draft ? model_cache_page_bytes(&e->draft_cache, draft) : 0);
        e->stats.open_bytes = model_cache_open_bytes(&e->cache, m);
        e->stats.state_bytes = model_state_bytes(m);
        count_snapshots(e);
        status = count_pages(&n_pages, e);
    }
    if (status == JANG_OK) {
        page_pool_init(&e->pages, e->ctx, m, &e->cache, n_pages);
        e->pages.draft = draft;
        e->pages.draft_cache = &e->draft_cache;
        e->stats.n_pages_max = n_pages;
        e->secret = page_key_random();
        if (e->cache.state) {
            e->pages.on_forget = sequence_forget_snapshot;
            e->pages.user = e;
        }
        status = saving_open(e);
    }
    return status;
}

static jang_status make_step(jang_engine *e) {
    size_t n_parallel = (size_t)e->o.n_parallel, n_vocab = (size_t)e->n_vocab;
    e->n_rows_max = e->o.prefill_chunk + e->o.n_parallel * (1 + DRAFT_MAX);
    if (e->model->info.is_encoder && e->n_rows_max < e->o.prefill_chunk + e->n_context) {
        e->n_rows_max = e->o.prefill_chunk + e->n_context;
    }
    e->n_logit_rows = e->o.n_parallel > LOGIT_ROWS ? e->o.n_parallel : LOGIT_ROWS;
    size_t n_rows = (size_t)e->n_rows_max;
    e->ids = ctx_array(e->ctx, n_rows, sizeof *e->ids);
    e->types = ctx_array(e->ctx, n_rows, sizeof *e->types);
    e->out = ctx_array(e->ctx, n_rows, sizeof *e->out);
    e->seqs = ctx_array(e->ctx, n_parallel, sizeof *e->seqs);
    e->batch = ctx_array(e->ctx, n_parallel, sizeof *e->batch);
    e->draws = ctx_array(e->ctx, n_parallel, sizeof *e->draws);
    e->free_slots = ctx_array(e->ctx, n_parallel + (size_t)e->max_snapshots, sizeof *e->free_slots);
    e->logits = ctx_array(e->ctx, (size_t)e->n_logit_rows * n_vocab, sizeof *e->logits);
    e->running.items = ctx_array(e->ctx, n_parallel, sizeof *e->running.items);
    e->running.capacity = n_parallel;
    if (!e->ids || !e->types || !e->out || !e->seqs || !e->batch || !e->draws || !e->free_slots ||
        !e->logits || !e->running.items) {
        return ctx_fail_memory(e->ctx, (size_t)e->n_logit_rows * n_vocab * sizeof *e->logits);
    }
    jang_status status = model_reserve(e->model->model, e->n_rows_max);
    return status == JANG_OK && e->o.draft ? model_reserve(e->o.draft->model, e->n_rows_max)
                                           : status;
}

static jang_status make_pickers(jang_engine *e) {
    int n = pool_threads(ctx_pool(e->ctx));
    e->pickers = ctx_zero(e->ctx, (size_t)n, sizeof *e->pickers);
    if (!e->pickers) {
        return ctx_fail_memory(e->ctx, (size_t)n * sizeof *e->pickers);
    }
    jang_status status = JANG_OK;
    for (; status == JANG_OK && e->n_pickers < n; e->n_pickers++) {
        status = picker_init(&e->pickers[e->n_pickers], e->model);
    }
    return status;
}

jang_status jang_engine_new(jang_engine **out, jang_model *m, const jang_engine_options *options) {
    jang_engine_options o = options ? *options : jang_engine_options_default();
    jang_status status = check_options(&o, m);
    if (status == JANG_OK && o.draft) {
        status = speculation_check(m, o.draft);
    }
    if (status != JANG_OK) {
        return status;
    }
    jang_engine *e = ctx_zero(m->ctx, 1, sizeof *e);
    if (!e) {
        return ctx_fail_memory(m->ctx, sizeof *e);
    }
    e->ctx = m->ctx;
    e->model = m;
    e->o = o;
    e->n_context = o.n_context;
    e->n_vocab = model_get_facts(m->model)->n_vocab;
    inbox_init(&e->in, m->ctx, o.n_queue + o.n_parallel);
    status = make_cache(e);
    if (status == JANG_OK) {
        status = make_step(e);
    }
    if (status == JANG_OK) {
        status = make_pickers(e);
    }
    if (status == JANG_OK) {
        status = events_init(e);
    }
    if (status != JANG_OK) {
        jang_engine_free(e);
        return status;
    }
    inbox_publish(&e->in, &e->stats, NULL, 0);
    *out = e;
    return JANG_OK;
}

/* Answers of one request free it with the last of them. */
static void drop_all(jang_engine *e, answer_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        request *r = list->items[i]->r;
        answer_free(list->items[i]);
        if (--r->n_left == 0) {
            request_free(r);
        }
    }
    ctx_free(e->ctx, list->items);
}

void jang_engine_free(jang_engine *e) {
    if (!e) {
        return;
    }
    drop_all(e, &e->running);
    drop_all(e, &e->waiting);
    saving_close(e);
    inbox_free(&e->in);
    for (int i = 0; i < e->n_pickers; i++) {
        picker_free(&e->pickers[i], e->ctx);
    }
    ctx_free(e->ctx, e->pickers);
    events_free(e);
    page_pool_free(&e->pages);
    grammar_vocab_unref(e->vocab);
    model_cache_free(&e->cache, e->model->model);
    if (e->o.draft) {
        model_cache_free(&e->draft_cache, e->o.draft->model);
    }
    void *parts[] = {e->ids,   e->types,      e->out,    e->seqs, e->batch,
                     e->draws, e->free_slots, e->logits, e->slots};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        ctx_free(e->ctx, parts[i]);
    }
    ctx_free(e->ctx, e);
}

/* ---- Requests ---- */

jang_status jang_engine_submit(uint64_t *id, jang_engine *e, const jang_request *r,
                               jang_message *message) {
    jang_message unread;
    message = message ? message : &unread;
    const request_limits limits = {
        .model = e->model,
        .n_context = e->n_context,
        .n_tokens = (int64_t)e->stats.n_pages_max * OPS_PAGE_TOKENS,
    };
    jang_status status = request_check(r, &limits, message);
    if (status != JANG_OK) {
        return status;
    }
    request *copy;
    status = request_new(&copy, e->model, r);
    if (status != JANG_OK) {
        snprintf(message->text, sizeof message->text, "out of memory");
        return status;
    }
    status = inbox_put(&e->in, copy, id);
    if (status != JANG_OK) {
        request_free(copy);
        snprintf(message->text, sizeof message->text, "%d requests are waiting already",
                 (int)e->o.n_queue);
    }
    return status;
}

void jang_engine_cancel(jang_engine *e, uint64_t id) {
    inbox_cancel(&e->in, id);
}

void jang_engine_clear_cache(jang_engine *e) {
    inbox_clear_cache(&e->in);
}

void jang_engine_wake(jang_engine *e) {
    inbox_wake(&e->in);
}

bool jang_engine_wait(jang_engine *e, double seconds) {
    bool busy = e->running.n + e->waiting.n > 0 || (e->disk && e->pages.n_unsaved > 0);
    return busy || inbox_wait(&e->in, seconds);
}

/* ---- Questions ---- */

static jang_slot show(const answer *a, bool runs) {
    bool in_prompt = a->n_done < a->n_prompt;
    return (jang_slot){
        .request = a->r->id,
        .index = a->index,
        .state = !runs       ? JANG_SLOT_WAITING
                 : in_prompt ? JANG_SLOT_PROMPT
                             : JANG_SLOT_GENERATING,
        .n_prompt = a->n_prompt,
        .n_done = in_prompt ? a->n_done : a->n_prompt,
        .n_generated = answer_n_drawn(a),
        .n_max = a->n_limit - a->n_prompt,
    };
}

/* Without memory for all, fewer are shown. */
static size_t collect_slots(jang_engine *e) {
    size_t n = e->running.n + e->waiting.n;
    if (n > e->slots_capacity) {
        jang_slot *slots = ctx_realloc(e->ctx, e->slots, 2 * n * sizeof *slots);
        e->slots = slots ? slots : e->slots;
        e->slots_capacity = slots ? 2 * n : e->slots_capacity;
    }
    n = n < e->slots_capacity ? n : e->slots_capacity;
    for (size_t i = 0; i < n; i++) {
        bool runs = i < e->running.n;
        e->slots[i] = show(runs ? e->running.items[i] : e->waiting.items[i - e->running.n], runs);
    }
    return n;
}

static void publish(jang_engine *e) {
    jang_engine_stats *s = &e->stats;
    s->n_running = (int32_t)e->running.n;
    s->n_pages = e->pages.n;
    s->n_pages_cached = e->pages.n_cached;
    s->n_pages_used = e->pages.n - e->pages.n_cached - e->pages.n_free;
    s->n_evictions = e->pages.n_evictions;
    if (e->disk) {
        s->disk_bytes = disk_cache_bytes(e->disk);
        s->disk_pages = disk_cache_pages(e->disk);
        s->disk_errors = disk_cache_errors(e->disk);
    }
    size_t n_slots = collect_slots(e); /* may move them */
    inbox_publish(&e->in, s, e->slots, n_slots);
}

void jang_engine_get_stats(jang_engine_stats *out, jang_engine *e) {
    pthread_mutex_lock(&e->in.lock);
    *out = e->in.stats;
    out->n_waiting = e->in.n_waiting;
    pthread_mutex_unlock(&e->in.lock);
}

size_t jang_engine_get_slots(jang_slot *out, size_t n_max, jang_engine *e) {
    pthread_mutex_lock(&e->in.lock);
    size_t n = e->in.n_slots;
    for (size_t i = 0; i < n && i < n_max; i++) {
        out[i] = e->in.slots[i];
    }
    pthread_mutex_unlock(&e->in.lock);
    return n;
}

/* ---- Work ---- */

jang_status jang_engine_step(bool *busy, jang_engine *e) {
    jang_status status = schedule_intake(e);
    if (status == JANG_OK) {
        schedule_turn(e);
        schedule_admit(e);
        status = step_run(e);
    }
    bool idle = e->running.n + e->waiting.n == 0;
    bool saves = saving_write_some(e, idle ? SAVED_IDLE : SAVED_BUSY);
    publish(e);
    if (status == JANG_OK) {
        *busy = !idle || saves || inbox_has_more(&e->in);
    }
    return status;
}
