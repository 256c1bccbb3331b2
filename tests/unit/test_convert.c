/* test_convert.c - whole conversions of the small models in tests/golden/models: what is written.
 */
#include "base/file.h"
#include "base/half.h"
#include "format/affine.h"
#include "model_files.h"
#include "quant/convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(ctx_t *ctx, const char *text) {
    json_t *json = NULL;
    assert_ok(ctx, json_parse(&json, ctx, "plan", text, strlen(text)));
    return json;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) {
        fail_msg("no number %s", key);
    }
    return json_number_value(value);
}

static void assert_near(double a, double b) {
    if (fabs(a - b) > 1e-9) {
        fail_msg("%.12g is not %.12g", a, b);
    }
}

/* ---- What is written ---- */

/* Checks one part of a conversion against the source's rows: codes, scales and biases are those of
 * the plain method, unquantized tensors keep their values. */
static void check_part(ctx_t *ctx, const checkpoint *source, const model_part *from,
                       const checkpoint *made, const model_part *to, bool same_type) {
    assert_int_equal(from->params, to->params);
    int64_t n = from->params;
    float *want = calloc((size_t)n, 4), *got = calloc((size_t)n, 4);
    assert_ok(ctx, part_rows_f32(want, source, from, 0, from->rows));
    assert_ok(ctx, part_rows_f32(got, made, to, 0, to->rows));
    if (to->bits) {
        const quantizer *q = NULL;
        assert_ok(ctx, quantizer_find(&q, ctx, "mse"));
        uint8_t *codes = calloc((size_t)n, 1), *stored = calloc((size_t)n, 1);
        float *scales = calloc((size_t)n / 32, 4), *biases = calloc((size_t)n / 32, 4);
        quant_block block = {want,  from->rows, from->columns, to->bits,         to->group,
                             codes, scales,     biases,        to->scales->type, NULL};
        assert_true(quantizer_function(q, CPU_SCALAR)(&block));
        uint32_t *words = malloc(to->weight->n_bytes);
        memcpy(words, to->weight->data, to->weight->n_bytes);
        affine_unpack(stored, words, n, to->bits);
        assert_memory_equal(codes, stored, (size_t)n);
        for (int64_t i = 0; i < n / to->group; i++) {
            uint16_t s, b;
            memcpy(&s, to->scales->data + 2 * i, 2);
            memcpy(&b, to->biases->data + 2 * i, 2);
            bool bf16 = to->scales->type == DT_BF16;
            assert_int_equal(s, bf16 ? f32_to_bf16(scales[i]) : f32_to_f16(scales[i]));
            assert_int_equal(b, bf16 ? f32_to_bf16(biases[i]) : f32_to_f16(biases[i]));
        }
        free(words);
        free(codes);
        free(stored);
        free(scales);
        free(biases);
    } else if (same_type) {
        assert_memory_equal(want, got, (size_t)n * 4);
    } else {
        for (int64_t i = 0; i < n; i++) {
            assert_float_equal(want[i], got[i], fabsf(want[i]) / 128 + 1e-7f);
        }
    }
    free(want);
    free(got);
}

static void check_conversion(ctx_t *ctx, const char *source_path, const char *made_path,
                             bool same_type) {
    checkpoint *source = NULL, *made = NULL;
    assert_ok(ctx, checkpoint_open(&source, ctx, source_path, 0));
    assert_ok(ctx, checkpoint_open(&made, ctx, made_path, 0));
    part_list from, to;
    assert_ok(ctx, part_list_make(&from, ctx, source));
    assert_ok(ctx, part_list_make(&to, ctx, made));
    const json_t *config = NULL;
    assert_ok(ctx, checkpoint_json(&config, made, "config.json"));
    bool tied = json_is_true(json_object_get(config, "tie_word_embeddings"));
    size_t n_dropped = tied && part_find(&from, "lm_head.weight");
    for (size_t i = 0; i < from.n_parts; i++) {
        n_dropped += path_has_suffix(from.parts[i].name, ".inv_freq");
    }
    assert_int_equal(to.n_parts, from.n_parts - n_dropped);
    for (size_t i = 0; i < to.n_parts; i++) {
        const model_part *part = &to.parts[i];
        const model_part *origin = part_find(&from, part->name);
        assert_non_null(origin);
        check_part(ctx, source, origin, made, part, same_type);
    }
    part_list_free(&from);
    part_list_free(&to);
    checkpoint_close(source);
    checkpoint_close(made);
}

