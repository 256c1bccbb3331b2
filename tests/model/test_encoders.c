/* test_encoders.c - models that embed or judge against transformers: hidden states and labels, on
 * every backend, in a batch, and what they refuse. */
#include "fixture.h"
#include "model_files.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    "bert-mean-f32",        "bert-cls-bf16",       "bert-rank-f32",   "xlm-roberta-cls-bf16",
    "xlm-roberta-rank-f16", "roberta-labels-bf16", "qwen3-last-bf16", "qwen3-untied-bf16",
    "qwen3-rank-bf16",      "gemma3-dense-f32",
};
#define N_NAMES (sizeof names / sizeof names[0])

typedef struct said {
    fixture f; /* n_vocab is the width of the hidden states */
    int32_t types[256];
    float labels[8];
    size_t n_label;
} said;

static void said_read(said *s, ctx_t *ctx, const char *name) {
    fixture_read_in(&s->f, ctx, TEST_ENCODERS, name);
    json_t *json;
    assert_ok(ctx, json_read(&json, ctx, test_path(s->f.path, "expected.json")));
    const json_t *labels = json_object_get(json, "labels"), *types = json_object_get(json, "types");
    s->n_label = json_array_size(labels);
    assert_true(s->f.n_tok <= 256 && s->n_label <= 8);
    for (int32_t i = 0; i < s->f.n_tok; i++) {
        s->types[i] = (int32_t)json_integer_value(json_array_get(types, (size_t)i));
    }
    for (size_t i = 0; i < s->n_label; i++) {
        s->labels[i] = (float)json_real_value(json_array_get(labels, i));
    }
    json_decref(json);
}

/* Runs the first n tokens as sequence number page, alone. */
static void run(rig *r, const said *s, int32_t n, int32_t page, float *hidden) {
    int32_t rows[256];
    for (int32_t i = 0; i < n; i++) {
        rows[i] = i;
    }
    batch_seq seq = {.n_tok = n, .pages = &page};
    batch_desc desc = {n, s->f.ids, 1, &seq, n, rows, s->types};
    assert_ok(r->ctx, model_reserve(r->m, n));
    assert_ok(r->ctx, model_step(r->m, &desc, &r->cache));
    assert_ok(r->ctx, model_hidden(r->m, 0, n, hidden));
}

static void check_labels(const rig *r, const said *s) {
    float labels[8];
    const model_facts *facts = model_get_facts(r->m);
    assert_int_equal(facts->n_label, s->n_label);
    if (s->n_label == 0) {
        assert_fails(r->ctx, model_labels(r->m, 0, 1, labels), JANG_ERR_UNSUPPORTED,
                     "no classifier");
        return;
    }
    assert_ok(r->ctx, model_labels(r->m, facts->whole ? 0 : s->f.n_tok - 1, 1, labels));
    for (size_t i = 0; i < s->n_label; i++) {
        assert_true(fabs((double)labels[i] - (double)s->labels[i]) < 1e-4);
    }
}

static void test_encoders_equal_transformers(void **state) {
    (void)state;
    static const char *const backends[] = {"ref", "cpu", "guard:ref", "guard:cpu"};
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < N_NAMES; i++) {
        said s;
        said_read(&s, ctx, names[i]);
        float *hidden = ctx_array(ctx, (size_t)(s.f.n_tok * s.f.n_vocab), sizeof *hidden);
        for (size_t b = 0; b < 4; b++) {
            rig r;
            rig_open(&r, ctx, s.f.path, backends[b], true, 4);
            assert_int_equal(model_get_facts(r.m)->n_embd, s.f.n_vocab);
            run(&r, &s, s.f.n_tok, 1, hidden);
            double error = fixture_error(&s.f, hidden);
            printf("%-22s %-10s max error %.2e of the deviation\n", names[i], backends[b], error);
            assert_true(error < 1e-4);
            check_labels(&r, &s);
            rig_close(&r);
        }
        ctx_free(ctx, hidden);
        fixture_free(&s.f, ctx);
    }
    jang_context_free(ctx);
}

