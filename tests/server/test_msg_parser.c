/* test_msg_parser.c - each format of the tables with its literal text, fed in pieces of every size;
 * and which template is recognized as which format. */
#include "support.h"

#include "server/parse_text.h"
#include "server/tool_format.h"

#include "server/msg_parser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"x\":{\"type\":\"integer\"},\"s\":{\"type\":\"string\"},\"b\":{\"type\":"
    "\"boolean\"},\"l\":{\"type\":\"array\"},\"o\":{\"type\":\"object\"},\"n\":{\"type\":["
    "\"integer\","
    "\"null\"]},\"e\":{\"enum\":[\"a\",\"b\"]},\"u\":{\"anyOf\":[{\"type\":\"string\"},"
    "{\"type\":\"number\"}]},\"r\":{\"$ref\":\"#/$defs/N\"},\"any\":{}},\"$defs\":{\"N\":"
    "{\"type\":\"number\"}}}}},"
    "{\"name\":\"g\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}]";

typedef struct case_row {
    const char *format, *reasoning, *text;
    const char *content, *thought; /* NULL: null, not there */
    const char *calls;             /* "f {...}" in lines */
    bool open, forced;
} case_row;

#define DS_CALLS "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
#define DS_END "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
#define Q3 "<tool_call>\n<function=f>\n"
#define Q3_END "</function>\n</tool_call>"