static void test_convert_writes_what_the_method_gives(void **state) {
    (void)state;
    static const char *const models[] = {"llama-bf16",
                                         "llama-f16",
                                         "llama-f32",
                                         "smollm-tied-bf16",
                                         "qwen2-tied-bf16",
                                         "llama-sharded-bf16",
                                         "mistral-window-bf16",
                                         "mistral-head32-f32",
                                         "qwen3-bf16",
                                         "mlx-llama-4bit-g64",
                                         "mlx-llama-mixed-3-6",
                                         TEST_DATA "/format/llama.gguf",
                                         TEST_DATA "/format/qwen2.gguf"};
    static const char *const profiles[] = {"JANG_4M", "3S", "mixed_3_6", NULL};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        for (size_t p = 0; p < sizeof profiles / sizeof *profiles; p++) {
            char source[512], output[512];
            snprintf(source, sizeof source, "%s%s", models[m][0] == '/' ? "" : MODELS, models[m]);
            snprintf(output, sizeof output, "%s/%zu-%zu", dir, m, p);
            jang_convert_options o = options_of(source, output, profiles[p]);
            o.bits = profiles[p] ? 0 : 5;
            o.group_size = p == 1 ? 32 : 0;
            char *text = NULL;
            assert_ok(ctx, jang_convert(&text, ctx, &o));
            check_conversion(ctx, source, output, true);
            jang_free(ctx, text);
        }
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_to_floating_types(void **state) {
    (void)state;
    static const char *const models[] = {"llama-bf16", "llama-f32", "mlx-llama-4bit-g64"};
    static const char *const types[] = {"f32", "f16", "bf16"};
    static const dtype wanted[] = {DT_F32, DT_F16, DT_BF16};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t m = 0; m < 3; m++) {
        for (size_t t = 0; t < 3; t++) {
            char source[512], output[512];
            snprintf(source, sizeof source, MODELS "%s", models[m]);
            snprintf(output, sizeof output, "%s/%s-%s", dir, models[m], types[t]);
            jang_convert_options o = options_of(source, output, types[t]);
            assert_ok(ctx, jang_convert(NULL, ctx, &o));
            check_conversion(ctx, source, output, t == 0);
            checkpoint *made = NULL;
            assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
            size_t n;
            const tensor_view *tensors = checkpoint_tensors(made, &n);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(tensors[i].type, wanted[t]);
            }
            const json_t *config = NULL;
            assert_ok(ctx, checkpoint_json(&config, made, "config.json"));
            assert_false(json_has(config, "quantization"));
            assert_false(json_has(config, "quantization_config"));
            checkpoint_close(made);
            assert_false(file_exists(test_path(output, "jang_config.json")));
        }
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* What a plan leaves out: name, tensors. */
static void test_convert_plan_says_what_is_left_out(void **state) {
    (void)state;
    static const struct {
        const char *model, *what;
        int n;
    } cases[] = {
        {"qwen3_5-bf16", "vision tower", 21},
        {"llama-f32", "buffers", 2},
        {"gpt2-f32", "tensors that this family does not read", 2},
        {"llama-bf16", NULL, 0},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512], *text = NULL;
        snprintf(path, sizeof path, MODELS "%s", cases[i].model);
        jang_convert_options o = options_of(path, NULL, "bf16");
        o.plan_only = true;
        assert_ok(ctx, jang_convert(&text, ctx, &o));
        json_t *plan = parse(ctx, text);
        const json_t *left = json_object_get(plan, "left_out");
        assert_int_equal(json_array_size(left), cases[i].what ? 1 : 0);
        if (cases[i].what) {
            const json_t *first = json_array_get(left, 0);
            assert_string_equal(json_string_value(json_object_get(first, "what")), cases[i].what);
            assert_near(number(first, "tensors"), cases[i].n);
            assert_true(number(first, "bytes") >= 2 * number(first, "params"));
        }
        json_decref(plan);
        jang_free(ctx, text);
    }
    jang_context_free(ctx);
}

