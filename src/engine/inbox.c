/* inbox.c - what other threads leave for an engine, and what it tells them. */
#include "engine/inbox.h"

#include <math.h>
#include <string.h>
#include <time.h>

void inbox_init(inbox *b, ctx_t *ctx, int32_t n_most) {
    *b = (inbox){.ctx = ctx, .n_most = n_most};
    b->last = &b->first;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->more, &attr);
    pthread_condattr_destroy(&attr);
}

void inbox_free(inbox *b) {
    while (b->first) {
        request *r = b->first;
        b->first = r->next;
        request_free(r);
    }
    ctx_free(b->ctx, b->slots);
    pthread_cond_destroy(&b->more);
    pthread_mutex_destroy(&b->lock);
}

/* ---- Any thread ---- */

jang_status inbox_put(inbox *b, request *r, uint64_t *id) {
    pthread_mutex_lock(&b->lock);
    if (b->n_waiting >= b->n_most) {
        pthread_mutex_unlock(&b->lock);
        return JANG_ERR_BUSY;
    }
    r->id = *id = ++b->last_id;
    r->next = NULL;
    *b->last = r;
    b->last = &r->next;
    r->next_live = b->live;
    b->live = r;
    b->n_waiting++;
    pthread_cond_signal(&b->more);
    pthread_mutex_unlock(&b->lock);
    return JANG_OK;
}

void inbox_cancel(inbox *b, uint64_t id) {
    pthread_mutex_lock(&b->lock);
    for (request *r = b->live; r; r = r->next_live) {
        if (r->id == id) {
            r->is_cancelled = true;
            b->has_cancelled = true;
            pthread_cond_signal(&b->more);
        }
    }
    pthread_mutex_unlock(&b->lock);
}

static void set_flag(inbox *b, bool *flag) {
    pthread_mutex_lock(&b->lock);
    *flag = true;
    pthread_cond_signal(&b->more);
    pthread_mutex_unlock(&b->lock);
}

void inbox_clear_cache(inbox *b) {
    set_flag(b, &b->wants_clear);
}

void inbox_wake(inbox *b) {
    set_flag(b, &b->is_woken);
}

static bool has_more(const inbox *b) {
    return b->first || b->has_cancelled || b->wants_clear;
}

bool inbox_wait(inbox *b, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double whole = floor(seconds < 0 ? 0 : seconds > 1e9 ? 1e9 : seconds);
    until.tv_sec += (time_t)whole;
    until.tv_nsec += (long)((seconds > 0 && seconds < 1e9 ? seconds - whole : 0) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&b->lock);
    int rc = 0;
    while (!has_more(b) && !b->is_woken && rc == 0) {
        rc = pthread_cond_timedwait(&b->more, &b->lock, &until);
    }
    b->is_woken = false;
    bool more = has_more(b);
    pthread_mutex_unlock(&b->lock);
    return more;
}

/* ---- The engine's thread ---- */

request *inbox_take(inbox *b, bool *has_cancelled, bool *wants_clear) {
    pthread_mutex_lock(&b->lock);
    request *first = b->first;
    b->first = NULL;
    b->last = &b->first;
    *has_cancelled = b->has_cancelled;
    *wants_clear = b->wants_clear;
    b->has_cancelled = b->wants_clear = false;
    pthread_mutex_unlock(&b->lock);
    return first;
}

bool inbox_has_more(inbox *b) {
    pthread_mutex_lock(&b->lock);
    bool more = has_more(b);
    pthread_mutex_unlock(&b->lock);
    return more;
}

bool inbox_is_cancelled(inbox *b, const request *r) {
    pthread_mutex_lock(&b->lock);
    bool is = r->is_cancelled;
    pthread_mutex_unlock(&b->lock);
    return is;
}

void inbox_started(inbox *b) {
    pthread_mutex_lock(&b->lock);
    b->n_waiting--;
    pthread_mutex_unlock(&b->lock);
}

void inbox_ended(inbox *b, request *r) {
    pthread_mutex_lock(&b->lock);
    b->n_waiting -= !r->is_started;
    for (request **at = &b->live; *at; at = &(*at)->next_live) {
        if (*at == r) {
            *at = r->next_live;
            break;
        }
    }
    pthread_mutex_unlock(&b->lock);
}

/* Without memory for the slots, fewer are shown. */
void inbox_publish(inbox *b, const jang_engine_stats *stats, const jang_slot *slots, size_t n) {
    pthread_mutex_lock(&b->lock);
    b->stats = *stats;
    b->stats.n_waiting = b->n_waiting;
    if (n > b->slots_capacity) {
        jang_slot *more = ctx_realloc(b->ctx, b->slots, 2 * n * sizeof *more);
        b->slots = more ? more : b->slots;
        b->slots_capacity = more ? 2 * n : b->slots_capacity;
    }
    b->n_slots = n < b->slots_capacity ? n : b->slots_capacity;
    if (b->n_slots) {
        memcpy(b->slots, slots, b->n_slots * sizeof *slots);
    }
    pthread_mutex_unlock(&b->lock);
}
