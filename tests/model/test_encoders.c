/* test_encoders.c - models that embed or judge against transformers: hidden states and labels, on
 * every backend, in a batch, and what they refuse. */
#include "engine_rig.h"
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

/* ---- The engine ---- */

static void assert_values(const got *g, const json_t *wanted, const char *name) {
    assert_int_equal(g->status, JANG_OK);
    assert_int_equal(g->n_values, json_array_size(wanted));
    for (size_t i = 0; i < g->n_values; i++) {
        double x = json_number_value(json_array_get(wanted, i));
        if (!(fabs((double)g->values[i] - x) < 1e-4)) {
            fail_msg("%s: number %zu is %g, not %g", name, i, (double)g->values[i], x);
        }
    }
}

/* All texts at once, in steps that hold some of them only: as sentence-transformers pools them. */
static void check_texts(jang_engine *e, jang_model *m, ctx_t *ctx, const json_t *json,
                        const char *name) {
    const json_t *texts = json_object_get(json, "texts");
    size_t n = json_array_size(texts);
    got *g = got_new(ctx, n + 1);
    for (size_t i = 0; i < n; i++) {
        jang_request r = jang_request_default(m);
        const char *text = json_string_value(json_array_get(texts, i));
        int32_t *ids;
        uint64_t id;
        assert_ok(ctx, jang_tokenize(&ids, &r.n_prompt, jang_model_tokenizer(m), text, strlen(text),
                                     JANG_TOKENIZE_ADD_SPECIAL));
        r.task = JANG_TASK_EMBED;
        r.prompt = ids;
        r.user = &g[i];
        assert_int_equal(jang_engine_submit(&id, e, &r, NULL), JANG_OK);
        jang_free(ctx, ids);
    }
    engine_run(ctx, e);
    for (size_t i = 0; i < n; i++) {
        assert_values(&g[i], json_array_get(json_object_get(json, "embeddings"), i), name);
    }
    got_free(g, n + 1);
}

static void check_pairs(jang_engine *e, jang_model *m, ctx_t *ctx, const json_t *json,
                        const char *name) {
    const json_t *pairs = json_object_get(json, "pairs");
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        jang_request r = jang_request_default(m);
        const json_t *pair = json_array_get(pairs, i);
        const char *a = json_string_value(json_array_get(pair, 0));
        const char *b = json_string_value(json_array_get(pair, 1));
        int32_t *ids, *types;
        assert_ok(ctx, jang_tokenize_pair(&ids, &types, &r.n_prompt, jang_model_tokenizer(m), a,
                                          strlen(a), b, strlen(b), JANG_TOKENIZE_ADD_SPECIAL));
        r.task = JANG_TASK_LABEL;
        r.prompt = ids;
        r.types = types;
        got *g = engine_ask(ctx, e, r);
        json_t *wanted = json_array_get(json_object_get(json, "scores"), i);
        assert_int_equal(g->n_values, jang_model_get_info(m)->n_label);
        if (!(fabs((double)g->values[0] - json_number_value(wanted)) < 1e-4)) {
            fail_msg("%s: pair %zu has %g", name, i, (double)g->values[0]);
        }
        got_free(g, 1);
        jang_free(ctx, ids);
        jang_free(ctx, types);
    }
}

static void test_encoders_in_an_engine(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < N_NAMES; i++) {
        char name[128];
        jang_model *m;
        json_t *json;
        jang_engine_options o = jang_engine_options_default();
        o.prefill_chunk = 8;
        o.kv_type = JANG_KV_F32;
        snprintf(name, sizeof name, "../encoders/%s", names[i]);
        jang_engine *e = engine_open(&m, ctx, name, o);
        const char *file = test_path(test_path(TEST_ENCODERS, names[i]), "expected.json");
        assert_ok(ctx, json_read(&json, ctx, file));
        check_texts(e, m, ctx, json, names[i]);
        check_pairs(e, m, ctx, json, names[i]);
        json_decref(json);
        jang_engine_free(e);
        jang_model_free(m);
    }
    jang_context_free(ctx);
}

static void test_encoders_write_no_text(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_session *s;
    jang_message why;
    uint64_t id;
    int32_t ids[] = {2, 5, 3}, types[] = {0, 0, 2};
    jang_engine *e =
        engine_open(&m, ctx, "../encoders/bert-rank-f32", jang_engine_options_default());
    const jang_model_info *info = jang_model_get_info(m);
    assert_true(!info->writes && info->is_encoder && info->n_label == 1);
    assert_fails(ctx, jang_session_new(&s, m, NULL), JANG_ERR_UNSUPPORTED, "writes no text");
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = 3;
    assert_int_equal(jang_engine_submit(&id, e, &r, &why), JANG_ERR_UNSUPPORTED);
    assert_string_equal(why.text, "this bert model writes no text");
    r.task = JANG_TASK_LABEL;
    r.types = types;
    assert_int_equal(jang_engine_submit(&id, e, &r, &why), JANG_ERR_ARGUMENT);
    assert_string_equal(why.text, "token type 2; the model knows 0 to 1");
    jang_engine_free(e);
    jang_model_free(m);
    e = engine_open(&m, ctx, "llama-f32", jang_engine_options_default());
    r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = 3;
    r.task = JANG_TASK_LABEL;
    assert_int_equal(jang_engine_submit(&id, e, &r, &why), JANG_ERR_UNSUPPORTED);
    assert_string_equal(why.text, "this llama model is no classifier");
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
}

/* ---- Files of sentence-transformers ---- */

