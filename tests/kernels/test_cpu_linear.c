/* test_cpu_linear.c - products of the cpu backend, for every instruction set of this machine:
 * against ref within a derived bound, and row by row against themselves to the last bit. */
#include "base/cpu.h"
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int widths[] = {0, 2, 3, 4, 5, 6, 8};
static const dtype types[] = {DT_F32, DT_F16, DT_BF16};

enum { MAX_TOK = 130 };

/* Opens a backend; the cpu one with this instruction set. */
static ops *open_backend(ctx_t *ctx, const char *name, cpu_isa isa, bool exact) {
    ops *o;
    ops_options options = {.exact = exact};
    setenv("JANG_ISA", cpu_isa_name(isa), 1);
    assert_ok(ctx, ops_open(&o, ctx, name, &options));
    unsetenv("JANG_ISA");
    ops_limits limits = {.n_tok = MAX_TOK, .width = 4096};
    assert_ok(ctx, o->table->reserve(o, &limits));
    return o;
}

/* y [n_tok, n_out] = W x, or y += W x + bias where the weight has one. */
static void multiply(ops *o, const case_weight *w, const float *x, float *y, int64_t n_tok) {
    ops_weight *weight;
    assert_ok(o->ctx, o->table->weight_new(&weight, o, &w->desc));
    ops_mat mx = case_mat(o, n_tok, w->desc.n_in, x), my = case_mat(o, n_tok, w->desc.n_out, y);
    linear_item item = {.weight = weight, .y = my, .accumulate = w->desc.bias != NULL};
    o->table->linear(o, mx, &item, 1);
    case_read(o, my, y);
    o->table->buf_free(o, mx.buf);
    o->table->buf_free(o, my.buf);
    o->table->weight_free(o, weight);
}

/* How far two f32 summations of row r may be apart: each of at most `terms` roundings of partial
 * sums that never exceed sum |w| |x|, where |x| may have grown by its rounding to 8 bits. */
static double bound(const case_weight *w, const float *x, int64_t r, bool rounded) {
    double sum = 0;
    int64_t n = w->desc.n_in, step = rounded ? w->desc.group : 1;
    for (int64_t g = 0; g < n; g += step) {
        double top = 0;
        for (int64_t i = g; rounded && i < g + step; i++) {
            top = fmax(top, fabs((double)x[i]));
        }
        for (int64_t i = g; i < g + step; i++) {
            sum += w->size[r * n + i] * (fabs((double)x[i]) + top / 254);
        }
    }
    double terms = (rounded ? 4 * (double)n / w->desc.group : (double)n) + 16;
    return terms * 0x1p-24 * (sum + 10);
}

static void compare_with_ref(cpu_isa isa, int64_t n_out, int64_t n_in, int bits, int group,
                             dtype type, bool bias, bool exact) {
    enum { N_TOK = 33 };
    ctx_t *ctx = test_context();
    test_rng rng = {(uint64_t)(n_out * 31 + n_in * 7 + bits * 3 + group)};
    case_weight w = case_weight_new(&rng, n_out, n_in, bits, group, type, bias);
    float *x = case_activations(&rng, N_TOK * n_in);
    float *want = calloc((size_t)(N_TOK * n_out), sizeof *want);
    float *got = calloc((size_t)(N_TOK * n_out), sizeof *got);
    for (int64_t i = 0; i < N_TOK * n_out; i++) {
        want[i] = got[i] = (float)(i % 3);
    }
    ops *ref = open_backend(ctx, "ref", isa, exact), *cpu = open_backend(ctx, "cpu", isa, exact);
    multiply(ref, &w, x, want, N_TOK);
    multiply(cpu, &w, x, got, N_TOK);
    for (int64_t i = 0; i < N_TOK * n_out; i++) {
        double limit = bound(&w, x + i / n_out * n_in, i % n_out, bits && !exact);
        if (!(fabs((double)got[i] - (double)want[i]) <= limit)) {
            fail_msg("%s, %d bits, group %d, %s, row %d of %d, token %d: %g, but ref %g (+- %g)",
                     cpu->table->name, bits, group, dtype_table[type].name, (int)(i % n_out),
                     (int)n_out, (int)(i / n_out), (double)got[i], (double)want[i], limit);
        }
    }
    ops_close(ref);
    ops_close(cpu);
    free(x);
    free(want);
    free(got);
    case_weight_free(&w);
    jang_context_free(ctx);
}

