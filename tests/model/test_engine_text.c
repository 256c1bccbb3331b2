/* test_engine_text.c - what engines hand out: stop strings, log-probabilities, reasoning, the
 * prompt's own figures, embeddings, scores. */
#include "engine_rig.h"
#include "model_files.h"

#include "engine/text_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "mlx-llama-4bit-g64"

typedef struct stage {
    ctx_t *ctx;
    jang_model *m;
    jang_engine *e;
} stage;

static stage open_stage(void) {
    stage s = {.ctx = test_context()};
    s.e = engine_open(&s.m, s.ctx, MODEL, jang_engine_options_default());
    return s;
}

static void close_stage(stage *s) {
    jang_engine_free(s->e);
    jang_model_free(s->m);
    jang_context_free(s->ctx);
}

static int32_t default_prompt[20];

static jang_request request_for(const stage *s, int32_t n_max) {
    random_ids(default_prompt, 20, 21);
    jang_request r = jang_request_default(s->m);
    r.prompt = default_prompt;
    r.n_prompt = 20;
    r.n_max = n_max;
    r.ignore_eos = true;
    r.sampling.temperature = 0;
    return r;
}

/* ---- Stop strings ---- */

/* Every stop string cut from the text of an answer ends it at its first place, and nothing of it
 * comes out. */
static void test_text_stops_at_the_first_place(void **state) {
    (void)state;
    stage s = open_stage();
    jang_request r = request_for(&s, 60);
    got *all = engine_ask(s.ctx, s.e, r);
    size_t n = all->text.size;
    assert_true(n > 30);
    for (size_t at = 0; at + 5 < n; at += 3) {
        for (size_t k = 1; k <= 5; k += 2) {
            char cut[8] = "";
            memcpy(cut, all->text.data + at, k);
            const char *stops[] = {"never there", cut};
            const char *found = strstr(all->text.data, cut);
            r.stop = stops;
            r.n_stop = 2;
            got *g = engine_ask(s.ctx, s.e, r);
            assert_int_equal(g->finish, JANG_FINISH_STOP);
            assert_int_equal(g->stop, 1);
            assert_int_equal(g->text.size, found - all->text.data);
            assert_memory_equal(g->text.data, all->text.data, g->text.size);
            assert_int_equal(g->stats.n_generated, g->n_ids);
            assert_memory_equal(g->ids, all->ids, g->n_ids * sizeof *g->ids);
            got_free(g, 1);
        }
    }
    got_free(all, 1);
    close_stage(&s);
}

static void test_text_stops_wait_for_min_tokens(void **state) {
    (void)state;
    stage s = open_stage();
    jang_request r = request_for(&s, 40);
    got *all = engine_ask(s.ctx, s.e, r);
    char cut[2] = {all->text.data[0], 0};
    const char *stops[] = {cut};
    r.stop = stops;
    r.n_stop = 1;
    r.min_tokens = 20;
    got *g = engine_ask(s.ctx, s.e, r);
    assert_true(g->n_ids >= 20);
    assert_memory_equal(g->text.data, all->text.data, g->text.size);
    got_free(g, 1);
    got_free(all, 1);
    close_stage(&s);
}

/* The end token waits for min_tokens, and comes with its id. */
static void test_text_ends_wait_for_min_tokens(void **state) {
    (void)state;
    stage s = open_stage();
    const jang_bias bias = {2, 100}; /* <|im_end|> at once */
    jang_request r = request_for(&s, 40);
    r.sampling.biases = &bias;
    r.sampling.n_biases = 1;
    r.ignore_eos = false;
    for (int32_t min = 0; min < 10; min += 3) {
        r.min_tokens = min;
        got *g = engine_ask(s.ctx, s.e, r);
        assert_int_equal(g->n_ids, min);
        assert_int_equal(g->finish, JANG_FINISH_END);
        assert_int_equal(g->end_id, 2);
        got_free(g, 1);
    }
    r.min_tokens = 0;
    r.ignore_eos = true;
    got *g = engine_ask(s.ctx, s.e, r);
    assert_int_equal(g->finish, JANG_FINISH_LENGTH);
    assert_int_equal(g->n_ids, 40);
    const int32_t own_end = g->ids[4];
    got_free(g, 1);
    r.ignore_eos = false;
    r.sampling.n_biases = 0;
    r.end_ids = &own_end;
    r.n_end_ids = 1;
    g = engine_ask(s.ctx, s.e, r);
    assert_true(g->finish == JANG_FINISH_END && g->n_ids <= 40);
    got_free(g, 1);
    close_stage(&s);
}

