/* test_sampler.c - which tokens stay, and with what frequency they are drawn. */
#include "support.h"

#include "engine/logprobs.h"
#include "engine/sampler.h"

#include <math.h>
#include <string.h>

#define N_VOCAB 1000

/* Probabilities 0.5, 0.25, 0.125, ... at ids 7, 14, 21, ...; all others far below. */
static void halving_logits(float *logits) {
    for (int i = 0; i < N_VOCAB; i++) {
        logits[i] = -50;
    }
    for (int k = 0; k < 8; k++) {
        logits[7 * (k + 1)] = 3 - (float)k * logf(2);
    }
}

/* Draws from a copy of the logits, as token number position. */
static int32_t pick(sampler *s, const jang_sampling *options, const float *logits, int32_t n_vocab,
                    size_t position) {
    static float copy[20000];
    memcpy(copy, logits, (size_t)n_vocab * sizeof *copy);
    return sampler_pick(s, &(sample_task){.options = options,
                                          .seed = options->seed,
                                          .logits = copy,
                                          .n_ids = position,
                                          .n_prompt = position});
}

/* Draws n tokens and returns how often each of the eight came; others must not come. */
static void count_draws(ctx_t *ctx, const jang_sampling *options, int n, int counts[8]) {
    float logits[N_VOCAB];
    halving_logits(logits);
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, N_VOCAB));
    memset(counts, 0, 8 * sizeof *counts);
    for (int i = 0; i < n; i++) {
        int32_t id = pick(s, options, logits, N_VOCAB, (size_t)i);
        assert_true(id % 7 == 0 && id >= 7 && id <= 56);
        counts[id / 7 - 1]++;
    }
    sampler_free(s);
}

static void test_sampler_zero_temperature_takes_the_likeliest(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    float logits[] = {1, 5, 5, NAN, 2};
    jang_sampling options = {.temperature = 0, .top_p = 1};
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, 5));
    assert_int_equal(pick(s, &options, logits, 5, 0), 1);
    sampler_free(s);
    jang_context_free(ctx);
}

/* 20,000 draws: five standard deviations of the binomial around each expectation. */
static void assert_frequencies(const int counts[8], int n, const double *p) {
    for (int k = 0; k < 8; k++) {
        double sigma = sqrt(n * p[k] * (1 - p[k]));
        assert_true(fabs(counts[k] - n * p[k]) <= 5 * sigma + 1e-9);
    }
}

static void test_sampler_draws_by_probability(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    int counts[8], n = 20000;
    double p[8], sum = 0;
    const float temperatures[] = {1, 0.5F, 2};
    for (int t = 0; t < 3; t++) {
        jang_sampling options = {.temperature = temperatures[t], .top_p = 1, .seed = 11};
        count_draws(ctx, &options, n, counts);
        sum = 0;
        for (int k = 0; k < 8; k++) {
            sum += p[k] = pow(0.5, k / (double)temperatures[t]);
        }
        for (int k = 0; k < 8; k++) {
            p[k] /= sum;
        }
        assert_frequencies(counts, n, p);
    }
    jang_context_free(ctx);
}

static void test_sampler_limits_keep_the_right_tokens(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const struct {
        jang_sampling options;
        int n_kept;
    } cases[] = {
        {{.temperature = 1, .top_p = 1, .top_k = 3}, 3},
        {{.temperature = 1, .top_p = 0.7F}, 2}, /* 0.502 + 0.251 reach 0.7 */
        {{.temperature = 1, .top_p = 0.8F}, 3},
        {{.temperature = 1, .top_p = 1, .min_p = 0.2F}, 3}, /* 1, 1/2, 1/4 of the best */
        {{.temperature = 1, .top_p = 0.99F, .top_k = 5, .min_p = 0.01F}, 5},
        {{.temperature = 1, .top_p = 0.5F, .top_k = 2}, 1}, /* 2/3 of what top-k kept */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int counts[8], n = 20000;
        double p[8] = {0}, sum = 0;
        count_draws(ctx, &cases[i].options, n, counts);
        for (int k = 0; k < cases[i].n_kept; k++) {
            sum += p[k] = pow(0.5, k);
        }
        for (int k = 0; k < cases[i].n_kept; k++) {
            p[k] /= sum;
        }
        assert_frequencies(counts, n, p);
    }
    jang_context_free(ctx);
}

