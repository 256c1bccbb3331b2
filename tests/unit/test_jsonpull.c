/* test_jsonpull.c - the pull reader for JSON. */
#include "support.h"

#include "base/jsonpull.h"

#include <string.h>

/* A reader over a literal. */
static jsonpull reader(ctx_t *ctx, const char *text) {
    jsonpull p;
    jsonpull_init(&p, ctx, "t.json", text, strlen(text));
    return p;
}

static void test_jsonpull_walks_objects_and_arrays(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jsonpull p =
        reader(ctx, " {\"a\" : [1, -2 ,30], \"b\":{\"c\":true,\"d\":null}, \"e\": 2.5e1} ");
    jang_status status = jsonpull_enter(&p, '{');
    int64_t sum = 0, n;
    double real = 0;
    bool yes = false, null = false;
    while (status == JANG_OK && jsonpull_next(&p, &status)) {
        if (jsonpull_key_is(&p, "a")) {
            status = jsonpull_enter(&p, '[');
            while (status == JANG_OK && jsonpull_next(&p, &status)) {
                assert_ok(ctx, jsonpull_int(&p, &n));
                sum += n;
            }
        } else if (jsonpull_key_is(&p, "b")) {
            status = jsonpull_enter(&p, '{');
            assert_true(jsonpull_next(&p, &status));
            assert_ok(ctx, jsonpull_bool(&p, &yes));
            assert_true(jsonpull_next(&p, &status));
            assert_true(jsonpull_key_is(&p, "d"));
            null = jsonpull_null(&p);
            assert_false(jsonpull_next(&p, &status));
        } else {
            assert_ok(ctx, jsonpull_double(&p, &real));
        }
    }
    assert_ok(ctx, status);
    assert_ok(ctx, jsonpull_end(&p));
    assert_int_equal(sum, 29);
    assert_true(yes && null && real == 25);
    jsonpull_free(&p);
    jang_context_free(ctx);
}

static void check_string(ctx_t *ctx, const char *text, const char *expected, size_t n) {
    jsonpull p = reader(ctx, text);
    jsonpull_str s;
    assert_ok(ctx, jsonpull_string(&p, &s));
    assert_int_equal(s.n_bytes, n);
    assert_memory_equal(s.data, expected, n);
    jsonpull_free(&p);
}

static void test_jsonpull_decodes_strings(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    check_string(ctx, "\"plain text of more than eight bytes\"",
                 "plain text of more than eight bytes", 35);
    check_string(ctx, "\"\"", "", 0);
    check_string(ctx, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8);
    check_string(ctx, "\"a\\u0041\\u00e9\\u20ac\\u0000z\"", "aA\xc3\xa9\xe2\x82\xac\0z", 9);
    check_string(ctx, "\"\\ud83d\\ude00!\"", "\xf0\x9f\x98\x80!", 5);
    check_string(ctx, "\"\\ud83dx\"", "\xef\xbf\xbdx", 4);
    check_string(ctx, "\"\\ude00\\ud83d\"", "\xef\xbf\xbd\xef\xbf\xbd", 6);
    check_string(ctx, "\"\\ud83d\\u0041\"",
                 "\xef\xbf\xbd"
                 "A",
                 4);
    check_string(ctx, "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \xe2\x96\x81\"",
                 "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \xe2\x96\x81", 15);
    jang_context_free(ctx);
}

static void test_jsonpull_key_outlives_its_value(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jsonpull p = reader(ctx, "{\"k\\u0065y\":\"val\\u0075e\"}");
    jang_status status = jsonpull_enter(&p, '{');
    assert_true(jsonpull_next(&p, &status));
    jsonpull_str s;
    assert_ok(ctx, jsonpull_string(&p, &s));
    assert_true(jsonpull_key_is(&p, "key"));
    assert_memory_equal(s.data, "value", 5);
    jsonpull_free(&p);
    jang_context_free(ctx);
}

static void test_jsonpull_skips_and_tells_where(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jsonpull p = reader(ctx, "[ {\"a]\\\\\":[1,{\"b\\\"\":[]}],\"c\":{}} , 7]");
    jang_status status = jsonpull_enter(&p, '[');
    jsonpull_str raw;
    int64_t n;
    assert_true(jsonpull_next(&p, &status));
    assert_ok(ctx, jsonpull_raw(&p, &raw));
    assert_int_equal(raw.data[0], '{');
    assert_int_equal(raw.data[raw.n_bytes - 1], '}');
    assert_true(jsonpull_next(&p, &status));
    assert_ok(ctx, jsonpull_int(&p, &n));
    assert_int_equal(n, 7);
    assert_false(jsonpull_next(&p, &status));
    assert_ok(ctx, status);
    jsonpull_free(&p);
    jang_context_free(ctx);
}

static jang_status skip_all(ctx_t *ctx, const char *text, size_t n) {
    jsonpull p;
    jsonpull_init(&p, ctx, "t.json", text, n);
    jang_status status = jsonpull_skip(&p);
    if (status == JANG_OK) {
        status = jsonpull_end(&p);
    }
    jsonpull_free(&p);
    return status;
}

static void test_jsonpull_refuses_what_is_no_json(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const char *const bad[][2] = {
        {"", "expected a value"},          {"[1,]", "a comma before the end"},
        {"[1 2]", "expected ','"},         {"{\"a\" 1}", "expected ':'"},
        {"{1:2}", "expected a string"},    {"\"abc", "no end"},
        {"\"abc\\\"", "no end"},           {"[1", "expected ','"},
        {"tru", "expected true or false"}, {"1.2.3", "expected a number"},
        {"[] x", "text after the end"},    {"{\"a\":}", "expected a value"},
        {"[1}", "expected ','"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_fails(ctx, skip_all(ctx, bad[i][0], strlen(bad[i][0])), JANG_ERR_FORMAT, bad[i][1]);
    }
    static const char *const bad_strings[][2] = {
        {"\"\\x\"", "unknown escape"},        {"\"\\u12g4\"", "four hexadecimal"},
        {"\"\\u12\"", "four hexadecimal"},    {"\"a\nb\"", "control character"},
        {"\"\xff\"", "invalid UTF-8"},        {"\"\\n\xed\xa0\x80\"", "invalid UTF-8"},
        {"\"\\n\x01\"", "control character"}, {"\"\\n", "no end"},
        {"7", "expected a string"},
    };
    for (size_t i = 0; i < sizeof bad_strings / sizeof *bad_strings; i++) {
        jsonpull p = reader(ctx, bad_strings[i][0]);
        jsonpull_str s;
        assert_fails(ctx, jsonpull_string(&p, &s), JANG_ERR_FORMAT, bad_strings[i][1]);
        jsonpull_free(&p);
    }
    jang_context_free(ctx);
}

static void test_jsonpull_limits_depth(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char deep[200000];
    memset(deep, '[', sizeof deep);
    assert_fails(ctx, skip_all(ctx, deep, sizeof deep), JANG_ERR_FORMAT, "nested too deep");
    memset(deep + JSONPULL_MAX_DEPTH, ']', JSONPULL_MAX_DEPTH);
    assert_ok(ctx, skip_all(ctx, deep, 2 * JSONPULL_MAX_DEPTH));
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jsonpull_walks_objects_and_arrays),
        cmocka_unit_test(test_jsonpull_decodes_strings),
        cmocka_unit_test(test_jsonpull_key_outlives_its_value),
        cmocka_unit_test(test_jsonpull_skips_and_tells_where),
        cmocka_unit_test(test_jsonpull_refuses_what_is_no_json),
        cmocka_unit_test(test_jsonpull_limits_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
