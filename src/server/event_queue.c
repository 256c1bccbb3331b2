/* event_queue.c - copies of the engine's events on their way to the HTTP thread. */
#include "api.h"

#include <stdlib.h>
#include <string.h>

/* One event with all that it points to, in one block. */
typedef struct event_node {
    struct event_node *next;
    jang_event event;
    jang_request_stats stats;
} event_node;

struct event_queue {
    pthread_mutex_t mutex;
    event_node *first, *last;
};

event_queue *event_queue_new(void) {
    event_queue *q = calloc(1, sizeof *q);
    if (q && pthread_mutex_init(&q->mutex, NULL)) {
        free(q);
        return NULL;
    }
    return q;
}

void event_queue_free(event_queue *q) {
    if (!q) {
        return;
    }
    for (event_node *n = q->first, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    pthread_mutex_destroy(&q->mutex);
    free(q);
}

/* ---- Copying ---- */

/* Takes n_bytes of the block that *at walks through; with a NULL block only counts. */
static void *take(char *block, size_t *at, size_t n_bytes) {
    size_t from = (*at + 15) & ~(size_t)15;
    *at = from + n_bytes;
    return block ? block + from : NULL;
}

static const void *copy(char *block, size_t *at, const void *data, size_t n_bytes) {
    char *to = take(block, at, n_bytes + 1);
    if (to) {
        if (n_bytes) {
            memcpy(to, data, n_bytes);
        }
        to[n_bytes] = 0;
    }
    return to;
}

static void copy_logprob(char *block, size_t *at, jang_logprob *to, const jang_logprob *from) {
    const char *bytes = copy(block, at, from->bytes, from->n_bytes);
    if (to) {
        *to = *from;
        to->bytes = bytes;
    }
}

static jang_token *copy_tokens(char *block, size_t *at, const jang_token *from, size_t n) {
    jang_token *to = take(block, at, n * sizeof *to);
    for (size_t i = 0; i < n; i++) {
        size_t n_top = from[i].n_top;
        jang_logprob *top = take(block, at, n_top * sizeof *top);
        copy_logprob(block, at, to ? &to[i].chosen : NULL, &from[i].chosen);
        for (size_t k = 0; k < n_top; k++) {
            copy_logprob(block, at, top ? &top[k] : NULL, &from[i].top[k]);
        }
        if (to) {
            to[i].top = top;
            to[i].n_top = n_top;
        }
    }
    return to;
}

/* Writes the copy into the block; returns the size it needs. */
static size_t copy_event(char *block, const jang_event *e) {
    size_t at = 0;
    event_node *n = take(block, &at, sizeof *n);
    const char *text = copy(block, &at, e->text, e->text ? e->n_bytes : 0);
    const char *line = copy(block, &at, e->message, e->message ? strlen(e->message) : 0);
    const float *values = copy(block, &at, e->values, e->n_values * sizeof *values);
    const jang_token *tokens = copy_tokens(block, &at, e->tokens, e->n_tokens);
    if (n) {
        n->next = NULL;
        n->event = *e;
        n->event.text = text;
        n->event.message = line;
        n->event.values = values;
        n->event.tokens = tokens;
        n->event.stats = e->stats ? &n->stats : NULL;
        if (e->stats) {
            n->stats = *e->stats;
        }
    }
    return at;
}

/* ---- The queue ---- */

void event_queue_put(void *user, const jang_event *event) {
    server *s = user;
    event_queue *q = s->events;
    /* nothing sensible can be done without memory here: an answer would hang; so it waits for some
     */
    char *block = NULL;
    size_t n_bytes = copy_event(NULL, event);
    while (!(block = malloc(n_bytes))) {
        struct timespec pause = {.tv_nsec = 10000000};
        nanosleep(&pause, NULL);
    }
    copy_event(block, event);
    event_node *n = (event_node *)(void *)block;
    pthread_mutex_lock(&q->mutex);
    bool was_empty = !q->first;
    *(was_empty ? &q->first : &q->last->next) = n;
    q->last = n;
    pthread_mutex_unlock(&q->mutex);
    if (was_empty) {
        http_server_wake(s->http);
    }
}

void event_queue_drain(event_queue *q, void (*take_event)(void *user, const jang_event *event),
                       void *user) {
    pthread_mutex_lock(&q->mutex);
    event_node *n = q->first;
    q->first = q->last = NULL;
    pthread_mutex_unlock(&q->mutex);
    while (n) {
        event_node *next = n->next;
        take_event(user, &n->event);
        free(n);
        n = next;
    }
}
