/* Whole conversions of the small models in tests/golden/models: what is written, and that nothing
 * is written when something is wrong. */
#include "base/file.h"
#include "base/half.h"
#include "format/affine.h"
#include "format/safetensors.h"
#include "quant/convert.h"
#include "quant/names.h"
#include "support.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODELS TEST_DATA "/models/"

/* ---- Helpers ---- */

static ctx_t *context_with(int n_threads) {
    jang_context_options o = jang_context_options_default();
    o.n_threads = n_threads;
    ctx_t *ctx = NULL;
    assert_int_equal(jang_context_new(&ctx, &o), JANG_OK);
    return ctx;
}

static jang_convert_options options_of(const char *source, const char *output,
                                       const char *profile_name) {
    jang_convert_options o = jang_convert_options_default();
    o.source = source;
    o.output = output;
    o.profile = profile_name;
    return o;
}

static void copy_directory(ctx_t *ctx, const char *from, const char *to) {
    char **names;
    size_t n;
    assert_ok(ctx, directory_list(&names, &n, ctx, from));
    assert_ok(ctx, directory_make(ctx, to));
    for (size_t i = 0; i < n; i++) {
        char *source = path_join(ctx, from, names[i]), *target = path_join(ctx, to, names[i]);
        char *data;
        size_t n_bytes;
        assert_ok(ctx, file_read(&data, &n_bytes, ctx, source, 1u << 30));
        assert_ok(ctx, file_write(ctx, target, data, n_bytes));
        ctx_free(ctx, data);
        ctx_free(ctx, source);
        ctx_free(ctx, target);
    }
    directory_list_free(ctx, names, n);
}

/* Overwrites element i of a tensor in a model of one file. */
static void patch_tensor(ctx_t *ctx, const char *directory, const char *name, size_t i,
                         const void *value) {
    char *path = path_join(ctx, directory, "model.safetensors");
    st_file f;
    assert_ok(ctx, st_open(&f, ctx, path));
    size_t at = 0, size = 0;
    for (size_t k = 0; k < f.n_tensors; k++) {
        if (strcmp(f.tensors[k].name, name) == 0) {
            size = (size_t)dtype_table[f.tensors[k].type].block_bytes;
            at = (size_t)(f.tensors[k].data - f.map.data) + i * size;
        }
    }
    st_close(&f);
    assert_true(size > 0);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, value, size, (off_t)at), size);
    close(fd);
    ctx_free(ctx, path);
}

/* Replaces a string in config.json. */
static void patch_config(ctx_t *ctx, const char *directory, const char *key, json_t *value) {
    char *path = path_join(ctx, directory, "config.json");
    json_t *config = NULL;
    assert_ok(ctx, json_read(&config, ctx, path));
    if (value) {
        json_object_set_new(config, key, value);
    } else {
        json_object_del(config, key);
    }
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    ctx_free(ctx, path);
}

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