/* A text in random pieces against random stop strings: what comes out is what a search of the whole
 * finds, and no byte comes earlier than it is safe nor later than needed. */
static void test_text_out_against_whole_search(void **state) {
    (void)state;
    stage s = open_stage();
    const tok *t = s.m->tokenizer->tok;
    test_rng rng = {12};
    for (int round = 0; round < 300; round++) {
        char stops[3][8];
        const char *list[3];
        jang_request r = jang_request_default(s.m);
        for (int i = 0; i < 3; i++) {
            size_t n = (size_t)(1 + rng_below(&rng, 5));
            for (size_t k = 0; k < n; k++) {
                stops[i][k] = (char)('a' + rng_below(&rng, 2));
            }
            stops[i][n] = 0;
            list[i] = stops[i];
        }
        r.stop = list;
        r.n_stop = (size_t)rng_below(&rng, 4);
        text_out out;
        buf sent, whole;
        buf_init(&sent, s.ctx, BUF_NO_LIMIT);
        buf_init(&whole, s.ctx, BUF_NO_LIMIT);
        assert_ok(s.ctx, text_out_init(&out, s.ctx, t, &r));
        text_part part = {.stop = -1};
        for (int i = 0; i < 12 && part.stop < 0; i++) {
            char letter[] = {(char)('a' + rng_below(&rng, 3)), 0};
            int32_t id = tok_id(t, letter, 1);
            assert_true(id >= 0);
            buf_putc(&whole, letter[0]);
            assert_ok(s.ctx, text_out_push(&out, id, 0, NULL, true));
            part = text_out_ready(&out, i == 11);
            buf_put(&sent, out.held.data, part.n_bytes);
            text_out_take(&out, part);
        }
        size_t first = whole.size;
        for (size_t i = 0; i < r.n_stop; i++) {
            const char *at = strstr(whole.data, list[i]);
            first = at && (size_t)(at - whole.data) < first ? (size_t)(at - whole.data) : first;
        }
        assert_int_equal(part.stop >= 0, first < whole.size);
        assert_int_equal(sent.size, first);
        assert_memory_equal(sent.data, whole.data, first);
        text_out_free(&out);
        buf_free(&sent);
        buf_free(&whole);
    }
    close_stage(&s);
}

/* ---- Log-probabilities ---- */

/* Those of the tokens, and of the prompt, are what the session's logits say. */
static void test_logprobs_are_the_models_own(void **state) {
    (void)state;
    stage s = open_stage();
    jang_request r = request_for(&s, 30);
    r.n_logprobs = 4;
    r.prompt_logprobs = true;
    r.sampling = (jang_sampling){.temperature = 1.5F, .top_p = 0.5F, .seed = 4};
    got *g = engine_ask(s.ctx, s.e, r);
    assert_int_equal(g->n_ids, 30);
    assert_int_equal(g->n_prompt, 20);
    assert_true(isnan(g->prompt_logprobs[0]));
    int32_t ids[50];
    memcpy(ids, r.prompt, 20 * sizeof *ids);
    memcpy(ids + 20, g->ids, 30 * sizeof *ids);
    jang_session *session;
    assert_ok(s.ctx, jang_session_new(&session, s.m, NULL));
    float *logits = malloc(50 * 307 * sizeof *logits);
    assert_ok(s.ctx, jang_session_append(session, ids, 50, logits));
    for (int i = 1; i < 50; i++) {
        const float *row = logits + (size_t)(i - 1) * 307;
        double sum = 0;
        for (int j = 0; j < 307; j++) {
            sum += exp((double)row[j]);
        }
        double expected = (double)row[ids[i]] - log(sum);
        float told = i < 20 ? g->prompt_logprobs[i] : g->logprobs[i - 20];
        assert_true(fabs((double)told - expected) < 1e-5);
    }
    free(logits);
    jang_session_free(session);

    r.n_max = 0; /* scoring alone */
    r.n_logprobs = 0;
    got *scored = engine_ask(s.ctx, s.e, r);
    assert_int_equal(scored->n_ids, 0);
    assert_int_equal(scored->finish, JANG_FINISH_LENGTH);
    assert_int_equal(scored->n_prompt, 20);
    assert_memory_equal(scored->prompt_logprobs + 1, g->prompt_logprobs + 1, 19 * sizeof(float));
    got_free(scored, 1);
    got_free(g, 1);
    close_stage(&s);
}

/* ---- Reasoning ---- */

