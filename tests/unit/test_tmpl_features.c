/* test_tmpl_features.c - one small template per feature, against jinja2's output.
 *
 * tests/golden/template/features.json is made by scripts/fixtures/template_features.py. */
#include "support.h"
#include "template/template.h"

#include <string.h>

static char *render(ctx_t *ctx, const char *text, const json_t *context) {
    tmpl *t = NULL;
    buf out;
    char *result = NULL;
    size_t n;
    buf_init(&out, ctx, BUF_NO_LIMIT);
    if (tmpl_compile(&t, ctx, "t", text, strlen(text)) == JANG_OK &&
        tmpl_render(t, &out, context) == JANG_OK) {
        assert_ok(ctx, buf_take(&out, &result, &n));
    }
    buf_free(&out);
    tmpl_free(t);
    return result;
}

/* Prints a difference and returns 1, or returns 0. */
static int check(ctx_t *ctx, const json_t *row, const json_t *context) {
    const char *text = json_string_value(json_array_get(row, 1));
    const char *expected = json_string_value(json_array_get(row, 2));
    char *got = render(ctx, text, context);
    bool same = expected ? got && strcmp(got, expected) == 0 : !got;
    if (!same) {
        print_error("%s: %s\n  expected %s\n  got      %s\n",
                    json_string_value(json_array_get(row, 0)), text,
                    expected ? expected : "failure", got ? got : jang_context_error(ctx));
    }
    ctx_free(ctx, got);
    return !same;
}

static void test_tmpl_features_equal_jinja2s(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    json_t *rows = NULL;
    assert_ok(ctx, json_read(&rows, ctx, TEST_DATA "/template/features.json"));
    const json_t *context = json_array_get(rows, 0);
    assert_true(json_array_size(rows) > 200);
    int n_wrong = 0;
    for (size_t i = 1; i < json_array_size(rows); i++) {
        n_wrong += check(ctx, json_array_get(rows, i), context);
    }
    assert_int_equal(n_wrong, 0);
    json_decref(rows);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tmpl_features_equal_jinja2s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
