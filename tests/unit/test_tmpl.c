/* test_tmpl.c - the borders of the template engine: compiling, rendering, errors, limits. */
#include "support.h"
#include "template/template.h"

#include <stdio.h>
#include <string.h>

static char *render(ctx_t *ctx, const char *text, const char *context, jang_status *status) {
    tmpl *t = NULL;
    json_t *json = json_loads(context, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    buf out;
    buf_init(&out, ctx, BUF_NO_LIMIT);
    *status = tmpl_compile(&t, ctx, "chat", text, strlen(text));
    if (*status == JANG_OK) {
        *status = tmpl_render(t, &out, json);
    }
    tmpl_free(t);
    json_decref(json);
    char *result = NULL;
    size_t n;
    if (*status == JANG_OK) {
        assert_ok(ctx, buf_take(&out, &result, &n));
    }
    buf_free(&out);
    return result;
}

static void check(const char *text, const char *context, const char *expected) {
    ctx_t *ctx = test_context();
    jang_status status;
    char *got = render(ctx, text, context, &status);
    if (status != JANG_OK) {
        fail_msg("%s: %s", text, jang_context_error(ctx));
    }
    assert_string_equal(got, expected);
    ctx_free(ctx, got);
    jang_context_free(ctx);
}

static void check_fails(const char *text, const char *message) {
    ctx_t *ctx = test_context();
    jang_status status;
    char *got = render(ctx, text, "{}", &status);
    assert_null(got);
    test_check_failure(ctx, status, JANG_ERR_FORMAT, message, text);
    jang_context_free(ctx);
}

static void test_tmpl_renders_a_chat(void **state) {
    (void)state;
    check("{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}",
          "{\"messages\": [{\"role\": \"user\", \"content\": \" Hi \"},"
          "{\"role\": \"bot\", \"content\": \"Yo\"}]}",
          "<|user|>Hi\n<|bot|>Yo\n");
}

static void test_tmpl_raise_exception_gives_its_message(void **state) {
    (void)state;
    check_fails("\n  {{ raise_exception('Roles must alternate!') }}",
                "chat: line 2, column 21: Roles must alternate!, in: "
                "{{ raise_exception('Roles must alternate!') }}");
}

static void test_tmpl_errors_name_line_column_and_text(void **state) {
    (void)state;
    check_fails("a\nb {{ x.y.z }}", "chat: line 2, column 7: 'x' is undefined, in: b {{ x.y.z }}");
    check_fails("{% if x %}", "line 1, column 11: Unexpected end of template.");
    check_fails("{{ 'a' + 1 }}", "can only concatenate str (not \"int\") to str");
    check_fails("{{ x | bogus }}", "No filter named 'bogus'.");
}

static void test_tmpl_other_files_are_refused(void **state) {
    (void)state;
    check_fails("{% include 'a' %}", "{% include %} is not allowed");
    check_fails("{% import 'a' as b %}", "{% import %} is not allowed");
    check_fails("{% extends 'a' %}", "{% extends %} is not allowed");
}

static void test_tmpl_a_runaway_template_is_stopped(void **state) {
    (void)state;
    check_fails("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                "does not come to an end");
    check_fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply");
    check_fails("{{ range(100001) }}", "Range too big");
    check_fails("{% set ns = namespace(s='x') %}{% for i in range(60) %}"
                "{% set ns.s = ns.s + ns.s %}{% endfor %}",
                "memory");
}

static void test_tmpl_context_must_be_an_object(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_status status;
    assert_null(render(ctx, "x", "[]", &status));
    assert_int_equal(status, JANG_ERR_ARGUMENT);
    jang_context_free(ctx);
}

/* As Python has it since 3.12; the other goldens may come from an older one. */
static void test_tmpl_integers_are_integers(void **state) {
    (void)state;
    check("{{ n.is_integer() }}", "{\"n\": 3}", "True");
}

typedef struct told {
    int n;
    char line[256];
} told;

static void keep_line(void *user, const char *line) {
    told *t = user;
    t->n++;
    snprintf(t->line, sizeof t->line, "%s", line);
}

static void test_tmpl_the_text_of_an_object_is_told_once(void **state) {
    (void)state;
    told t = {0};
    jang_context_options options = jang_context_options_default();
    options.log = keep_line;
    options.log_user = &t;
    ctx_t *ctx = NULL;
    assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
    jang_status status;
    ctx_free(ctx, render(ctx, "{{ m.items() | list }}{{ n }}", "{\"m\": {\"a\": 1}}", &status));
    assert_int_equal(status, JANG_OK);
    assert_int_equal(t.n, 0);
    ctx_free(ctx, render(ctx, "a\n{{ m.items }}{{ m.keys }}", "{\"m\": {\"a\": 1}}", &status));
    assert_int_equal(status, JANG_OK);
    assert_int_equal(t.n, 1);
    assert_non_null(strstr(t.line, "chat: line 2, column 5: the text of an object"));
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tmpl_renders_a_chat),
        cmocka_unit_test(test_tmpl_raise_exception_gives_its_message),
        cmocka_unit_test(test_tmpl_errors_name_line_column_and_text),
        cmocka_unit_test(test_tmpl_other_files_are_refused),
        cmocka_unit_test(test_tmpl_a_runaway_template_is_stopped),
        cmocka_unit_test(test_tmpl_context_must_be_an_object),
        cmocka_unit_test(test_tmpl_integers_are_integers),
        cmocka_unit_test(test_tmpl_the_text_of_an_object_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