/* rows leave out the flags they do not need */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
static const case_row rows[] = {
    /* hermes */
    {"hermes", "none", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>",
     NULL, NULL, "f {\"x\":1}"},
    {"hermes", "none",
     "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1, \"s\": \"a "
     "</tool_call> b\"}}"
     "\n</tool_call>\n<tool_call>{\"arguments\": {}, \"name\": \"g\"}</tool_call>\n",
     "Let me see.", NULL, "f {\"x\":1,\"s\":\"a </tool_call> b\"}\ng {}"},
    {"hermes", "none", "a <tool_call> b", "a <tool_call> b", NULL, ""},
    {"hermes", "none", "1 < 2 <tool", "1 < 2 <tool", NULL, ""},
    {"hermes", "none", "<tool_call>{\"name\": \"h\", \"arguments\": {}}</tool_call>",
     "<tool_call>{\"name\": \"h\", \"arguments\": {}}</tool_call>", NULL, ""},
    {"hermes", "none", "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": }}</tool_call>",
     "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": }}</tool_call>", NULL, ""},
    {"hermes", "none", "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}", NULL, NULL,
     "f {\"x\":1}"},
    {"hermes", "none", "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1",
     "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1", NULL, ""},
    {"hermes", "none", "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1", NULL, NULL,
     "f {\"x\":1", .forced = true},
    {"hermes", "none",
     "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"a\nb\\u00e9\"}}</tool_call>", NULL,
     NULL, "f {\"s\":\"a\\nb\\u00e9\"}"},
    {"hermes", "none",
     "```\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n```\nand "
     "`<tool_call>{\"name\": \"g\"}</tool_call>`",
     "```\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n```\nand "
     "`<tool_call>{\"name\": \"g\"}</tool_call>`",
     NULL, ""},
    {"hermes", "none", "```\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "```",
     NULL, "f {}", .forced = true},
    {"hermes", "none", "it`s\n<tool_call>{\"name\": \"g\"}</tool_call>", "it`s", NULL, "g {}"},
    {"hermes", "none", "```c\nx\n```\n<tool_call>{\"name\": \"g\"}</tool_call>", "```c\nx\n```",
     NULL, "g {}"},
    {"hermes", "none",
     "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}</tool_call>", NULL, NULL,
     "f {\"x\":1}"},
    /* qwen3_coder: typed values */
    {"qwen3_coder", "none", Q3 "<parameter=x>\n1\n</parameter>\n" Q3_END, NULL, NULL,
     "f {\"x\":1}"},
    {"qwen3_coder", "none",
     Q3
     "<parameter=s>\n5\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n<parameter=l>\n[1, 'a']\n"
     "</parameter>\n<parameter=n>\nnull\n</parameter>\n" Q3_END,
     NULL, NULL, "f {\"s\":\"5\",\"b\":true,\"l\":[1,\"a\"],\"n\":null}"},
    {"qwen3_coder", "none",
     Q3 "<parameter=s>\n\n two\nlines "
        "\n\n</parameter>\n<parameter=u>\n5\n</parameter>\n<parameter=e>\n"
        "true\n</parameter>\n<parameter=r>\n2.5\n</parameter>\n<parameter=x>\nmany\n</"
        "parameter>\n" Q3_END,
     NULL, NULL,
     "f {\"s\":\"\\n two\\nlines \\n\",\"u\":5,\"e\":\"true\",\"r\":2.5,\"x\":\"many\"}"},
    {"qwen3_coder", "none",
     "ok\n\n" Q3 "<parameter=o>{\"a\": {\"b\": 1}}</parameter><parameter=any>[]</parameter>" Q3_END
     "\n<tool_call><function=g></function></tool_call>",
     "ok", NULL, "f {\"o\":{\"a\":{\"b\":1}},\"any\":[]}\ng {}"},
    {"qwen3_coder", "none", "<function=f>\n<parameter=x>\n1\n</parameter>\n</function>", NULL, NULL,
     "f {\"x\":1}"},
    {"seed", "seed",
     "<seed:think>\nhm\n</seed:think>\n<seed:tool_call>\n<function=f>\n<parameter=x>1</parameter>\n"
     "</function>\n</seed:tool_call>",
     NULL, "hm", "f {\"x\":1}"},
    /* llama3 */
    {"llama3", "none", "{\"name\": \"f\", \"parameters\": {\"x\": 1}}", NULL, NULL, "f {\"x\":1}"},
    {"llama3", "none", "{\"name\": \"f\", \"parameters\": {\"x\": 1}} is JSON",
     "{\"name\": \"f\", \"parameters\": {\"x\": 1}} is JSON", NULL, ""},
    {"llama3", "none",
     "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}<|eot_id|>", NULL,
     NULL, "f {}\ng {}"},
    {"llama3", "none",
     "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"x\": "
     "1}}<|eom_id|>",
     NULL, NULL, "f {\"x\":1}"},
    {"llama3", "none", "<function=f>{\"x\": 1}</function>", NULL, NULL, "f {\"x\":1}"},
    {"llama3", "none", "<|python_tag|>f.call(x=1, s=\"a\")", NULL, NULL, "f {\"x\":1,\"s\":\"a\"}"},
    {"llama3", "none", "See {\"name\": \"f\", \"parameters\": {}}",
     "See {\"name\": \"f\", \"parameters\": {}}", NULL, ""},
    /* pythonic */
    {"pythonic", "none", "[f(x=1), g()]", NULL, NULL, "f {\"x\":1}\ng {}"},
    {"pythonic", "none",
     "<|tool_call_start|>[f(x=-1.5, s='it\\'s', l=[1, None], o={'a': True}, "
     "e=(1,))]<|tool_call_end|>"
     "Done.",
     "Done.", NULL, "f {\"x\":-1.5,\"s\":\"it's\",\"l\":[1,null],\"o\":{\"a\":true},\"e\":[1]}"},
    {"pythonic", "none", "[1] is a citation", "[1] is a citation", NULL, ""},
    /* mistral */
    {"mistral", "none",
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"x\": 1}, \"id\": \"abcdefghi\"}]", NULL,
     NULL, "f {\"x\":1} abcdefghi"},
    {"mistral", "none", "[TOOL_CALLS]f{\"x\": 1}", NULL, NULL, "f {\"x\":1}"},
    {"mistral", "mistral", "[THINK]so[/THINK]ok[TOOL_CALLS]f[ARGS]{\"x\": 1}[TOOL_CALLS]g[ARGS]{}",
     "ok", "so", "f {\"x\":1}\ng {}"},
    {"mistral_v13", "none", "[TOOL_CALLS]f[ARGS]{\"x\": 1}", NULL, NULL, "f {\"x\":1}"},
    {"mistral_v11", "none", "[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{\"x\": 1}", NULL, NULL,
     "f {\"x\":1} 123456789"},
    /* deepseek */
    {"deepseek_v3", "think",
     "<think>a</think>\n\n" DS_CALLS "function<｜tool▁sep｜>f\n```json\n{\"x\": 1}\n```" DS_END,
     NULL, "a", "f {\"x\":1}"},
    {"deepseek_v31", "none",
     "ok" DS_CALLS
     "f<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}" DS_END,
     "ok", NULL, "f {\"x\":1}\ng {}"},
    {"dsml", "none",
     "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"x\" "
     "string=\"false\">1"
     "</｜DSML｜parameter>\n<｜DSML｜parameter name=\"s\" string=\"true\">\n5</｜DSML｜parameter>\n"
     "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
     NULL, NULL, "f {\"x\":1,\"s\":\"\\n5\"}"},
    {"dsml", "none",
     "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
     NULL, NULL, "g {}"},
    /* harmony */
    {"harmony", "harmony",
     "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.f <|constrain|>json<|message|>{\"x\": 1}<|call|>",
     NULL, "Think.", "f {\"x\":1}"},
    {"harmony", "harmony",
     "<|channel|>commentary<|message|>I will.<|end|><|start|>assistant to=functions.f<|channel|>"
     "commentary json<|message|>{\"x\": 1}<|call|>",
     "I will.", NULL, "f {\"x\":1}"},
    {"harmony", "harmony",
     "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Hi "
     "<|x|><|return|>",
     "Hi <|x|>", "Hm", ""},
    {"harmony", "harmony", "<|channel|>analysis<|message|>cut", "", "cut", ""},
    {"harmony", "harmony", "Plain text", "Plain text", NULL, ""},
    {"harmony", "harmony", "<|channel|>commentary to=functions.h<|message|>{}<|call|>", "{}", NULL,
     ""},
    /* gemma */
    {"gemma3", "none", "Sure:\n```tool_code\nf(x=1)\n```", "Sure:", NULL, "f {\"x\":1}"},
    {"gemma3", "none", "```python\nprint(f(x=1))\n```", NULL, NULL, "f {\"x\":1}"},
    {"gemma3", "none", "```python\nprint(1)\n```", "```python\nprint(1)\n```", NULL, ""},
    {"gemma3", "none", "<start_function_call>call:f{s:<escape>a<escape>,x:1}<end_function_call>",
     NULL, NULL, "f {\"s\":\"a\",\"x\":1}"},
    {"gemma4", "gemma4",
     "<|channel>thought\nhm\n<channel|><|tool_call>call:f{x:1,s:<|\"|>te\"xt<|\"|>,o:{a:[1,true]}}<"
     "tool_call|>",
     NULL, "hm", "f {\"x\":1,\"s\":\"te\\\"xt\",\"o\":{\"a\":[1,true]}}"},
    /* glm, minimax, kimi */
    {"glm", "think",
     "x</think>\n<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>", NULL,
     "x", "f {\"x\":1}", .open = true},
    {"glm", "none",
     "<tool_call>f<arg_key>s</arg_key><arg_value>true</arg_value></tool_call><tool_call>g</"
     "tool_call>",
     NULL, NULL, "f {\"s\":\"true\"}\ng {}"},
    {"minimax", "none",
     "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter "
     "name=\"x\">1</parameter>\n</invoke>\n<invoke "
     "name=\"g\">\n</invoke>\n</minimax:tool_call>",
     NULL, NULL, "f {\"x\":1}\ng {}"},
    {"kimi", "none",
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"
     "\"x\": 1}"
     "<|tool_call_end|><|tool_calls_section_end|>",
     NULL, NULL, "f {\"x\":1} functions.f:0"},
    /* phi, granite, apriel, cohere */
    {"phi", "none", "functools[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]", NULL, NULL,
     "f {\"x\":1}"},
    {"phi", "none", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]<|/tool_call|>",
     NULL, NULL, "f {\"x\":1}"},
    {"granite", "granite",
     "Here is my thought process: hm. Here is my response:<|tool_call|>[{\"name\": \"f\", "
     "\"arguments\": "
     "{\"x\": 1}}]",
     NULL, " hm.", "f {\"x\":1}"},
    {"granite", "none", "<tool_call>[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]", NULL, NULL,
     "f {\"x\":1}"},
    {"apriel", "apriel",
     "Here are my reasoning steps:\nhm\n[BEGIN FINAL RESPONSE]\nHi[END FINAL RESPONSE]", "Hi",
     "Here are my reasoning steps:\nhm", ""},
    {"apriel", "none", "\n<tool_calls>[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]</tool_calls>",
     NULL, NULL, "f {\"x\":1}"},
    {"cohere", "cohere",
     "<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", "
     "\"tool_name\": "
     "\"f\", \"parameters\": {\"x\": 1}}\n]<|END_ACTION|>",
     NULL, "hm", "f {\"x\":1}"},
    {"cohere", "cohere", "<|START_RESPONSE|>Hi<|END_RESPONSE|>", "Hi", NULL, ""},
    /* reasoning */
    {"none", "think", "<think>\na\nb\n</think>\n\nHi", "Hi", "a\nb", ""},
    {"none", "think", "a</think>Hi", "Hi", "a", "", .open = true},
    {"none", "think", "a < b", "", "a < b", "", .open = true},
    {"none", "think", "\n <think>a</think> Hi", " Hi", "a", ""},
    {"none", "think", "The tag <think> is text", "The tag <think> is text", NULL, ""},
    {"hermes", "think",
     "<think><tool_call>{\"name\": \"g\"}</tool_call></think><tool_call>{\"name\": "
     "\"g\"}</tool_call>",
     NULL, "<tool_call>{\"name\": \"g\"}</tool_call>", "g {}"},
    {"none", "none", "<think>a</think>", "<think>a</think>", NULL, ""},
    {"hermes", "none", "  two \n\n", "  two \n\n", NULL, ""},
    {"hermes", "none", "", "", NULL, ""},
};

