/* test_softmax.c - probabilities of rows of numbers, and their divergence. */
#include "support.h"

#include "base/softmax.h"

#include <math.h>

static void test_softmax_of_logarithms_gives_their_numbers(void **state) {
    (void)state;
    float x[4] = {0, logf(2), logf(3), logf(4)};
    softmax(x, x, 4);
    for (int i = 0; i < 4; i++) {
        assert_float_equal(x[i], (float)(i + 1) / 10, 1e-7);
    }
}

static void test_softmax_of_large_numbers_is_finite(void **state) {
    (void)state;
    const float x[3] = {3e38f, -3e38f, 3e38f};
    float p[3];
    softmax(p, x, 3);
    assert_float_equal(p[0], 0.5f, 0);
    assert_float_equal(p[1], 0, 0);
    assert_float_equal(p[2], 0.5f, 0);
}

/* p = (1, 3) / 4, q = (1, 1) / 2: KL = ln(1/2) / 4 + 3 ln(3/2) / 4; the logits' level is nothing
 * to it. */
static void test_softmax_divergence_of_two_numbers(void **state) {
    (void)state;
    const float want[2] = {50, 50 + logf(3)}, x[2] = {-7, -7};
    double kl = log(0.5) / 4 + 0.75 * log(1.5);
    assert_true(fabs(softmax_divergence(want, x, 2) - kl) < 1e-6);
    assert_true(fabs(softmax_divergence(want, want, 2)) < 1e-9);
}

static void test_softmax_divergence_back_is_the_difference_of_probabilities(void **state) {
    (void)state;
    const float want[3] = {0, logf(2), 0};
    float x[3] = {0, 0, logf(2)};
    double kl = softmax_divergence(want, x, 3);
    assert_true(fabs(softmax_divergence_back(x, want, 3, 8) - kl) < 1e-12);
    assert_float_equal(x[0], 0, 1e-6);
    assert_float_equal(x[1], 8 * -0.25f, 1e-6);
    assert_float_equal(x[2], 8 * 0.25f, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax_of_logarithms_gives_their_numbers),
        cmocka_unit_test(test_softmax_of_large_numbers_is_finite),
        cmocka_unit_test(test_softmax_divergence_of_two_numbers),
        cmocka_unit_test(test_softmax_divergence_back_is_the_difference_of_probabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
