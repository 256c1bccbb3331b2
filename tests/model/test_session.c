/* test_session.c - sessions and generation through the public interface, on the tiny models. */
#include "fixture.h"
#include "model_files.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static jang_model *open_model(ctx_t *ctx, const char *name) {
    jang_model *m;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, name), NULL));
    return m;
}

static jang_session *open_session(ctx_t *ctx, jang_model *m, int32_t n_context, int32_t n_batch) {
    jang_session_options o = jang_session_options_default();
    o.n_context = n_context;
    o.n_batch = n_batch;
    jang_session *s;
    assert_ok(ctx, jang_session_new(&s, m, &o));
    return s;
}

/* ---- Appending ---- */

/* However the tokens come in, the logits are the same to the last bit. */
static void test_session_append_in_parts(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    fixture f;
    fixture_read(&f, ctx, "mlx-llama-4bit-g64");
    jang_model *m = open_model(ctx, "mlx-llama-4bit-g64");
    jang_session *a = open_session(ctx, m, 0, 512), *b = open_session(ctx, m, 0, 4);
    size_t n = (size_t)f.n_tok, n_vocab = (size_t)f.n_vocab;
    float *all = malloc(n * n_vocab * sizeof *all), *parts = malloc(n * n_vocab * sizeof *parts);
    assert_ok(ctx, jang_session_append(a, f.ids, n, all));
    assert_ok(ctx, jang_session_append(b, f.ids, 3, parts));
    assert_ok(ctx, jang_session_append(b, f.ids + 3, n - 3, parts + 3 * n_vocab));
    assert_memory_equal(all, parts, n * n_vocab * sizeof *all);
    assert_memory_equal(jang_session_logits(a), all + (n - 1) * n_vocab, n_vocab * sizeof *all);
    assert_int_equal(jang_session_length(b), n);

    assert_ok(ctx, jang_session_truncate(a, 5));
    assert_null(jang_session_logits(a));
    assert_ok(ctx, jang_session_append(a, f.ids + 5, n - 5, NULL));
    assert_memory_equal(jang_session_logits(a), all + (n - 1) * n_vocab, n_vocab * sizeof *all);
    free(all);
    free(parts);
    jang_session_free(a);
    jang_session_free(b);
    jang_model_free(m);
    fixture_free(&f, ctx);
    jang_context_free(ctx);
}

/* A model whose RoPE depends on the length of the sequence, which passes the border of 32 tokens in
 * any way: the logits are those of the whole at once. */
static void test_session_long_rope_in_parts(void **state) {
    (void)state;
    enum { N = 40, SHORT = 20 };
    ctx_t *ctx = test_context();
    jang_model *m = open_model(ctx, "phi3-longrope-bf16");
    size_t n_vocab = (size_t)jang_model_get_info(m)->n_vocab, row = n_vocab * sizeof(float);
    int32_t ids[N];
    float *all = malloc(N * row), *few = malloc(SHORT * row);
    for (int i = 0; i < N; i++) {
        ids[i] = (i * 37 + 5) % (int)n_vocab;
    }
    jang_session *a = open_session(ctx, m, 0, 512), *b = open_session(ctx, m, 0, 7);
    assert_ok(ctx, jang_session_append(b, ids, SHORT, few));
    assert_ok(ctx, jang_session_append(a, ids, N, all));
    assert_memory_not_equal(all + n_vocab, few + n_vocab, row);
    assert_ok(ctx, jang_session_append(b, ids + SHORT, N - SHORT, NULL)); /* steps of 7 */
    assert_memory_equal(jang_session_logits(b), all + (N - 1) * n_vocab, row);
    assert_ok(ctx, jang_session_truncate(b, 3));
    assert_ok(ctx, jang_session_append(b, ids + 3, SHORT - 3, NULL)); /* short again */
    assert_memory_equal(jang_session_logits(b), few + (SHORT - 1) * n_vocab, row);
    for (int i = SHORT; i < N; i++) {
        assert_ok(ctx, jang_session_append(b, ids + i, 1, NULL));
    }
    assert_memory_equal(jang_session_logits(b), all + (N - 1) * n_vocab, row);
    free(all);
    free(few);
    jang_session_free(a);
    jang_session_free(b);
    jang_model_free(m);
    jang_context_free(ctx);
}