/* "f {args}" in lines; an id that the text carries stands behind. */
static void describe_calls(const json_t *message, char *out, size_t n_bytes) {
    out[0] = 0;
    size_t i, at = 0;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        const json_t *function = json_object_get(call, "function");
        const char *id = json_string_value(json_object_get(call, "id"));
        bool made = !strncmp(id, "call_", 5) || strspn(id, "abcdefghi123456789") < strlen(id);
        made = made && strncmp(id, "functions.", 10);
        at += (size_t)snprintf(out + at, n_bytes - at, "%s%s %s%s%s", i ? "\n" : "",
                               json_string_value(json_object_get(function, "name")),
                               json_string_value(json_object_get(function, "arguments")),
                               made ? "" : " ", made ? "" : id);
    }
}

static void assert_text(const json_t *value, const char *expected, const char *what,
                        const char *in) {
    const char *got = json_string_value(value);
    if (!got != !expected || (got && strcmp(got, expected))) {
        fail_msg("%s: %s is %s, not %s", in, what, got ? got : "null",
                 expected ? expected : "null");
    }
}

static void check_row(const case_row *row, size_t chunk) {
    char error[256], calls[1024];
    parse_job job = {.format = row->format,
                     .reasoning = row->reasoning,
                     .tools_json = tools,
                     .n_tools_json = sizeof tools - 1,
                     .text = row->text,
                     .n_text = strlen(row->text),
                     .chunk = chunk,
                     .open = row->open,
                     .forced = row->forced};
    char *json = parse_text(&job, error, sizeof error);
    assert_non_null(json);
    json_t *message = json_loads(json, 0, NULL);
    assert_non_null(message);
    assert_text(json_object_get(message, "content"), row->content, "content", row->text);
    assert_text(json_object_get(message, "reasoning_content"), row->thought, "reasoning",
                row->text);
    describe_calls(message, calls, sizeof calls);
    if (strcmp(calls, row->calls ? row->calls : "")) {
        fail_msg("%s, in pieces of %zu: calls are\n%s\nnot\n%s", row->text, chunk, calls,
                 row->calls);
    }
    json_decref(message);
    free(json);
}

