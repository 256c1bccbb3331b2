/* test_tune.c - conversions whose codes and scales are tuned through the whole model. */
#include "base/file.h"
#include "engine_rig.h"
#include "fixture.h"
#include "model_files.h"
#include "resumed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_VOCAB 307
#define N_IDS 200
#define STEPS 96

static jang_convert_options tuned_by(const char *source, const char *output, int32_t steps) {
    jang_convert_options o = jang_convert_options_default();
    o.source = source;
    o.output = output;
    o.bits = 2;
    o.group_size = 32;
    o.method = "gptq";
    o.calibration_tokens = 4096;
    o.tune_steps = steps;
    o.force = true;
    return o;
}

/* Logits of the same tokens by a model. */
static float *answers(ctx_t *ctx, const char *path) {
    int32_t ids[N_IDS];
    random_ids(ids, N_IDS, 5);
    return exact_logits(ctx, path, ids, N_IDS);
}

/* Mean KL(original || model). */
static double divergence(ctx_t *ctx, const float *original, const char *path) {
    float *other = answers(ctx, path);
    double kl = mean_kl(original, other, N_IDS, N_VOCAB);
    free(other);
    return kl;
}

static void test_tuned_models_answer_more_like_the_original(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), plain[512], tuned[512];
    const char *source = MODELS "qwen3moe-bf16";
    snprintf(plain, sizeof plain, "%s/plain", dir);
    snprintf(tuned, sizeof tuned, "%s/tuned", dir);
    jang_convert_options o = tuned_by(source, plain, 0), t = tuned_by(source, tuned, STEPS);
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_ok(ctx, jang_convert(NULL, ctx, &t));
    float *original = answers(ctx, source);
    double before = divergence(ctx, original, plain), after = divergence(ctx, original, tuned);
    print_message("KL %.4f, tuned %.4f\n", before, after);
    assert_true(after < before);
    free(original);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_threads_change_nothing(void **state) {
    (void)state;
    char *dir = test_temp_dir();
    jang_convert_options o = tuned_by(MODELS "qwen3moe-bf16", NULL, 3);
    test_threads_convert_alike(&o, dir);
    test_remove_tree(dir);
    free(dir);
}

#define LAYERS 2 /* reports of progress: of layers, of the text that is written, of steps */

/* Stopped once the tuned matrices count. */
static void test_tuning_goes_on_where_it_stopped(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    jang_convert_options o = tuned_by(MODELS "llama-f32", NULL, 2);
    test_resumes(ctx, &o, dir, LAYERS + 1 + 2 + 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_what_cannot_be_tuned_is_said(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/output", dir);
    jang_convert_options o = tuned_by(MODELS "llama-f32", output, 3);
    o.calibration_tokens = 2048;
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT);
    assert_string_equal(jang_context_error(ctx),
                        "tuning needs 8 sequences of 512 tokens of calibration text, but there "
                        "are 4");
    o.tune_steps = 1 << 20;
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT);
    o.tune_steps = 3;
    o.bits = 0;
    o.profile = "f16";
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT);
    o = tuned_by(TEST_ENCODERS "/qwen3-rank-bf16", output, 3);
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED);
    assert_string_equal(jang_context_error(ctx),
                        "a qwen3 model is not tuned, since it writes no text");
    assert_false(file_exists(output));
    o.tune_steps = -1;
    o.method = "best"; /* which then does without */
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tuned_models_answer_more_like_the_original),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_tuning_goes_on_where_it_stopped),
        cmocka_unit_test(test_what_cannot_be_tuned_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
