/* test_model.c - whole models against the logits of transformers, on every backend and in every
 * kind of batch. */
#include "fixture.h"

#include "base/file.h"
#include "model/decoder.h"
#include "model/mamba2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Calls fn for each fixture. */
static void for_each(void (*fn)(ctx_t *ctx, const char *name, const fixture *f)) {
    ctx_t *ctx = test_context();
    size_t n;
    char **names = fixture_names(ctx, &n);
    for (size_t i = 0; i < n; i++) {
        fixture f;
        fixture_read(&f, ctx, names[i]);
        fn(ctx, names[i], &f);
        fixture_free(&f, ctx);
        ctx_free(ctx, names[i]);
    }
    ctx_free(ctx, names);
    jang_context_free(ctx);
}

static float *new_logits(ctx_t *ctx, const fixture *f) {
    float *logits = ctx_array(ctx, (size_t)(f->n_tok * f->n_vocab), sizeof *logits);
    assert_non_null(logits);
    return logits;
}

static void run_fixture(ctx_t *ctx, const fixture *f, const char *backend, bool exact, int32_t step,
                        float *logits) {
    rig r;
    rig_open(&r, ctx, f->path, backend, exact, 2);
    assert_int_equal(model_get_facts(r.m)->n_vocab, f->n_vocab);
    rig_run_ids(&r, f->ids, f->n_tok, step, 0, logits);
    rig_close(&r);
}

/* ---- Against transformers ---- */

#ifdef __SANITIZE_THREAD__ /* the others have no threads of their own */
static const char *const backends[] = {"cpu"};
#else
static const char *const backends[] = {"ref", "cpu", "guard:ref", "guard:cpu"};
#endif

static void check_exact(ctx_t *ctx, const char *name, const fixture *f) {
    double limit = strncmp(name, "mlx-", 4) == 0 ? 2e-3 : 1e-3;
    float *logits = new_logits(ctx, f);
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        run_fixture(ctx, f, backends[i], true, 512, logits);
        double error = fixture_error(f, logits);
        printf("%-24s %-10s max error %.2e of the deviation\n", name, backends[i], error);
        assert_true(error < limit);
    }
    ctx_free(ctx, logits);
}

static void test_model_equals_transformers(void **state) {
    (void)state;
    for_each(check_exact);
}

static void check_default(ctx_t *ctx, const char *name, const fixture *f) {
    float *logits = new_logits(ctx, f);
    for (size_t i = 0; i < 2; i++) {
        run_fixture(ctx, f, backends[i], false, 512, logits);
        double kl = mean_kl(f->expected, logits, f->n_tok, f->n_vocab);
        printf("%-24s %-10s mean KL %.2e\n", name, backends[i], kl);
        assert_true(kl < 1e-3);
    }
    ctx_free(ctx, logits);
}

static void test_model_default_path_is_close(void **state) {
    (void)state;
    for_each(check_default);
}

/* ---- Row independence: the same bits in every kind of batch ---- */

static void check_steps(ctx_t *ctx, const char *name, const fixture *f) {
    static const int32_t steps[] = {1, 3, 17};
    size_t n_bytes = (size_t)(f->n_tok * f->n_vocab) * sizeof(float);
    float *whole = new_logits(ctx, f), *stepped = new_logits(ctx, f);
    for (int exact = 0; exact < 2; exact++) {
        run_fixture(ctx, f, "cpu", exact, 512, whole);
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
            run_fixture(ctx, f, "cpu", exact, steps[i], stepped);
            if (memcmp(whole, stepped, n_bytes) != 0) {
                fail_msg("%s: steps of %d differ from one pass", name, steps[i]);
            }
        }
    }
    ctx_free(ctx, whole);
    ctx_free(ctx, stepped);
}

static void test_model_steps_equal_one_pass(void **state) {
    (void)state;
    for_each(check_steps);
}

/* Three sequences of unequal length: the prompt's first n, a middle part, its end. The second is
 * split over two batches, so that a batch mixes beginnings and continuations. */