static void test_convert_plan_adds_up(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "JANG_4M");
    o.plan_only = true;
    char *text = NULL;
    assert_ok(ctx, jang_convert(&text, ctx, &o));
    assert_false(file_exists(output));
    json_t *plan = parse(ctx, text);
    jang_free(ctx, text);
    /* hidden 64, mlp 128, vocabulary 307, 2 layers, 4 heads of 16 */
    double attention = 2 * (64 * 64 * 4), mlp = 2 * 3 * 128 * 64, table = 307 * 64;
    double norms = 5 * 64, quantized = attention + mlp + 2 * table;
    double codes = 6 * attention + 4 * mlp + 4 * table + 6 * table;
    assert_string_equal(json_string_value(json_object_get(plan, "profile")), "JANG_4M");
    assert_near(number(plan, "params"), quantized + norms);
    assert_near(number(plan, "nominal_bits"), codes / quantized);
    double bytes = codes / 8 + quantized / 64 * 4 + norms * 2;
    assert_near(number(plan, "weight_bytes"), bytes);
    assert_near(number(plan, "true_bits"), 8 * bytes / (quantized + norms));
    double row_bytes = 0, row_params = 0, tensors = 0;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(plan, "rows"), i, row) {
        row_bytes += number(row, "bytes");
        row_params += number(row, "params");
        tensors += number(row, "tensors");
    }
    assert_near(row_bytes, bytes);
    assert_near(row_params, quantized + norms);
    assert_near(tensors, 2 * 9 + 3);
    json_decref(plan);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* The files' sizes are what the plan says. */
static void test_convert_writes_the_planned_bytes(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "qwen2-tied-bf16", output, "3L");
    char *text = NULL;
    assert_ok(ctx, jang_convert(&text, ctx, &o));
    json_t *plan = parse(ctx, text);
    checkpoint *made = NULL;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    assert_near(number(plan, "weight_bytes"), (double)checkpoint_bytes(made));
    /* tied: the embedding has the larger width of embedding (4) and lm_head (8) */
    int bits, group;
    assert_ok(ctx, checkpoint_quantization(&bits, &group, made, "model.embed_tokens"));
    assert_int_equal(bits, 8);
    assert_ok(ctx, checkpoint_quantization(&bits, &group, made, "model.layers.0.mlp.up_proj"));
    assert_int_equal(bits, 3);
    const json_t *config = NULL;
    assert_ok(ctx, checkpoint_json(&config, made, "jang_config.json"));
    const json_t *section = json_object_get(config, "quantization");
    assert_string_equal(json_string_value(json_object_get(config, "format")), "jang");
    assert_string_equal(json_string_value(json_object_get(section, "profile")), "JANG_3L");
    assert_string_equal(json_string_value(json_object_get(section, "method")), "mse");
    assert_true(file_exists(test_path(output, "tokenizer.json")));
    assert_true(file_exists(test_path(output, "tokenizer_config.json")));
    checkpoint_close(made);
    json_decref(plan);
    jang_free(ctx, text);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void compare_directories(ctx_t *ctx, const char *a, const char *b) {
    char **names;
    size_t n;
    assert_ok(ctx, directory_list(&names, &n, ctx, a));
    assert_int_equal(count_entries(a), count_entries(b));
    for (size_t i = 0; i < n; i++) {
        char *path_a = path_join(ctx, a, names[i]), *path_b = path_join(ctx, b, names[i]);
        char *data_a, *data_b;
        size_t n_a, n_b;
        assert_ok(ctx, file_read(&data_a, &n_a, ctx, path_a, 1u << 30));
        assert_ok(ctx, file_read(&data_b, &n_b, ctx, path_b, 1u << 30));
        assert_int_equal(n_a, n_b);
        assert_memory_equal(data_a, data_b, n_a);
        ctx_free(ctx, data_a);
        ctx_free(ctx, data_b);
        ctx_free(ctx, path_a);
        ctx_free(ctx, path_b);
    }
    directory_list_free(ctx, names, n);
}

