/* test_engine.c - engines: the same answer whatever else is running, in the cache, or taken away.
 */
#include "engine/speculation.h"
#include "engine_rig.h"
#include "model_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "mlx-llama-4bit-g64"

static jang_engine_options options(void) {
    return jang_engine_options_default();
}

/* ---- One request ---- */

/* An engine's greedy answer is the one that jang_generate gives. */
static bool collect(void *user, const char *piece, size_t n_bytes) {
    buf_put(user, piece, n_bytes);
    return true;
}

static void test_engine_generates_as_a_session_does(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, options());
    jang_session *s;
    assert_ok(ctx, jang_session_new(&s, m, NULL));
    for (uint64_t seed = 0; seed < 6; seed++) {
        int32_t prompt[70];
        random_ids(prompt, 70, seed);
        jang_request r = jang_request_default(m);
        r.prompt = prompt;
        r.n_prompt = 1 + 13 * seed;
        r.n_max = 40;
        r.sampling.seed = seed;
        r.sampling.temperature = seed % 2 ? 1.2F : 0;
        r.sampling.repetition_penalty = seed == 3 ? 1.3F : 0;
        buf text;
        buf_init(&text, ctx, BUF_NO_LIMIT);
        jang_generate_stats stats;
        assert_ok(ctx,
                  jang_generate(s, prompt, r.n_prompt, 40, &r.sampling, collect, &text, &stats));
        got *g = engine_ask(ctx, e, r);
        assert_string_equal(g->text.data, text.data);
        assert_int_equal(g->n_ids, stats.n_generated);
        assert_int_equal(g->finish, stats.finish);
        assert_int_equal(g->stats.n_generated, stats.n_generated);
        assert_int_equal(g->n_starts, 1);
        assert_true(g->was_last);
        got_free(g, 1);
        buf_free(&text);
    }
    jang_session_free(s);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* ---- Determinism ---- */

#define N_ASKED 64
#define LONGEST 300

typedef struct asked {
    int32_t prompts[N_ASKED][LONGEST];
    jang_request r[N_ASKED];
    jang_bias bias, repeat[2];
    const char *stops[2];
} asked;

/* 64 different requests; some begin alike. */
static asked *make_requests(const jang_model *m) {
    asked *a = calloc(1, sizeof *a);
    test_rng rng = {77};
    a->bias = (jang_bias){40, 3};
    a->repeat[0] = (jang_bias){10, 100};
    a->repeat[1] = (jang_bias){11, 100};
    a->stops[0] = "a";
    a->stops[1] = "zz";
    int32_t room = jang_model_get_info(m)->n_context - 40;
    int64_t longest = room < LONGEST ? room : LONGEST;
    for (int i = 0; i < N_ASKED; i++) {
        jang_request *r = &a->r[i];
        *r = jang_request_default(m);
        random_ids(a->prompts[i], LONGEST, (uint64_t)i / 4); /* families of four share */
        r->prompt = a->prompts[i];
        r->n_prompt = (size_t)(1 + rng_below(&rng, i % 3 ? longest : 30));
        r->n_max = (int32_t)(1 + rng_below(&rng, 40));
        r->sampling = (jang_sampling){.temperature = i % 4 ? 1.3F : 0,
                                      .top_p = i % 5 == 1 ? 0.8F : 1,
                                      .top_k = i % 5 == 2 ? 20 : 0,
                                      .min_p = i % 5 == 3 ? 0.05F : 0,
                                      .typical_p = i % 7 == 1 ? 0.7F : 0,
                                      .repetition_penalty = i % 6 == 1 ? 1.2F : 0,
                                      .presence_penalty = i % 6 == 2 ? 0.5F : 0,
                                      .frequency_penalty = i % 6 == 3 ? 0.3F : 0,
                                      .biases = &a->bias,
                                      .n_biases = i % 8 == 1,
                                      .seed = (uint64_t)i};
        r->n_logprobs = i % 3 ? 5 : 0;
        r->ignore_eos = i % 2;
        r->stop = a->stops;
        r->n_stop = i % 9 == 4 ? 2 : 0;
        r->cache_salt = i % 16 == 5 ? "other" : NULL;
        if (i % 8 == 4) { /* it repeats itself, and lookup is sure of it in time */
            r->sampling.biases = a->repeat;
            r->sampling.n_biases = 2;
            r->n_max = 40;
        }
    }
    return a;
}