static void test_msg_parser_every_format_in_pieces_of_every_size(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t chunk = 0; chunk <= strlen(rows[i].text); chunk++) {
            check_row(&rows[i], chunk);
        }
    }
}

static void test_msg_parser_every_format_has_a_row(void **state) {
    (void)state;
    for (size_t i = 0; tool_format_at(i); i++) {
        bool seen = false; /* with a call */
        for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
            seen |= !strcmp(rows[k].format, tool_format_at(i)->name) && rows[k].calls[0];
        }
        assert_true(seen);
    }
}

/* Records what came before the text was complete. */
static void count_text(void *user, msg_part part, const char *text, size_t n_bytes) {
    (void)part;
    (void)text;
    *(size_t *)user += n_bytes;
}

static void ignore_call(void *user, size_t index, const char *name, const char *id) {
    (void)user, (void)index, (void)name, (void)id;
}

static void ignore_args(void *user, size_t index, const char *json, size_t n_bytes) {
    (void)user, (void)index, (void)json, (void)n_bytes;
}

static void test_msg_parser_holds_back_no_more_than_a_marker(void **state) {
    (void)state;
    json_t *json = json_loads(tools, 0, NULL);
    tool_set set;
    assert_true(tool_set_read(&set, json));
    size_t n = 0;
    msg_sink sink = {&n, count_text, ignore_call, ignore_args};
    msg_options o = {.format = tool_format_find("hermes"), .tools = &set};
    msg_parser *p = msg_parser_new(&o, &sink);
    msg_parser_feed(p, "abc", 3);
    assert_int_equal(n, 3);
    msg_parser_feed(p, " <tool_c", 8);
    assert_int_equal(n, 3);
    msg_parser_feed(p, "at>", 3);
    assert_int_equal(n, 14);
    msg_parser_feed(p, "<tool_call>", 11);
    assert_int_equal(n, 14);
    msg_parser_finish(p);
    assert_int_equal(n, 25);
    msg_parser_free(p);
    tool_set_free(&set);
    json_decref(json);
}

