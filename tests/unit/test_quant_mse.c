/* test_quant_mse.c - least squares grids: against round to nearest, across instruction sets, and
 * for groups that have no grid. */
#include "base/half.h"
#include "quant/quantizer.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_COLUMNS 256
#define N_ROWS 24
#define N_WEIGHTS (N_COLUMNS * N_ROWS)

static const int widths[] = {2, 3, 4, 5, 6, 8};
static const int groups[] = {32, 64, 128};

typedef struct outcome {
    uint8_t codes[N_WEIGHTS];
    float scales[N_WEIGHTS / 32], biases[N_WEIGHTS / 32];
} outcome;

static quant_fn method(ctx_t *ctx, const char *name, cpu_isa isa) {
    const quantizer *q = NULL;
    assert_ok(ctx, quantizer_find(&q, ctx, name));
    return q->fn[isa];
}

static quant_block block_of(outcome *out, const float *w, int bits, int group,
                            const float *importance) {
    return (quant_block){w,          N_ROWS,      N_COLUMNS,   bits,   group,
                         out->codes, out->scales, out->biases, DT_F16, importance};
}

static void fill(float *w, uint64_t seed) {
    test_rng rng = {seed};
    for (int i = 0; i < N_WEIGHTS; i++) {
        w[i] = 0.02f * rng_normal(&rng) * (i % 37 == 0 ? 3.0f : 1.0f);
    }
}

/* Weighted squared error, with scales rounded as stored. */
static double error_of(const outcome *o, const float *w, int group, const float *importance) {
    double sum = 0;
    for (int i = 0; i < N_WEIGHTS; i++) {
        float s = f16_to_f32(f32_to_f16(o->scales[i / group]));
        float b = f16_to_f32(f32_to_f16(o->biases[i / group]));
        double e = (double)w[i] - ((double)o->codes[i] * (double)s + (double)b);
        sum += e * e * (importance ? (double)importance[i % N_COLUMNS] : 1.0);
    }
    return sum;
}

static void test_quant_mse_errs_less_than_round_to_nearest(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static float w[N_WEIGHTS], importance[N_COLUMNS];
    static outcome ours, nearest;
    fill(w, 3);
    for (int i = 0; i < N_COLUMNS; i++) {
        importance[i] = i % 11 == 0 ? 20.0f : 1.0f;
    }
    for (int weighted = 0; weighted < 2; weighted++) {
        const float *v = weighted ? importance : NULL;
        for (size_t b = 0; b < sizeof widths / sizeof *widths; b++) {
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                quant_block block = block_of(&ours, w, widths[b], groups[g], v);
                assert_true(method(ctx, "mse", CPU_SCALAR)(&block));
                block = block_of(&nearest, w, widths[b], groups[g], NULL);
                assert_true(method(ctx, "rtn", CPU_SCALAR)(&block));
                double a = error_of(&ours, w, groups[g], v);
                double r = error_of(&nearest, w, groups[g], v);
                if (widths[b] == 2 && !v) {
                    assert_memory_equal(&ours, &nearest, sizeof ours);
                } else if (!(a < r * (weighted ? 0.9 : 0.97))) {
                    fail_msg("%d bits, group %d: error %g, round to nearest %g", widths[b],
                             groups[g], a, r);
                }
            }
        }
    }
    jang_context_free(ctx);
}

static void test_quant_mse_is_the_same_on_every_instruction_set(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static float w[N_WEIGHTS];
    static outcome scalar, other;
    fill(w, 5);
    for (int isa = 1; isa < CPU_N_ISA; isa++) {
        quant_fn fn = method(ctx, "mse", (cpu_isa)isa);
        if (!fn || !cpu_has((cpu_isa)isa)) {
            continue;
        }
        for (size_t b = 0; b < sizeof widths / sizeof *widths; b++) {
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                quant_block block = block_of(&scalar, w, widths[b], groups[g], NULL);
                assert_true(method(ctx, "mse", CPU_SCALAR)(&block));
                block = block_of(&other, w, widths[b], groups[g], NULL);
                assert_true(fn(&block));
                assert_memory_equal(&scalar, &other, sizeof other);
            }
        }
    }
    jang_context_free(ctx);
}

static void test_quant_mse_meets_groups_without_a_grid(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const float values[] = {0.0f, 1.0f, -0.25f, 6e-8f, 1e-38f, 60000.0f};
    quant_fn fn = method(ctx, "mse", CPU_SCALAR);
    float w[64], scale, bias;
    uint8_t codes[64];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (int i = 0; i < 64; i++) {
            w[i] = values[v];
        }
        quant_block block = {w, 1, 64, 4, 64, codes, &scale, &bias, DT_F16, NULL};
        assert_true(fn(&block));
        float back = (float)codes[0] * scale + f16_to_f32(f32_to_f16(bias));
        assert_float_equal(back, values[v], 1e-6f + 1e-3f * fabsf(values[v]));
    }
    w[63] = NAN;
    quant_block block = {w, 1, 64, 4, 64, codes, &scale, &bias, DT_F16, NULL};
    assert_false(fn(&block));
    w[63] = 3e38f; /* finite, but no f16 scale fits: the caller sees that */
    assert_true(fn(&block));
    assert_true(fabsf(scale) > 65504.0f);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_mse_errs_less_than_round_to_nearest),
        cmocka_unit_test(test_quant_mse_is_the_same_on_every_instruction_set),
        cmocka_unit_test(test_quant_mse_meets_groups_without_a_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
