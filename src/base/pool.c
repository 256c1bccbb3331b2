/* pool.c - worker threads with a spinning, then sleeping, barrier.
 *
 * One word, `state`, holds the number of the run, whether it is closed, and how many workers have
 * joined it. A run is published by storing a new number, open, with nobody in it. A worker joins by
 * adding one, takes tasks, and signs off in `n_left`. When the tasks are all taken the caller
 * closes the run, after which nobody can join it, and waits for those who had: so no worker can
 * still look at an old run when the next is set up, and a worker that has no core to run on,
 * because other programs are at work, keeps nobody waiting.
 *
 * Each thread has a share of the tasks: it takes them from the front, others from the back. */
#include "base/pool.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define SPINS_BEFORE_SLEEP 20000
#define CACHE_LINE 64

typedef struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
} worker;

/* The tasks first .. end - 1 of a thread that are not taken yet: first << 32 | end. */
typedef struct share {
    _Alignas(CACHE_LINE) atomic_ullong tasks;
} share;

struct pool {
    ctx_t *ctx;
    int n_threads, n_started; /* workers 1 .. n_started run; 0 is the caller */
    worker *workers;
    share *shares;   /* [n_threads], all empty between runs */
    core_list cores; /* of the threads; n 0: they are not bound */
    pthread_t bound; /* the last caller of pool_run that was bound */
    bool has_bound;
    pool_fn fn;
    void *arg;
    bool running; /* a task that starts a run would wait for itself */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int n_asleep;                             /* guarded by lock */
    _Alignas(CACHE_LINE) atomic_ullong state; /* run << 32 | STATE_CLOSED | workers joined */
    atomic_bool quit;
    _Alignas(CACHE_LINE) atomic_uint n_left; /* workers that joined the run and are done */
};

#define STATE_CLOSED (1ull << 31)
#define STATE_JOINED (STATE_CLOSED - 1)
#define STATE_RUN_SHIFT 32

static inline void spin_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- Tasks ---- */

static unsigned long long share_of(int first, int end) {
    return (unsigned long long)first << 32 | (unsigned)end;
}

static int share_first(unsigned long long tasks) {
    return (int)(tasks >> 32);
}

static int share_end(unsigned long long tasks) {
    return (int)(tasks & INT_MAX);
}

/* Gives each of n threads the same number of tasks, or one more. */
static void share_out(pool *p, int n_tasks, int n) {
    for (int i = 0; i < n; i++) {
        int first = (int)((long long)n_tasks * i / n),
            end = (int)((long long)n_tasks * (i + 1) / n);
        atomic_store_explicit(&p->shares[i].tasks, share_of(first, end), memory_order_relaxed);
    }
}

/* The thread that has the most tasks left, and what it has; -1: none has any. */
static int richest(const pool *p, unsigned long long *tasks) {
    int best = -1, most = 0;
    for (int i = 0; i < p->n_threads; i++) {
        unsigned long long own = atomic_load_explicit(&p->shares[i].tasks, memory_order_relaxed);
        int n = share_end(own) - share_first(own);
        if (n > most) {
            best = i;
            most = n;
            *tasks = own;
        }
    }
    return best;
}

int pool_take(pool *p, int thread) {
    unsigned long long own = atomic_load_explicit(&p->shares[thread].tasks, memory_order_relaxed);
    while (share_first(own) < share_end(own)) {
        unsigned long long less = share_of(share_first(own) + 1, share_end(own));
        if (atomic_compare_exchange_weak_explicit(&p->shares[thread].tasks, &own, less,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return share_first(own);
        }
    }
    unsigned long long theirs = 0;
    for (int from; (from = richest(p, &theirs)) >= 0;) {
        unsigned long long less = share_of(share_first(theirs), share_end(theirs) - 1);
        if (atomic_compare_exchange_weak_explicit(&p->shares[from].tasks, &theirs, less,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return share_end(theirs) - 1;
        }
    }
    return -1;
}

static void take_tasks(pool *p, int thread) {
    for (int task; (task = pool_take(p, thread)) >= 0;) {
        p->fn(p->arg, task, thread);
    }
}

/* ---- Workers ---- */

/* Joins the run at hand, if there is one after *seen that is still open. */
static bool try_join(pool *p, unsigned *seen) {
    unsigned long long state = atomic_load_explicit(&p->state, memory_order_acquire);
    while ((unsigned)(state >> STATE_RUN_SHIFT) != *seen) {
        bool joined = !(state & STATE_CLOSED) &&
                      atomic_compare_exchange_weak_explicit(
                          &p->state, &state, state + 1, memory_order_acq_rel, memory_order_acquire);
        if (joined || (state & STATE_CLOSED)) {
            *seen = (unsigned)(state >> STATE_RUN_SHIFT);
            return joined;
        }
    }
    return false;
}

static void wait_for_run(pool *p, unsigned *seen) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (try_join(p, seen)) {
            return;
        }
        spin_pause();
    }
    pthread_mutex_lock(&p->lock);
    p->n_asleep++;
    while (!try_join(p, seen)) {
        pthread_cond_wait(&p->wake, &p->lock);
    }
    p->n_asleep--;
    pthread_mutex_unlock(&p->lock);
}