static void copy_encoder(ctx_t *ctx, const char *name, const char *to) {
    static const char *const parts[] = {"", "1_Pooling", "2_Dense", "3_Dense"};
    char *from = path_join(ctx, TEST_ENCODERS, name);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char *source = path_join(ctx, from, parts[i]), *target = path_join(ctx, to, parts[i]);
        if (file_is_directory(source)) {
            copy_directory(ctx, source, target);
        }
        ctx_free(ctx, source);
        ctx_free(ctx, target);
    }
    ctx_free(ctx, from);
}

/* The model with one file of it written anew. */
static void assert_file_refused(ctx_t *ctx, const char *name, const char *file, const char *text,
                                jang_status wanted, const char *message) {
    char *temp = test_temp_dir(), *dir = path_join(ctx, temp, name);
    jang_model *m;
    copy_encoder(ctx, name, dir);
    assert_ok(ctx, file_write(ctx, test_path(dir, file), text, strlen(text)));
    assert_fails(ctx, jang_model_open(&m, ctx, dir, NULL), wanted, message);
    test_remove_tree(temp);
    ctx_free(ctx, dir);
    free(temp);
}

static void test_encoders_refuse_modules(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const struct {
        const char *model, *file, *text;
        jang_status status;
        const char *message;
    } cases[] = {
        {"bert-mean-f32", "modules.json", "{}", JANG_ERR_FORMAT, "expected an array"},
        {"bert-mean-f32", "modules.json", "[{\"type\":\"a.Pooling\",\"path\":\"../x\"}]",
         JANG_ERR_FORMAT, "not the name of a directory"},
        {"bert-mean-f32", "modules.json", "[{\"type\":\"a.Pooling\",\"path\":\"9_Pooling\"}]",
         JANG_ERR_FORMAT, "9_Pooling/config.json is missing"},
        {"bert-mean-f32", "modules.json", "[{\"type\":\"a.WordWeights\"}]", JANG_ERR_UNSUPPORTED,
         "WordWeights is not supported"},
        {"bert-mean-f32", "1_Pooling/config.json", "{\"pooling_mode_max_tokens\":true}",
         JANG_ERR_UNSUPPORTED, "pooling_mode_max_tokens is not supported"},
        {"bert-mean-f32", "1_Pooling/config.json",
         "{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":true}",
         JANG_ERR_UNSUPPORTED, "pooling_mode_mean_tokens is not supported"},
        {"bert-mean-f32", "1_Pooling/config.json", "{\"pooling_mode_mean_tokens\":false}",
         JANG_ERR_FORMAT, "no way of pooling is true"},
        {"bert-mean-f32", "1_Pooling/config.json", "{\"pooling_mode\":\"weightedmean\"}",
         JANG_ERR_UNSUPPORTED, "weightedmean is not supported"},
        {"gemma3-dense-f32", "2_Dense/config.json", "{\"in_features\":3,\"out_features\":8}",
         JANG_ERR_FORMAT, "in_features 3, but 64 come"},
        {"gemma3-dense-f32", "2_Dense/config.json", "{\"in_features\":64,\"out_features\":1048576}",
         JANG_ERR_FORMAT, "no floating linear.weight of 67108864 numbers"},
        {"gemma3-dense-f32", "2_Dense/config.json", "{\"in_features\":64}", JANG_ERR_FORMAT,
         "out_features is missing"},
        {"gemma3-dense-f32", "2_Dense/config.json",
         "{\"in_features\":64,\"out_features\":8,\"activation_function\":\"torch.nn.ReLU\"}",
         JANG_ERR_UNSUPPORTED, "torch.nn.ReLU is not supported"},
        {"gemma3-dense-f32", "2_Dense/model.safetensors", "", JANG_ERR_FORMAT, "model.safetensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_file_refused(ctx, cases[i].model, cases[i].file, cases[i].text, cases[i].status,
                            cases[i].message);
    }
    jang_context_free(ctx);
}

/* The forms in which a way of pooling is written down. */
static void test_encoders_read_pooling(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const struct {
        const char *text;
        jang_pooling pooling;
    } cases[] = {
        {"{\"pooling_mode\":\"cls\"}", JANG_POOL_FIRST},
        {"{\"pooling_mode\":\"lasttoken\",\"pooling_mode_mean_tokens\":true}", JANG_POOL_LAST},
        {"{\"pooling_mode_lasttoken\":true}", JANG_POOL_LAST},
        {"{\"word_embedding_dimension\":64}", JANG_POOL_MEAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *temp = test_temp_dir(), *dir = path_join(ctx, temp, "model");
        jang_model *m;
        copy_encoder(ctx, "qwen3-last-bf16", dir);
        const char *file = test_path(dir, "1_Pooling/config.json");
        assert_ok(ctx, file_write(ctx, file, cases[i].text, strlen(cases[i].text)));
        assert_ok(ctx, jang_model_open(&m, ctx, dir, NULL));
        assert_int_equal(jang_model_get_info(m)->pooling, cases[i].pooling);
        jang_model_free(m);
        test_remove_tree(temp);
        ctx_free(ctx, dir);
        free(temp);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encoders_equal_transformers),
        cmocka_unit_test(test_encoders_batch_equals_alone),
        cmocka_unit_test(test_encoders_refuse_what_they_cannot),
        cmocka_unit_test(test_encoders_convert),
        cmocka_unit_test(test_encoders_in_an_engine),
        cmocka_unit_test(test_encoders_write_no_text),
        cmocka_unit_test(test_encoders_refuse_modules),
        cmocka_unit_test(test_encoders_read_pooling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
