/* engine_rig.h - engines in tests: requests whose answers are collected and compared. */
#ifndef TEST_ENGINE_RIG_H
#define TEST_ENGINE_RIG_H

#include "support.h"

#include "base/buf.h"

#define GOT_MAX 600

/* What came of one answer. */
typedef struct got {
    buf text;
    int32_t ids[GOT_MAX];
    float logprobs[GOT_MAX];
    size_t n_ids;
    double top_sum; /* of the top lists' log-probabilities, to compare them */
    float prompt_logprobs[GOT_MAX];
    size_t n_prompt;
    float values[1024];
    size_t n_values;
    int n_starts, n_ends, n_texts;
    bool was_last;
    jang_finish finish;
    int32_t stop, end_id;
    jang_status status;
    jang_request_stats stats;
} got;

/* options.on_event; each request's user is a got [n]. */
void got_event(void *user, const jang_event *event);
/* n empty ones. */
got *got_new(ctx_t *ctx, size_t n);
void got_free(got *g, size_t n);
/* Whether text, ids, log-probabilities and end are equal, to the bit. */
void got_assert_equal(const got *a, const got *b);

/* Steps until there is nothing to do. */
void engine_run(ctx_t *ctx, jang_engine *e);
/* Opens a tiny model by name, and an engine on it whose on_event is set to got_event. */
jang_engine *engine_open(jang_model **m, ctx_t *ctx, const char *name, jang_engine_options o);
/* Submits, runs, and returns what came of the first answer. */
got *engine_ask(ctx_t *ctx, jang_engine *e, jang_request r);
/* Of a request, n_cached tokens come from the cache, and the answer is the same as without it. */
void engine_check_cached(ctx_t *ctx, jang_engine *e, jang_request r, int32_t n_cached,
                         const char *name);

/* Logits of n tokens by a model, with f32 activations: [n, n_vocab], freed by the caller (free). */
float *exact_logits(ctx_t *ctx, const char *path, const int32_t *ids, size_t n);

/* Writes n random ids, the same for a seed; none ends a turn. */
void random_ids(int32_t *ids, size_t n, uint64_t seed);

#endif