/* Without limits the ids are walked through in order, as with one that lets all pass. */
static void test_sampler_draws_from_all_in_order(void **state) {
    (void)state;
    enum { N = 20000 };
    ctx_t *ctx = test_context();
    test_rng rng = {6};
    static float logits[N];
    for (int i = 0; i < N; i++) {
        logits[i] = i % 7 ? rng_normal(&rng) : -INFINITY;
    }
    jang_sampling plain = {.temperature = 0.7F, .top_p = 1, .seed = 3}, limited = plain;
    limited.min_p = 1e-30F;
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, N));
    for (size_t position = 0; position < 100; position++) {
        int32_t id = pick(s, &plain, logits, N, position);
        assert_int_equal(id, pick(s, &limited, logits, N, position));
        assert_true(id % 7 != 0);
    }
    sampler_free(s);
    jang_context_free(ctx);
}

/* top_p alone sorts the head of the vocabulary only; with a top_k that leaves out one token it
 * sorts all. The draws must be the same, also where the head is long. */
static void test_sampler_top_p_needs_no_top_k(void **state) {
    (void)state;
    enum { N = 20000 };
    ctx_t *ctx = test_context();
    test_rng rng = {5};
    static float logits[N];
    for (int i = 0; i < N; i++) {
        logits[i] = rng_normal(&rng);
    }
    for (int width = 0; width < 3; width++) {
        for (int i = 0; i < N; i++) {
            logits[i] *= 4;
        }
        for (float top_p = 0.1F; top_p < 1; top_p += 0.2F) {
            jang_sampling alone = {.temperature = 1.5F, .top_p = top_p, .seed = 9}, both = alone;
            both.top_k = N - 1;
            sampler *a, *b;
            assert_ok(ctx, sampler_new(&a, ctx, N));
            assert_ok(ctx, sampler_new(&b, ctx, N));
            for (size_t position = 0; position < 20; position++) {
                assert_int_equal(pick(a, &alone, logits, N, position),
                                 pick(b, &both, logits, N, position));
            }
            sampler_free(a);
            sampler_free(b);
        }
    }
    jang_context_free(ctx);
}

static void test_sampler_depends_on_seed_and_position(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    float logits[N_VOCAB];
    for (int i = 0; i < N_VOCAB; i++) {
        logits[i] = 0.001F * (float)(i % 17);
    }
    jang_sampling options = {.temperature = 1, .top_p = 1, .seed = 5};
    sampler *a, *b;
    assert_ok(ctx, sampler_new(&a, ctx, N_VOCAB));
    assert_ok(ctx, sampler_new(&b, ctx, N_VOCAB));
    int32_t at_9 = pick(a, &options, logits, N_VOCAB, 9);
    for (size_t i = 0; i < 9; i++) {
        (void)pick(b, &options, logits, N_VOCAB, i);
    }
    assert_int_equal(pick(b, &options, logits, N_VOCAB, 9), at_9);
    jang_sampling other = options;
    other.seed = 6;
    int n_equal = 0;
    for (size_t i = 0; i < 100; i++) {
        n_equal += pick(a, &options, logits, N_VOCAB, i) == pick(b, &other, logits, N_VOCAB, i);
    }
    assert_true(n_equal < 10);
    sampler_free(a);
    sampler_free(b);
    jang_context_free(ctx);
}

