/* test_residual.c - the second 8-bit row of inputs: what it holds, and what it is worth. */
#include "ops_cases.h"

#include "ops/residual.h"

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

static float group_max(const float *x) {
    float max = 0;
    for (int i = 0; i < GROUP; i++) {
        max = fmaxf(max, fabsf(x[i]));
    }
    return max;
}

/* Everywhere at most half a step of the first rounding is left, and x minus it is on that grid. */
static void test_residual_is_what_rounding_left(void **state) {
    (void)state;
    float x[N], left[N];
    make_row(x);
    residual_row(left, x, N, GROUP, true);
    for (int i = 0; i < N; i++) {
        float step = group_max(x + i / GROUP * GROUP) / 127;
        assert_true(fabsf(left[i]) <= 0.501F * step);
        if (step > 0) {
            float code = (x[i] - left[i]) / step;
            assert_true(fabsf(code - rintf(code)) < 1e-4F);
        }
    }
}

static void test_residual_leaves_out_even_groups(void **state) {
    (void)state;
    float x[N], all[N], some[N];
    make_row(x);
    residual_row(all, x, N, GROUP, true);
    residual_row(some, x, N, GROUP, false);
    for (int i = 0; i < N; i++) {
        assert_true(some[i] == (i / GROUP == 1 ? all[i] : 0));
    }
    x[3] = NAN;
    x[4 * GROUP] = INFINITY;
    residual_row(all, x, N, GROUP, true);
    for (int i = 0; i < GROUP; i++) {
        assert_true(all[i] == 0 && all[4 * GROUP + i] == 0);
    }
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

/* Rounding in steps of max / 127 / 254 instead of max / 127. 2-bit weights are fine unasked. */
static void test_residual_makes_fine_products_exact(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const char *const backends[] = {"ref", "cpu"};
    for (int i = 0; i < 2; i++) {
        assert_true(product_error(ctx, backends[i], 4, true) < 1e-4);
        assert_true(product_error(ctx, backends[i], 2, false) < 1e-4);
        double plain = product_error(ctx, backends[i], 4, false);
        assert_true(plain > 1e-4 && plain < 1e-2);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_residual_is_what_rounding_left),
        cmocka_unit_test(test_residual_leaves_out_even_groups),
        cmocka_unit_test(test_residual_makes_fine_products_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
