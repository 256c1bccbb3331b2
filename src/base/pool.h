/* pool.h - the worker threads of a context.
 *
 * pool_run hands out task numbers 0 .. n_tasks-1 to all threads, the caller's among them, and
 * returns when every task is done. Each thread begins with a share of its own, numbers that follow
 * each other, and goes through it in order, so that what lies side by side in memory is read in one
 * stream. Tasks are taken one by one; who has none left takes the last ones of whoever has most, so
 * unequal ones balance out. Which thread runs a task is not determined, so a task's result may
 * depend on its number only.
 * Workers spin for up to a millisecond after a run, since the next one mostly follows at once in a
 * token step, then sleep. One thread at a time may call pool_run; a task must not. */
#ifndef JANG_BASE_POOL_H
#define JANG_BASE_POOL_H

#include "base/cores.h"

#define POOL_MAX_THREADS 256

typedef struct pool pool;

/* thread is 0 .. pool_threads()-1, for scratch that belongs to a thread. */
typedef void (*pool_fn)(void *arg, int task, int thread);

/* n_threads 0: one per core of the list, or, where it is NULL, per core this process may use. With
 * a list each thread is bound to a core of its own, a thread that calls pool_run to the first; more
 * threads than cores are JANG_ERR_ARGUMENT. */
JANG_MUST_CHECK jang_status pool_new(pool **out, ctx_t *ctx, int n_threads, const core_list *cores);
void pool_free(pool *p);
int pool_threads(const pool *p);
void pool_run(pool *p, pool_fn fn, void *arg, int n_tasks);

/* From within a task: takes another one of the run for the thread, to be done by the caller; -1:
 * none is left. So a task can look ahead to the one that comes after it. */
int pool_take(pool *p, int thread);

#endif