static void check_batch(ctx_t *ctx, const char *name, const fixture *f) {
    int32_t n = f->n_tok, cut[3][2] = {{0, n}, {n / 3, n / 2}, {n / 2, n - n / 2}};
    int64_t n_vocab = f->n_vocab;
    float *alone[3], *together = ctx_array(ctx, (size_t)(3 * n * n_vocab), sizeof(float));
    rig r;
    rig_open(&r, ctx, f->path, "cpu", false, 8);
    for (int i = 0; i < 3; i++) {
        alone[i] = new_logits(ctx, f);
        rig_run_ids(&r, f->ids + cut[i][0], cut[i][1], 512, 0, alone[i]);
    }
    int32_t pages[3][2] = {{5, 2}, {0, 7}, {3, 1}}, ids[1024], rows[1024], first = 4;
    rig_run_ids(&r, f->ids + cut[1][0], first, 512, pages[1][0], together);
    batch_seq seqs[3];
    int32_t at = 0;
    for (int i = 0; i < 3; i++) {
        int32_t past = i == 1 ? first : 0, k = cut[i][1] - past;
        seqs[i] = (batch_seq){at, k, past, pages[i], pages[i][0], 0};
        memcpy(ids + at, f->ids + cut[i][0] + past, (size_t)k * sizeof *ids);
        at += k;
    }
    for (int32_t i = 0; i < at; i++) {
        rows[i] = i;
    }
    batch_desc desc = {at, ids, 3, seqs, at, rows, NULL};
    rig_run(&r, &desc, together);
    for (int i = 0; i < 3; i++) {
        size_t n_bytes = (size_t)(seqs[i].n_tok * n_vocab) * sizeof(float);
        if (memcmp(together + seqs[i].first * n_vocab, alone[i] + seqs[i].n_past * n_vocab,
                   n_bytes) != 0) {
            fail_msg("%s: sequence %d differs in a batch of three", name, i);
        }
        ctx_free(ctx, alone[i]);
    }
    rig_close(&r);
    ctx_free(ctx, together);
}

static void test_model_batch_equals_alone(void **state) {
    (void)state;
    for_each(check_batch);
}

/* ---- Wrong input ---- */

/* A copy of a fixture with config.json changed: key set to the JSON text, or removed by NULL. */
static char *changed_copy(ctx_t *ctx, const char *name, const char *key, const char *value) {
    char *dir = test_temp_dir();
    char source[4096];
    snprintf(source, sizeof source, "%s/%s", TEST_MODELS, name);
    json_t *config;
    assert_ok(ctx, json_read(&config, ctx, test_path(source, "config.json")));
    if (value) {
        json_t *parsed;
        assert_ok(ctx, json_parse(&parsed, ctx, "test", value, strlen(value)));
        json_object_set_new(config, key, parsed);
    } else {
        json_object_del(config, key);
    }
    buf b;
    buf_init(&b, ctx, BUF_NO_LIMIT);
    json_write(&b, config, 2);
    assert_ok(ctx, file_write(ctx, test_path(dir, "config.json"), b.data, b.size));
    buf_free(&b);
    json_decref(config);
    assert_int_equal(
        symlink(test_path(source, "model.safetensors"), test_path(dir, "model.safetensors")), 0);
    return dir;
}

