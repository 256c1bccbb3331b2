/* test_quant_gptq.c - quantizing against second moments of inputs: the dense solvers, the cost
 * compared with methods that do not see the inputs, and whole conversions that calibrate. */
#include "base/file.h"
#include "base/half.h"
#include "format/checkpoint.h"
#include "quant/blas.h"
#include "quant/convert.h"
#include "quant/gptq.h"
#include "quant/quantizer.h"
#include "resumed.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODELS TEST_MODELS "/"

/* ---- Solvers ---- */

#define N 150 /* no multiple of a block */
#define M 70

/* A positive definite matrix with condition of about 1e3: X'X of correlated inputs. */
static void make_inputs(float *x, int n_tok, int n, uint64_t seed) {
    test_rng rng = {seed};
    for (int t = 0; t < n_tok; t++) {
        float common = rng_normal(&rng);
        for (int i = 0; i < n; i++) {
            x[t * n + i] = (rng_normal(&rng) + common) * (i % 17 == 0 ? 4.0f : 0.5f);
        }
    }
}

static void test_blas_solves_what_it_factors(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    float *x = calloc(400 * N, sizeof *x), *h = calloc(N * N, sizeof *h);
    float *l = calloc(N * N, sizeof *l), *y = calloc(M * N, sizeof *y), *z = calloc(M * N, 4);
    make_inputs(x, 400, N, 7);
    gemm_call g = {.m = N,
                   .n = N,
                   .k = 400,
                   .trans_a = true,
                   .a = x,
                   .b = x,
                   .c = h,
                   .lda = N,
                   .ldb = N,
                   .ldc = N,
                   .alpha = 1};
    blas_gemm_spread(ctx, &g);
    for (int i = 0; i < N; i++) { /* a few elements by definition */
        int j = (i * 31) % N;
        double sum = 0;
        for (int t = 0; t < 400; t++) {
            sum += (double)x[t * N + i] * (double)x[t * N + j];
        }
        assert_float_equal(h[i * N + j], (float)sum, 1e-2f + 1e-5f * fabsf((float)sum));
    }
    memcpy(l, h, N * N * sizeof *l);
    assert_true(blas_cholesky(ctx, l, N));
    for (int i = 0; i < M * N; i++) {
        z[i] = (float)(i % 23) - 11.0f;
    }
    g = (gemm_call){
        .m = M, .n = N, .k = N, .a = z, .b = h, .c = y, .lda = N, .ldb = N, .ldc = N, .alpha = 1};
    blas_gemm_spread(ctx, &g);
    blas_solve(ctx, y, M, l, N);
    for (int i = 0; i < M * N; i++) {
        assert_float_equal(y[i], z[i], 2e-2f);
    }
    h[0] = -1;
    assert_false(blas_cholesky(ctx, h, N));
    free(x);
    free(h);
    free(l);
    free(y);
    free(z);
    jang_context_free(ctx);
}

/* Rounding both operands to bf16 puts a term off by at most 2^-8 of itself and a little. */
static void test_blas_coarse_products(void **state) {
    (void)state;
    enum { ROWS = 203, K = 517 };
    ctx_t *ctx = test_context();
    float *a = calloc(ROWS * K, sizeof *a), *c = calloc(ROWS * ROWS, sizeof *c);
    test_rng rng = {11};
    for (int i = 0; i < ROWS * K; i++) {
        a[i] = rng_normal(&rng);
    }
    for (int form = 0; form < 4; form++) {
        bool trans_a = form & 1, trans_b = form & 2;
        int64_t step_a = trans_a ? 1 : K, step_b = trans_b ? K : 1;
        gemm_call g = {.m = ROWS,
                       .n = ROWS,
                       .k = K,
                       .trans_a = trans_a,
                       .trans_b = trans_b,
                       .a = a,
                       .b = a,
                       .lda = trans_a ? ROWS : K,
                       .ldb = trans_b ? K : ROWS,
                       .c = c,
                       .ldc = ROWS,
                       .alpha = 2,
                       .beta = 1,
                       .coarse = true,
                       .symmetric = trans_a && !trans_b};
        for (int i = 0; i < ROWS * ROWS; i++) {
            c[i] = 3;
        }
        blas_gemm_spread(ctx, &g);
        if (g.symmetric) {
            blas_mirror(c, ROWS);
        }
        for (int i = 0; i < ROWS; i++) {
            for (int j = 0; j < ROWS; j += 7) {
                double sum = 3, size = 0;
                for (int k = 0; k < K; k++) {
                    double x = (double)a[i * step_a + k * (trans_a ? ROWS : 1)];
                    double y = (double)a[j * step_b + k * (trans_b ? 1 : ROWS)];
                    sum += 2 * x * y;
                    size += 2 * fabs(x * y);
                }
                if (fabs((double)c[i * ROWS + j] - sum) > size / 120) {
                    fail_msg("form %d: [%d, %d] is %g, not %g", form, i, j, (double)c[i * ROWS + j],
                             sum);
                }
            }
        }
    }
    free(a);
    free(c);
    jang_context_free(ctx);
}