/* Submits all in the order given by a stride and collects their answers. */
static got *ask_all(ctx_t *ctx, jang_engine *e, const asked *a, int stride) {
    got *g = got_new(ctx, N_ASKED);
    for (int i = 0; i < N_ASKED; i++) {
        int at = i * stride % N_ASKED;
        jang_request r = a->r[at];
        uint64_t id;
        r.user = &g[at];
        assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
    }
    engine_run(ctx, e);
    return g;
}

static void check_all(ctx_t *ctx, jang_engine *e, const asked *a, const got *expected, int stride) {
    got *g = ask_all(ctx, e, a, stride);
    for (int i = 0; i < N_ASKED; i++) {
        got_assert_equal(&g[i], &expected[i]);
    }
    got_free(g, N_ASKED);
}

/* Alone on an engine that keeps nothing. */
static got *ask_alone(ctx_t *ctx, jang_model *m, const asked *a, jang_kv_type type) {
    jang_engine_options o = options();
    o.kv_type = type;
    o.no_cache = true;
    o.n_parallel = 1;
    o.on_event = got_event;
    jang_engine *e;
    assert_ok(ctx, jang_engine_new(&e, m, &o));
    got *g = got_new(ctx, N_ASKED);
    for (int i = 0; i < N_ASKED; i++) {
        jang_request r = a->r[i];
        uint64_t id;
        r.user = &g[i];
        assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
        engine_run(ctx, e);
    }
    jang_engine_free(e);
    return g;
}

static void check_determinism(const char *name, int n_threads, jang_kv_type type) {
    ctx_t *ctx = context_with(n_threads);
    jang_model *m;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, name), NULL));
    asked *a = make_requests(m);
    got *expected = ask_alone(ctx, m, a, type);
    jang_model *small, *twin; /* a draft model that is mostly wrong, and one that is right */
    assert_ok(ctx,
              jang_model_open(&small, ctx, test_path(TEST_MODELS, "mlx-llama-2bit-g128"), NULL));
    assert_ok(ctx, jang_model_open(&twin, ctx, test_path(TEST_MODELS, name), NULL));
    const struct {
        int32_t n_parallel, prefill_chunk, n_pages;
        bool no_cache, no_lookup;
        jang_model *draft;
    } cases[] = {
        {16, 512, 0, false, true, NULL},  {64, 100, 0, false, false, NULL},
        {5, 33, 0, true, false, NULL},    {16, 512, 9, false, false, NULL},
        {8, 70, 8, true, true, NULL},     {16, 512, 0, false, true, twin},
        {4, 100, 0, false, false, small}, {3, 40, 9, false, true, twin},
        {1, 512, 0, true, false, twin},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        jang_engine_options o = options();
        o.kv_type = type;
        o.n_parallel = cases[i].n_parallel;
        o.prefill_chunk = cases[i].prefill_chunk;
        o.no_cache = cases[i].no_cache;
        o.lookup = !cases[i].no_lookup;
        o.draft = cases[i].draft;
        o.on_event = got_event;
        jang_engine *e;
        assert_ok(ctx, jang_engine_new(&e, m, &o));
        jang_engine_stats stats;
        jang_engine_get_stats(&stats, e);
        if (cases[i].n_pages) { /* a budget of so many pages */
            o.kv_budget = (stats.page_bytes + stats.open_bytes) * (uint64_t)cases[i].n_pages;
            jang_engine_free(e);
            assert_ok(ctx, jang_engine_new(&e, m, &o));
        }
        check_all(ctx, e, a, expected, 1);  /* cold */
        check_all(ctx, e, a, expected, 27); /* warm, in another order */
        jang_engine_get_stats(&stats, e);
        assert_int_equal(stats.n_requests, 2 * N_ASKED);
        assert_int_equal(stats.n_running + stats.n_waiting + stats.n_pages_used, 0);
        assert_true(cases[i].no_cache ? stats.n_cached == 0 : stats.n_cached > 0);
        assert_int_equal(stats.n_draft > 0, o.draft || o.lookup);
        assert_true(o.draft != twin || stats.n_draft_accepted > stats.n_draft / 2);
        if (cases[i].n_pages) {
            assert_true(stats.n_preempted > 0 || cases[i].n_parallel < 8);
            assert_true((uint64_t)stats.n_pages * stats.page_bytes <= o.kv_budget);
            assert_true(cases[i].no_cache || stats.n_evictions > 0);
        }
        jang_engine_free(e);
    }
    got_free(expected, N_ASKED);
    free(a);
    jang_model_free(small);
    jang_model_free(twin);
    jang_model_free(m);
    jang_context_free(ctx);
}