static void test_cpu_linear_agrees_with_ref(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int b = 0; cpu_has((cpu_isa)isa) && b < 7; b++) {
            for (int g = 0; g < 3; g++) {
                for (int t = 0; t < 3; t++) {
                    int group = 32 << g;
                    int64_t n_in = widths[b] ? group * (g + 5 + 16 * (t == 1)) : 130 + 13 * g + t;
                    int64_t n_out = (const int64_t[]){33, 1, 70}[(g + t) % 3];
                    compare_with_ref((cpu_isa)isa, n_out, n_in, widths[b], group, types[t], t == 2,
                                     false);
                }
            }
        }
    }
}

static void test_cpu_linear_is_exact_on_request(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int b = 1; cpu_has((cpu_isa)isa) && b < 7; b++) {
            compare_with_ref((cpu_isa)isa, 19, 192, widths[b], 64, types[b % 3], b % 2, true);
        }
    }
}

/* The result of a row must not depend on how many rows go with it. */
static void check_rows_alone(cpu_isa isa, int64_t n_out, int64_t n_in, int bits, int group,
                             dtype type, bool bias, bool exact) {
    static const int counts[] = {2, 3, 4, 5, 6, 7, 8, 9, 16, 33, MAX_TOK};
    ctx_t *ctx = test_context();
    test_rng rng = {(uint64_t)(n_in + bits)};
    case_weight w = case_weight_new(&rng, n_out, n_in, bits, group, type, bias);
    float *x = case_activations(&rng, MAX_TOK * n_in);
    float *alone = calloc((size_t)(MAX_TOK * n_out), sizeof *alone);
    float *together = calloc((size_t)(MAX_TOK * n_out), sizeof *together);
    ops *cpu = open_backend(ctx, "cpu", isa, exact);
    for (int64_t t = 0; t < MAX_TOK; t++) {
        multiply(cpu, &w, x + t * n_in, alone + t * n_out, 1);
    }
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        int64_t first = MAX_TOK - counts[c]; /* other rows at the same places of a tile */
        memset(together, 0, (size_t)(MAX_TOK * n_out) * sizeof *together); /* is added to */
        multiply(cpu, &w, x + first * n_in, together, counts[c]);
        if (memcmp(together, alone + first * n_out, (size_t)(counts[c] * n_out) * sizeof *alone) !=
            0) {
            fail_msg("%s, %d bits, group %d: %d rows give other bits than one", cpu->table->name,
                     bits, group, counts[c]);
        }
    }
    ops_close(cpu);
    free(x);
    free(alone);
    free(together);
    case_weight_free(&w);
    jang_context_free(ctx);
}

static void test_cpu_linear_treats_rows_independently(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (!cpu_has((cpu_isa)isa)) {
            continue;
        }
        for (int b = 0; b < 7; b++) {
            for (int g = 0; g < 3; g++) {
                int group = 32 << g;
                check_rows_alone((cpu_isa)isa, 37, widths[b] ? group * 9 : 275, widths[b], group,
                                 types[g], false, false);
                if (widths[b] && g == 1) {
                    check_rows_alone((cpu_isa)isa, 37, group * 18, widths[b], group, DT_F16, false,
                                     false);
                    check_rows_alone((cpu_isa)isa, 11, group * 3, widths[b], group, DT_F16, false,
                                     true);
                }
            }
        }
    }
}

/* Of a tall weight several panels meet a tile of rows, the last of them in part. */
static void test_cpu_linear_treats_tall_weights_alike(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int bias = 0; cpu_has((cpu_isa)isa) && bias < 2; bias++) {
            check_rows_alone((cpu_isa)isa, 3090, 96, bias ? 2 : 5, 32, DT_F16, bias, false);
        }
    }
}