/* ---- Matrices ---- */

#define N_IN 192
#define N_OUT 70
#define N_TOK 512

/* Squared error of the outputs: |X (W - V)'|^2. */
static double output_error(const float *x, const float *w, const float *v) {
    double sum = 0;
    for (int t = 0; t < N_TOK; t++) {
        for (int o = 0; o < N_OUT; o++) {
            double e = 0;
            for (int i = 0; i < N_IN; i++) {
                e += (double)x[t * N_IN + i] * (double)(w[o * N_IN + i] - v[o * N_IN + i]);
            }
            sum += e * e;
        }
    }
    return sum;
}

static void round_to_nearest(ctx_t *ctx, float *v, const float *w, int bits) {
    const quantizer *q = NULL;
    assert_ok(ctx, quantizer_find(&q, ctx, "rtn"));
    static uint8_t codes[N_OUT * N_IN];
    static float scales[N_OUT * N_IN / 32], biases[N_OUT * N_IN / 32];
    quant_block b = {w, N_OUT, N_IN, bits, 64, codes, scales, biases, DT_F16, NULL};
    assert_true(quantizer_function(q, CPU_SCALAR)(&b));
    for (int i = 0; i < N_OUT * N_IN; i++) {
        v[i] = (float)codes[i] * scales[i / 64] + biases[i / 64];
    }
}

static gptq_matrix matrix_of(float *w, int bits, uint8_t *codes, float *scales, float *biases) {
    return (gptq_matrix){.w = w,
                         .n_out = N_OUT,
                         .bits = bits,
                         .type = DT_F16,
                         .codes = codes,
                         .scales = scales,
                         .biases = biases};
}

static void quantize(ctx_t *ctx, gptq_matrix *m, const float *xq, const float *xf, double stretch) {
    gptq_site s;
    assert_ok(ctx, gptq_site_new(&s, ctx, N_IN));
    s.stretch = stretch;
    assert_ok(ctx, gptq_site_add(&s, ctx, xq, xf, N_IN, N_TOK, false));
    assert_ok(ctx, gptq_aim(&s, ctx, 0.01, 1));
    assert_ok(ctx, gptq_prepare(&s, ctx, 64, 0.01));
    assert_ok(ctx, gptq_quantize(&s, ctx, m));
    gptq_site_free(&s, ctx);
}

static void test_gptq_disturbs_outputs_less(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static float x[N_TOK * N_IN], w[N_OUT * N_IN], v[N_OUT * N_IN], ours[N_OUT * N_IN];
    static uint8_t codes[N_OUT * N_IN];
    static float scales[N_OUT * N_IN / 64], biases[N_OUT * N_IN / 64];
    make_inputs(x, N_TOK, N_IN, 3);
    test_rng rng = {5};
    for (int i = 0; i < N_OUT * N_IN; i++) {
        w[i] = 0.05f * rng_normal(&rng);
    }
    for (int bits = 2; bits <= 4; bits++) {
        memcpy(ours, w, sizeof w);
        gptq_matrix m = matrix_of(ours, bits, codes, scales, biases);
        quantize(ctx, &m, x, x, 0);
        round_to_nearest(ctx, v, w, bits);
        double a = output_error(x, w, ours), r = output_error(x, w, v);
        if (!(a < 0.35 * r)) {
            fail_msg("%d bits: output error %g, round to nearest %g", bits, a, r);
        }
        for (int i = 0; i < N_OUT * N_IN; i++) { /* the weights are what the file will say */
            float s = scales[i / 64], b = biases[i / 64];
            assert_true(codes[i] < 1 << bits);
            assert_float_equal(s, f16_to_f32(f32_to_f16(s)), 0);
            assert_float_equal(ours[i], (float)codes[i] * s + b, 1e-5f);
        }
    }
    jang_context_free(ctx);
}

