/* test_model_hostile.c - configs that lie: each key of a model's config.json in turn takes values
 * at and beyond every border. The model then is refused with a message, or opens and computes. */
#include "model_files.h"

#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "hidden_act",
    "attention_bias",
    "tie_word_embeddings",
    "eos_token_id",
    "model_type",
    "quantization",
};

static const char *const values[] = {
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "63",
    "65",
    "512",
    "514",
    "4096",
    "16384",
    "1048576",
    "268435456",
    "2147483647",
    "1e300",
    "2147483648",
    "4294967296",
    "1152921504606846976",
    "-1e300",
    "1e-300",
    "9223372036854775807",
    "-9223372036854775808",
    "[null]",
    "[\"sliding_attention\"]",
    "{\"rope_type\": \"yarn\", \"factor\": 1e300}",
    "{\"rope_type\": \"llama3\", \"factor\": 1e-300, \"original_max_position_embeddings\": 1}",
    "{\"bits\": 99999999999, \"group_size\": -1}",
};

/* Opens what it is given and, if that can be, appends more tokens than a page. */
static void use_model(ctx_t *ctx, const char *path, const char *backend) {
    jang_model_options options = {.backend = backend};
    jang_model *m;
    if (jang_model_open(&m, ctx, path, &options) != JANG_OK) {
        assert_true(jang_context_error(ctx)[0] != 0);
        return;
    }
    jang_session_options o = {.n_batch = 8};
    int32_t n_context = jang_model_get_info(m)->n_context;
    o.n_context = n_context < 70 ? n_context : 70;
    jang_session *s;
    if (jang_session_new(&s, m, &o) == JANG_OK) {
        int32_t ids[70] = {0};
        assert_ok(ctx, jang_session_append(s, ids, (size_t)o.n_context, NULL));
        assert_fails(ctx, jang_session_append(s, ids, 1, NULL), JANG_ERR_FULL, "context");
        jang_session_free(s);
    }
    jang_model_free(m);
}

static void try_keys(const char *name, const char *backend) {
    ctx_t *ctx = context_with(1);
    char *dir = test_temp_dir();
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        char *path = strdup(test_path(dir, keys[k]));
        copy_directory(ctx, test_path(TEST_MODELS, name), path);
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            patch_config(ctx, path, keys[k], json_loads(values[v], JSON_DECODE_ANY, NULL));
            use_model(ctx, path, backend);
        }
        test_remove_tree(path);
        free(path);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_model_hostile_window(void **state) {
    (void)state;
    try_keys("mistral-window-bf16", "cpu");
}

static void test_model_hostile_quantized(void **state) {
    (void)state;
    try_keys("mlx-qwen2-2bit-g32", "cpu");
}

/* Each key that a model's own config has, with every fifth value. */
static void try_own_keys(const char *name) {
    ctx_t *ctx = context_with(1);
    char *dir = test_temp_dir();
    const char *key;
    json_t *config, *value;
    assert_ok(ctx, json_read(&config, ctx, test_path(test_path(TEST_MODELS, name), "config.json")));
    size_t n = 0;
    json_object_foreach(config, key, value) {
        char *path = strdup(test_path(dir, key));
        copy_directory(ctx, test_path(TEST_MODELS, name), path);
        for (size_t v = n++ % 5; v < sizeof values / sizeof values[0]; v += 5) {
            patch_config(ctx, path, key, json_loads(values[v], JSON_DECODE_ANY, NULL));
            use_model(ctx, path, "cpu");
        }
        patch_config(ctx, path, key, NULL);
        use_model(ctx, path, "cpu");
        test_remove_tree(path);
        free(path);
    }
    json_decref(config);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_model_hostile_recurrent(void **state) {
    (void)state;
    static const char *const names[] = {
        "mamba-bias-bf16",     "mamba2-limit-f16",   "qwen3_next-dense-f16",
        "nemotron_h-moe-bf16", "falcon_h1-norm-f16", "kimi_linear-bf16",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        try_own_keys(names[i]);
    }
}

static void test_model_hostile_experts(void **state) {
    (void)state;
    static const char *const names[] = {
        "qwen3moe-mixed-f16",    "qwen2moe-renorm-f16", "gptoss-bf16",
        "deepseek2-groups-bf16", "deepseek3-bf16",      "mlx-deepseek2-8bit-g32",
        "ernie45moe-bf16",       "phimoe-bf16",         "minimaxm2-bf16",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        try_own_keys(names[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_hostile_recurrent),
        cmocka_unit_test(test_model_hostile_experts),
        cmocka_unit_test(test_model_hostile_window),
        cmocka_unit_test(test_model_hostile_quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