/* One call with weights of several widths and group sizes gives what a call for each gives. */
static void test_cpu_linear_takes_mixed_items(void **state) {
    (void)state;
    enum { N_IN = 256, N_OUT = 50, N_TOK = 5, N = 8 };
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (!cpu_has((cpu_isa)isa)) {
            continue;
        }
        ctx_t *ctx = test_context();
        ops *cpu = open_backend(ctx, "cpu", (cpu_isa)isa, false);
        test_rng rng = {5};
        float *x = case_activations(&rng, N_TOK * N_IN), want[N_TOK * N_OUT], got[N_TOK * N_OUT];
        ops_mat mx = case_mat(cpu, N_TOK, N_IN, x);
        case_weight w[N];
        linear_item items[N];
        ops_weight *weights[N];
        for (int i = 0; i < N; i++) {
            int group = 32 << i % 3;
            w[i] = case_weight_new(&rng, N_OUT, N_IN, widths[i % 7], group, DT_F16, i == 3);
            assert_ok(ctx, cpu->table->weight_new(&weights[i], cpu, &w[i].desc));
            items[i] = (linear_item){
                .weight = weights[i], .accumulate = i == 3, .y = case_mat(cpu, N_TOK, N_OUT, NULL)};
        }
        cpu->table->linear(cpu, mx, items, N);
        for (int i = 0; i < N; i++) {
            memset(want, 0, sizeof want);
            case_read(cpu, items[i].y, got);
            multiply(cpu, &w[i], x, want, N_TOK);
            assert_memory_equal(got, want, sizeof got);
            cpu->table->weight_free(cpu, weights[i]);
            cpu->table->buf_free(cpu, items[i].y.buf);
            case_weight_free(&w[i]);
        }
        cpu->table->buf_free(cpu, mx.buf);
        free(x);
        ops_close(cpu);
        jang_context_free(ctx);
    }
}

/* An infinity or NaN in x must not vanish in the rounding to 8 bits. */
static void test_cpu_linear_shows_what_is_not_finite(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int n_tok = 1; cpu_has((cpu_isa)isa) && n_tok <= 9; n_tok += 8) {
            ctx_t *ctx = test_context();
            ops *cpu = open_backend(ctx, "cpu", (cpu_isa)isa, false);
            test_rng rng = {9};
            case_weight w = case_weight_new(&rng, 3, 128, 4, 64, DT_F16, false);
            float *x = case_activations(&rng, 9 * 128), y[27];
            x[70] = NAN;
            multiply(cpu, &w, x, y, n_tok);
            assert_true(isnan(y[0]) && isnan(y[2]));
            assert_true(n_tok == 1 || isfinite(y[3]));
            x[70] = INFINITY;
            multiply(cpu, &w, x, y, n_tok);
            assert_true(isnan(y[0]));
            free(x);
            case_weight_free(&w);
            ops_close(cpu);
            jang_context_free(ctx);
        }
    }
}

static void test_cpu_linear_reports_rows_beyond_the_reserve(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *cpu = open_backend(ctx, "cpu", CPU_SCALAR, false);
    test_rng rng = {9};
    case_weight w = case_weight_new(&rng, 1, 64, 4, 64, DT_F16, false);
    ops_weight *weight;
    assert_ok(ctx, cpu->table->weight_new(&weight, cpu, &w.desc));
    ops_mat x = case_mat(cpu, MAX_TOK + 1, 64, NULL), y = case_mat(cpu, MAX_TOK + 1, 1, NULL);
    cpu->table->linear(cpu, x, &(linear_item){.weight = weight, .y = y}, 1);
    assert_fails(ctx, cpu->table->finish(cpu), JANG_ERR_ARGUMENT, "reserve said 130");
    assert_ok(ctx, cpu->table->finish(cpu));
    cpu->table->buf_free(cpu, x.buf);
    cpu->table->buf_free(cpu, y.buf);
    cpu->table->weight_free(cpu, weight);
    case_weight_free(&w);
    ops_close(cpu);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_linear_agrees_with_ref),
        cmocka_unit_test(test_cpu_linear_is_exact_on_request),
        cmocka_unit_test(test_cpu_linear_treats_rows_independently),
        cmocka_unit_test(test_cpu_linear_treats_tall_weights_alike),
        cmocka_unit_test(test_cpu_linear_takes_mixed_items),
        cmocka_unit_test(test_cpu_linear_shows_what_is_not_finite),
        cmocka_unit_test(test_cpu_linear_reports_rows_beyond_the_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
