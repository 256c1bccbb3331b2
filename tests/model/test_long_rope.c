/* test_long_rope.c - RoPE by the length of a sequence: what is written where it passes the border
 * is what transformers generates (crossing.json). */
#include "engine_rig.h"
#include "model_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

typedef struct crossing {
    int32_t prompt[MOST], written[MOST];
    size_t n_prompt, n_written;
    json_t *json;
} crossing;

static size_t read_ids(int32_t *ids, const json_t *list) {
    size_t n = json_array_size(list);
    assert_true(n > 0 && n <= MOST);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

static jang_model *open_crossing(crossing *c, ctx_t *ctx, const char *name) {
    jang_model_options o = jang_model_options_default();
    jang_model *m;
    o.exact = true;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, name), &o));
    const char *file = test_path(test_path(TEST_MODELS, name), "crossing.json");
    assert_ok(ctx, json_read(&c->json, ctx, file));
    c->n_prompt = read_ids(c->prompt, json_object_get(c->json, "prompt"));
    c->n_written = read_ids(c->written, json_object_get(c->json, "written"));
    return m;
}

static int32_t likeliest(const float *x, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

static void check_session(ctx_t *ctx, jang_model *m, const crossing *c) {
    jang_session_options o = jang_session_options_default();
    jang_session *s;
    int32_t n_text = (int32_t)jang_tokenizer_size(jang_model_tokenizer(m));
    o.kv_type = JANG_KV_F32;
    assert_ok(ctx, jang_session_new(&s, m, &o));
    assert_ok(ctx, jang_session_append(s, c->prompt, c->n_prompt, NULL));
    for (size_t i = 0; i < c->n_written; i++) {
        const float *x = jang_session_logits(s);
        assert_int_equal(likeliest(x, n_text), c->written[i]);
        if (i + 1 < c->n_written) {
            assert_ok(ctx, jang_session_append(s, &c->written[i], 1, NULL));
        }
    }
    const json_t *last = json_object_get(c->json, "last_logits");
    for (size_t i = 0; i < json_array_size(last); i++) {
        double wanted = json_number_value(json_array_get(last, i));
        assert_true(fabs((double)jang_session_logits(s)[i] - wanted) < 1e-4);
    }
    jang_session_free(s);
}

/* Several answers of one request, and later ones that find pages of either form. */
static void check_engine(ctx_t *ctx, jang_model *m, const crossing *c, bool lookup, int32_t chunk) {
    enum { N = 3 };
    jang_engine_options o = jang_engine_options_default();
    jang_engine *e;
    o.kv_type = JANG_KV_F32;
    o.lookup = lookup;
    o.prefill_chunk = chunk;
    o.on_event = got_event;
    assert_ok(ctx, jang_engine_new(&e, m, &o));
    for (int round = 0; round < 2; round++) {
        got *g = got_new(ctx, N);
        jang_request r = jang_request_default(m);
        uint64_t id;
        r.prompt = c->prompt;
        r.n_prompt = c->n_prompt;
        r.n = N;
        r.n_max = (int32_t)c->n_written;
        r.ignore_eos = true;
        r.sampling.temperature = 0;
        r.user = g;
        assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
        engine_run(ctx, e);
        for (int i = 0; i < N; i++) {
            assert_int_equal(g[i].n_ids, c->n_written);
            assert_memory_equal(g[i].ids, c->written, c->n_written * sizeof(int32_t));
        }
        got_free(g, N);
    }
    jang_engine_free(e);
}

static void test_long_rope_crossing_equals_transformers(void **state) {
    (void)state;
    static const char *const names[] = {"phi3-longrope-bf16", "phi4mini-bf16"};
    ctx_t *ctx = context_with(1);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        crossing c;
        jang_model *m = open_crossing(&c, ctx, names[i]);
        check_session(ctx, m, &c);
        check_engine(ctx, m, &c, false, 512);
        check_engine(ctx, m, &c, true, 7);
        json_decref(c.json);
        jang_model_free(m);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_rope_crossing_equals_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
