/* test_tok_golden.c - small tokenizers of every kind against the ids and texts that the Python
 * package tokenizers made (scripts/fixtures/tokenizer_small.py). */
#include "support.h"

#include "base/file.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kinds whose vocabulary is no KIND.json: its file, and the name under which models have it. */
static const struct {
    const char *kind, *file, *name;
} others[] = {{"sentencepiece", "tokenizer/sentencepiece.model", "tokenizer.model"},
              {"tiktoken", "tokenizer/tiktoken.tiktoken", "tokenizer.model"},
              {"kimi", "tokenizer/tiktoken.tiktoken", "tiktoken.model"}};

static tok *open_golden(ctx_t *ctx, const char *kind) {
    char path[128];
    const char *file = path, *name = "tokenizer.json";
    snprintf(path, sizeof path, "tokenizer/%s.json", kind);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(kind, others[i].kind) == 0) {
            file = others[i].file;
            name = others[i].name;
        }
    }
    char *text;
    size_t n, at = 0;
    tok *t;
    assert_ok(ctx, file_read(&text, &n, ctx, test_path(TEST_DATA, file), 1 << 20));
    while (strcmp(tok_files[at].name, name) != 0) {
        assert_true(++at < tok_n_files);
    }
    assert_ok(ctx, tok_files[at].open(&t, ctx, file, text, n, NULL, 0));
    ctx_free(ctx, text); /* not needed any more */
    return t;
}

static json_t *read_cases(ctx_t *ctx, const char *kind) {
    char name[128];
    snprintf(name, sizeof name, "tokenizer/%s.cases.json", kind);
    json_t *cases;
    assert_ok(ctx, json_read(&cases, ctx, test_path(TEST_DATA, name)));
    return cases;
}

static void check_ids(ctx_t *ctx, const tok *t, const json_t *text, const json_t *expected,
                      unsigned flags, const char *kind) {
    tok_ids ids = {0};
    assert_ok(ctx, tok_encode(t, &ids, json_string_value(text), json_string_length(text), flags));
    bool same = ids.n == json_array_size(expected);
    for (size_t i = 0; same && i < ids.n; i++) {
        same = ids.ids[i] == json_integer_value(json_array_get(expected, i));
    }
    if (!same) {
        fail_msg("%s: ids differ for '%s'", kind, json_string_value(text));
    }
    tok_ids_free(ctx, &ids);
}

static void check_text(const buf *got, const json_t *expected, const char *kind, const char *how) {
    if (got->size != json_string_length(expected) ||
        memcmp(got->data, json_string_value(expected), got->size) != 0) {
        fail_msg("%s: %s: '%s', expected '%s'", kind, how, got->data, json_string_value(expected));
    }
}

static void check_decoding(ctx_t *ctx, const tok *t, const json_t *ids, const json_t *expected,
                           unsigned flags, const char *kind) {
    size_t n = json_array_size(ids);
    int32_t *list = calloc(n + 1, sizeof *list);
    for (size_t i = 0; i < n; i++) {
        list[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    }
    buf out;
    buf_init(&out, ctx, BUF_NO_LIMIT);
    assert_ok(ctx, tok_decode(t, &out, list, n, flags));
    check_text(&out, expected, kind, "decoded");
    buf_clear(&out);
    tok_stream *stream;
    assert_ok(ctx, tok_stream_new(&stream, t, flags));
    for (size_t i = 0; i < n; i++) {
        assert_ok(ctx, tok_stream_push(stream, &out, list[i]));
    }
    assert_ok(ctx, tok_stream_finish(stream, &out));
    check_text(&out, expected, kind, "streamed");
    tok_stream_free(stream);
    buf_free(&out);
    free(list);
}

static const json_t *or_else(const json_t *value, const json_t *fallback) {
    return json_is_null(value) ? fallback : value;
}

static void check_cases(ctx_t *ctx, const tok *t, const char *kind) {
    json_t *cases = read_cases(ctx, kind), *one;
    size_t i;
    assert_true(json_array_size(cases) > 20);
    json_array_foreach(cases, i, one) {
        const json_t *text = json_array_get(one, 0), *ids = json_array_get(one, 1);
        const json_t *special = or_else(json_array_get(one, 2), ids);
        const json_t *whole = or_else(json_array_get(one, 3), text);
        check_ids(ctx, t, text, ids, 0, kind);
        check_ids(ctx, t, text, special, TOK_ADD_SPECIAL, kind);
        check_decoding(ctx, t, ids, whole, 0, kind);
        check_decoding(ctx, t, ids, or_else(json_array_get(one, 4), whole), TOK_SKIP_SPECIAL, kind);
    }
    json_decref(cases);
}

static void check_kind(const char *kind) {
    ctx_t *ctx = test_context();
    tok *t = open_golden(ctx, kind);
    check_cases(ctx, t, kind);
    tok_close(t);
    jang_context_free(ctx);
}

/* The text of NAME/tokenizer.json in the archive of a shared tokenizer; NULL without it. */
static char *read_shared(ctx_t *ctx, const char *name, size_t *n) {
    const char *shared = getenv("JANG_SHARED");
    char command[1024];
    snprintf(command, sizeof command, "%s/tokenizers/%s.tar.xz", shared ? shared : SHARED_DATA,
             name);
    if (!file_exists(command)) {
        return NULL;
    }
    snprintf(command, sizeof command, "tar -xJOf '%s/tokenizers/%s.tar.xz' %s/tokenizer.json",
             shared ? shared : SHARED_DATA, name, name);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    buf text;
    buf_init(&text, ctx, BUF_NO_LIMIT);
    char block[65536];
    size_t got;
    while ((got = fread(block, 1, sizeof block, pipe)) > 0) {
        buf_put(&text, block, got);
    }
    assert_int_equal(pclose(pipe), 0);
    char *data;
    assert_ok(ctx, buf_take(&text, &data, n));
    return data;
}

static void test_tok_golden_equals_tokenizers_on_shared(void **state) {
    (void)state;
    static const char *const names[] = {"llama2", "llama3", "qwen3", "gemma3"};
    ctx_t *ctx = test_context();
    size_t n_found = 0, n;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *text = read_shared(ctx, names[i], &n), kind[64];
        if (!text) {
            continue;
        }
        n_found++;
        tok *t;
        assert_ok(ctx, tok_open(&t, ctx, names[i], text, n, NULL, 0));
        snprintf(kind, sizeof kind, "%s.shared", names[i]);
        check_cases(ctx, t, kind);
        tok_close(t);
        ctx_free(ctx, text);
    }
    jang_context_free(ctx);
    if (n_found == 0) {
        print_message("the shared tokenizers are not here\n");
        skip();
    }
}