/* Every kept token comes out of 4000 draws; none of the others does. */
static void assert_kept(const sample_task *task, const float *logits, int32_t n, const char *kept) {
    ctx_t *ctx = test_context();
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, n));
    char came[64] = "";
    for (uint64_t seed = 0; seed < 4000; seed++) {
        float copy[64];
        sample_task t = *task;
        memcpy(copy, logits, (size_t)n * sizeof *copy);
        t.logits = copy;
        t.seed = seed;
        came[sampler_pick(s, &t)] = 1;
    }
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(came[i], kept[i] == '1');
    }
    sampler_free(s);
    jang_context_free(ctx);
}

static void test_sampler_heeds_biases_masks_and_bans(void **state) {
    (void)state;
    const float logits[] = {1, 1, 1, 1, 1, 1};
    const jang_bias biases[] = {{0, -100}, {1, 100}, {2, 99.5F}};
    const jang_sampling plain = {.temperature = 1, .top_p = 1};
    jang_sampling biased = plain;
    biased.biases = biases;
    biased.n_biases = 3;
    const uint64_t mask = 0x2b; /* 0, 1, 3, 5 */
    const int32_t banned[] = {5, 1};
    assert_kept(&(sample_task){.options = &biased}, logits, 6, "011000");
    assert_kept(&(sample_task){.options = &plain, .mask = &mask}, logits, 6, "110101");
    assert_kept(&(sample_task){.options = &plain, .mask = &mask, .banned = banned, .n_banned = 2},
                logits, 6, "100100");
    assert_kept(&(sample_task){.options = &biased, .mask = &mask}, logits, 6, "010000");
}

static void test_sampler_says_when_nothing_is_left(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    float logits[] = {1, 2};
    const uint64_t mask = 0;
    const jang_sampling options = {.temperature = 1, .top_p = 1};
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, 2));
    assert_int_equal(
        sampler_pick(s, &(sample_task){.options = &options, .logits = logits, .mask = &mask}), -1);
    sampler_free(s);
    jang_context_free(ctx);
}

/* What the penalties leave of logits, seen through the likeliest token. */
static void test_sampler_penalties_change_the_likeliest(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const float logits[] = {4, 3, 2, -1, -1.5F};
    static const int32_t ids[] = {4, 0, 0, 1, 1, 1}; /* the first two are the prompt's */
    static const struct {
        jang_sampling options;
        int32_t expected;
    } cases[] = {
        {{.repetition_penalty = 1.3F}, 0},                          /* 3.08, 2.31, 2 */
        {{.repetition_penalty = 2.5F}, 2},                          /* 1.6, 1.2, 2 */
        {{.repetition_penalty = 2.5F, .repetition_context = 3}, 0}, /* of 1 only */
        {{.repetition_penalty = 2.5F, .repetition_context = 4}, 2},
        {{.frequency_penalty = 0.9F}, 0}, /* 3.1, 0.3, 2 */
        {{.frequency_penalty = 2}, 0},    /* 2, -3, 2: equals go to the lower id */
        {{.presence_penalty = 2}, 0},     /* 2, 1, 2 */
        {{.frequency_penalty = -1}, 1},   /* 5, 6, 2 */
        {{.frequency_penalty = 0.2F, .presence_penalty = 1.9F}, 2}, /* 1.9, 0.5, 2 */
    };
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, 5));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float copy[5];
        memcpy(copy, logits, sizeof copy);
        const sample_task task = {
            .options = &cases[i].options, .logits = copy, .ids = ids, .n_ids = 6, .n_prompt = 2};
        int32_t id = sampler_pick(s, &task);
        assert_int_equal(id, cases[i].expected);
    }
    sampler_free(s);
    jang_context_free(ctx);
}

/* Of 0.4, 0.3, 0.2, 0.1 the entropy is 1.28 nats; surprises are 0.92, 1.20, 1.61, 2.30, so the most
 * typical is the second, then the third, the first, the fourth. */
