/* test_tool_grammar.c - the grammars that make tool calls: each format's own text fits its grammar,
 * and what fits is read as that call by its parser. */
#include "support.h"

#include "jang.h"
#include "server/api.h"
#include "server/parse_text.h"

#include <stdlib.h>
#include <string.h>

static const char tools_json[] =
    "[{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":"
    "\"integer\"},"
    "\"s\":{\"type\":\"string\"}},\"required\":[\"x\"]}},{\"name\":\"g\",\"parameters\":{\"type\":"
    "\"object\",\"properties\":{}}}]";

static const struct {
    const char *format, *text;
} rows[] = {
    {"hermes",
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>\n"
     "{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"},
    {"qwen3_coder",
     "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>"},
    {"qwen3_coder",
     "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n<parameter=s>\na\nb\n"
     "</parameter>\n</function>\n</tool_call>"},
    {"seed",
     "<seed:tool_call>\n<function=f>\n<parameter=x>1</parameter>\n</function>\n</seed:tool_call>"},
    {"glm", "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"},
    {"minimax",
     "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"x\">1</parameter>\n</invoke>\n"
     "</minimax:tool_call>"},
    {"llama3", "{\"name\": \"f\", \"parameters\": {\"x\": 1}}"},
    {"mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"x\": 1}}]"},
    {"mistral_v11", "[TOOL_CALLS]f[CALL_ID]abcDEF123[ARGS]{\"x\": 1}[TOOL_CALLS]f[ARGS]{\"x\": 2}"
                    "[TOOL_CALLS]f{\"x\": 3}"},
    {"mistral_v13", "[TOOL_CALLS]f[ARGS]{\"x\": 1}[TOOL_CALLS]f[ARGS]{\"x\": 2}"},
    {"deepseek_v3",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"x\": 1}\n"
     "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
    {"deepseek_v31",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>"},
    {"kimi",
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
     "{\"x\": 1}<|tool_call_end|><|tool_calls_section_end|>"},
    {"phi", "functools[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]"},
    {"granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]"},
    {"apriel", "<tool_calls>[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]</tool_calls>"},
    {"cohere",
     "<|START_ACTION|>[\n    {\"tool_name\": \"f\", \"parameters\": {\"x\": 1}}\n]<|END_ACTION|>"},
    {"harmony",
     "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"x\": 1}<|call|>"},
    {"dsml",
     "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"x\" "
     "string=\"false\">1</｜DSML｜parameter>\n<｜DSML｜parameter name=\"s\" string=\"true\">a \"b\""
     "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"},
    {"pythonic", "[f(x=1, s=\"a\"), g()]"},
    {"gemma3", "<start_function_call>call:f{x:1,s:<escape>a, b<escape>}<end_function_call>"},
    {"gemma4",
     "<|tool_call>call:f{x:1,s:<|\"|>a}b<|\"|>}<tool_call|><|tool_call>call:g{}<tool_call|>"},
};

static jang_grammar *compile(jang_context *ctx, const char *format, tool_mode mode) {
    json_t *json = json_loads(tools_json, 0, NULL);
    tool_set tools;
    tbuf text = {0};
    jang_grammar *g = NULL;
    assert_true(tool_set_read(&tools, json));
    if (tool_grammar(&text, tool_format_find(format), &tools, NULL, mode, true, NULL)) {
        jang_status status = jang_grammar_new(&g, ctx, JANG_GRAMMAR_STRUCTURE, text.data, text.n);
        if (status != JANG_OK) {
            fail_msg("%s: %s in %s", format, jang_context_error(ctx), text.data);
        }
    } else {
        assert_int_equal(mode, TOOLS_AUTO);
    }
    tbuf_free(&text);
    tool_set_free(&tools);
    json_decref(json);
    return g;
}

static void check_match(jang_context *ctx, jang_grammar *g, const char *format, const char *text) {
    size_t n = 0;
    bool complete = false;
    assert_ok(ctx, jang_grammar_match(&n, &complete, g, text, strlen(text)));
    if (n != strlen(text) || !complete) {
        fail_msg("%s: %zu bytes fit of %s", format, n, text);
    }
}

static void test_tool_grammar_each_format_fits_and_is_read(void **state) {
    (void)state;
    jang_context *ctx = test_context();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jang_grammar *g = compile(ctx, rows[i].format, TOOLS_REQUIRED);
        check_match(ctx, g, rows[i].format, rows[i].text);
        jang_grammar_free(g);
        char error[256];
        parse_job job = {.format = rows[i].format,
                         .tools_json = tools_json,
                         .n_tools_json = sizeof tools_json - 1,
                         .text = rows[i].text,
                         .n_text = strlen(rows[i].text),
                         .forced = true};
        char *message = parse_text(&job, error, sizeof error);
        if (!strstr(message, "\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1")) {
            fail_msg("%s: %s", rows[i].format, message);
        }
        free(message);
    }
    jang_context_free(ctx);
}

static void test_tool_grammar_optional_calls_follow_their_marker(void **state) {
    (void)state;
    jang_context *ctx = test_context();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jang_grammar *g = compile(ctx, rows[i].format, TOOLS_AUTO);
        if (g) {
            bool around = !strcmp(rows[i].format, "pythonic");
            check_match(ctx, g, rows[i].format, "No call is needed.");
            check_match(ctx, g, rows[i].format,
                        around ? "<|tool_call_start|>[f(x=1)]<|tool_call_end|>" : rows[i].text);
        }
        jang_grammar_free(g);
    }
    jang_context_free(ctx);
}