/* Where the quantized model's inputs are half the original's, the weights must double. */
static void test_gptq_aims_at_the_original_outputs(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static float x[N_TOK * N_IN], half[N_TOK * N_IN], w[N_OUT * N_IN], ours[N_OUT * N_IN];
    static uint8_t codes[N_OUT * N_IN];
    static float scales[N_OUT * N_IN / 64], biases[N_OUT * N_IN / 64];
    make_inputs(x, N_TOK, N_IN, 9);
    test_rng rng = {1};
    for (int i = 0; i < N_TOK * N_IN; i++) {
        half[i] = x[i] / 2;
    }
    for (int i = 0; i < N_OUT * N_IN; i++) {
        w[i] = 0.05f * rng_normal(&rng);
        ours[i] = w[i];
    }
    gptq_matrix m = matrix_of(ours, 8, codes, scales, biases);
    quantize(ctx, &m, half, x, 0);
    for (int i = 0; i < N_OUT * N_IN; i++) {
        ours[i] /= 2;
    }
    /* damping holds the weights back where inputs are small */
    double error = output_error(x, w, ours), size;
    static const float zero[N_OUT * N_IN];
    size = output_error(x, w, zero);
    assert_true(error < 0.01 * size);
    jang_context_free(ctx);
}

/* A least squares fit's errors do not vary with it, so that outputs fade by what the errors have;
 * stretched rows lose half of that. */
static void test_gptq_keeps_half_of_the_variance(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static float x[N_TOK * N_IN], w[N_OUT * N_IN], v[N_OUT * N_IN];
    static float scales[N_OUT * N_IN / 64], biases[N_OUT * N_IN / 64];
    static uint8_t codes[N_OUT * N_IN];
    test_rng rng = {23};
    make_inputs(x, N_TOK, N_IN, 19);
    for (int i = 0; i < N_OUT * N_IN; i++) {
        w[i] = v[i] = 0.05f * rng_normal(&rng);
    }
    gptq_matrix m = matrix_of(v, 2, codes, scales, biases);
    quantize(ctx, &m, x, x, 0.5);
    double fades = 0, error = output_error(x, w, v);
    for (int t = 0; t < N_TOK; t++) {
        for (int o = 0; o < N_OUT; o++) {
            double y = 0, made = 0;
            for (int i = 0; i < N_IN; i++) {
                y += (double)x[t * N_IN + i] * (double)w[o * N_IN + i];
                made += (double)x[t * N_IN + i] * (double)v[o * N_IN + i];
            }
            fades += y * (y - made);
        }
    }
    assert_true(fades > 0.3 * error && fades < 0.7 * error);
    jang_context_free(ctx);
}

/* The sum over tokens, and over gradients of outputs [N_TOK, N_OUT] that belong to the same square
 * of rows, of (g (W - V) x)^2. */
static double answer_error(const float *g, const float *x, const float *w, const float *v,
                           int block) {
    static double errors[N_OUT * N_TOK];
    double sum = 0;
    for (int o = 0; o < N_OUT; o++) {
        for (int t = 0; t < N_TOK; t++) {
            errors[o * N_TOK + t] = 0;
            for (int i = 0; i < N_IN; i++) {
                errors[o * N_TOK + t] +=
                    (double)x[t * N_IN + i] * (double)(w[o * N_IN + i] - v[o * N_IN + i]);
            }
        }
    }
    for (int first = 0; first < N_OUT; first += block) {
        int last = first + block < N_OUT ? first + block : N_OUT;
        for (int s = 0; s < N_TOK; s++) {
            for (int t = 0; t < N_TOK; t++) {
                double e = 0;
                for (int o = first; o < last; o++) {
                    e += (double)g[s * N_OUT + o] * errors[o * N_TOK + t];
                }
                sum += e * e;
            }
        }
    }
    return sum;
}

