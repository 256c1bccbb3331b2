/* engine_rig.c - engines in tests: requests whose answers are collected and compared. */
#include "engine_rig.h"

#include "model_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void take_tokens(got *g, const jang_event *event) {
    for (size_t i = 0; i < event->n_tokens; i++) {
        const jang_token *token = &event->tokens[i];
        assert_true(g->n_ids < GOT_MAX);
        g->ids[g->n_ids] = token->chosen.id;
        g->logprobs[g->n_ids++] = token->chosen.logprob;
        for (size_t j = 0; j < token->n_top; j++) {
            g->top_sum += (double)token->top[j].logprob * (double)(token->top[j].id + 1);
            assert_true(j == 0 || token->top[j - 1].logprob >= token->top[j].logprob);
        }
    }
}

void got_event(void *user, const jang_event *event) {
    (void)user;
    got *g = (got *)event->user + event->index;
    assert_int_equal(g->n_ends, 0);
    assert_int_equal(event->text[event->n_bytes], 0);
    switch (event->kind) {
    case JANG_EVENT_START:
        g->n_starts++;
        g->stats = *event->stats;
        break;
    case JANG_EVENT_PROMPT:
        g->prompt_logprobs[g->n_prompt++] = event->tokens[0].chosen.logprob;
        break;
    case JANG_EVENT_TEXT:
        g->n_texts++;
        buf_put(&g->text, event->text, event->n_bytes);
        take_tokens(g, event);
        break;
    case JANG_EVENT_RESULT:
        memcpy(g->values, event->values, event->n_values * sizeof *g->values);
        g->n_values = event->n_values;
        break;
    case JANG_EVENT_END:
        g->n_ends++;
        g->was_last = event->last;
        g->finish = event->finish;
        g->stop = event->stop;
        g->end_id = event->end_id;
        g->status = event->status;
        g->stats = *event->stats;
        break;
    }
}

got *got_new(ctx_t *ctx, size_t n) {
    got *g = calloc(n, sizeof *g);
    assert_non_null(g);
    for (size_t i = 0; i < n; i++) {
        buf_init(&g[i].text, ctx, BUF_NO_LIMIT);
    }
    return g;
}

void got_free(got *g, size_t n) {
    for (size_t i = 0; i < n; i++) {
        buf_free(&g[i].text);
    }
    free(g);
}

void got_assert_equal(const got *a, const got *b) {
    assert_int_equal(a->n_ends, 1);
    assert_int_equal(b->n_ends, 1);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->stop, b->stop);
    assert_int_equal(a->end_id, b->end_id);
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, a->n_ids * sizeof *a->logprobs);
    assert_true(a->top_sum == b->top_sum);
    assert_int_equal(a->text.size, b->text.size);
    assert_memory_equal(a->text.data, b->text.data, a->text.size);
}

void engine_run(ctx_t *ctx, jang_engine *e) {
    bool busy = true;
    for (int i = 0; busy; i++) {
        assert_true(i < 100000);
        assert_ok(ctx, jang_engine_step(&busy, e));
    }
}

jang_engine *engine_open(jang_model **m, ctx_t *ctx, const char *name, jang_engine_options o) {
    jang_engine *e;
    o.on_event = got_event;
    assert_ok(ctx, jang_model_open(m, ctx, test_path(TEST_MODELS, name), NULL));
    assert_ok(ctx, jang_engine_new(&e, *m, &o));
    return e;
}

got *engine_ask(ctx_t *ctx, jang_engine *e, jang_request r) {
    got *g = got_new(ctx, (size_t)r.n);
    jang_message message = {""};
    uint64_t id;
    r.user = g;
    if (jang_engine_submit(&id, e, &r, &message) != JANG_OK) {
        fail_msg("submit: %s", message.text);
    }
    engine_run(ctx, e);
    return g;
}

void engine_check_cached(ctx_t *ctx, jang_engine *e, jang_request r, int32_t n_cached,
                         const char *name) {
    got *warm = engine_ask(ctx, e, r);
    r.cache_prompt = false;
    got *cold = engine_ask(ctx, e, r);
    if ((int32_t)warm->stats.n_cached != n_cached || cold->stats.n_cached != 0) {
        fail_msg("%s: %d tokens came from the cache, not %d, and %d without it", name,
                 (int)warm->stats.n_cached, (int)n_cached, (int)cold->stats.n_cached);
    }
    got_assert_equal(warm, cold);
    got_free(warm, 1);
    got_free(cold, 1);
}

float *exact_logits(ctx_t *ctx, const char *path, const int32_t *ids, size_t n) {
    jang_model_options exact = jang_model_options_default();
    jang_model *m;
    jang_session *s;
    exact.exact = true;
    assert_ok(ctx, jang_model_open(&m, ctx, path, &exact));
    float *logits = malloc(n * (size_t)jang_model_get_info(m)->n_vocab * sizeof *logits);
    assert_non_null(logits);
    assert_ok(ctx, jang_session_new(&s, m, NULL));
    assert_ok(ctx, jang_session_append(s, ids, n, logits));
    jang_session_free(s);
    jang_model_free(m);
    return logits;
}

void random_ids(int32_t *ids, size_t n, uint64_t seed) {
    test_rng rng = {seed};
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(3 + rng_below(&rng, 300));
    }
}