static void test_sampler_typical_keeps_the_middle(void **state) {
    (void)state;
    const float logits[] = {logf(0.4F), logf(0.3F), logf(0.2F), logf(0.1F), -60};
    static const struct {
        float p;
        const char *kept;
    } cases[] = {{0.25F, "01000"}, {0.45F, "01100"}, {0.6F, "11100"}, {0.95F, "11110"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        jang_sampling options = {.temperature = 1, .top_p = 1, .typical_p = cases[i].p};
        assert_kept(&(sample_task){.options = &options}, logits, 5, cases[i].kept);
        options.top_p = 0.5F; /* of what typical left */
        static const char *const cut[] = {"01000", "01000", "11000", "11000"};
        assert_kept(&(sample_task){.options = &options}, logits, 5, cut[i]);
    }
}

static void test_logprobs_are_those_of_all_logits(void **state) {
    (void)state;
    float logits[300];
    test_rng rng = {3};
    double sum = 0;
    for (int i = 0; i < 300; i++) {
        logits[i] = i % 7 ? 3 * rng_normal(&rng) : 2;
        sum += exp((double)logits[i]);
    }
    for (int32_t k = 0; k <= 300; k += 20) {
        logprob_entry top[300];
        double all = logprobs_top(top, k, logits, 300);
        assert_true(fabs(all - log(sum)) < 1e-9);
        for (int32_t i = 0; i < k; i++) {
            assert_true(fabs((double)top[i].logprob - ((double)logits[top[i].id] - all)) < 1e-6);
            int32_t rank = 0;
            for (int32_t j = 0; j < 300; j++) {
                float other = logits[j], own = logits[top[i].id];
                rank += other > own || (other == own && j < top[i].id);
            }
            assert_int_equal(rank, i);
        }
    }
}

static void test_sampler_refuses_bad_options(void **state) {
    (void)state;
    static const jang_bias far = {10, 1}, none = {1, NAN};
    static const struct {
        jang_sampling options;
        const char *message;
    } cases[] = {
        {{.temperature = -1, .top_p = 1}, "temperature -1"},
        {{.temperature = NAN, .top_p = 1}, "temperature"},
        {{.temperature = 1, .top_p = -0.5F}, "top_p -0.5"},
        {{.typical_p = 1.5F}, "typical_p 1.5"},
        {{.repetition_penalty = -1}, "repetition_penalty -1"},
        {{.repetition_context = -1}, "repetition_context -1"},
        {{.frequency_penalty = 3}, "frequency_penalty 3"},
        {{.presence_penalty = -3}, "presence_penalty -3"},
        {{.biases = &far, .n_biases = 1}, "token 10; ids 0 to 9"},
        {{.biases = &none, .n_biases = 1}, "biases of -100"},
        {{.temperature = 1, .top_p = 1.5F}, "top_p 1.5"},
        {{.temperature = 1, .top_p = 1, .min_p = 2}, "min_p 2"},
        {{.temperature = 1, .top_p = 1, .top_k = -3}, "top_k -3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[200];
        assert_false(sampling_is_valid(&cases[i].options, 10, text, sizeof text));
        assert_non_null(strstr(text, cases[i].message));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_zero_temperature_takes_the_likeliest),
        cmocka_unit_test(test_sampler_draws_by_probability),
        cmocka_unit_test(test_sampler_limits_keep_the_right_tokens),
        cmocka_unit_test(test_sampler_draws_from_all_in_order),
        cmocka_unit_test(test_sampler_top_p_needs_no_top_k),
        cmocka_unit_test(test_sampler_depends_on_seed_and_position),
        cmocka_unit_test(test_sampler_heeds_biases_masks_and_bans),
        cmocka_unit_test(test_sampler_says_when_nothing_is_left),
        cmocka_unit_test(test_sampler_penalties_change_the_likeliest),
        cmocka_unit_test(test_sampler_typical_keeps_the_middle),
        cmocka_unit_test(test_logprobs_are_those_of_all_logits),
        cmocka_unit_test(test_sampler_refuses_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