static void test_engine_answers_depend_on_the_request_alone(void **state) {
    (void)state;
    check_determinism(MODEL, 2, JANG_KV_F16);
    check_determinism("qwen2-window-bf16", 1, JANG_KV_Q4);
    check_determinism("qwen3moe-bf16", 1, JANG_KV_F16);
}

/* In chunks of two sizes, on an engine for each: one request after the other, then all at once, as
 * alone. keeps_state: nothing is guessed, and what is reused ends at a snapshot. */
static void check_in_chunks(const char *name, int32_t chunk, jang_kv_type type, bool keeps_state) {
    ctx_t *ctx = context_with(1);
    jang_model *m;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, name), NULL));
    asked *a = make_requests(m);
    got *expected = ask_alone(ctx, m, a, type);
    const int32_t chunks[] = {chunk, 512};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        jang_engine_options o = options();
        o.kv_type = type;
        o.prefill_chunk = chunks[i];
        o.on_event = got_event;
        jang_engine *e;
        assert_ok(ctx, jang_engine_new(&e, m, &o));
        check_all(ctx, e, a, expected, 1);
        check_all(ctx, e, a, expected, 27);
        jang_engine_stats stats;
        jang_engine_get_stats(&stats, e);
        if (keeps_state) {
            assert_true(stats.n_cached > 64 * N_ASKED);
            assert_int_equal(stats.n_draft + (uint64_t)stats.n_pages_used, 0);
        }
        jang_engine_free(e);
    }
    got_free(expected, N_ASKED);
    free(a);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* Recurrent state, alone and beside attention. */
static void test_engine_hybrids_depend_on_the_request_alone(void **state) {
    (void)state;
    check_in_chunks("mamba2-bf16", 40, JANG_KV_F16, true);
    check_in_chunks("qwen3_next-bf16", 40, JANG_KV_Q5, true);
    check_in_chunks("jamba-bf16", 40, JANG_KV_F16, true);
}

/* The next turn of a conversation goes on where the last page of the answer before it ends. */
static void test_engine_hybrids_reuse_what_they_wrote(void **state) {
    (void)state;
    static const char *const names[] = {"mamba2-bf16", "qwen3_next-bf16", "lfm2-bf16"};
    enum { N_FIRST = 70, N_WRITTEN = 200, N_MORE = 30 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ctx_t *ctx = context_with(1);
        jang_model *m;
        jang_engine *e = engine_open(&m, ctx, names[i], options());
        int32_t ids[N_FIRST + N_WRITTEN + N_MORE];
        random_ids(ids, N_FIRST, i);
        jang_request r = jang_request_default(m);
        r.prompt = ids;
        r.n_prompt = N_FIRST;
        r.n_max = N_WRITTEN;
        r.ignore_eos = true;
        got *first = engine_ask(ctx, e, r);
        assert_int_equal(first->n_ids, N_WRITTEN);
        memcpy(ids + N_FIRST, first->ids, N_WRITTEN * sizeof *ids);
        random_ids(ids + N_FIRST + N_WRITTEN, N_MORE, i + 100);
        r.n_prompt = N_FIRST + N_WRITTEN + N_MORE;
        r.n_max = 20;
        r.n_logprobs = 3;
        engine_check_cached(ctx, e, r, (N_FIRST + N_WRITTEN - 1) / 64 * 64, names[i]);
        got_free(first, 1);
        jang_engine_free(e);
        jang_model_free(m);
        jang_context_free(ctx);
    }
}

/* RoPE by the length of the sequence: prompts and answers pass the 32 tokens where it changes, in
 * whatever steps, beside guesses, and beside pages of shorter prompts. */
static void test_engine_long_rope_depends_on_the_request_alone(void **state) {
    (void)state;
    check_in_chunks("phi3-longrope-bf16", 17, JANG_KV_F16, false);
}

/* ---- Caching ---- */

static jang_request plain_request(const jang_model *m, const int32_t *ids, size_t n,
                                  int32_t n_max) {
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = n;
    r.n_max = n_max;
    r.ignore_eos = true;
    r.sampling.temperature = 0;
    return r;
}

static int32_t cached(ctx_t *ctx, jang_engine *e, jang_request r) {
    got *g = engine_ask(ctx, e, r);
    int32_t n = g->stats.n_cached;
    assert_int_equal(g->stats.n_prompt, r.n_prompt);
    got_free(g, 1);
    return n;
}