static const struct {
    const char *fixture, *key, *value;
    jang_status status;
    const char *message;
} wrong[] = {
    {"llama-f32", "model_type", "\"lama\"", JANG_ERR_UNSUPPORTED, "nearest: llama"},
    {"llama-f32", "model_type", NULL, JANG_ERR_FORMAT, "model_type is missing"},
    {"llama-f32", "hidden_size", NULL, JANG_ERR_FORMAT, "hidden_size is missing"},
    {"llama-f32", "hidden_size", "\"64\"", JANG_ERR_FORMAT, "hidden_size: expected an integer"},
    {"llama-f32", "hidden_size", "-4", JANG_ERR_FORMAT, "out of range"},
    {"llama-f32", "intermediate_size", "100", JANG_ERR_FORMAT, "the config wants [100, 64]"},
    {"llama-f32", "num_hidden_layers", "9", JANG_ERR_FORMAT, "is missing"},
    {"llama-f32", "num_key_value_heads", "3", JANG_ERR_FORMAT, "must be a multiple"},
    {"llama-f32", "hidden_act", "\"mish\"", JANG_ERR_UNSUPPORTED, "hidden_act mish"},
    {"llama-f32", "attention_bias", "true", JANG_ERR_FORMAT, "q_proj.bias is missing"},
    {"llama3-rope-bf16", "mlp_bias", "false", JANG_ERR_UNSUPPORTED, "there is no such bias"},
    {"llama-f32", "rope_scaling", "{\"type\": \"spiral\", \"factor\": 2}", JANG_ERR_UNSUPPORTED,
     "spiral"},
    {"llama-f32", "rope_scaling", "{\"type\": \"linear\"}", JANG_ERR_FORMAT, "factor"},
    {"hunyuan-bf16", "use_qk_norm", "false", JANG_ERR_UNSUPPORTED, "use_qk_norm"},
    {"hunyuan-bf16", "use_cla", "true", JANG_ERR_UNSUPPORTED, "use_cla"},
    {"hunyuan-bf16", "rope_scaling", "{\"type\": \"dynamic\", \"alpha\": -2}", JANG_ERR_FORMAT,
     "alpha"},
    {"apertus-bf16", "rope_scaling", NULL, JANG_ERR_UNSUPPORTED, "rope_scaling is missing"},
    {"gptoss-bf16", "rope_scaling", NULL, JANG_ERR_UNSUPPORTED, "rope_scaling is missing"},
    {"phimoe-bf16", "rope_scaling", "{\"type\": \"longrope\", \"short_mscale\": 1.5}",
     JANG_ERR_UNSUPPORTED, "long_mscale 0: only equal ones"},
    {"phimoe-bf16", "rope_scaling", "{\"type\": \"linear\", \"factor\": 2}", JANG_ERR_UNSUPPORTED,
     "type linear is not supported for this family"},
    {"llama-f32", "rope_theta", "0", JANG_ERR_FORMAT, "rope_theta"},
    {"llama-f32", "partial_rotary_factor", "0.01", JANG_ERR_FORMAT, "partial_rotary_factor"},
    {"qwen2-newstyle-f16", "layer_types", "[\"full_attention\", \"linear_attention\"]",
     JANG_ERR_UNSUPPORTED, "layer_types[1] is linear_attention"},
    {"mamba-f32", "hidden_act", "\"relu\"", JANG_ERR_UNSUPPORTED, "hidden_act relu"},
    {"mamba-f32", "state_size", "15", JANG_ERR_FORMAT, "the config wants"},
    {"mamba2-bf16", "time_step_limit", "[1, 0]", JANG_ERR_FORMAT, "time_step_limit"},
    {"mamba2-bf16", "time_step_limit", "[0, {\"__float__\": \"NaN\"}]", JANG_ERR_FORMAT,
     "time_step_limit"},
    {"mamba2-bf16", "n_groups", "3", JANG_ERR_FORMAT, "do not divide"},
    {"nemotron_h-bf16", "hybrid_override_pattern", "\"M?-\"", JANG_ERR_UNSUPPORTED, "has ?"},
    {"nemotron_h-moe-bf16", "moe_latent_size", "64", JANG_ERR_FORMAT, "fc1_latent_proj.weight is"},
    {"gpt2-f32", "n_embd", "48", JANG_ERR_FORMAT, "the config wants [307, 48]"},
    {"gpt2-f32", "n_inner", "96", JANG_ERR_FORMAT, "the config wants [32, 96]"},
    {"gpt2-f32", "add_cross_attention", "true", JANG_ERR_UNSUPPORTED, "add_cross_attention true"},
    {"llama4text-bf16", "no_rope_layers", "[1, 0]", JANG_ERR_FORMAT, "no_rope_layers has 2 of 4"},
    {"llama4text-bf16", "layer_types", "[\"sliding_attention\"]", JANG_ERR_UNSUPPORTED,
     "layer_types[0] is sliding_attention"},
    {"llama4text-dense-f16", "attention_chunk_size", "null", JANG_ERR_FORMAT,
     "no attention_chunk_size"},
    {"llama4text-bf16", "for_llm_compressor", "true", JANG_ERR_UNSUPPORTED, "for_llm_compressor"},
    {"gemma4text-experts-bf16", "per_layer_config", "{\"0\": {\"head_dim\": 16}}",
     JANG_ERR_UNSUPPORTED, "per_layer_config is not the same"},
    {"gemma4text-experts-bf16", "per_layer_config", "{\"1\": {\"window\": 16}}",
     JANG_ERR_UNSUPPORTED, "per_layer_config: head_dim and"},
    {"gemma4text-experts-bf16", "per_layer_config", "{\"1\": {\"head_dim\": 32}}", JANG_ERR_FORMAT,
     "the config wants"},
    {"gemma4text-experts-bf16", "top_k_experts", "null", JANG_ERR_FORMAT, "top_k_experts is"},
    {"gemma4text-experts-bf16", "top_k_experts", "7", JANG_ERR_FORMAT, "is more than num_experts"},
    {"granitemoehybrid-bf16", "layer_types", "[\"mamba\", \"rwkv\"]", JANG_ERR_UNSUPPORTED,
     "layer_types[1] is rwkv"},
    {"qwen3_next-bf16", "linear_num_value_heads", "3", JANG_ERR_FORMAT, "must be a multiple"},
    {"falcon_h1-bf16", "ssm_multipliers", "[1, 2]", JANG_ERR_FORMAT, "must be 5 numbers"},
    {"falcon_h1-bf16", "key_multiplier", "\"half\"", JANG_ERR_FORMAT, "key_multiplier"},
    {"lfm2-bf16", "layer_types", "[\"conv\"]", JANG_ERR_UNSUPPORTED, "layer_types[1] is missing"},
    {"mlx-llama-4bit-g64", "hidden_size", "128", JANG_ERR_FORMAT, "the config wants"},
};