/* A thread that cannot be bound runs where the system puts it. */
static void bind_thread(const pool *p, int index) {
    if (p->cores.n && !core_bind(p->cores.cores[index])) {
        ctx_log(p->ctx, "thread %d cannot be bound to core %d", index, p->cores.cores[index]);
    }
}

/* The caller computes too, and may be another thread in each run. */
static void bind_caller(pool *p) {
    if (p->cores.n && !(p->has_bound && pthread_equal(p->bound, pthread_self()))) {
        bind_thread(p, 0);
        p->bound = pthread_self();
        p->has_bound = true;
    }
}

static void *worker_main(void *arg) {
    worker *w = arg;
    pool *p = w->pool;
    bind_thread(p, w->index);
    for (unsigned seen = 0;;) {
        wait_for_run(p, &seen);
        if (atomic_load_explicit(&p->quit, memory_order_relaxed)) {
            return NULL;
        }
        take_tasks(p, w->index);
        atomic_fetch_add_explicit(&p->n_left, 1, memory_order_release);
    }
}

static void publish(pool *p) {
    atomic_store_explicit(&p->n_left, 0, memory_order_relaxed);
    unsigned long long last = atomic_load_explicit(&p->state, memory_order_relaxed);
    pthread_mutex_lock(&p->lock);
    atomic_store_explicit(&p->state, ((last >> STATE_RUN_SHIFT) + 1) << STATE_RUN_SHIFT,
                          memory_order_release);
    if (p->n_asleep) {
        pthread_cond_broadcast(&p->wake);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- Runs ---- */

void pool_run(pool *p, pool_fn fn, void *arg, int n_tasks) {
    bind_caller(p);
    assert(!p->running);
    p->running = true;
    p->fn = fn;
    p->arg = arg;
    if (n_tasks <= 1 || p->n_started == 0) {
        share_out(p, n_tasks, 1);
        take_tasks(p, 0);
        p->running = false;
        return;
    }
    share_out(p, n_tasks, p->n_threads);
    publish(p);
    take_tasks(p, 0);
    unsigned long long closed =
        atomic_fetch_or_explicit(&p->state, STATE_CLOSED, memory_order_acq_rel);
    unsigned n_joined = (unsigned)(closed & STATE_JOINED);
    for (int i = 0; atomic_load_explicit(&p->n_left, memory_order_acquire) != n_joined; i++) {
        if (i < SPINS_BEFORE_SLEEP) {
            spin_pause();
        } else {
            sched_yield();
        }
    }
    p->running = false;
}

int pool_threads(const pool *p) {
    return p->n_threads;
}

jang_status pool_new(pool **out, ctx_t *ctx, int n_threads, const core_list *cores) {
    if (n_threads == 0) {
        n_threads = cores ? cores->n : cores_usable();
    }
    if (cores && n_threads > cores->n) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "affinity: %d threads need as many cores, not %d",
                        n_threads, cores->n);
    }
    if (n_threads > POOL_MAX_THREADS) {
        n_threads = POOL_MAX_THREADS;
    }
    pool *p = ctx_alloc_aligned(ctx, sizeof *p, CACHE_LINE);
    worker *workers = ctx_array(ctx, (size_t)n_threads, sizeof *workers);
    share *shares = ctx_alloc_aligned(ctx, (size_t)n_threads * sizeof *shares, CACHE_LINE);
    if (!p || !workers || !shares) {
        ctx_free_aligned(ctx, p);
        ctx_free(ctx, workers);
        ctx_free_aligned(ctx, shares);
        return ctx_fail_memory(ctx, sizeof *p + (size_t)n_threads * sizeof *shares);
    }
    *p = (pool){.ctx = ctx, .n_threads = n_threads, .workers = workers, .shares = shares};
    for (int i = 0; i < n_threads; i++) {
        atomic_init(&shares[i].tasks, 0);
    }
    if (cores) {
        p->cores = *cores;
    }
    atomic_init(&p->state, STATE_CLOSED);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; i < n_threads; i++) {
        workers[i] = (worker){.pool = p, .index = i};
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0) {
            ctx_log(ctx, "only %d of %d threads could be started", i, n_threads);
            break;
        }
        p->n_started = i;
    }
    p->n_threads = p->n_started + 1;
    *out = p;
    return JANG_OK;
}

void pool_free(pool *p) {
    if (!p) {
        return;
    }
    atomic_store_explicit(&p->quit, true, memory_order_relaxed);
    publish(p);
    for (int i = 1; i <= p->n_started; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    ctx_free(p->ctx, p->workers);
    ctx_free_aligned(p->ctx, p->shares);
    ctx_free_aligned(p->ctx, p);
}