static void test_engine_reuses_whole_pages(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, options());
    int32_t ids[400];
    random_ids(ids, 400, 1);
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 200, 1)), 0);
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 200, 1)), 192);
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 192, 1)), 128); /* the last is computed */
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 193, 1)), 192);
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 300, 1)), 192);
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 300, 1)), 256);

    jang_request r = plain_request(m, ids, 300, 1);
    r.cache_salt = "mine";
    assert_int_equal(cached(ctx, e, r), 0);
    assert_int_equal(cached(ctx, e, r), 256);
    r.cache_prompt = false;
    assert_int_equal(cached(ctx, e, r), 0);

    ids[70]++; /* the second page differs, and so do all after it */
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 300, 1)), 64);
    jang_engine_clear_cache(e);
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 300, 1)), 0);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

static void test_engine_caches_what_it_generates(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, options());
    int32_t ids[400];
    random_ids(ids, 100, 2);
    got *g = engine_ask(ctx, e, plain_request(m, ids, 100, 150));
    assert_int_equal(g->n_ids, 150);
    memcpy(ids + 100, g->ids, 150 * sizeof *ids);
    ids[250] = 7;
    assert_int_equal(cached(ctx, e, plain_request(m, ids, 251, 1)), 192);
    got_free(g, 1);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* ---- Guessing ---- */

static void test_lookup_repeats_what_followed(void **state) {
    (void)state;
    static const int32_t ids[] = {1, 2, 3, 4, 9, 2, 3, 5, 7, 1, 2, 3};
    int32_t out[8];
    assert_int_equal(lookup_find(out, 8, ids, 12), 8); /* 1 2 3 is longer than 2 3 */
    assert_memory_equal(out, ids + 3, 8 * sizeof *out);
    assert_int_equal(lookup_find(out, 2, ids + 1, 11), 2); /* the later of two 2 3 */
    assert_int_equal(out[0], 5);
    assert_int_equal(lookup_find(out, 8, ids, 9), 0);
    assert_int_equal(lookup_find(out, 8, ids, 1), 0);
    static const int32_t same[] = {6, 6, 6, 6};
    assert_int_equal(lookup_find(out, 8, same, 4), 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(out[i], 6);
    }
}

/* What repeats itself is guessed, in fewer steps than tokens; the answer stays what it is. */
static void test_lookup_saves_steps(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, options());
    int32_t ids[60];
    for (int i = 0; i < 60; i++) {
        ids[i] = 10 + i % 5;
    }
    const jang_bias biases[] = {{10, 100}, {11, 100}}; /* so that it repeats itself */
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = 60;
    r.n_max = 200;
    r.sampling = (jang_sampling){.temperature = 0, .biases = biases, .n_biases = 2};
    got *g = engine_ask(ctx, e, r);
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, e);
    assert_int_equal(g->n_ids, 200);
    assert_true(g->stats.n_draft_accepted > 100);
    assert_true(stats.n_steps < 100);
    got_free(g, 1);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* A row is dear where many answers share a step; what steps took says how dear, within limits. */
static void test_lookup_knows_what_rows_cost(void **state) {
    (void)state;
    step_costs none = {0};
    assert_true(fabs(speculation_price(&none, 1) - 0.25) < 1e-9);
    assert_true(speculation_price(&none, 16) > 0.8);
    step_costs seen = {0}, flat = {0}, steep = {0};
    for (int i = 0; i < 400; i++) {
        int32_t n = 1 + i * 7 % 16;
        speculation_learn_cost(&seen, n, 0.005 + 0.001 * n);
        speculation_learn_cost(&flat, n, 0.005);
        speculation_learn_cost(&steep, n, 0.005 * n);
    }
    assert_true(fabs(speculation_price(&seen, 1) - 1 / 6.0) < 1e-3);
    assert_true(fabs(speculation_price(&seen, 16) - 16 / 21.0) < 1e-3);
    assert_true(fabs(speculation_price(&flat, 16) - 16 / 24.0) < 1e-3);
    assert_true(fabs(speculation_price(&steep, 4) - 4 / 5.0) < 1e-3);
}

static void test_engine_refuses_other_vocabularies(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, MODEL), NULL));
    jang_engine_options o = options();
    jang_engine *e;
    o.draft = m;
    assert_fails(ctx, jang_engine_new(&e, m, &o), JANG_ERR_ARGUMENT, "another model");
    jang_model_free(m);
    jang_context_free(ctx);
}