static void test_model_names_what_is_wrong(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char *dir = changed_copy(ctx, wrong[i].fixture, wrong[i].key, wrong[i].value);
        checkpoint *c;
        ops *o;
        model *m;
        assert_ok(ctx, checkpoint_open(&c, ctx, dir, 0));
        assert_ok(ctx, ops_open(&o, ctx, "ref", &(ops_options){0}));
        assert_fails(ctx, model_open(&m, ctx, c, o), wrong[i].status, wrong[i].message);
        ops_close(o);
        checkpoint_close(c);
        test_remove_tree(dir);
        free(dir);
    }
    jang_context_free(ctx);
}

/* As transformers: null means none, an absent key the class's default. */
static void test_model_null_window_is_none(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int64_t window;
    } cases[] = {
        {"{\"use_sliding_window\": true, \"sliding_window\": null}", 0},
        {"{\"use_sliding_window\": true, \"sliding_window\": 7}", 7},
        {"{\"use_sliding_window\": true}", 4096},
        {"{\"use_sliding_window\": false, \"sliding_window\": 7}", 0},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *config;
        decoder_config c = {.n_layer = 1};
        assert_ok(ctx, json_parse(&config, ctx, "t", cases[i].config, strlen(cases[i].config)));
        assert_ok(ctx, decoder_read_windows(&c, (json_at){ctx, "config.json", config}));
        assert_int_equal(c.attention.window, cases[i].window);
        decoder_config_free(&c, ctx);
        json_decref(config);
    }
    jang_context_free(ctx);
}

/* Newer configs of transformers spell infinity so. */
static void test_model_reads_infinite_step_sizes(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    json_t *config;
    mamba2_config c = {0};
    static const char text[] = "{\"time_step_limit\": [0.5, {\"__float__\": \"Infinity\"}]}";
    assert_ok(ctx, json_parse(&config, ctx, "t", text, strlen(text)));
    assert_ok(ctx, mamba2_read_limits(&c, (json_at){ctx, "config.json", config}));
    assert_true(c.dt_min == 0.5 && c.dt_max > 1e300);
    json_decref(config);
    jang_context_free(ctx);
}

static void test_model_refuses_bad_steps(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    rig r;
    rig_open(&r, ctx, test_path(TEST_MODELS, "llama-f32"), "ref", false, 1);
    assert_ok(ctx, model_reserve(r.m, 4));
    int32_t ids[] = {1, 100000}, row = 0, page = 0;
    batch_seq seq = {.n_tok = 2, .pages = &page};
    batch_desc desc = {2, ids, 1, &seq, 1, &row, NULL};
    assert_fails(ctx, model_step(r.m, &desc, &r.cache), JANG_ERR_ARGUMENT,
                 "100000 is out of range");
    desc.n_tok = 5;
    assert_fails(ctx, model_step(r.m, &desc, &r.cache), JANG_ERR_ARGUMENT, "1 to 4 are allowed");
    float logits[1024];
    assert_fails(ctx, model_logits(r.m, 0, 1, logits), JANG_ERR_ARGUMENT, "logits");
    rig_close(&r);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_equals_transformers),
        cmocka_unit_test(test_model_default_path_is_close),
        cmocka_unit_test(test_model_steps_equal_one_pass),
        cmocka_unit_test(test_model_batch_equals_alone),
        cmocka_unit_test(test_model_names_what_is_wrong),
        cmocka_unit_test(test_model_null_window_is_none),
        cmocka_unit_test(test_model_reads_infinite_step_sizes),
        cmocka_unit_test(test_model_refuses_bad_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
