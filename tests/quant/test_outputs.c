/* test_outputs.c - conversions whose rows make up for each other's errors, by the gradients of the
 * model's own answers. */
#include "base/file.h"
#include "engine_rig.h"
#include "model_files.h"
#include "resumed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static jang_convert_options weighed_by(const char *source, const char *output, int64_t tokens) {
    jang_convert_options o = jang_convert_options_default();
    o.source = source;
    o.output = output;
    o.bits = 3;
    o.group_size = 32;
    o.method = "gptq";
    o.calibration_tokens = 4096;
    o.gradient_tokens = tokens;
    o.force = true;
    return o;
}

/* That models answer better so is measured on trained ones (docs/quantization.md): the tiny ones
 * are random, and what an output's error does to their answers is chance. Here it is seen that the
 * gradients get to the rows; what rows make of them is test_quant_gptq.c's, where the gradients
 * come from test_tape.c's. */
static void test_gradients_decide_codes(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), path[512];
    const char *const sources[] = {MODELS "llama-f32", MODELS "qwen3moe-bf16",
                                   MODELS "qwen3_5_text-bf16"};
    for (int i = 0; i < 3; i++) {
        char *files[2];
        size_t sizes[2];
        for (int weighed = 0; weighed < 2; weighed++) {
            snprintf(path, sizeof path, "%s/output", dir);
            jang_convert_options o = weighed_by(sources[i], path, weighed ? 1024 : 0);
            assert_ok(ctx, jang_convert(NULL, ctx, &o));
            snprintf(path, sizeof path, "%s/output/model.safetensors", dir);
            assert_ok(ctx, file_read(&files[weighed], &sizes[weighed], ctx, path, 1 << 24));
        }
        assert_int_equal(sizes[0], sizes[1]);
        assert_memory_not_equal(files[0], files[1], sizes[0]);
        ctx_free(ctx, files[0]);
        ctx_free(ctx, files[1]);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_threads_change_nothing(void **state) {
    (void)state;
    char *dir = test_temp_dir();
    jang_convert_options o = weighed_by(MODELS "qwen3moe-bf16", NULL, 1024);
    test_threads_convert_alike(&o, dir);
    test_remove_tree(dir);
    free(dir);
}

#define TURNS 2 /* reports of progress: of sequences gone back from, then of layers */

/* Stopped between two layers. */
static void test_goes_on_where_it_stopped(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    jang_convert_options o = weighed_by(MODELS "llama-f32", NULL, TURNS * 512);
    test_resumes(ctx, &o, dir, TURNS + 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void refuses(ctx_t *ctx, const jang_convert_options *o, const char *why) {
    assert_int_equal(jang_convert(NULL, ctx, o), JANG_ERR_ARGUMENT);
    assert_string_equal(jang_context_error(ctx), why);
    assert_false(file_exists(o->output));
}

static void test_what_has_no_use_for_gradients_is_refused(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/output", dir);
    jang_convert_options o = weighed_by(MODELS "llama-f32", output, 512);
    const char *const methods[] = {"rtn", "mse", "awq"};
    for (int i = 0; i < 3; i++) {
        o.method = methods[i];
        refuses(ctx, &o,
                "gradients of outputs are for methods that make up for errors: gptq, awq+gptq and "
                "best");
    }
    o.method = "gptq";
    o.gradient_tokens = 1 << 30;
    refuses(ctx, &o, "1073741824 gradient tokens; 0 to 16777216 are allowed");
    /* a model that writes no text has no answers */
    o = weighed_by(TEST_ENCODERS "/qwen3-rank-bf16", output, 512);
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_decide_codes),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_goes_on_where_it_stopped),
        cmocka_unit_test(test_what_has_no_use_for_gradients_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