/* Gemma's notation nests, and holds enumerations; a value of another type does not fit. */
static void test_tool_grammar_gemma_nests(void **state) {
    (void)state;
    static const char deep[] =
        "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"o\":{\"type\":\"object\","
        "\"properties\":{"
        "\"c\":{\"type\":\"string\",\"enum\":[\"red\",\"blue\"]}}},\"l\":{\"type\":\"array\","
        "\"items\":{\"type\":\"number\"}}},\"required\":[\"o\"]}}]";
    jang_context *ctx = test_context();
    json_t *json = json_loads(deep, 0, NULL);
    tool_set tools;
    tbuf text = {0};
    jang_grammar *g = NULL;
    size_t n = 0;
    bool complete = false;
    assert_true(tool_set_read(&tools, json));
    assert_true(
        tool_grammar(&text, tool_format_find("gemma4"), &tools, NULL, TOOLS_REQUIRED, true, NULL));
    assert_ok(ctx, jang_grammar_new(&g, ctx, JANG_GRAMMAR_STRUCTURE, text.data, text.n));
    check_match(ctx, g, "gemma4",
                "<|tool_call>call:f{o:{c:<|\"|>blue<|\"|>},l:[1,2.5]}<tool_call|>");
    static const char bad[] = "<|tool_call>call:f{o:{c:<|\"|>green";
    assert_ok(ctx, jang_grammar_match(&n, &complete, g, bad, sizeof bad - 1));
    assert_int_equal(n, sizeof bad - 1 - strlen("green"));
    jang_grammar_free(g);
    tbuf_free(&text);
    tool_set_free(&tools);
    json_decref(json);
    jang_context_free(ctx);
}

/* With a format of the answer: a call, or what fits the format, and nothing else. */
static void test_tool_grammar_beside_a_format(void **state) {
    (void)state;
    jang_context *ctx = test_context();
    json_t *json = json_loads(tools_json, 0, NULL), *format = json_pack("{s:s}", "json", "object");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tool_set tools;
        tbuf text = {0};
        jang_grammar *g = NULL;
        size_t n = 0;
        bool complete = false;
        assert_true(tool_set_read(&tools, json));
        assert_true(tool_grammar(&text, tool_format_find(rows[i].format), &tools, NULL, TOOLS_AUTO,
                                 true, format));
        assert_ok(ctx, jang_grammar_new(&g, ctx, JANG_GRAMMAR_STRUCTURE, text.data, text.n));
        check_match(ctx, g, rows[i].format, rows[i].text);
        check_match(ctx, g, rows[i].format, "{\"colour\": \"red\"}");
        assert_ok(ctx, jang_grammar_match(&n, &complete, g, "Well", 4));
        assert_int_equal(n, 0);
        jang_grammar_free(g);
        tbuf_free(&text);
        tool_set_free(&tools);
    }
    json_decref(format);
    json_decref(json);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_grammar_each_format_fits_and_is_read),
        cmocka_unit_test(test_tool_grammar_optional_calls_follow_their_marker),
        cmocka_unit_test(test_tool_grammar_gemma_nests),
        cmocka_unit_test(test_tool_grammar_beside_a_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
