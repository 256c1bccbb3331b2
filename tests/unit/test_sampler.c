/* test_sampler.c - which tokens stay, and with what frequency they are drawn. */
#include "support.h"

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

/* Draws n tokens and returns how often each of the eight came; others must not come. */
static void count_draws(ctx_t *ctx, const jang_sampling *options, int n, int counts[8]) {
    float logits[N_VOCAB];
    halving_logits(logits);
    sampler *s;
    assert_ok(ctx, sampler_new(&s, ctx, options, N_VOCAB));
    memset(counts, 0, 8 * sizeof *counts);
    for (int i = 0; i < n; i++) {
        int32_t id = sampler_pick(s, logits, (uint64_t)i);
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
    assert_ok(ctx, sampler_new(&s, ctx, &options, 5));
    assert_int_equal(sampler_pick(s, logits, 0), 1);
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

/* top_p alone sorts the head of the vocabulary only; with a top_k that leaves out one token it
 * sorts all. The draws must be the same, also where the head is long. */
static void test_sampler_top_p_needs_no_top_k(void **state) {
    (void)state;
    enum { N = 4000 };
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
            assert_ok(ctx, sampler_new(&a, ctx, &alone, N));
            assert_ok(ctx, sampler_new(&b, ctx, &both, N));
            for (uint64_t position = 0; position < 100; position++) {
                assert_int_equal(sampler_pick(a, logits, position),
                                 sampler_pick(b, logits, position));
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
    assert_ok(ctx, sampler_new(&a, ctx, &options, N_VOCAB));
    assert_ok(ctx, sampler_new(&b, ctx, &options, N_VOCAB));
    int32_t at_9 = sampler_pick(a, logits, 9);
    for (uint64_t i = 0; i < 9; i++) {
        (void)sampler_pick(b, logits, i);
    }
    assert_int_equal(sampler_pick(b, logits, 9), at_9);
    sampler_free(b);
    options.seed = 6;
    assert_ok(ctx, sampler_new(&b, ctx, &options, N_VOCAB));
    int n_equal = 0;
    for (uint64_t i = 0; i < 100; i++) {
        n_equal += sampler_pick(a, logits, i) == sampler_pick(b, logits, i);
    }
    assert_true(n_equal < 10);
    sampler_free(a);
    sampler_free(b);
    jang_context_free(ctx);
}

static void test_sampler_refuses_bad_options(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const struct {
        jang_sampling options;
        const char *message;
    } cases[] = {
        {{.temperature = -1, .top_p = 1}, "temperature -1"},
        {{.temperature = NAN, .top_p = 1}, "temperature"},
        {{.temperature = 1, .top_p = 0}, "top_p 0"},
        {{.temperature = 1, .top_p = 1.5F}, "top_p 1.5"},
        {{.temperature = 1, .top_p = 1, .min_p = 2}, "min_p 2"},
        {{.temperature = 1, .top_p = 1, .top_k = -3}, "top_k -3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sampler *s;
        assert_fails(ctx, sampler_new(&s, ctx, &cases[i].options, 10), JANG_ERR_ARGUMENT,
                     cases[i].message);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_zero_temperature_takes_the_likeliest),
        cmocka_unit_test(test_sampler_draws_by_probability),
        cmocka_unit_test(test_sampler_limits_keep_the_right_tokens),
        cmocka_unit_test(test_sampler_top_p_needs_no_top_k),
        cmocka_unit_test(test_sampler_depends_on_seed_and_position),
        cmocka_unit_test(test_sampler_refuses_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