/* Three texts in one batch give the bits that each gives alone. */
static void test_encoders_batch_equals_alone(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < N_NAMES; i++) {
        said s;
        said_read(&s, ctx, names[i]);
        int32_t lengths[3] = {s.f.n_tok, 1, s.f.n_tok / 2}, pages[3] = {2, 0, 3}, first = 0;
        int32_t ids[768], types[768], rows[768];
        batch_seq seqs[3];
        float *alone = ctx_array(ctx, (size_t)(s.f.n_tok * s.f.n_vocab), sizeof *alone);
        float *together = ctx_array(ctx, (size_t)(3 * s.f.n_tok * s.f.n_vocab), sizeof *together);
        rig r;
        rig_open(&r, ctx, s.f.path, "cpu", false, 4);
        for (int k = 0; k < 3; k++) {
            seqs[k] = (batch_seq){.first = first, .n_tok = lengths[k], .pages = &pages[k]};
            memcpy(ids + first, s.f.ids, (size_t)lengths[k] * sizeof *ids);
            memcpy(types + first, s.types, (size_t)lengths[k] * sizeof *types);
            first += lengths[k];
        }
        for (int32_t k = 0; k < first; k++) {
            rows[k] = k;
        }
        batch_desc desc = {first, ids, 3, seqs, first, rows, types};
        assert_ok(ctx, model_reserve(r.m, first));
        assert_ok(ctx, model_step(r.m, &desc, &r.cache));
        assert_ok(ctx, model_hidden(r.m, 0, first, together));
        for (int k = 0; k < 3; k++) {
            run(&r, &s, lengths[k], 1, alone);
            assert_memory_equal(alone, together + seqs[k].first * s.f.n_vocab,
                                (size_t)(lengths[k] * s.f.n_vocab) * sizeof *alone);
        }
        rig_close(&r);
        ctx_free(ctx, alone);
        ctx_free(ctx, together);
        fixture_free(&s.f, ctx);
    }
    jang_context_free(ctx);
}

static void test_encoders_refuse_what_they_cannot(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    rig r;
    rig_open(&r, ctx, test_path(TEST_ENCODERS, "bert-mean-f32"), "cpu", false, 4);
    int32_t ids[100] = {0}, types[100] = {0, 2}, row = 0, pages[2] = {0, 1};
    float number;
    batch_seq seq = {.n_tok = 2, .pages = pages};
    batch_desc desc = {2, ids, 1, &seq, 1, &row, types};
    assert_ok(ctx, model_reserve(r.m, 100));
    assert_fails(ctx, model_step(r.m, &desc, &r.cache), JANG_ERR_ARGUMENT, "token type 2");
    types[1] = 1;
    assert_ok(ctx, model_step(r.m, &desc, &r.cache));
    assert_fails(ctx, model_logits(r.m, 0, 1, &number), JANG_ERR_UNSUPPORTED, "writes no text");
    seq.n_past = 2;
    assert_fails(ctx, model_step(r.m, &desc, &r.cache), JANG_ERR_ARGUMENT, "as a whole");
    seq = (batch_seq){.n_tok = 97, .pages = pages};
    desc.n_tok = 97;
    assert_fails(ctx, model_step(r.m, &desc, &r.cache), JANG_ERR_ARGUMENT, "at most 96");
    rig_close(&r);
    jang_context_free(ctx);
}

/* A conversion keeps the modules, and the same bits come of its weights on either backend. */
static void test_encoders_convert(void **state) {
    (void)state;
    static const char *const profiles[] = {"JANG_6M", "JANG_2S"};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < 2 * N_NAMES; i++) {
        char output[512];
        said s;
        said_read(&s, ctx, names[i / 2]);
        snprintf(output, sizeof output, "%s/%zu", dir, i);
        jang_convert_options o = options_of(s.f.path, output, profiles[i % 2]);
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        for (int k = 0; k < 2; k++) {
            const char *file = k ? "modules.json" : "1_Pooling/config.json";
            assert_int_equal(file_exists(test_path(output, file)),
                             file_exists(test_path(s.f.path, file)));
        }
        size_t n = (size_t)(s.f.n_tok * s.f.n_vocab);
        float *hidden[2] = {s.f.expected, ctx_array(ctx, n, sizeof(float))};
        double last = 0;
        for (int b = 0; b < 2; b++) {
            rig r;
            rig_open(&r, ctx, output, b ? "cpu" : "ref", true, 4);
            run(&r, &s, s.f.n_tok, 1, hidden[1]);
            rig_close(&r);
            last = fixture_error(&s.f, hidden[1]);
            memcpy(hidden[0], hidden[1], n * sizeof(float));
        }
        assert_true(last < 1e-4);
        ctx_free(ctx, hidden[1]);
        fixture_free(&s.f, ctx);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encoders_equal_transformers),
        cmocka_unit_test(test_encoders_batch_equals_alone),
        cmocka_unit_test(test_encoders_refuse_what_they_cannot),
        cmocka_unit_test(test_encoders_convert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