/* Entries of a directory, of any kind. */
static size_t count_entries(const char *path) {
    char command[1024];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", path);
    FILE *pipe = popen(command, "r");
    unsigned n = 0;
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%u", &n), 1);
    pclose(pipe);
    return n;
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
        assert_ok(ctx, quantizer_find(&q, ctx, "rtn"));
        uint8_t *codes = calloc((size_t)n, 1), *stored = calloc((size_t)n, 1);
        float *scales = calloc((size_t)n / 32, 4), *biases = calloc((size_t)n / 32, 4);
        quant_block block = {want,      from->rows, from->columns, to->bits,
                             to->group, codes,      scales,        biases};
        quantizer_function(q, CPU_SCALAR)(&block);
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
    static const char *const models[] = {
        "llama-bf16",      "llama-f16",          "llama-f32",           "smollm-tied-bf16",
        "qwen2-tied-bf16", "llama-sharded-bf16", "mistral-window-bf16", "mistral-head32-f32",
        "qwen3-bf16",      "mlx-llama-4bit-g64", "mlx-llama-mixed-3-6"};
    static const char *const profiles[] = {"JANG_4M", "2S", "mixed_3_6", NULL};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        for (size_t p = 0; p < sizeof profiles / sizeof *profiles; p++) {
            char source[512], output[512];
            snprintf(source, sizeof source, MODELS "%s", models[m]);
            snprintf(output, sizeof output, "%s/%s-%zu", dir, models[m], p);
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
    assert_string_equal(json_string_value(json_object_get(section, "method")), "rtn");
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
    assert_ok(ctx, convert_run(NULL, ctx, &o, 20000));
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
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
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

/* ---- Group sizes ---- */

static void test_convert_falls_back_to_smaller_groups(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *text = NULL;
    jang_convert_options o = options_of(MODELS "llama-bf16", NULL, "4M");
    o.plan_only = true;
    o.group_size = 128; /* rows of 64 and of 128 */
    assert_ok(ctx, jang_convert(&text, ctx, &o));
    json_t *plan = parse(ctx, text);
    const json_t *notes = json_object_get(plan, "notes");
    assert_int_equal(json_array_size(notes), 2 + 2 * 6);
    assert_non_null(strstr(json_string_value(json_array_get(notes, 0)), "group size 64"));
    json_decref(plan);
    jang_free(ctx, text);
    o.group_size = 48;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "32, 64, 128");
    jang_context_free(ctx);
}

static model_part matrix_of(const char *name, int64_t rows, int64_t columns, tensor_view *view) {
    *view = (tensor_view){.name = name, .type = DT_BF16, .n_dim = 2, .shape = {rows, columns}};
    return (model_part){.name = name,
                        .weight = view,
                        .n_dim = 2,
                        .shape = {rows, columns},
                        .rows = rows,
                        .columns = columns,
                        .params = rows * columns,
                        .role = role_of(name)};
}

static void test_convert_group_that_divides_nothing_is_an_error(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tensor_view views[2];
    model_part a = matrix_of("model.layers.0.mlp.up_proj.weight", 8, 96, &views[0]);
    model_part b = matrix_of("model.layers.0.mlp.down_proj.weight", 8, 80, &views[1]);
    const model_part *parts[] = {&a, &b};
    profile p;
    assert_ok(ctx, profile_find(&p, ctx, "4M", 0));
    profile_model model = {.n_layer = 1};
    quant_plan plan;
    assert_fails(ctx, plan_make(&plan, ctx, &p, &model, 64, parts, 2), JANG_ERR_ARGUMENT,
                 "group size 64 divides no row");
    assert_ok(ctx, plan_make(&plan, ctx, &p, &model, 32, parts, 2));
    assert_int_equal(plan.items[0].group, 32);
    assert_int_equal(plan.items[0].bits, 4);
    assert_int_equal(plan.items[1].bits, 0); /* 80 is no multiple of 32 */
    assert_non_null(plan.items[1].note);
    plan_free(&plan);
    assert_ok(ctx, plan_make(&plan, ctx, &p, &model, 0, parts, 2));
    assert_int_equal(plan.items[0].group, 32);
    plan_free(&plan);
    jang_context_free(ctx);
}

/* ---- Refusals ---- */

static void test_convert_refuses_wrong_options(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "JANG_5X");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "JANG_5X");
    o.profile = "4M";
    o.method = "mse-all";
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "methods are: rtn");
    o.method = "rtn";
    o.bits = 4;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "not both");
    o.profile = NULL;
    o.bits = 7;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "7 bits");
    o.bits = 0;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "give a profile");
    o.bits = 4;
    o.output = NULL;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "output");
    o.output = output;
    o.source = MODELS "no-such-model";
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_IO, "no-such-model");
    o.source = MODELS "llama-bf16";
    snprintf(output, sizeof output, "%s/not/there/out", dir);
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_IO, "not/there");
    assert_int_equal(count_entries(dir), 0);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refuses_existing_output(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512], inside[600];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    assert_ok(ctx, directory_make(ctx, output)); /* empty: fine */
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_ok(ctx, file_write(ctx, test_path(output, "mine.txt"), "x", 1));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_EXISTS, "not empty");
    assert_true(file_exists(test_path(output, "mine.txt")));
    /* a conversion that fails leaves the old output alone */
    o.force = true;
    o.source = MODELS "no-such-model";
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_IO, "no-such-model");
    assert_true(file_exists(test_path(output, "mine.txt")));
    o.source = MODELS "llama-f16";
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_false(file_exists(test_path(output, "mine.txt")));
    check_conversion(ctx, o.source, output, true);
    /* the source itself is never replaced */
    o.source = output;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "source");
    /* neither is a directory that holds directories, nor a file */
    o.source = MODELS "llama-f16";
    snprintf(inside, sizeof inside, "%s/photos", output);
    assert_ok(ctx, directory_make(ctx, inside));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_EXISTS, "subdirectories");
    snprintf(inside, sizeof inside, "%s/config.json", output);
    o.output = inside;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_EXISTS, "is a file");
    assert_int_equal(count_entries(dir), 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refuses_weights_that_are_not_finite(void **state) {
    (void)state;
    static const struct {
        const char *tensor;
        uint16_t value;
    } cases[] = {
        {"model.layers.1.self_attn.k_proj.weight", 0x7fc0}, /* bf16 NaN */
        {"model.layers.0.mlp.down_proj.weight", 0xff80},    /* -infinity */
        {"model.norm.weight", 0x7f80},
        {"lm_head.weight", 0x7f81},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char source[512], output[512];
        snprintf(source, sizeof source, "%s/in%zu", dir, i);
        snprintf(output, sizeof output, "%s/out", dir);
        copy_directory(ctx, MODELS "llama-bf16", source);
        patch_tensor(ctx, source, cases[i].tensor, 33, &cases[i].value);
        jang_convert_options o = options_of(source, output, "4M");
        assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, cases[i].tensor);
        assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "NaN");
        assert_int_equal(count_entries(dir), i + 1);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refuses_broken_sources(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512], shard[600];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(source, output, "4M");

    snprintf(source, sizeof source, "%s/unknown", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "model_type", json_string("perceptron"));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, "perceptron");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, "llama, mistral, qwen2");

    snprintf(source, sizeof source, "%s/awq", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "quantization_config", json_pack("{s:s}", "quant_method", "awq"));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, "awq");

    snprintf(source, sizeof source, "%s/deeper", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "num_hidden_layers", json_integer(3));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "model.layers.2.");

    snprintf(source, sizeof source, "%s/wider", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "intermediate_size", json_integer(192));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT,
                 "is [64, 128], by config.json it should be [64, 192]");

    snprintf(source, sizeof source, "%s/sizeless", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "hidden_size", NULL);
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "hidden_size is missing");

    snprintf(source, sizeof source, "%s/sharded", dir);
    copy_directory(ctx, MODELS "llama-sharded-bf16", source);
    char **names;
    size_t n;
    assert_ok(ctx, directory_list(&names, &n, ctx, source));
    for (size_t i = 0; i < n; i++) {
        if (path_has_suffix(names[i], ".safetensors")) {
            snprintf(shard, sizeof shard, "%s/%s", source, names[i]);
        }
    }
    directory_list_free(ctx, names, n);
    assert_int_equal(unlink(shard), 0);
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, strrchr(shard, '/') + 1);
    assert_int_equal(count_entries(dir), 6);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* Fewer layers in the config than in the file, as with MTP layers: the rest is left out. */
