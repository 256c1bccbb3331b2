/* test_tok_api.c - what tokenizer.h promises beyond the golden files: lookups, flags, errors,
 * streaming, long words, threads. */
#include "support.h"

#include "base/file.h"
#include "tokenizer/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A byte-level tokenizer: every byte, "ab", "abc", two added tokens. */
static char *byte_level_json(void) {
    json_t *vocab = json_object(), *merges = json_array();
    char name[8];
    for (int b = 0; b < 256; b++) { /* the alphabet, from its definition */
        int c = b >= 0x21 && b <= 0x7e ? b : b >= 0xa1 && b != 0xad ? b : -1;
        static int next;
        next = b == 0 ? 0 : next;
        int code = c >= 0 ? c : 0x100 + next++;
        if (code < 0x80) {
            snprintf(name, sizeof name, "%c", code);
        } else {
            snprintf(name, sizeof name, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 0x3f));
        }
        json_object_set_new(vocab, name, json_integer(b));
    }
    json_object_set_new(vocab, "ab", json_integer(256));
    json_object_set_new(vocab, "abc", json_integer(257));
    json_array_append_new(merges, json_pack("[ss]", "a", "b"));
    json_array_append_new(merges, json_string("ab c"));
    json_t *root = json_pack(
        "{s:o, s:{ss sb sb}, s:{ss}, s:[{si ss sb sb sb sb sb}, {si ss sb sb sb sb sb}]}", "model",
        json_pack("{ss so so}", "type", "BPE", "vocab", vocab, "merges", merges), "pre_tokenizer",
        "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 1, "decoder", "type", "ByteLevel",
        "added_tokens", "id", 258, "content", "<end>", "special", 1, "normalized", 0, "lstrip", 0,
        "rstrip", 0, "single_word", 0, "id", 259, "content", "tool", "special", 0, "normalized", 0,
        "lstrip", 0, "rstrip", 0, "single_word", 1);
    char *text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

static tok *open_byte_level(ctx_t *ctx) {
    char *json = byte_level_json();
    tok *t;
    assert_ok(ctx,
              tok_open(&t, ctx, "t.json", json, strlen(json), "{\"eos_token\":\"<end>\"}", 21));
    free(json);
    return t;
}

static void check_encode(ctx_t *ctx, const tok *t, const char *text, size_t n, unsigned flags,
                         size_t n_expected, const int32_t *expected) {
    tok_ids ids = {0};
    assert_ok(ctx, tok_encode(t, &ids, text, n, flags));
    assert_int_equal(ids.n, n_expected);
    assert_memory_equal(ids.ids, expected, n_expected * sizeof *expected);
    tok_ids_free(ctx, &ids);
}

static void test_tok_api_looks_up_tokens(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    size_t n;
    assert_int_equal(tok_size(t), 260);
    assert_int_equal(tok_id(t, "abc", 3), 257);
    assert_int_equal(tok_id(t, "<end>", 5), 258);
    assert_int_equal(tok_id(t, "nope", 4), -1);
    assert_string_equal(tok_token(t, 256, &n), "ab");
    assert_int_equal(n, 2);
    assert_string_equal(tok_token(t, 258, &n), "<end>");
    assert_null(tok_token(t, 260, &n));
    assert_null(tok_token(t, -1, &n));
    assert_true(tok_is_special(t, 258));
    assert_false(tok_is_special(t, 259) || tok_is_special(t, 0) || tok_is_special(t, 1000));
    assert_string_equal(json_string_value(json_object_get(tok_config(t), "eos_token")), "<end>");
    tok_close(t);
    jang_context_free(ctx);
}

static void test_tok_api_special_tokens_follow_the_flags(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    check_encode(ctx, t, "abc<end>", 8, 0, 2, (int32_t[]){257, 258});
    check_encode(ctx, t, "<end>", 5, TOK_NO_SPECIAL, 5, (int32_t[]){'<', 'e', 'n', 'd', '>'});
    check_encode(ctx, t, "tool atool", 10, 0, 7, (int32_t[]){259, ' ', 'a', 't', 'o', 'o', 'l'});
    buf out;
    buf_init(&out, ctx, 100);
    assert_ok(ctx, tok_decode(t, &out, (int32_t[]){257, 258, 259}, 3, TOK_SKIP_SPECIAL));
    assert_string_equal(out.data, "abctool");
    buf_free(&out);
    tok_close(t);
    jang_context_free(ctx);
}

static void test_tok_api_repairs_invalid_utf8(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    check_encode(ctx, t, "\xff", 1, 0, 3, (int32_t[]){0xef, 0xbf, 0xbd});
    check_encode(ctx, t, "\xf0\x9f\x98z", 4, 0, 4, (int32_t[]){0xef, 0xbf, 0xbd, 'z'});
    check_encode(ctx, t, "\xc3\xa9\0", 3, 0, 3, (int32_t[]){0xc3, 0xa9, 0});
    tok_close(t);
    jang_context_free(ctx);
}

static void test_tok_api_streams_whole_characters(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    tok_stream *s;
    buf out;
    buf_init(&out, ctx, 100);
    assert_ok(ctx, tok_stream_new(&s, t, 0));
    static const int32_t smile[] = {0xf0, 0x9f, 0x98, 0x80};
    for (int i = 0; i < 3; i++) {
        assert_ok(ctx, tok_stream_push(s, &out, smile[i]));
        assert_int_equal(out.size, 0);
    }
    assert_ok(ctx, tok_stream_push(s, &out, smile[3]));
    assert_string_equal(out.data, "\xf0\x9f\x98\x80");
    buf_clear(&out);
    assert_ok(ctx, tok_stream_push(s, &out, 0xf0));
    assert_ok(ctx, tok_stream_push(s, &out, 'x'));
    assert_string_equal(out.data, "\xef\xbf\xbdx");
    buf_clear(&out);
    assert_ok(ctx, tok_stream_push(s, &out, 0xe2));
    assert_ok(ctx, tok_stream_finish(s, &out));
    assert_string_equal(out.data, "\xef\xbf\xbd");
    assert_fails(ctx, tok_stream_push(s, &out, 260), JANG_ERR_ARGUMENT, "0 to 259");
    tok_stream_free(s);
    buf_free(&out);
    tok_close(t);
    jang_context_free(ctx);
}

