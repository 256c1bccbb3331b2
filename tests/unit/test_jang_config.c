/* test_jang_config.c - the sections of config.json and jang_config.json, as mlx-lm reads them. */
#include "support.h"

#include "format/jang_config.h"

#include <string.h>

static const quant_module modules[] = {
    {"model.embed_tokens", 4, 64, 1000},
    {"model.layers.0.q_proj", 8, 64, 10},
    {"model.layers.0.up_proj", 4, 64, 500},
    {"model.layers.0.gate", 0, 0, 5},
    {"lm_head", 6, 32, 900},
};

static json_t *parse(ctx_t *ctx, const char *text) {
    json_t *json;
    assert_ok(ctx, json_parse(&json, ctx, "expected", text, strlen(text)));
    return json;
}

static void check(ctx_t *ctx, json_t *got, const char *wanted) {
    json_t *expected = parse(ctx, wanted);
    if (!json_equal(got, expected)) {
        buf b;
        buf_init(&b, ctx, BUF_NO_LIMIT);
        json_write(&b, got, 0);
        fail_msg("%s instead of %s", b.data, wanted);
    }
    json_decref(expected);
    json_decref(got);
}

static void test_jang_config_lists_what_differs(void **state) {
    ctx_t *ctx = *state;
    json_t *source = parse(ctx, "{\"model_type\":\"x\",\"quantization_config\":{\"bits\":1}}");
    json_t *got;
    assert_ok(ctx, jang_config_quantized(&got, ctx, source, modules, 5, 4, 64));
    check(
        ctx, got,
        "{\"model_type\":\"x\",\"quantization\":{\"group_size\":64,\"bits\":4,\"mode\":\"affine\","
        "\"model.layers.0.q_proj\":{\"group_size\":64,\"bits\":8,\"mode\":\"affine\"},"
        "\"lm_head\":{\"group_size\":32,\"bits\":6,\"mode\":\"affine\"}},"
        "\"quantization_config\":{\"group_size\":64,\"bits\":4,\"mode\":\"affine\","
        "\"model.layers.0.q_proj\":{\"group_size\":64,\"bits\":8,\"mode\":\"affine\"},"
        "\"lm_head\":{\"group_size\":32,\"bits\":6,\"mode\":\"affine\"}}}");
    assert_non_null(json_object_get(source, "quantization_config")); /* the source stays */
    assert_ok(ctx, jang_config_quantized(&got, ctx, source, modules + 3, 1, 4, 64));
    check(ctx, got, "{\"model_type\":\"x\"}");
    json_decref(source);
}

static void test_jang_config_finds_the_commonest_pair(void **state) {
    (void)state;
    int bits, group;
    jang_config_commonest(&bits, &group, modules, 5);
    assert_int_equal(bits, 4);
    assert_int_equal(group, 64);
    jang_config_commonest(&bits, &group, modules + 3, 1);
    assert_int_equal(bits, 0);
    assert_int_equal(group, 0);
}

static void test_jang_config_describes_the_model(void **state) {
    ctx_t *ctx = *state;
    static const jang_config_facts facts = {.method = "rtn",
                                            .profile = "JANG_4M",
                                            .target_bits = 4.0,
                                            .actual_bits = 4.8249,
                                            .block_size = 64,
                                            .source_name = "Tiny",
                                            .source_dtype = "bfloat16",
                                            .n_params = 2415,
                                            .weight_bytes = 1500000000};
    json_t *got;
    assert_ok(ctx, jang_config_make(&got, ctx, &facts, modules, 5));
    check(ctx, got,
          "{\"format\":\"jang\",\"format_version\":\"2.0\",\"quantization\":{\"method\":\"rtn\","
          "\"profile\":\"JANG_4M\",\"target_bits\":4.0,\"actual_bits\":4.82,\"block_size\":64,"
          "\"bit_widths_used\":[4,6,8],\"quantization_scheme\":\"asymmetric\","
          "\"quantization_backend\":\"jang\"},\"source_model\":{\"name\":\"Tiny\","
          "\"dtype\":\"bfloat16\",\"parameters\":2415},\"runtime\":{\"total_weight_bytes\":"
          "1500000000,\"total_weight_gb\":1.5}}");
}

static int setup(void **state) {
    *state = test_context();
    return 0;
}

static int teardown(void **state) {
    jang_context_free(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jang_config_lists_what_differs),
        cmocka_unit_test(test_jang_config_finds_the_commonest_pair),
        cmocka_unit_test(test_jang_config_describes_the_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