/* Rows make up for each other's errors where what is made of their outputs is known, in squares of
 * rows of which the last is smaller. */
static void test_gptq_disturbs_answers_less(void **state) {
    (void)state;
    enum { BLOCK = 48 };
    ctx_t *ctx = test_context();
    static float x[N_TOK * N_IN], g[N_TOK * N_OUT], outputs[N_OUT * BLOCK];
    static float w[N_OUT * N_IN], alone[N_OUT * N_IN], together[N_OUT * N_IN];
    static float scales[N_OUT * N_IN / 64], biases[N_OUT * N_IN / 64];
    static uint8_t codes[N_OUT * N_IN];
    make_inputs(x, N_TOK, N_IN, 3);
    make_inputs(g, N_TOK, N_OUT, 29);
    test_rng rng = {31};
    for (int i = 0; i < N_OUT * N_IN; i++) {
        w[i] = alone[i] = together[i] = 0.05f * rng_normal(&rng);
    }
    for (int i = 0; i < N_OUT; i++) {
        int first = i / BLOCK * BLOCK;
        for (int k = i; k < first + BLOCK && k < N_OUT; k++) {
            for (int t = 0; t < N_TOK; t++) {
                outputs[i * BLOCK + k - first] += g[t * N_OUT + i] * g[t * N_OUT + k];
            }
        }
    }
    gptq_matrix m = matrix_of(alone, 3, codes, scales, biases);
    quantize(ctx, &m, x, x, 0);
    m.w = together;
    m.outputs = outputs;
    m.block = BLOCK;
    m.n_gradients = N_TOK;
    quantize(ctx, &m, x, x, 0);
    double a = answer_error(g, x, w, alone, BLOCK), b = answer_error(g, x, w, together, BLOCK);
    print_message("error of answers %.4f of rows by themselves\n", b / a);
    assert_true(b < 0.9 * a);
    for (int i = 0; i < N_OUT * N_IN; i++) {
        assert_float_equal(together[i], (float)codes[i] * scales[i / 64] + biases[i / 64], 1e-5f);
    }
    outputs[0] = NAN;
    gptq_site s;
    assert_ok(ctx, gptq_site_new(&s, ctx, N_IN));
    assert_ok(ctx, gptq_site_add(&s, ctx, x, x, N_IN, N_TOK, false));
    assert_ok(ctx, gptq_prepare(&s, ctx, 64, 0.01));
    assert_int_equal(gptq_quantize(&s, ctx, &m), JANG_ERR_FORMAT);
    gptq_site_free(&s, ctx);
    jang_context_free(ctx);
}

/* ---- Conversions ---- */

