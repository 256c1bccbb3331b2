/* schedule.c - who runs: intake, admission, preemption, endings.
 *
 * First come, first served, save that a request may be overtaken by one that came so shortly
 * after it that it would have had to wait for the other's prompt: an answer's turn is the time of
 * its submission plus the time its prompt is thought to take. Who lacks pages stops the youngest,
 * which goes back to the queue and is computed again later, without anybody seeing it. */
#include "engine/serving.h"

#include "base/file.h"

#include <string.h>

/* ---- Lists ---- */

jang_status list_insert(answer_list *list, ctx_t *ctx, answer *a) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        answer **items = ctx_realloc(ctx, list->items, capacity * sizeof *items);
        if (!items) {
            return ctx_fail_memory(ctx, capacity * sizeof *items);
        }
        list->items = items;
        list->capacity = capacity;
    }
    size_t at = list->n;
    while (at > 0 && list->items[at - 1]->order > a->order) {
        at--;
    }
    memmove(&list->items[at + 1], &list->items[at], (list->n - at) * sizeof *list->items);
    list->items[at] = a;
    list->n++;
    return JANG_OK;
}

void list_remove(answer_list *list, const answer *a) {
    for (size_t i = 0; i < list->n; i++) {
        if (list->items[i] == a) {
            list->n--;
            memmove(&list->items[i], &list->items[i + 1], (list->n - i) * sizeof *list->items);
            return;
        }
    }
}

/* ---- Endings ---- */

/* What a request held of the places is free once its first answer has computed the prompt. */
static void release_places(jang_engine *e, request *r) {
    if (r->is_started && !r->has_prompt) {
        int32_t n = r->d.task == JANG_TASK_GENERATE ? r->d.n - 1 : 0;
        int32_t most = e->o.n_parallel - 1;
        e->n_held -= n < most ? n : most;
    }
    r->has_prompt = true;
}

static void hold_places(jang_engine *e, const request *r) {
    int32_t n = r->d.task == JANG_TASK_GENERATE ? r->d.n - 1 : 0, most = e->o.n_parallel - 1;
    e->n_held += n < most ? n : most;
}

static void count_end(jang_engine *e, const answer *a) {
    e->stats.n_generated += (uint64_t)a->stats.n_generated;
    e->stats.n_draft += (uint64_t)a->stats.n_draft;
    e->stats.n_draft_accepted += (uint64_t)a->stats.n_draft_accepted;
    e->stats.n_cancelled += a->finish == JANG_FINISH_CANCELLED;
    e->stats.n_failed += a->finish == JANG_FINISH_ERROR;
}

void schedule_finish(jang_engine *e, answer *a) {
    request *r = a->r;
    list_remove(&e->running, a);
    list_remove(&e->waiting, a);
    sequence_release(e, a);
    if (a->index == 0) {
        release_places(e, r);
    }
    r->n_left--;
    count_end(e, a);
    event_end(e, a);
    answer_free(a);
    if (r->n_left == 0) {
        inbox_ended(&e->in, r);
        request_free(r);
    }
}

/* ---- Intake ---- */

static jang_status make_vocab(jang_engine *e, const request *r) {
    return r->d.grammar && !e->vocab ? constraint_vocab_new(&e->vocab, e->model) : JANG_OK;
}

/* The answers of a request that is new; those that cannot be made end at once. */
static jang_status take_in(jang_engine *e, request *r) {
    int32_t n = r->n_left;
    jang_status status = make_vocab(e, r);
    e->stats.n_requests++;
    for (int32_t i = 0; i < n; i++) {
        answer *a = NULL;
        if (status == JANG_OK) {
            status = answer_new(&a, e->model, r, i, e->n_context, e->vocab);
        }
        if (status == JANG_OK) {
            a->order = r->submitted + (double)r->d.n_prompt * e->costs.prompt_token;
            status = list_insert(&e->waiting, e->ctx, a);
        }
        if (status != JANG_OK) {
            answer_free(a);
            answer none = {.r = r, .index = i, .stop = -1, .end_id = -1};
            none.stats.n_prompt = (int32_t)r->d.n_prompt;
            answer_fail(&none, status, jang_context_error(e->ctx));
            r->n_left--;
            e->stats.n_failed++;
            r->has_prompt = r->has_prompt || i == 0;
            event_end(e, &none);
        }
    }
    if (r->n_left == 0) {
        inbox_ended(&e->in, r);
        request_free(r);
    }
    return JANG_OK;
}

static void end_cancelled(jang_engine *e, answer_list *list) {
    for (size_t i = list->n; i-- > 0;) {
        if (i < list->n && inbox_is_cancelled(&e->in, list->items[i]->r)) {
            answer_end(list->items[i], JANG_FINISH_CANCELLED);
            event_text(e, list->items[i]);
            schedule_finish(e, list->items[i]);
        }
    }
}

static void clear_cache(jang_engine *e) {
    e->is_clearing = true;
    page_pool_clear(&e->pages);
    e->is_clearing = false;
    if (e->disk) {
        disk_cache_clear(e->disk);
    }
}

jang_status schedule_intake(jang_engine *e) {
    bool has_cancelled, wants_clear;
    request *next = inbox_take(&e->in, &has_cancelled, &wants_clear);
    while (next) {
        request *r = next;
        next = r->next;
        jang_status status = take_in(e, r);
        if (status != JANG_OK) {
            return status;
        }
    }
    if (has_cancelled) {
        end_cancelled(e, &e->running);
        end_cancelled(e, &e->waiting);
    }
    if (wants_clear) {
        clear_cache(e);
    }
    return JANG_OK;
}