/* When its tokens are used up the closing ids are written, and are counted apart. */
static void test_thinking_is_closed_when_used_up(void **state) {
    (void)state;
    stage s = open_stage();
    int32_t *close;
    size_t n_close;
    assert_ok(s.ctx, jang_tokenize(&close, &n_close, jang_model_tokenizer(s.m), "</t>", 4, 0));
    for (int32_t budget = 0; budget < 12; budget += 4) {
        jang_request r = request_for(&s, 40);
        r.thinking =
            (jang_thinking){.open = "<t>", .close = "</t>", .is_open = true, .budget = budget};
        if (budget == 8) {
            r.thinking.close_ids = close;
            r.thinking.n_close_ids = n_close;
        }
        got *g = engine_ask(s.ctx, s.e, r);
        assert_int_equal(g->n_ids, 40);
        assert_memory_equal(g->ids + budget, close, n_close * sizeof *close);
        assert_int_equal(g->stats.n_thinking, budget + (int32_t)n_close);
        assert_non_null(strstr(g->text.data, "</t>"));
        got_free(g, 1);
    }
    jang_free(s.ctx, close);
    close_stage(&s);
}

/* ---- Embeddings and scores ---- */

static void test_embeddings_are_pooled(void **state) {
    (void)state;
    stage s = open_stage();
    int32_t ids[200];
    random_ids(ids, 200, 31);
    got *first = NULL, *last = NULL;
    for (int pooling = JANG_POOL_LAST; pooling <= JANG_POOL_FIRST; pooling++) {
        jang_request r = request_for(&s, 0);
        r.task = JANG_TASK_EMBED;
        r.pooling = (jang_pooling)pooling;
        r.prompt = ids;
        r.n_prompt = 200;
        got *g = engine_ask(s.ctx, s.e, r), *again = engine_ask(s.ctx, s.e, r);
        assert_int_equal(g->n_values, 64);
        assert_memory_equal(g->values, again->values, 64 * sizeof(float)); /* cached or not */
        double sum = 0;
        for (int i = 0; i < 64; i++) {
            sum += (double)g->values[i] * (double)g->values[i];
        }
        assert_true(fabs(sum - 1) < 1e-5);
        got_free(again, 1);
        if (pooling == JANG_POOL_FIRST) { /* of one token, all poolings are alike */
            r.n_prompt = 1;
            for (int p = JANG_POOL_LAST; p <= JANG_POOL_MEAN; p++) {
                r.pooling = (jang_pooling)p;
                got *one = engine_ask(s.ctx, s.e, r);
                for (int i = 0; i < 64; i++) {
                    assert_true(fabs((double)one->values[i] - (double)g->values[i]) < 1e-6);
                }
                got_free(one, 1);
            }
            first = g;
        } else if (pooling == JANG_POOL_LAST) {
            last = g;
        } else {
            got_free(g, 1);
        }
    }
    assert_memory_not_equal(first->values, last->values, 64 * sizeof(float));
    got_free(first, 1);
    got_free(last, 1);
    close_stage(&s);
}

static void test_scores_are_probabilities_of_the_choices(void **state) {
    (void)state;
    stage s = open_stage();
    static const int32_t choices[] = {40, 50, 60};
    jang_request r = request_for(&s, 0);
    r.task = JANG_TASK_SCORE;
    r.choices = choices;
    r.n_choices = 3;
    got *g = engine_ask(s.ctx, s.e, r);
    jang_session *session;
    assert_ok(s.ctx, jang_session_new(&session, s.m, NULL));
    assert_ok(s.ctx, jang_session_append(session, r.prompt, r.n_prompt, NULL));
    const float *logits = jang_session_logits(session);
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        sum += exp((double)logits[choices[i]]);
    }
    assert_int_equal(g->n_values, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(fabs((double)g->values[i] - exp((double)logits[choices[i]]) / sum) < 1e-6);
    }
    jang_session_free(session);
    got_free(g, 1);
    close_stage(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_stops_at_the_first_place),
        cmocka_unit_test(test_text_stops_wait_for_min_tokens),
        cmocka_unit_test(test_text_ends_wait_for_min_tokens),
        cmocka_unit_test(test_text_out_against_whole_search),
        cmocka_unit_test(test_logprobs_are_the_models_own),
        cmocka_unit_test(test_thinking_is_closed_when_used_up),
        cmocka_unit_test(test_embeddings_are_pooled),
        cmocka_unit_test(test_scores_are_probabilities_of_the_choices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