static void test_tok_golden_equals_tokenizers(void **state) {
    (void)state;
    static const char *const kinds[] = {"smollm2",
                                        "llama3",
                                        "qwen2",
                                        "gpt2_prefix",
                                        "sentencepiece_bpe",
                                        "classic_bpe",
                                        "bert",
                                        "word_level",
                                        "t5",
                                        "ctc",
                                        "charsmap",
                                        "tiktoken",
                                        "kimi",
                                        "scripts_fallback",
                                        "sentencepiece"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        check_kind(kinds[i]);
    }
}

/* ---- Two texts ---- */

static bool equals(const tok_ids *got, const json_t *expected) {
    bool same = got->n == json_array_size(expected);
    for (size_t i = 0; same && i < got->n; i++) {
        same = got->ids[i] == json_integer_value(json_array_get(expected, i));
    }
    return same;
}

static void check_pair(ctx_t *ctx, const tok *t, const json_t *one, bool special, size_t variant) {
    const json_t *a = json_array_get(one, 0), *b = json_array_get(one, 1);
    tok_ids ids = {0}, types = {0};
    assert_ok(ctx, tok_encode_pair(t, &ids, &types, json_string_value(a), json_string_length(a),
                                   json_string_value(b), json_string_length(b),
                                   special ? TOK_ADD_SPECIAL : 0));
    if (!equals(&ids, json_array_get(one, special ? 4 : 2)) ||
        !equals(&types, json_array_get(one, special ? 5 : 3))) {
        fail_msg("variant %zu, special %d: ids or types of '%s', '%s' differ", variant, special,
                 json_string_value(a), json_string_value(b));
    }
    tok_ids_free(ctx, &ids);
    tok_ids_free(ctx, &types);
}

/* A golden vocabulary with another post-processor. */
static tok *open_with_post(ctx_t *ctx, const char *kind, json_t *post) {
    char name[128];
    snprintf(name, sizeof name, "tokenizer/%s.json", kind);
    json_t *json;
    assert_ok(ctx, json_read(&json, ctx, test_path(TEST_DATA, name)));
    json_object_set(json, "post_processor", post);
    char *text = json_dumps(json, JSON_COMPACT);
    tok *t;
    assert_ok(ctx, tok_open(&t, ctx, name, text, strlen(text), NULL, 0));
    free(text);
    json_decref(json);
    return t;
}

static void test_tok_golden_pairs_equal_tokenizers(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    json_t *variants, *variant, *one;
    assert_ok(ctx, json_read(&variants, ctx, test_path(TEST_DATA, "tokenizer/pairs.json")));
    size_t i, j;
    assert_int_equal(json_array_size(variants), 7);
    json_array_foreach(variants, i, variant) {
        tok *t = open_with_post(ctx, json_string_value(json_object_get(variant, "kind")),
                                json_object_get(variant, "post_processor"));
        json_array_foreach(json_object_get(variant, "cases"), j, one) {
            check_pair(ctx, t, one, false, i);
            check_pair(ctx, t, one, true, i);
        }
        tok_close(t);
    }
    json_decref(variants);
    jang_context_free(ctx);
}

static void test_tok_golden_pairs_of_two_processors_are_refused(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    json_t *one = json_pack("{s:s, s:[s,i], s:[s,i]}", "type", "BertProcessing", "sep", "[SEP]", 2,
                            "cls", "[CLS]", 1);
    json_t *post = json_pack("{s:s, s:[O,o]}", "type", "Sequence", "processors", one, one);
    tok *t = open_with_post(ctx, "bert", post);
    tok_ids ids = {0}, types = {0};
    assert_fails(ctx, tok_encode_pair(t, &ids, &types, "a", 1, "b", 1, TOK_ADD_SPECIAL),
                 JANG_ERR_UNSUPPORTED, "several post-processors");
    assert_ok(ctx, tok_encode_pair(t, &ids, &types, "a", 1, "b", 1, 0));
    tok_ids_free(ctx, &ids);
    tok_ids_free(ctx, &types);
    tok_close(t);
    json_decref(post);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tok_golden_equals_tokenizers),
        cmocka_unit_test(test_tok_golden_equals_tokenizers_on_shared),
        cmocka_unit_test(test_tok_golden_pairs_equal_tokenizers),
        cmocka_unit_test(test_tok_golden_pairs_of_two_processors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