static void test_convert_is_the_same_for_any_threads(void **state) {
    (void)state;
    char *dir = test_temp_dir(), first[512], other[512];
    snprintf(first, sizeof first, "%s/1", dir);
    for (int n = 1; n <= 3; n++) {
        ctx_t *ctx = context_with(n);
        snprintf(other, sizeof other, "%s/%d", dir, n);
        jang_convert_options o = options_of(MODELS "llama-sharded-bf16", other, "2L");
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        compare_directories(ctx, first, other);
        jang_context_free(ctx);
    }
    test_remove_tree(dir);
    free(dir);
}

static void test_convert_splits_into_shards(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4S");
    assert_ok(ctx, convert_run(NULL, ctx, &o, (convert_form){.shard_bytes = 20000}));
    char **names;
    size_t n, n_shards = 0;
    assert_ok(ctx, directory_list(&names, &n, ctx, output));
    for (size_t i = 0; i < n; i++) {
        if (path_has_suffix(names[i], ".safetensors")) {
            n_shards++;
            assert_int_equal(strncmp(names[i], "model-0000", 10), 0);
            /* 20000 bytes of tensors, or one module that is larger alone; and the header */
            assert_true(file_size(test_path(output, names[i])) < 24000);
        }
    }
    assert_true(n_shards >= 3);
    directory_list_free(ctx, names, n);
    check_conversion(ctx, MODELS "llama-bf16", output, true);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* Scales that f16 cannot hold make one tensor's scales bf16, the others stay f16. */
static void test_convert_widens_scales_beyond_f16(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512];
    snprintf(source, sizeof source, "%s/in", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    copy_directory(ctx, MODELS "llama-f32", source);
    float large = 1e6f;
    patch_tensor(ctx, source, "model.layers.1.mlp.up_proj.weight", 77, &large);
    jang_convert_options o = options_of(source, output, "4L");
    char *plan = NULL;
    assert_ok(ctx, jang_convert(&plan, ctx, &o));
    assert_non_null(strstr(plan, "too large for scales of f16: they are bf16"));
    jang_free(ctx, plan);
    check_conversion(ctx, source, output, true);
    checkpoint *made = NULL;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    assert_int_equal(checkpoint_find(made, "model.layers.1.mlp.up_proj.scales")->type, DT_BF16);
    assert_int_equal(checkpoint_find(made, "model.layers.0.mlp.up_proj.scales")->type, DT_F16);
    checkpoint_close(made);
    assert_int_equal(count_entries(dir), 2);
    /* but weights that do not fit the type asked for are an error */
    char plain[512];
    snprintf(plain, sizeof plain, "%s/plain", dir);
    o = options_of(source, plain, "f16");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT,
                 "model.layers.1.mlp.up_proj.weight: weights too large for F16");
    assert_int_equal(count_entries(dir), 2);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Inspection ---- */

static void test_convert_inspect_describes_models(void **state) {
    (void)state;
    static const struct {
        const char *model, *profile;
        double nominal;
    } cases[] = {
        {"llama-bf16", "bf16", 16.0},
        {"mlx-llama-4bit-g64", "4-bit", 4.0},
        {"mlx-qwen2-2bit-g32", "2-bit", 2.0},
        {"mlx-llama-mixed-3-6", "mixed", 0},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512], *text = NULL;
        size_t n_bytes;
        snprintf(path, sizeof path, MODELS "%s", cases[i].model);
        assert_ok(ctx, jang_inspect(&text, &n_bytes, ctx, path));
        assert_int_equal(strlen(text), n_bytes);
        json_t *json = parse(ctx, text);
        checkpoint *c = NULL;
        assert_ok(ctx, checkpoint_open(&c, ctx, path, 0));
        assert_string_equal(json_string_value(json_object_get(json, "profile")), cases[i].profile);
        assert_near(number(json, "weight_bytes"), (double)checkpoint_bytes(c));
        if (cases[i].nominal > 0) {
            assert_near(number(json, "nominal_bits"), cases[i].nominal);
        }
        double bytes = 0;
        size_t k;
        json_t *tensor;
        json_array_foreach(json_object_get(json, "tensors"), k, tensor) {
            bytes += number(tensor, "bytes");
        }
        assert_near(bytes, (double)checkpoint_bytes(c));
        assert_true(json_is_object(json_object_get(json, "config")));
        assert_true(json_array_size(json_object_get(json, "files")) >= 2);
        checkpoint_close(c);
        json_decref(json);
        jang_free(ctx, text);
    }
    char *text = NULL;
    size_t n_bytes;
    assert_fails(ctx, jang_inspect(&text, &n_bytes, ctx, "/no/such/model"), JANG_ERR_IO,
                 "/no/such/model");
    jang_context_free(ctx);
}

