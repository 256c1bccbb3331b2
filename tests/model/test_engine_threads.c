/* test_engine_threads.c - engines under many threads, random schedules, and failing memory. */
#include "engine_rig.h"
#include "model_files.h"
#include "torture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "mlx-llama-4bit-g64"
#define N_THREADS 4
#define N_EACH 40

/* ---- Threads ---- */

typedef struct crowd {
    jang_engine *e;
    jang_model *m;
    atomic_int n_ended, n_submitted, n_busy, n_left;
} crowd;

static void count_end(void *user, const jang_event *event) {
    crowd *c = user;
    if (event->kind == JANG_EVENT_START && event->request % 7 == 0) {
        jang_engine_cancel(c->e, event->request); /* from within an event */
    }
    atomic_fetch_add(&c->n_ended, event->kind == JANG_EVENT_END && event->last);
}

static void *submit_many(void *arg) {
    crowd *c = arg;
    for (int i = 0; i < N_EACH; i++) {
        int32_t ids[40];
        jang_request r = jang_request_default(c->m);
        jang_engine_stats stats;
        jang_slot slots[4];
        jang_message message;
        uint64_t id;
        random_ids(ids, 40, (uint64_t)i);
        r.prompt = ids;
        r.n_prompt = (size_t)(1 + i % 40);
        r.n_max = 1 + i % 5;
        r.n = 1 + i % 3;
        jang_status status = jang_engine_submit(&id, c->e, &r, &message);
        assert_true(status == JANG_OK || status == JANG_ERR_BUSY);
        atomic_fetch_add(status == JANG_OK ? &c->n_submitted : &c->n_busy, 1);
        if (status == JANG_OK && i % 3 == 0) {
            jang_engine_cancel(c->e, id);
        }
        jang_engine_get_stats(&stats, c->e);
        (void)jang_engine_get_slots(slots, 4, c->e);
        if (i == N_EACH / 2) {
            jang_engine_clear_cache(c->e);
        }
    }
    atomic_fetch_sub(&c->n_left, 1);
    jang_engine_wake(c->e);
    return NULL;
}

static void test_engine_is_fed_by_many_threads(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    crowd c = {.n_left = N_THREADS};
    jang_engine_options o = jang_engine_options_default();
    o.n_queue = 30;
    o.n_parallel = 4;
    o.on_event = count_end;
    o.user = &c;
    assert_ok(ctx, jang_model_open(&c.m, ctx, test_path(TEST_MODELS, MODEL), NULL));
    assert_ok(ctx, jang_engine_new(&c.e, c.m, &o));
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &c), 0);
    }
    bool busy = true;
    while (busy || atomic_load(&c.n_left) > 0) {
        assert_ok(ctx, jang_engine_step(&busy, c.e));
        if (!busy && atomic_load(&c.n_left) > 0) {
            (void)jang_engine_wait(c.e, 0.05);
        }
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    engine_run(ctx, c.e);
    assert_int_equal(atomic_load(&c.n_ended), atomic_load(&c.n_submitted));
    assert_int_equal(atomic_load(&c.n_submitted) + atomic_load(&c.n_busy), N_THREADS * N_EACH);
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, c.e);
    assert_int_equal(stats.n_requests, atomic_load(&c.n_submitted));
    assert_int_equal(stats.n_running + stats.n_waiting + stats.n_pages_used, 0);
    jang_engine_free(c.e);
    jang_model_free(c.m);
    jang_context_free(ctx);
}

/* ---- Random schedules ---- */