static void test_session_refuses_and_stays_as_it_was(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m = open_model(ctx, "llama-f32");
    jang_session *s = open_session(ctx, m, 4, 2);
    int32_t ids[] = {1, 2, 3, 4, 5}, bad[] = {1, -1};
    assert_ok(ctx, jang_session_append(s, ids, 2, NULL));
    assert_fails(ctx, jang_session_append(s, ids, 3, NULL), JANG_ERR_FULL, "the context of 4");
    assert_fails(ctx, jang_session_append(s, bad, 2, NULL), JANG_ERR_ARGUMENT, "-1");
    assert_int_equal(jang_session_length(s), 2);
    assert_non_null(jang_session_logits(s));
    assert_fails(ctx, jang_session_truncate(s, 3), JANG_ERR_ARGUMENT, "3 of 2");
    jang_session_free(s);
    jang_session_options o = jang_session_options_default();
    o.n_context = 1 << 30;
    assert_fails(ctx, jang_session_new(&s, m, &o), JANG_ERR_ARGUMENT, "this model allows");
    jang_model_free(m);
    jang_context_free(ctx);
}

/* Models with recurrent state cannot simply forget, nor can pages that have become integers:
 * wherever a sequence is cut, and however often, going on gives the bits of a fresh start. */
static void check_truncation(ctx_t *ctx, const char *name, jang_kv_type type, size_t n) {
    static const size_t cuts[] = {699, 640, 639, 500, 448, 257, 256, 64, 63, 1, 0, 650, 447};
    jang_model *m = open_model(ctx, name);
    int32_t ids[700];
    test_rng rng = {7};
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)rng_below(&rng, 300);
    }
    jang_session_options o = jang_session_options_default();
    o.n_context = (int32_t)n + 3;
    o.kv_type = type;
    jang_session *whole, *cut;
    assert_ok(ctx, jang_session_new(&whole, m, &o));
    o.n_batch = 100;
    assert_ok(ctx, jang_session_new(&cut, m, &o));
    size_t n_vocab = (size_t)jang_model_get_info(m)->n_vocab, n_bytes = n_vocab * sizeof(float);
    float *rows = malloc(n * n_bytes), *again = malloc(n * n_bytes);
    assert_ok(ctx, jang_session_append(whole, ids, n, rows));
    assert_ok(ctx, jang_session_append(cut, ids, 300, NULL));
    for (size_t i = 300; i < n; i++) { /* as text is generated */
        assert_ok(ctx, jang_session_append(cut, ids + i, 1, NULL));
    }
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        size_t at = cuts[i], other = (size_t)ids[at % n] + 1;
        if (at >= n) {
            continue;
        }
        int32_t wrong[3] = {(int32_t)other, 5, 6};
        assert_ok(ctx, jang_session_truncate(cut, at));
        assert_ok(ctx, jang_session_append(cut, wrong, 3, NULL)); /* other tokens, then back */
        assert_ok(ctx, jang_session_truncate(cut, at + 2));
        assert_ok(ctx, jang_session_truncate(cut, at));
        assert_int_equal(jang_session_length(cut), at);
        assert_null(jang_session_logits(cut));
        assert_ok(ctx, jang_session_append(cut, ids + at, n - at, again));
        assert_memory_equal(again, rows + at * n_vocab, (n - at) * n_bytes);
    }
    free(rows);
    free(again);
    jang_session_free(whole);
    jang_session_free(cut);
    jang_model_free(m);
}

static void test_session_cuts_sequences(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    check_truncation(ctx, "mamba2-limit-f16", JANG_KV_F16, 700);
    check_truncation(ctx, "mlx-llama-4bit-g64", JANG_KV_Q4, 500);
    jang_context_free(ctx);
}

/* ---- Generation ---- */

static bool collect(void *user, const char *piece, size_t n_bytes) {
    buf_put(user, piece, n_bytes);
    return true;
}

static bool stop_at_once(void *user, const char *piece, size_t n_bytes) {
    (void)piece;
    *(int *)user += n_bytes > 0;
    return n_bytes == 0;
}