static void test_convert_takes_names_that_are_not_utf8(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512], path[600], *text = NULL;
    size_t n_bytes;
    snprintf(source, sizeof source, "%s/caf\xe9", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    snprintf(path, sizeof path, "%s/caf\xe9.txt", source);
    copy_directory(ctx, MODELS "llama-bf16", source);
    assert_ok(ctx, file_write(ctx, path, "x", 1));
    jang_convert_options o = options_of(source, output, "4M");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));

    json_t *config;
    snprintf(path, sizeof path, "%s/jang_config.json", output);
    assert_ok(ctx, json_read(&config, ctx, path));
    const json_t *model = json_object_get(config, "source_model");
    assert_string_equal(json_string_value(json_object_get(model, "name")), "caf\xef\xbf\xbd");
    json_decref(config);

    assert_ok(ctx, jang_inspect(&text, &n_bytes, ctx, source));
    assert_non_null(strstr(text, "caf\xef\xbf\xbd.txt"));
    jang_free(ctx, text);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* Types that no conversion takes are there to be seen all the same. */
static void test_convert_inspect_describes_what_cannot_be_converted(void **state) {
    (void)state;
    static const char header[] =
        "{\"a.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,4],\"data_offsets\":[0,8]},"
        "\"b.qweight\":{\"dtype\":\"I32\",\"shape\":[4],\"data_offsets\":[8,24]},"
        "\"c.weight\":{\"dtype\":\"U32\",\"shape\":[1,4],\"data_offsets\":[24,40]},"
        "\"c.scales\":{\"dtype\":\"U8\",\"shape\":[1,1],\"data_offsets\":[40,41]}}";
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), path[512], *text = NULL;
    buf file;
    uint64_t n_header = sizeof header - 1;
    buf_init(&file, ctx, 4096);
    buf_put(&file, &n_header, 8);
    buf_puts(&file, header);
    for (int i = 0; i < 41; i++) {
        buf_putc(&file, 0);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_ok(ctx, file_write(ctx, path, file.data, file.size));
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_ok(ctx, file_write(ctx, path, "{\"model_type\":\"other\"}", 22));
    size_t n_bytes;
    assert_ok(ctx, jang_inspect(&text, &n_bytes, ctx, dir));
    json_t *json = parse(ctx, text);
    assert_int_equal(json_array_size(json_object_get(json, "tensors")), 4);
    assert_near(number(json, "weight_bytes"), 41);
    assert_string_equal(json_string_value(json_object_get(json, "profile")), "F8_E4M3");
    json_decref(json);
    jang_free(ctx, text);
    buf_free(&file);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert_writes_what_the_method_gives),
        cmocka_unit_test(test_convert_to_floating_types),
        cmocka_unit_test(test_convert_plan_adds_up),
        cmocka_unit_test(test_convert_writes_the_planned_bytes),
        cmocka_unit_test(test_convert_is_the_same_for_any_threads),
        cmocka_unit_test(test_convert_splits_into_shards),
        cmocka_unit_test(test_convert_widens_scales_beyond_f16),
        cmocka_unit_test(test_convert_inspect_describes_models),
        cmocka_unit_test(test_convert_plan_says_what_is_left_out),
        cmocka_unit_test(test_convert_inspect_describes_what_cannot_be_converted),
        cmocka_unit_test(test_convert_takes_names_that_are_not_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
