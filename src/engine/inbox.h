/* inbox.h - what other threads leave for an engine, and what it tells them.
 *
 * Everything here is guarded by one lock that nobody holds for longer than a short list takes. */
#ifndef JANG_ENGINE_INBOX_H
#define JANG_ENGINE_INBOX_H

#include "engine/request.h"

#include <pthread.h>

typedef struct inbox {
    ctx_t *ctx;
    pthread_mutex_t lock;
    pthread_cond_t more;
    request *first, **last; /* submitted and not yet taken in */
    request *live;          /* all that have not ended */
    uint64_t last_id;
    int32_t n_waiting; /* live requests that have not started */
    int32_t n_most;    /* that may */
    bool has_cancelled, wants_clear, is_woken;

    jang_engine_stats stats; /* as of the last step */
    jang_slot *slots;        /* [n_slots] */
    size_t n_slots, slots_capacity;
} inbox;

void inbox_init(inbox *b, ctx_t *ctx, int32_t n_most);
/* Frees the requests that were not taken in, too. */
void inbox_free(inbox *b);

/* Adds a request and gives it its id; JANG_ERR_BUSY when too many wait. */
jang_status inbox_put(inbox *b, request *r, uint64_t *id);
void inbox_cancel(inbox *b, uint64_t id);
void inbox_clear_cache(inbox *b);
void inbox_wake(inbox *b);
/* Waits until something is there; false when the time is over first. */
bool inbox_wait(inbox *b, double seconds);

/* The engine's thread: */

/* Takes what is there: a list of requests, whether some live ones have been cancelled since, and
 * whether the cache is to be cleared. */
request *inbox_take(inbox *b, bool *has_cancelled, bool *wants_clear);
/* Whether anything waits to be taken. */
bool inbox_has_more(inbox *b);
bool inbox_is_cancelled(inbox *b, const request *r);
/* A request has left the queue; it has ended. */
void inbox_started(inbox *b);
void inbox_ended(inbox *b, request *r);
/* Shows others how things are. slots are copied, as many as fit. */
void inbox_publish(inbox *b, const jang_engine_stats *stats, const jang_slot *slots, size_t n);

#endif