static void test_tok_api_tells_the_bytes_of_a_token(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    buf out;
    buf_init(&out, ctx, 100);
    assert_ok(ctx, tok_token_bytes(t, &out, 0xf0));
    assert_ok(ctx, tok_token_bytes(t, &out, ' '));
    assert_ok(ctx, tok_token_bytes(t, &out, 257));
    assert_memory_equal(out.data, "\xf0 abc", 6);
    assert_fails(ctx, tok_token_bytes(t, &out, -1), JANG_ERR_ARGUMENT, "out of range");
    buf_free(&out);
    tok_close(t);
    jang_context_free(ctx);
}

static void test_tok_api_long_words_take_no_quadratic_time(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    size_t n = 1 << 20;
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++) {
        text[i] = "abc"[i % 3];
    }
    tok_ids ids = {0};
    assert_ok(ctx, tok_encode(t, &ids, text, n - 1, 0));
    assert_int_equal(ids.n, (n - 1) / 3);
    assert_int_equal(ids.ids[0], 257);
    assert_int_equal(ids.ids[ids.n - 1], 257);
    tok_ids_free(ctx, &ids);
    free(text);
    tok_close(t);
    jang_context_free(ctx);
}

static void test_tok_api_refuses_damaged_files(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const struct {
        const char *json;
        jang_status status;
        const char *message;
    } bad[] = {
        {"", JANG_ERR_FORMAT, "expected an object"},
        {"{}", JANG_ERR_FORMAT, "there is no model"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", JANG_ERR_FORMAT, "no merges"},
        {"{\"model\":{\"type\":\"What\",\"vocab\":{}}}", JANG_ERR_UNSUPPORTED, "'What'"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", JANG_ERR_FORMAT,
         "out of range"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}}",
         JANG_ERR_FORMAT, "out of range"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", JANG_ERR_FORMAT,
         "'b' is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[\"a b\"],\"vocab\":{\"a\":0,\"b\":1}}}",
         JANG_ERR_FORMAT, "'ab' is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", JANG_ERR_FORMAT,
         "two tokens"},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":5,\"vocab\":[[\"a\",0]]}}", JANG_ERR_FORMAT,
         "unk_id is 5"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":"
         "\"Isolated\",\"invert\":false},\"model\":{\"vocab\":{},\"merges\":[]}}",
         JANG_ERR_FORMAT, "pattern '('"},
        {"{\"normalizer\":{\"type\":\"X\"},\"model\":{\"vocab\":{},\"merges\":[]}}",
         JANG_ERR_UNSUPPORTED, "normalizer 'X'"},
        {"{\"decoder\":{\"type\":\"X\"},\"model\":{\"vocab\":{},\"merges\":[]}}",
         JANG_ERR_UNSUPPORTED, "decoder 'X'"},
        {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
         "{\"id\":\"<s>\"}}]},\"model\":{\"vocab\":{},\"merges\":[]}}",
         JANG_ERR_FORMAT, "'<s>'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tok *t = NULL;
        assert_fails(ctx, tok_open(&t, ctx, "t.json", bad[i].json, strlen(bad[i].json), NULL, 0),
                     bad[i].status, bad[i].message);
        assert_null(t);
    }
    tok *t = NULL;
    assert_fails(ctx, tok_open_sentencepiece(&t, ctx, "t.model", "\x0a\x7f", 2, NULL, 0),
                 JANG_ERR_FORMAT, "damaged");
    assert_fails(ctx, tok_open_tiktoken(&t, ctx, "t.tiktoken", "IQ== x\n", 7, NULL, NULL, 0),
                 JANG_ERR_FORMAT, "line 1");
    jang_context_free(ctx);
}

typedef struct encoding_thread {
    const tok *t;
    ctx_t *ctx;
    bool wrong;
} encoding_thread;

static void *encode_many(void *arg) {
    encoding_thread *own = arg;
    tok_ids ids = {0};
    for (int i = 0; i < 2000; i++) {
        ids.n = 0;
        own->wrong |= tok_encode(own->t, &ids, "abcab abc xyz", 13, 0) != JANG_OK || ids.n != 8 ||
                      ids.ids[0] != 257 || ids.ids[1] != 256;
    }
    tok_ids_free(own->ctx, &ids);
    return NULL;
}

static void test_tok_api_many_threads_encode_at_once(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tok *t = open_byte_level(ctx);
    pthread_t threads[4];
    encoding_thread own[4];
    for (int i = 0; i < 4; i++) {
        own[i] = (encoding_thread){t, ctx, false};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, &own[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_false(own[i].wrong);
    }
    tok_close(t);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tok_api_looks_up_tokens),
        cmocka_unit_test(test_tok_api_special_tokens_follow_the_flags),
        cmocka_unit_test(test_tok_api_repairs_invalid_utf8),
        cmocka_unit_test(test_tok_api_streams_whole_characters),
        cmocka_unit_test(test_tok_api_tells_the_bytes_of_a_token),
        cmocka_unit_test(test_tok_api_long_words_take_no_quadratic_time),
        cmocka_unit_test(test_tok_api_refuses_damaged_files),
        cmocka_unit_test(test_tok_api_many_threads_encode_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
