/* test_rounding.c - how inputs of products are rounded, and what that costs. */
#include "ops_cases.h"

#include "ops/rounding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 512
#define GROUP 64

/* Normal numbers; group 1 has an outlier, group 2 is small, group 3 zero. */
static void make_row(float *x) {
    test_rng rng = {7};
    for (int i = 0; i < N; i++) {
        int g = i / GROUP;
        x[i] = rng_normal(&rng) * (g == 2 ? 1e-3F : g == 3 ? 0 : 1);
    }
    x[GROUP + 5] = 60;
}

/* The limit is so many root mean squares of the row: fewer, the more care is asked for. */
static void test_rounding_limit_follows_the_row(void **state) {
    (void)state;
    float x[N];
    for (int i = 0; i < N; i++) {
        x[i] = i % 2 ? -3.0F : 3.0F;
    }
    assert_true(rounding_limit(x, N, ROUND_PLAIN) == 7.5F);
    assert_true(rounding_limit(x, N, ROUND_FINE) == 1.5F);
    x[5] = INFINITY;
    assert_true(!isfinite(rounding_limit(x, N, ROUND_PLAIN)));
}

static void test_rounding_scale_is_bounded(void **state) {
    (void)state;
    float scale, inverse;
    assert_true(rounding_scale(&scale, &inverse, 254, 1e9F)); /* no outlier: max / 127 */
    assert_true(scale == 2 && inverse == 0.5F);
    assert_true(rounding_scale(&scale, &inverse, 254, 127)); /* one above the limit */
    assert_true(scale == 1 && inverse == 1);
    assert_true(rounding_scale(&scale, &inverse, 254.0F * 256, 127)); /* far above: never clipped */
    assert_true(scale == 2);
    assert_true(rounding_scale(&scale, &inverse, 254, NAN)); /* another group is not finite */
    assert_true(scale == 2);
    assert_false(rounding_scale(&scale, &inverse, INFINITY, NAN));
    assert_true(isnan(scale));
    assert_false(rounding_scale(&scale, &inverse, 0x1p-101F, 1));
    assert_true(scale == 0);
}

/* Largest error of y = W x over the largest |y|, on a backend. */
static double product_error(ctx_t *ctx, const char *backend, int bits, bool fine) {
    test_rng rng = {11};
    float x[N], y[16];
    make_row(x);
    case_weight w = case_weight_new(&rng, 16, N, bits, GROUP, DT_F16, false);
    w.desc.fine = fine;
    ops *o;
    ops_weight *weight;
    assert_ok(ctx, ops_open(&o, ctx, backend, &(ops_options){0}));
    assert_ok(ctx, o->table->reserve(o, &(ops_limits){.n_tok = 1, .width = N}));
    assert_ok(ctx, o->table->weight_new(&weight, o, &w.desc));
    ops_mat in = case_mat(o, 1, N, x), out = case_mat(o, 1, 16, NULL);
    o->table->linear(o, in, &(linear_item){.weight = weight, .y = out}, 1);
    assert_ok(ctx, o->table->finish(o));
    case_read(o, out, y);
    double error = 0, largest = 0;
    for (int r = 0; r < 16; r++) {
        double exact = 0;
        for (int i = 0; i < N; i++) {
            exact += (double)w.dense[r * N + i] * (double)x[i];
        }
        error = fmax(error, fabs((double)y[r] - exact));
        largest = fmax(largest, fabs(exact));
    }
    o->table->buf_free(o, in.buf);
    o->table->buf_free(o, out.buf);
    o->table->weight_free(o, weight);
    ops_close(o);
    case_weight_free(&w);
    return error / largest;
}

/* The more care, the smaller the steps; an outlier does not make its group coarse: one byte a
 * number would leave 60 / 254 in group 1, half of its deviation. */
static void test_rounding_care_shows_in_products(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const char *const backends[] = {"ref", "cpu"};
    for (int i = 0; i < 2; i++) {
        double plain = product_error(ctx, backends[i], 4, false);
        double fine = product_error(ctx, backends[i], 4, true);
        double finest = product_error(ctx, backends[i], 2, false);
        assert_true(plain > 1e-5 && plain < 1e-2);
        assert_true(fine < plain / 2);
        assert_true(finest < 3e-3);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_limit_follows_the_row),
        cmocka_unit_test(test_rounding_scale_is_bounded),
        cmocka_unit_test(test_rounding_care_shows_in_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
