/* test_bad_weights.c - weights that a conversion with calibration must name, or get along with:
 * numbers that are none, zero and constant matrices, inputs that are all zero, scales beyond f16,
 * rows that groups do not divide. */
#include "base/file.h"
#include "base/half.h"
#include "format/checkpoint.h"
#include "model_files.h"
#include "quant/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXTURE MODELS "llama-f32"

static char *scratch;
static char source[512], output[512], text[512]; /* within it */

static int make_scratch(void **state) {
    (void)state;
    scratch = test_temp_dir();
    snprintf(source, sizeof source, "%s/in", scratch);
    snprintf(output, sizeof output, "%s/out", scratch);
    snprintf(text, sizeof text, "%s/text.txt", scratch);
    FILE *f = fopen(text, "w");
    assert_non_null(f);
    for (int i = 0; i < 300; i++) {
        fprintf(f, "the quick brown fox jumps over %d lazy dogs; ", i);
    }
    return fclose(f);
}

static int remove_scratch(void **state) {
    (void)state;
    test_remove_tree(scratch);
    free(scratch);
    return 0;
}

static jang_convert_options calibrated(const char *method) {
    jang_convert_options o = options_of(source, output, NULL);
    o.bits = 3;
    o.group_size = 32;
    o.method = method;
    o.calibration = text;
    o.calibration_tokens = 1024;
    o.force = true;
    return o;
}

static void fresh_source(ctx_t *ctx) {
    test_remove_tree(source);
    copy_directory(ctx, FIXTURE, source);
}

/* Sets all elements of a tensor, or multiplies them by value. */
static void change_all(ctx_t *ctx, const char *name, float value, bool multiply) {
    checkpoint *c;
    assert_ok(ctx, checkpoint_open(&c, ctx, FIXTURE, 0));
    const tensor_view *t = checkpoint_find(c, name);
    assert_non_null(t);
    for (size_t i = 0; i < (size_t)tensor_count(t); i++) {
        float x;
        memcpy(&x, t->data + 4 * i, 4);
        x = multiply ? x * value : value;
        patch_tensor(ctx, source, name, i, &x);
    }
    checkpoint_close(c);
}

static const char *const methods[] = {"gptq", "mse", "awq"};

static void test_bad_weights_are_named(void **state) {
    (void)state;
    static const struct {
        const char *tensor;
        float value;
        size_t at;
    } cases[] = {
        {"model.embed_tokens.weight", NAN, 5},
        {"model.embed_tokens.weight", INFINITY, 64 * 70 + 3}, /* of a token that the text has */
        {"model.layers.0.input_layernorm.weight", -INFINITY, 7},
        {"model.layers.0.self_attn.q_proj.weight", NAN, 100},
        {"lm_head.weight", NAN, 64 * 9},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh_source(ctx);
        patch_tensor(ctx, source, cases[i].tensor, cases[i].at, &cases[i].value);
        for (size_t m = 0; m < sizeof methods / sizeof methods[0]; m++) {
            jang_convert_options o = calibrated(methods[m]);
            assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, cases[i].tensor);
            assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "NaN or infinite");
            assert_true(file_is_vacant(output));
        }
    }
    jang_context_free(ctx);
}

/* Converts and returns the largest absolute weight of the output, which must be finite. */
static double largest(ctx_t *ctx, const char *method, const char *note) {
    jang_convert_options o = calibrated(method);
    char *plan = NULL;
    assert_ok(ctx, jang_convert(&plan, ctx, &o));
    if (note && !strstr(plan, note)) {
        fail_msg("%s: the plan does not say \"%s\"", method, note);
    }
    jang_free(ctx, plan);
    checkpoint *c;
    part_list parts;
    assert_ok(ctx, checkpoint_open(&c, ctx, output, 0));
    assert_ok(ctx, part_list_make(&parts, ctx, c));
    double most = 0;
    for (size_t i = 0; i < parts.n_parts; i++) {
        const model_part *part = &parts.parts[i];
        float *x = calloc((size_t)part->params, 4);
        assert_ok(ctx, part_rows_f32(x, c, part, 0, part->rows));
        for (int64_t k = 0; k < part->params; k++) {
            assert_true(isfinite(x[k]));
            most = fabs((double)x[k]) > most ? fabs((double)x[k]) : most;
        }
        free(x);
    }
    part_list_free(&parts);
    checkpoint_close(c);
    return most;
}

/* Zero inputs make a Hessian of zeros, a constant matrix groups without a grid. */
static void test_bad_weights_that_are_all_alike(void **state) {
    (void)state;
    static const struct {
        const char *tensor;
        float value;
    } cases[] = {
        {"model.layers.0.input_layernorm.weight", 0},
        {"model.layers.0.mlp.down_proj.weight", 0},
        {"model.layers.0.self_attn.q_proj.weight", 0.25f},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh_source(ctx);
        change_all(ctx, cases[i].tensor, cases[i].value, false);
        for (size_t m = 0; m < sizeof methods / sizeof methods[0]; m++) {
            (void)largest(ctx, methods[m], NULL);
        }
    }
    jang_context_free(ctx);
}

static void test_bad_weights_beyond_f16_are_said(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    fresh_source(ctx);
    change_all(ctx, "model.layers.1.mlp.down_proj.weight", 3e6f, true);
    for (size_t m = 0; m < 2; m++) {
        assert_true(largest(ctx, methods[m], "too large for scales of f16") > 1e5);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_weights_are_named),
        cmocka_unit_test(test_bad_weights_that_are_all_alike),
        cmocka_unit_test(test_bad_weights_beyond_f16_are_said),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