/* Generated text is the decoding of the tokens that picking the likeliest one by one gives. */
static void test_generate_follows_the_logits(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    fixture f;
    fixture_read(&f, ctx, "llama-f32");
    jang_model *m = open_model(ctx, "llama-f32");
    jang_session *s = open_session(ctx, m, 0, 512), *check = open_session(ctx, m, 0, 512);
    jang_sampling greedy = {.temperature = 0, .top_p = 1};
    jang_generate_stats stats;
    buf text;
    buf_init(&text, ctx, BUF_NO_LIMIT);
    assert_ok(ctx, jang_generate(s, f.ids, (size_t)f.n_tok, 12, &greedy, collect, &text, &stats));
    assert_ok(ctx, jang_session_append(check, f.ids, (size_t)f.n_tok, NULL));
    int32_t ids[12];
    size_t n = 0;
    for (; n < 12; n++) {
        const float *logits = jang_session_logits(check);
        int32_t best = 0;
        for (int32_t i = 1; i < f.n_vocab; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        if (jang_model_is_end(m, best)) {
            break;
        }
        ids[n] = best;
        assert_ok(ctx, jang_session_append(check, &best, 1, NULL));
    }
    assert_int_equal(stats.n_generated, n);
    assert_int_equal(stats.n_prompt, f.n_tok);
    assert_int_equal(stats.n_reused, 0);
    char *expected;
    size_t n_bytes;
    assert_ok(ctx, jang_detokenize(&expected, &n_bytes, jang_model_tokenizer(m), ids, n,
                                   JANG_TEXT_SKIP_SPECIAL));
    assert_string_equal(text.data, expected);
    jang_free(ctx, expected);
    buf_free(&text);
    jang_session_free(s);
    jang_session_free(check);
    jang_model_free(m);
    fixture_free(&f, ctx);
    jang_context_free(ctx);
}

/* A second prompt that begins as the first reuses what is cached, with the same result. */
static void test_generate_reuses_the_shared_beginning(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    fixture f;
    fixture_read(&f, ctx, "qwen2-tied-bf16");
    jang_model *m = open_model(ctx, "qwen2-tied-bf16");
    jang_session *s = open_session(ctx, m, 0, 512);
    jang_sampling options = {.temperature = 0.8F, .top_p = 0.95F, .seed = 3};
    jang_generate_stats stats;
    size_t n = (size_t)f.n_tok;
    buf first, second;
    buf_init(&first, ctx, BUF_NO_LIMIT);
    buf_init(&second, ctx, BUF_NO_LIMIT);
    assert_ok(ctx, jang_generate(s, f.ids, n, 8, &options, collect, &first, &stats));
    assert_ok(ctx, jang_generate(s, f.ids, n, 8, &options, collect, &second, &stats));
    assert_int_equal(stats.n_reused, n - 1);
    assert_string_equal(first.data, second.data);
    buf_free(&first);
    buf_free(&second);
    jang_session_free(s);
    jang_model_free(m);
    fixture_free(&f, ctx);
    jang_context_free(ctx);
}

static void test_generate_stops_when_told(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    fixture f;
    fixture_read(&f, ctx, "llama-f32");
    jang_model *m = open_model(ctx, "llama-f32");
    jang_session *s = open_session(ctx, m, 0, 8);
    jang_sampling greedy = {.temperature = 0, .top_p = 1};
    jang_generate_stats stats;
    int n_pieces = 0;
    assert_ok(ctx, jang_generate(s, f.ids, (size_t)f.n_tok, 20, &greedy, stop_at_once, &n_pieces,
                                 &stats));
    assert_int_equal(stats.finish, JANG_FINISH_CANCELLED);
    assert_true(n_pieces <= 1);
    jang_session_free(s);

    s = open_session(ctx, m, f.n_tok + 3, 512);
    assert_ok(ctx, jang_generate(s, f.ids, (size_t)f.n_tok, 0, &greedy, NULL, NULL, &stats));
    assert_true(stats.finish == JANG_FINISH_END || stats.n_generated == 4);
    assert_fails(ctx, jang_generate(s, f.ids, 0, 1, &greedy, NULL, NULL, &stats), JANG_ERR_ARGUMENT,
                 "prompt is empty");
    jang_session_free(s);
    jang_model_free(m);
    fixture_free(&f, ctx);
    jang_context_free(ctx);
}

/* Stops between the passes of a prompt. */
static bool stop_in_prompt(void *user, const char *piece, size_t n_bytes) {
    (void)user;
    (void)piece;
    return n_bytes > 0;
}

/* A prompt that is stopped where an earlier, other sequence ended must not show its logits. */
static void test_generate_stopped_prompt_has_no_logits(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m = open_model(ctx, "llama-f32");
    jang_session *s = open_session(ctx, m, 0, 4);
    jang_sampling greedy = {.temperature = 0, .top_p = 1};
    jang_generate_stats stats;
    int32_t first[4] = {3, 4, 5, 6}, second[6] = {9, 8, 7, 6, 5, 4};
    assert_ok(ctx, jang_session_append(s, first, 4, NULL));
    assert_ok(ctx, jang_generate(s, second, 6, 1, &greedy, stop_in_prompt, NULL, &stats));
    assert_int_equal(stats.finish, JANG_FINISH_CANCELLED);
    assert_int_equal(jang_session_length(s), 4);
    assert_null(jang_session_logits(s));
    jang_session_free(s);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* ---- Other vocabularies ---- */

/* A model that has SentencePiece's file only. Its ids are tested with the tokenizers. */
static void test_model_reads_a_sentencepiece_vocabulary(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *temp = test_temp_dir(), *dir = path_join(ctx, temp, "model");
    copy_directory(ctx, test_path(TEST_MODELS, "llama-f32"), dir);
    assert_int_equal(remove(test_path(dir, "tokenizer.json")), 0);
    jang_tokenizer *t = NULL;
    assert_fails(ctx, jang_tokenizer_open(&t, ctx, dir), JANG_ERR_FORMAT, "tokenizer.model");
    char *data;
    size_t n;
    assert_ok(ctx, file_read(&data, &n, ctx, test_path(TEST_DATA, "tokenizer/sentencepiece.model"),
                             1 << 24));
    assert_ok(ctx, file_write(ctx, test_path(dir, "tokenizer.model"), data, n));
    ctx_free(ctx, data);
    assert_ok(ctx, jang_tokenizer_open(&t, ctx, dir));
    int32_t *ids;
    size_t n_ids;
    assert_ok(ctx, jang_tokenize(&ids, &n_ids, t, "the boat", 8, 0));
    char *text;
    assert_ok(ctx, jang_detokenize(&text, &n, t, ids, n_ids, 0));
    assert_string_equal(text, "the boat");
    jang_free(ctx, text);
    jang_free(ctx, ids);
    jang_tokenizer_free(t);
    test_remove_tree(temp);
    free(temp);
    ctx_free(ctx, dir);
    jang_context_free(ctx);
}

/* ---- What a model says of itself ---- */

static void test_model_info_counts_weights(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m = open_model(ctx, "mlx-llama-4bit-g64");
    const jang_model_info *info = jang_model_get_info(m);
    assert_string_equal(info->family, "llama");
    assert_string_equal(info->profile, "4-bit");
    assert_true(info->nominal_bits == 4.0);
    assert_true(info->true_bits > 4.5 && info->true_bits < 5);
    assert_true(info->token_bytes < info->weight_bytes);
    jang_model_free(m);
    m = open_model(ctx, "llama-f16");
    assert_string_equal(jang_model_get_info(m)->profile, "f16");
    assert_true(jang_model_get_info(m)->true_bits == 16.0);
    jang_model_free(m);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session_append_in_parts),
        cmocka_unit_test(test_session_long_rope_in_parts),
        cmocka_unit_test(test_session_cuts_sequences),
        cmocka_unit_test(test_session_refuses_and_stays_as_it_was),
        cmocka_unit_test(test_generate_follows_the_logits),
        cmocka_unit_test(test_generate_reuses_the_shared_beginning),
        cmocka_unit_test(test_generate_stops_when_told),
        cmocka_unit_test(test_generate_stopped_prompt_has_no_logits),
        cmocka_unit_test(test_model_reads_a_sentencepiece_vocabulary),
        cmocka_unit_test(test_model_info_counts_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