static char *write_text(const char *dir, const char *name, const char *text) {
    char *path = malloc(512);
    snprintf(path, 512, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static jang_convert_options options_of(const char *source, const char *output) {
    jang_convert_options o = jang_convert_options_default();
    o.source = source;
    o.output = output;
    o.bits = 3;
    o.group_size = 32;
    o.method = "gptq";
    o.calibration_tokens = 1024;
    o.force = true;
    return o;
}

/* With several steps, what was unbroken has put inputs back that it kept, and what goes on computes
 * the layers it finds finished anew. */
static void test_gptq_goes_on_where_it_stopped(void **state) {
    (void)state;
    static const char *const models[] = {
        "llama-f32",         "smollm-tied-bf16", "mixtral-bf16",
        "deepseek2-bf16", /* experts, MLA */
        "cohere-bf16",    /* attention and MLP in one stage */
        "qwen3_5_text-bf16", "gemma4text-bf16",  TEST_DATA "/format/llama.gguf"};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char source[512];
        snprintf(source, sizeof source, "%s%s", models[i][0] == '/' ? "" : MODELS, models[i]);
        jang_convert_options o = options_of(source, NULL);
        o.calibration_tokens = 2048;
        /* as the second layer begins; a GGUF file is unpacked first */
        test_resumes(ctx, &o, dir, models[i][0] == '/' ? 3 : 2);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* The model in groups of 64, but for what the overrides say. */
static checkpoint *with_groups(ctx_t *ctx, const char *source, const char *dir, const char *name,
                               const char *overrides) {
    char output[512], *path = write_text(dir, "overrides.json", overrides);
    snprintf(output, sizeof output, "%s/%s", dir, name);
    jang_convert_options o = options_of(source, output);
    o.group_size = 64;
    o.overrides = path;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    checkpoint *made = NULL;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    free(path);
    return made;
}

static void same_matrix(const checkpoint *a, const checkpoint *b, const char *name) {
    static const char *const parts[] = {"weight", "scales", "biases"};
    for (int i = 0; i < 3; i++) {
        char full[128];
        snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        const tensor_view *x = checkpoint_find(a, full), *y = checkpoint_find(b, full);
        assert_non_null(x);
        assert_non_null(y);
        assert_int_equal(x->n_bytes, y->n_bytes);
        assert_memory_equal(x->data, y->data, x->n_bytes);
    }
}

/* Matrices that share an input may have groups of different sizes, as budgets choose them. */
static void test_gptq_of_groups_of_several_sizes(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"llama-f32", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"},
        {"llama-f32", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.q_proj"},
        {"lfm2_moe-bf16", "model.layers.1.feed_forward.switch_mlp.gate_proj",
         "model.layers.1.feed_forward.switch_mlp.up_proj"}};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], one[256], both[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *fine = cases[i][1], *coarse = cases[i][2], *bits = "{\"bits\": 3, ";
        snprintf(source, sizeof source, "%s%s", MODELS, cases[i][0]);
        snprintf(one, sizeof one, "{\"%s\": %s\"group_size\": 32}}", fine, bits);
        snprintf(both, sizeof both,
                 "{\"%s\": %s\"group_size\": 32}, \"%s\": %s\"group_size\": 32}}", fine, bits,
                 coarse, bits);
        checkpoint *mixed = with_groups(ctx, source, dir, "mixed", one);
        checkpoint *small = with_groups(ctx, source, dir, "small", both);
        checkpoint *large = with_groups(ctx, source, dir, "large", "{}");
        same_matrix(mixed, small, fine);
        same_matrix(mixed, large, coarse);
        checkpoint_close(mixed);
        checkpoint_close(small);
        checkpoint_close(large);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_gptq_refuses_bad_calibration(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    char output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-f32", output);
    static const struct {
        const char *name, *text, *message;
    } cases[] = {
        {"short.txt", "too short", "too few"},
        {"bad.jsonl", "{\"text\": \"a\"}\n\n{\"words\": 1}\n", "line 3"},
        {"broken.jsonl", "{\"text\": \n", "line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = write_text(dir, cases[i].name, cases[i].text);
        o.calibration = path;
        assert_int_not_equal(jang_convert(NULL, ctx, &o), JANG_OK);
        assert_non_null(strstr(jang_context_error(ctx), cases[i].message));
        free(path);
    }
    o.calibration = "no-such-file";
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_IO);
    o.calibration = NULL;
    o.calibration_tokens = 10;
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blas_solves_what_it_factors),
        cmocka_unit_test(test_blas_coarse_products),
        cmocka_unit_test(test_gptq_disturbs_outputs_less),
        cmocka_unit_test(test_gptq_aims_at_the_original_outputs),
        cmocka_unit_test(test_gptq_keeps_half_of_the_variance),
        cmocka_unit_test(test_gptq_disturbs_answers_less),
        cmocka_unit_test(test_gptq_goes_on_where_it_stopped),
        cmocka_unit_test(test_gptq_of_groups_of_several_sizes),
        cmocka_unit_test(test_gptq_refuses_bad_calibration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
