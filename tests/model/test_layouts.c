/* test_layouts.c - recurrent models converted to mlx-lm's layouts are the same models. */
#include "fixture.h"
#include "model_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NORMS "jang_norms_pre_shifted"
#define FOLDED "jang_mup_folded"

static json_t *config_of(ctx_t *ctx, const char *directory) {
    json_t *config;
    assert_ok(ctx, json_read(&config, ctx, test_path(directory, "config.json")));
    return config;
}

/* Converts to f32, which loses nothing, and compares with transformers' logits of the source. */
static void check(ctx_t *ctx, const char *name, const char *stamp) {
    static const char *const stamps[] = {NORMS, FOLDED};
    fixture f;
    char *dir = test_temp_dir(), source[4096], output[4096];
    fixture_read(&f, ctx, name);
    snprintf(source, sizeof source, "%s/%s", TEST_MODELS, name);
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(source, output, "f32");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    json_t *config = config_of(ctx, output);
    for (int i = 0; i < 2; i++) {
        bool has = stamp && strcmp(stamp, stamps[i]) == 0;
        assert_int_equal(json_is_true(json_object_get(config, stamps[i])), has);
    }
    json_decref(config);

    float *logits = malloc((size_t)(f.n_tok * f.n_vocab) * sizeof *logits);
    /* mlx-lm's own conversions have no stamp of norms */
    for (int stamped = 1; stamped >= (stamp && strcmp(stamp, FOLDED) == 0); stamped--) {
        rig r;
        rig_open(&r, ctx, output, "cpu", true, 2);
        rig_run_ids(&r, f.ids, f.n_tok, 512, 0, logits);
        double error = fixture_error(&f, logits);
        printf("%-28s max error %.2e of the deviation\n", name, error);
        assert_true(error < 1e-3);
        rig_close(&r);
        patch_config(ctx, output, "jang_norms_pre_shifted", NULL);
    }
    free(logits);
    test_remove_tree(dir);
    free(dir);
    fixture_free(&f, ctx);
}

static void test_layouts_converted_models_are_the_same(void **state) {
    (void)state;
    static const struct {
        const char *name;
        const char *stamp;
    } cases[] = {
        {"qwen3_5-bf16", NORMS},
        {"qwen3_5_moe-bf16", NORMS},
        {"qwen3_next-bf16", NORMS},
        {"mamba2-bf16", NULL},
        {"nemotron_h-moe-bf16", NULL},
        {"granitemoehybrid-dense-f16", NULL},
        {"granitemoehybrid-bf16", NULL},
        {"falcon_h1-bf16", FOLDED},
        {"falcon_h1-norm-f16", FOLDED}, /* its embedding is the output matrix */
        {"falcon_h1-norm-after-bias-bf16", FOLDED},
        {"lfm2_moe-bf16", NULL},
        {"jamba-bf16", NULL},
        {"kimi_linear-bf16", NULL},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check(ctx, cases[i].name, cases[i].stamp);
    }
    jang_context_free(ctx);
}

/* A stamp says that the norms hold 1 + w, whatever layout the convolutions have. */
static void test_layouts_stamp_is_read(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    fixture f;
    char *dir = test_temp_dir(), copy[4096];
    fixture_read(&f, ctx, "qwen3_5-bf16");
    snprintf(copy, sizeof copy, "%s/copy", dir);
    copy_directory(ctx, test_path(TEST_MODELS, "qwen3_5-bf16"), copy);
    patch_config(ctx, copy, "jang_norms_pre_shifted", json_true());
    float *logits = malloc((size_t)(f.n_tok * f.n_vocab) * sizeof *logits);
    rig r;
    rig_open(&r, ctx, copy, "cpu", true, 2);
    rig_run_ids(&r, f.ids, f.n_tok, 512, 0, logits);
    assert_true(fixture_error(&f, logits) > 0.1); /* the norms are taken as they are */
    rig_close(&r);
    free(logits);
    test_remove_tree(dir);
    free(dir);
    fixture_free(&f, ctx);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_converted_models_are_the_same),
        cmocka_unit_test(test_layouts_stamp_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
