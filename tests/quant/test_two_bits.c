/* test_two_bits.c - what conversions at 2 bits do that need no text. */
#include "base/file.h"
#include "model_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether two methods write the same weights of a model. */
static bool alike(ctx_t *ctx, const char *source, const char *dir, const char *const methods[2]) {
    char *data[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        char output[512], file[600];
        snprintf(output, sizeof output, "%s/%s", dir, methods[i]);
        snprintf(file, sizeof file, "%s/model.safetensors", output);
        jang_convert_options o = jang_convert_options_default();
        o.source = source;
        o.output = output;
        o.bits = 2;
        o.group_size = 32;
        o.method = methods[i];
        o.force = true;
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        assert_ok(ctx, file_read(&data[i], &n[i], ctx, file, 1 << 24));
    }
    bool same = n[0] == n[1] && memcmp(data[0], data[1], n[0]) == 0;
    ctx_free(ctx, data[0]);
    ctx_free(ctx, data[1]);
    return same;
}

/* Weights alone say nothing better than round to nearest, so the built-in text is run; a model that
 * cannot run on it is converted without. */
static void test_the_built_in_text_decides(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), copy[512], file[600];
    const char *const methods[] = {"mse", "rtn"};
    snprintf(copy, sizeof copy, "%s/copy", dir);
    snprintf(file, sizeof file, "%s/tokenizer.json", copy);
    copy_directory(ctx, MODELS "llama-f32", copy);
    assert_false(alike(ctx, copy, dir, methods));
    assert_int_equal(unlink(file), 0);
    assert_true(alike(ctx, copy, dir, methods));
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_built_in_text_decides)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
