/* test_engine_grammar.c - answers under a grammar: they fit it, with guesses and reasoning, too. */
#include "engine_rig.h"
#include "model_files.h"

#include <stdlib.h>
#include <string.h>

#define MODEL "mlx-llama-4bit-g64"

static const char schema[] =
    "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": 8},"
    "\"n\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 99},"
    "\"tags\": {\"type\": \"array\", \"maxItems\": 3, \"items\": {\"enum\": [\"a\", \"b\"]}}},"
    "\"required\": [\"name\", \"n\", \"tags\"]}";

static jang_grammar *compile(ctx_t *ctx, jang_grammar_kind kind, const char *text) {
    jang_grammar *g;
    assert_ok(ctx, jang_grammar_new(&g, ctx, kind, text, strlen(text)));
    return g;
}

static jang_request request_for(const jang_model *m, const int32_t *ids, jang_grammar *g,
                                uint64_t seed) {
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = 12;
    r.n_max = 150;
    r.n_logprobs = 2;
    r.grammar = g;
    r.sampling = (jang_sampling){.temperature = seed ? 1.5F : 0, .top_p = 1, .seed = seed};
    return r;
}

/* Whatever a model that knows nothing would like to say. */
static void test_grammar_holds_in_engines(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m, *draft;
    int32_t ids[12];
    random_ids(ids, 12, 3);
    jang_grammar *g = compile(ctx, JANG_GRAMMAR_SCHEMA, schema);
    got *plain[8];
    for (int mode = 0; mode < 3; mode++) { /* without guesses, with lookup, with a draft model */
        jang_engine_options o = jang_engine_options_default();
        o.lookup = mode == 1;
        assert_ok(ctx, jang_model_open(&draft, ctx, test_path(TEST_MODELS, MODEL), NULL));
        o.draft = mode == 2 ? draft : NULL;
        jang_engine *e = engine_open(&m, ctx, MODEL, o);
        int n_whole = 0;
        for (uint64_t seed = 0; seed < 8; seed++) {
            got *out = engine_ask(ctx, e, request_for(m, ids, g, seed));
            size_t n_ok;
            bool complete;
            assert_ok(ctx, jang_grammar_match(&n_ok, &complete, g, out->text.data, out->text.size));
            assert_int_equal(n_ok, out->text.size);
            assert_int_equal(out->finish, complete ? JANG_FINISH_END : JANG_FINISH_LENGTH);
            n_whole += complete;
            if (mode == 0) {
                plain[seed] = out;
            } else {
                got_assert_equal(out, plain[seed]);
                got_free(out, 1);
            }
        }
        assert_true(n_whole > 4);
        jang_engine_free(e);
        jang_model_free(m);
        jang_model_free(draft);
    }
    for (int i = 0; i < 8; i++) {
        got_free(plain[i], 1);
    }
    jang_grammar_free(g);
    jang_context_free(ctx);
}

/* Several answers at once, the grammar freed as soon as it is submitted. */
static void test_grammar_is_kept_by_its_request(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, jang_engine_options_default());
    int32_t ids[12];
    random_ids(ids, 12, 3);
    jang_grammar *g = compile(ctx, JANG_GRAMMAR_REGEX, "(yes|no), [a-f]{3,5}!");
    jang_request r = request_for(m, ids, g, 9);
    r.n = 5;
    got *out = got_new(ctx, 5);
    r.user = out;
    uint64_t id;
    assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
    jang_grammar_free(g);
    engine_run(ctx, e);
    for (int i = 0; i < 5; i++) {
        const char *text = out[i].text.data;
        assert_int_equal(out[i].finish, JANG_FINISH_END);
        assert_true(strncmp(text, "yes, ", 5) == 0 || strncmp(text, "no, ", 4) == 0);
        assert_int_equal(text[out[i].text.size - 1], '!');
    }
    got_free(out, 5);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* Reasoning is free; the grammar holds from its end. */
static void test_grammar_waits_for_reasoning(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, MODEL, jang_engine_options_default());
    int32_t ids[12];
    random_ids(ids, 12, 3);
    jang_grammar *g = compile(ctx, JANG_GRAMMAR_REGEX, "[0-9]{4}");
    jang_request r = request_for(m, ids, g, 4);
    r.thinking = (jang_thinking){.open = "<t>", .close = "</t>", .is_open = true, .budget = 9};
    got *out = engine_ask(ctx, e, r);
    const char *end = strstr(out->text.data, "</t>");
    assert_non_null(end);
    assert_int_equal(strspn(end + 4, "0123456789"), 4);
    assert_int_equal(end[8], 0);
    got_free(out, 1);

    /* Where the model opens it itself, at the start only. */
    int32_t *open;
    size_t n_open;
    assert_ok(ctx, jang_tokenize(&open, &n_open, jang_model_tokenizer(m), "<t>", 3, 0));
    const jang_bias likes = {open[0], 100};
    r.thinking.is_open = false;
    r.sampling.biases = &likes;
    r.sampling.n_biases = 1;
    out = engine_ask(ctx, e, r);
    assert_memory_equal(out->text.data, "<t>", 3);
    end = strstr(out->text.data, "</t>");
    assert_non_null(end);
    assert_int_equal(strspn(end + 4, "0123456789"), 4);
    got_free(out, 1);
    const jang_bias dislikes = {open[0], -100};
    r.sampling.biases = &dislikes;
    r.sampling.n_biases = 1;
    out = engine_ask(ctx, e, r);
    assert_int_equal(strspn(out->text.data, "0123456789"), 4);
    got_free(out, 1);
    jang_free(ctx, open);
    jang_grammar_free(g);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar_holds_in_engines),
        cmocka_unit_test(test_grammar_is_kept_by_its_request),
        cmocka_unit_test(test_grammar_waits_for_reasoning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