/* ---- Detection ---- */

static const struct {
    const char *file, *format, *reasoning;
} templates[] = {
    {"ByteDance-Seed-OSS", "seed", "seed"},
    {"CohereForAI-c4ai-command-r7b-12-2024-tool_use", "cohere", "cohere"},
    {"GLM-4.6", "glm", "think"},
    {"HuggingFaceTB-SmolLM3-3B", NULL, "think"},
    {"Kimi-K2-Instruct", "kimi", NULL},
    {"LFM2-8B-A1B", "pythonic", NULL},
    {"Mistral-Small-3.2-24B-Instruct-2506", "mistral_v11", NULL},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "qwen3_coder", "think"},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes", NULL},
    {"Qwen-QwQ-32B", "hermes", "think"},
    {"Qwen-Qwen2.5-7B-Instruct", "hermes", NULL},
    {"Qwen-Qwen3-0.6B", "hermes", "think"},
    {"Qwen3-Coder", "qwen3_coder", NULL},
    {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek_v3", "think"},
    {"deepseek-ai-DeepSeek-V3.1", "deepseek_v31", "think"},
    {"google-gemma-2-2b-it", NULL, NULL},
    {"ibm-granite-granite-3.3-2B-Instruct", "granite", "think"},
    {"meta-llama-Llama-3.1-8B-Instruct", "llama3", NULL},
    {"meta-llama-Llama-3.2-3B-Instruct", "llama3", NULL},
    {"microsoft-Phi-3.5-mini-instruct", NULL, NULL},
    {"mistralai-Mistral-Nemo-Instruct-2407", "mistral", NULL},
    {"openai-gpt-oss-120b", "harmony", "harmony"},
    {"unsloth-Apriel-1.5", "apriel", "apriel"},
};

static char *read_template(const char *name) {
    const char *shared = getenv("JANG_SHARED");
    char path[1024];
    snprintf(path, sizeof path, "%s/chat-templates/%s.jinja", shared ? shared : SHARED_DATA, name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        return NULL;
    }
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    (void)!fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static void test_msg_parser_templates_tell_their_format(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        char *text = read_template(templates[i].file);
        if (!text) {
            print_message("%s.jinja is not here\n", templates[i].file);
            skip();
        }
        const tool_format *f = tool_format_detect(text);
        const reasoning_format *r = reasoning_detect(text);
        const char *format = f ? f->name : "none", *reasoning = r ? r->name : "none";
        if (strcmp(format, templates[i].format ? templates[i].format : "none") ||
            strcmp(reasoning, templates[i].reasoning ? templates[i].reasoning : "none")) {
            fail_msg("%s: %s, %s", templates[i].file, format, reasoning);
        }
        free(text);
    }
}

static void test_msg_parser_prompt_tells_whether_reasoning_is_open(void **state) {
    (void)state;
    const reasoning_format *think = reasoning_find("think");
    assert_true(reasoning_is_open(think, "user\nassistant\n<think>\n", 23));
    assert_false(reasoning_is_open(think, "<think>\n\n</think>\n\n", 19));
    assert_false(reasoning_is_open(think, "", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_msg_parser_every_format_in_pieces_of_every_size),
        cmocka_unit_test(test_msg_parser_every_format_has_a_row),
        cmocka_unit_test(test_msg_parser_holds_back_no_more_than_a_marker),
        cmocka_unit_test(test_msg_parser_templates_tell_their_format),
        cmocka_unit_test(test_msg_parser_prompt_tells_whether_reasoning_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