/* ---- Admission ---- */

/* An answer waits for its request's first one, whose prompt it shares. */
static bool may_start(const jang_engine *e, const answer *a) {
    int32_t n = (int32_t)e->running.n + e->n_held;
    bool shares = a->index > 0 && a->stats.n_generated == 0 && a->started <= 0;
    return !(shares && !a->r->has_prompt) && n < e->o.n_parallel;
}

/* Whether there are pages for what it has, and one more for each that runs. */
static bool has_pages(const jang_engine *e, const answer *a) {
    int32_t n = a->n_ids / OPS_PAGE_TOKENS + 1 - a->n_pages;
    int32_t spare = (int32_t)e->running.n;
    return page_pool_available(&e->pages) >= n + spare || e->running.n == 0;
}

static void begin(jang_engine *e, answer *a) {
    a->started = a->started > 0 ? a->started : clock_seconds();
    e->stats.n_hits += (uint64_t)a->n_known;
    e->stats.n_misses += (uint64_t)((a->n_ids - 1) / OPS_PAGE_TOKENS - a->n_known);
    if (!a->r->is_started) {
        a->r->is_started = true;
        hold_places(e, a->r);
        inbox_started(&e->in);
    }
    if (a->index == 0 && a->stats.queue_seconds == 0) {
        a->stats.n_cached = a->n_done;
        a->stats.queue_seconds = a->started - a->r->submitted;
        e->stats.n_prompt += (uint64_t)a->n_prompt;
        e->stats.n_cached += (uint64_t)a->n_done;
        e->stats.n_cached_disk += (uint64_t)a->stats.n_cached_disk;
        event_start(e, a);
    }
}

void schedule_admit(jang_engine *e) {
    for (size_t i = 0; i < e->waiting.n;) {
        answer *a = e->waiting.items[i];
        if (!may_start(e, a)) {
            i++;
            continue;
        }
        jang_status status = sequence_take_slot(e, a);
        if (status == JANG_OK) {
            sequence_match(e, a);
        }
        if (status != JANG_OK || !has_pages(e, a)) {
            sequence_release(e, a);
            if (status != JANG_OK && e->running.n == 0) {
                answer_fail(a, status, jang_context_error(e->ctx));
                schedule_finish(e, a);
            }
            return; /* those behind it wait, too, or it might never run */
        }
        list_remove(&e->waiting, a);
        if (list_insert(&e->running, e->ctx, a) != JANG_OK) {
            return; /* cannot be: there is room for all that may run */
        }
        begin(e, a);
    }
}

/* ---- Forks ---- */

static answer *find_waiting(const jang_engine *e, const request *r) {
    for (size_t i = 0; i < e->waiting.n; i++) {
        answer *a = e->waiting.items[i];
        if (a->r == r && a->index > 0 && a->started <= 0) {
            return a;
        }
    }
    return NULL;
}

void schedule_fork(jang_engine *e, answer *first) {
    if (first->index != 0 || first->r->has_prompt) {
        return;
    }
    release_places(e, first->r);
    answer *a = find_waiting(e, first->r);
    while (a && (int32_t)e->running.n + e->n_held < e->o.n_parallel &&
           sequence_fork(e, first, a) == JANG_OK) {
        list_remove(&e->waiting, a);
        a->started = first->started;
        a->stats.queue_seconds = first->stats.queue_seconds;
        if (list_insert(&e->running, e->ctx, a) != JANG_OK) {
            return;
        }
        a = find_waiting(e, first->r);
    }
}

/* ---- Preemption ---- */

static void put_back(jang_engine *e, answer *a) {
    sequence_release(e, a);
    list_remove(&e->running, a);
    if (list_insert(&e->waiting, e->ctx, a) != JANG_OK) {
        answer_fail(a, JANG_ERR_MEMORY, "out of memory");
        schedule_finish(e, a);
    }
}

static void preempt(jang_engine *e, answer *a) {
    e->stats.n_preempted++;
    put_back(e, a);
}

void schedule_turn(jang_engine *e) {
    int32_t from = model_get_facts(e->model->model)->long_from;
    for (size_t i = e->running.n; from && i-- > 0;) {
        answer *a = e->running.items[i];
        if (a->n_form <= from && a->n_ids > from) {
            a->n_form = a->n_ids;
            put_back(e, a);
        }
    }
}

/* It is alone and there is no page left: a prompt that fitted once no longer does, or the answer
 * has used up the budget. */
static void end_for_lack(jang_engine *e, answer *a) {
    if (a->n_ids > a->n_prompt) {
        answer_end(a, JANG_FINISH_LENGTH);
    } else {
        answer_fail(a, JANG_ERR_MEMORY, "no memory for the keys and values of the prompt");
    }
    event_text(e, a);
    schedule_finish(e, a);
}

bool schedule_make_room(jang_engine *e, answer *a, int32_t n_tok) {
    while (sequence_grow(e, a, n_tok) != JANG_OK) {
        answer *youngest = e->running.items[e->running.n - 1];
        if (youngest == a && e->running.n == 1) {
            end_for_lack(e, a);
            return false;
        }
        preempt(e, youngest);
        if (youngest == a) {
            return false;
        }
    }
    return true;
}