static void test_convert_leaves_out_layers_beyond_the_config(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512];
    snprintf(source, sizeof source, "%s/in", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "num_hidden_layers", json_integer(1));
    jang_convert_options o = options_of(source, output, "4M");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    checkpoint *made = NULL;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    assert_null(checkpoint_find(made, "model.layers.1.mlp.up_proj.weight"));
    assert_non_null(checkpoint_find(made, "model.layers.0.mlp.up_proj.weight"));
    checkpoint_close(made);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* Without the key, an lm_head in the file decides, and the output says so. */
static void test_convert_finds_out_about_tied_embeddings(void **state) {
    (void)state;
    static const struct {
        const char *model;
        bool tied;
    } cases[] = {{"llama-bf16", false}, {"qwen2-tied-bf16", true}};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < 2; i++) {
        char source[512], output[512], from[512];
        snprintf(from, sizeof from, MODELS "%s", cases[i].model);
        snprintf(source, sizeof source, "%s/in%zu", dir, i);
        snprintf(output, sizeof output, "%s/out%zu", dir, i);
        copy_directory(ctx, from, source);
        patch_config(ctx, source, "tie_word_embeddings", NULL);
        jang_convert_options o = options_of(source, output, "4M");
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        json_t *config = NULL;
        assert_ok(ctx, json_read(&config, ctx, test_path(output, "config.json")));
        const json_t *tied = json_object_get(config, "tie_word_embeddings");
        assert_true(json_is_boolean(tied));
        assert_int_equal(json_is_true(tied), cases[i].tied);
        json_decref(config);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Interruptions ---- */

static bool cancel_at_once(void *user, const jang_progress *progress) {
    (void)progress;
    ++*(int *)user;
    return false;
}

static void test_convert_cancelled_leaves_nothing(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    int calls = 0;
    o.on_progress = cancel_at_once;
    o.user = &calls;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_CANCELLED, "cancelled");
    assert_int_equal(calls, 1);
    assert_int_equal(count_entries(dir), 0);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

typedef struct watch {
    uint64_t last, total;
    int calls;
} watch;

static bool watch_progress(void *user, const jang_progress *p) {
    watch *w = user;
    assert_true(p->done >= w->last && p->done <= p->total && p->seconds >= 0 && p->what);
    *w = (watch){p->done, p->total, w->calls + 1};
    return true;
}

static void test_convert_progress_ends_at_the_total(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    watch w = {0};
    o.on_progress = watch_progress;
    o.user = &w;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    checkpoint *source = NULL;
    assert_ok(ctx, checkpoint_open(&source, ctx, o.source, 0));
    assert_true(w.calls >= 1);
    assert_int_equal(w.last, checkpoint_bytes(source));
    assert_int_equal(w.total, checkpoint_bytes(source));
    checkpoint_close(source);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static bool die_at_once(void *user, const jang_progress *progress) {
    (void)user;
    (void)progress;
    raise(SIGKILL);
    return true;
}

static void test_convert_killed_leaves_no_finished_output(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    pid_t child = fork();
    if (child == 0) {
        ctx_t *own = context_with(1); /* ThreadSanitizer allows no threads after a fork */
        jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
        o.on_progress = die_at_once;
        jang_status ignored = jang_convert(NULL, own, &o);
        (void)ignored;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_false(file_exists(output));
    /* what is left does not open as a model either */
    char left[600];
    snprintf(left, sizeof left, "%s.tmp-%ld", output, (long)child);
    assert_true(file_is_directory(left));
    checkpoint *c = NULL;
    assert_int_not_equal(checkpoint_open(&c, ctx, left, 0), JANG_OK);
    /* and does not stand in the way */
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* A write that fails, by a limit on the size of files: one line, nothing left. */
static void test_convert_failed_write_leaves_nothing(void **state) {
    (void)state;
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {16384, 16384};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        ctx_t *own = context_with(1); /* ThreadSanitizer allows no threads after a fork */
        jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
        jang_status got = jang_convert(NULL, own, &o);
        bool named = strstr(jang_context_error(own), "model.safetensors") != NULL;
        _exit(got == JANG_ERR_IO && named ? 42 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    assert_int_equal(count_entries(dir), 0);
    test_remove_tree(dir);
    free(dir);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert_writes_what_the_method_gives),
        cmocka_unit_test(test_convert_to_floating_types),
        cmocka_unit_test(test_convert_plan_adds_up),
        cmocka_unit_test(test_convert_writes_the_planned_bytes),
        cmocka_unit_test(test_convert_is_the_same_for_any_threads),
        cmocka_unit_test(test_convert_splits_into_shards),
        cmocka_unit_test(test_convert_widens_scales_beyond_f16),
        cmocka_unit_test(test_convert_falls_back_to_smaller_groups),
        cmocka_unit_test(test_convert_group_that_divides_nothing_is_an_error),
        cmocka_unit_test(test_convert_refuses_wrong_options),
        cmocka_unit_test(test_convert_refuses_existing_output),
        cmocka_unit_test(test_convert_refuses_weights_that_are_not_finite),
        cmocka_unit_test(test_convert_refuses_broken_sources),
        cmocka_unit_test(test_convert_leaves_out_layers_beyond_the_config),
        cmocka_unit_test(test_convert_finds_out_about_tied_embeddings),
        cmocka_unit_test(test_convert_cancelled_leaves_nothing),
        cmocka_unit_test(test_convert_progress_ends_at_the_total),
        cmocka_unit_test(test_convert_killed_leaves_no_finished_output),
        cmocka_unit_test(test_convert_failed_write_leaves_nothing),
        cmocka_unit_test(test_convert_inspect_describes_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