/* ---- Several answers ---- */

static void test_engine_answers_share_their_prompt(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    for (int32_t n_parallel = 3; n_parallel <= 16; n_parallel += 13) {
        jang_engine_options o = options();
        o.n_parallel = n_parallel;
        o.lookup = false;
        o.kv_type = n_parallel == 3 ? JANG_KV_Q4 : JANG_KV_F16;
        jang_engine *e = engine_open(&m, ctx, MODEL, o);
        int32_t ids[150];
        random_ids(ids, 150, 4);
        jang_request r = plain_request(m, ids, 150, 20);
        r.sampling.temperature = 1;
        r.sampling.seed = 1000;
        r.n = 7;
        r.n_logprobs = 2;
        got *g = engine_ask(ctx, e, r);
        jang_engine_stats stats;
        jang_engine_get_stats(&stats, e);
        assert_int_equal(stats.n_prompt, 150);
        if (n_parallel > 7) { /* all of them ran at once */
            assert_int_equal(stats.n_step_tokens, 150 + 7 * 19);
        }
        int n_last = 0, n_alike = 0;
        for (int i = 0; i < 7; i++) {
            n_last += g[i].was_last;
            jang_request one = r;
            one.n = 1;
            one.sampling.seed += (uint64_t)i;
            got *alone = engine_ask(ctx, e, one);
            got_assert_equal(alone, &g[i]);
            n_alike += strcmp(g[i].text.data, g[0].text.data) == 0;
            got_free(alone, 1);
        }
        assert_int_equal(n_last, 1);
        assert_true(n_alike < 7);
        got_free(g, 7);
        jang_engine_free(e);
        jang_model_free(m);
    }
    jang_context_free(ctx);
}

/* ---- Cancelling, queueing ---- */

static void test_engine_cancels_within_a_step(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine_options o = options();
    o.n_parallel = 2;
    o.prefill_chunk = 32;
    jang_engine *e = engine_open(&m, ctx, MODEL, o);
    int32_t ids[300];
    random_ids(ids, 300, 9);
    got *g = got_new(ctx, 4);
    uint64_t id[4];
    for (int i = 0; i < 4; i++) { /* generating, in its prompt, and two that wait */
        jang_request r = plain_request(m, ids, i ? 300 : 5, 100);
        r.user = &g[i];
        assert_int_equal(jang_engine_submit(&id[i], e, &r, NULL), JANG_OK);
    }
    bool busy;
    for (int i = 0; i < 4; i++) {
        assert_ok(ctx, jang_engine_step(&busy, e));
    }
    assert_true(g[0].n_ids > 0 && g[1].n_starts && !g[2].n_starts);
    for (int i = 0; i < 3; i++) {
        jang_engine_cancel(e, id[i]);
        jang_engine_cancel(e, id[i] + 1000);
    }
    assert_ok(ctx, jang_engine_step(&busy, e));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(g[i].n_ends, 1);
        assert_int_equal(g[i].finish, JANG_FINISH_CANCELLED);
    }
    engine_run(ctx, e);
    assert_int_equal(g[3].finish, JANG_FINISH_LENGTH);
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, e);
    assert_int_equal(stats.n_cancelled, 3);
    assert_int_equal(stats.n_pages_used, 0);
    got_free(g, 4);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

static void test_engine_limits_its_queue(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine_options o = options();
    o.n_parallel = 2;
    o.n_queue = 3;
    jang_engine *e = engine_open(&m, ctx, MODEL, o);
    int32_t ids[] = {5, 6, 7};
    got *g = got_new(ctx, 6);
    jang_message message;
    uint64_t id = 0;
    for (int i = 0; i < 6; i++) {
        jang_request r = plain_request(m, ids, 3, 5);
        r.user = &g[i];
        jang_status status = jang_engine_submit(&id, e, &r, &message);
        assert_int_equal(status, i < 5 ? JANG_OK : JANG_ERR_BUSY);
    }
    assert_non_null(strstr(message.text, "3 requests"));
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, e);
    assert_int_equal(stats.n_waiting, 5);
    bool busy;
    assert_ok(ctx, jang_engine_step(&busy, e));
    jang_slot slots[8];
    assert_int_equal(jang_engine_get_slots(slots, 8, e), 5);
    assert_int_equal(slots[0].state, JANG_SLOT_GENERATING);
    assert_int_equal(slots[0].n_generated, 1);
    assert_int_equal(slots[2].state, JANG_SLOT_WAITING);
    engine_run(ctx, e);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(g[i].n_ends, 1);
    }
    assert_false(jang_engine_wait(e, 0.001));
    jang_engine_wake(e);
    assert_false(jang_engine_wait(e, 100)); /* returns at once */
    got_free(g, 6);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* Freeing an engine with work in it loses nothing but the work. */