/* Submits, cancels, steps and clears at random; every answer ends once, and no page is lost. */
static void run_schedule(ctx_t *ctx, jang_model *m, uint64_t seed) {
    enum { N = 60 };
    test_rng rng = {seed};
    jang_engine_options o = jang_engine_options_default();
    o.n_parallel = (int32_t)(1 + rng_below(&rng, 6));
    o.prefill_chunk = (int32_t)(1 + rng_below(&rng, 200));
    o.n_queue = (int32_t)rng_below(&rng, 20);
    o.no_cache = rng_below(&rng, 4) == 0;
    o.kv_budget = (uint64_t)(2 + rng_below(&rng, 12)) * 2 * 64 * 2 * 64 * 2;
    o.on_event = got_event;
    jang_engine *e;
    assert_ok(ctx, jang_engine_new(&e, m, &o));
    got *g = got_new(ctx, N * 3);
    uint64_t ids[N] = {0};
    int32_t n_answers[N] = {0};
    int n = 0;
    while (n < N) {
        bool busy;
        int64_t what = rng_below(&rng, 10);
        if (what < 4) {
            int32_t prompt[400];
            random_ids(prompt, 400, (uint64_t)rng_below(&rng, 4));
            jang_request r = jang_request_default(m);
            r.prompt = prompt;
            r.n_prompt = (size_t)(1 + rng_below(&rng, 400));
            r.n_max = (int32_t)rng_below(&rng, 80) - 1;
            r.n = (int32_t)(1 + rng_below(&rng, 3));
            r.prompt_logprobs = rng_below(&rng, 8) == 0;
            r.user = &g[3 * n];
            if (jang_engine_submit(&ids[n], e, &r, NULL) == JANG_OK) {
                n_answers[n] = r.n;
            }
            n++;
        } else if (what == 4 && n > 0) {
            jang_engine_cancel(e, ids[rng_below(&rng, n)]);
        } else if (what == 5 && rng_below(&rng, 8) == 0) {
            jang_engine_clear_cache(e);
        } else {
            assert_ok(ctx, jang_engine_step(&busy, e));
        }
    }
    engine_run(ctx, e);
    for (int i = 0; i < 3 * N; i++) {
        assert_int_equal(g[i].n_ends, i % 3 < n_answers[i / 3]);
        assert_true(g[i].finish != JANG_FINISH_ERROR || g[i].status != JANG_OK);
    }
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, e);
    assert_int_equal(stats.n_running + stats.n_waiting + stats.n_pages_used, 0);
    assert_true(stats.n_pages <= stats.n_pages_max);
    got_free(g, 3 * N);
    jang_engine_free(e);
}

/* On one thread: what is random here is the order of calls. */
static void test_engine_random_schedules(void **state) {
    (void)state;
    ctx_t *ctx = context_with(1);
    jang_model *m;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, MODEL), NULL));
    for (uint64_t seed = 0; seed < 25; seed++) {
        run_schedule(ctx, m, seed);
    }
    jang_model_free(m);
    jang_context_free(ctx);
}

/* ---- Failing memory ---- */

typedef struct ends {
    int n, n_failed;
} ends;

static void count_failures(void *user, const jang_event *event) {
    (void)user;
    ends *x = event->user;
    x->n += event->kind == JANG_EVENT_END;
    x->n_failed += event->kind == JANG_EVENT_END && event->finish == JANG_FINISH_ERROR;
}

static jang_status use_engine(ctx_t *ctx, const void *arg) {
    (void)arg;
    jang_model *m = NULL;
    jang_engine *e = NULL;
    ends x = {0, 0};
    jang_engine_options o = jang_engine_options_default();
    o.n_parallel = 2;
    o.prefill_chunk = 64;
    o.on_event = count_failures;
    jang_status status = jang_model_open(&m, ctx, test_path(TEST_MODELS, MODEL), NULL);
    if (status == JANG_OK) {
        status = jang_engine_new(&e, m, &o);
    }
    int n = 0;
    for (int i = 0; status == JANG_OK && i < 3; i++) {
        int32_t ids[100];
        random_ids(ids, 100, (uint64_t)(i / 2));
        static const char *const stop = "xyz";
        jang_request r = jang_request_default(m);
        uint64_t id;
        r.prompt = ids;
        r.n_prompt = 100;
        r.n_max = 4;
        r.n = 1 + i;
        r.n_logprobs = 2;
        r.stop = &stop;
        r.n_stop = 1;
        r.user = &x;
        status = jang_engine_submit(&id, e, &r, NULL);
        n += status == JANG_OK ? r.n : 0;
    }
    bool busy = status == JANG_OK;
    while (status == JANG_OK && busy) {
        status = jang_engine_step(&busy, e);
    }
    assert_true(status != JANG_OK || x.n == n);
    jang_engine_free(e);
    jang_model_free(m);
    return status == JANG_OK && x.n_failed ? JANG_ERR_MEMORY : status;
}

static void test_engine_survives_failing_memory(void **state) {
    (void)state;
    torture("engine", TORTURE_ONE, use_engine, NULL);
}

int main(void) {
    torture_json();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_is_fed_by_many_threads),
        cmocka_unit_test(test_engine_random_schedules),
        cmocka_unit_test(test_engine_survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