static void test_engine_ends_with_work_left(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, options());
    int32_t ids[100];
    random_ids(ids, 100, 3);
    got *g = got_new(ctx, 3);
    uint64_t id;
    for (int i = 0; i < 2; i++) {
        jang_request r = plain_request(m, ids, 100, 50);
        r.n = 3;
        r.user = g;
        bool busy;
        assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
        assert_ok(ctx, jang_engine_step(&busy, e));
        assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
    }
    jang_engine_free(e);
    got_free(g, 3);
    jang_model_free(m);
    jang_context_free(ctx);
}

static void test_engine_refuses_what_it_cannot_do(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, options());
    static const int32_t ids[] = {5, 307, -1};
    static const char *const empty = "";
    jang_request good = plain_request(m, ids, 1, 1);
    struct {
        jang_request r;
        jang_status status;
        const char *text;
    } cases[12];
    size_t n = 0;
#define CASE(field, value, status_, text_)                                                         \
    cases[n].r = good;                                                                             \
    cases[n].r.field = (value);                                                                    \
    cases[n].status = (status_);                                                                   \
    cases[n++].text = (text_)
    CASE(n_prompt, 2, JANG_ERR_ARGUMENT, "prompt: token id 307; the model knows 0 to 306");
    CASE(n_prompt, 0, JANG_ERR_ARGUMENT, "empty");
    CASE(n_prompt, 512, JANG_ERR_FULL, "a prompt of 512 tokens; at most 511");
    CASE(n, 65, JANG_ERR_ARGUMENT, "n 65");
    CASE(n_logprobs, 101, JANG_ERR_ARGUMENT, "n_logprobs 101");
    CASE(sampling.temperature, NAN, JANG_ERR_ARGUMENT, "temperature");
    CASE(n_max, -2, JANG_ERR_ARGUMENT, "n_max -2");
    CASE(stop, &empty, JANG_ERR_ARGUMENT, "stop string 0");
    cases[n - 1].r.n_stop = 1;
    CASE(thinking.open, "<think>", JANG_ERR_ARGUMENT, "closing marker");
    CASE(task, JANG_TASK_SCORE, JANG_ERR_ARGUMENT, "n_choices 0");
    for (size_t i = 0; i < n; i++) {
        uint64_t id = 0;
        jang_message message = {""};
        assert_int_equal(jang_engine_submit(&id, e, &cases[i].r, &message), cases[i].status);
        if (!strstr(message.text, cases[i].text)) {
            fail_msg("\"%s\" lacks \"%s\"", message.text, cases[i].text);
        }
        assert_int_equal(id, 0);
    }
    jang_engine *none;
    jang_engine_options o = options();
    o.kv_budget = 1000;
    assert_fails(ctx, jang_engine_new(&none, m, &o), JANG_ERR_ARGUMENT, "kv_budget of 1000");
    o = options();
    o.n_parallel = 0;
    assert_fails(ctx, jang_engine_new(&none, m, &o), JANG_ERR_ARGUMENT, "n_parallel 0");
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_generates_as_a_session_does),
        cmocka_unit_test(test_engine_answers_depend_on_the_request_alone),
        cmocka_unit_test(test_engine_hybrids_depend_on_the_request_alone),
        cmocka_unit_test(test_engine_hybrids_reuse_what_they_wrote),
        cmocka_unit_test(test_engine_long_rope_depends_on_the_request_alone),
        cmocka_unit_test(test_engine_reuses_whole_pages),
        cmocka_unit_test(test_engine_caches_what_it_generates),
        cmocka_unit_test(test_lookup_repeats_what_followed),
        cmocka_unit_test(test_lookup_saves_steps),
        cmocka_unit_test(test_lookup_knows_what_rows_cost),
        cmocka_unit_test(test_engine_refuses_other_vocabularies),
        cmocka_unit_test(test_engine_answers_share_their_prompt),
        cmocka_unit_test(test_engine_cancels_within_a_step),
        cmocka_unit_test(test_engine_limits_its_queue),
        cmocka_unit_test(test_engine_ends_with_work_left),
        cmocka_unit_test(test_engine_refuses_what_it_cannot_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
