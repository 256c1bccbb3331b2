/* test_checkpoint.c - model directories, one-file models, and what their small files say. */
#include "support.h"

#include "format/checkpoint.h"
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fixture {
    ctx_t *ctx;
    char *dir;
} fixture;

/* ---- Making models ---- */

static void put_text(fixture *fx, const char *name, const char *text) {
    assert_ok(fx->ctx, file_write(fx->ctx, test_path(fx->dir, name), text, strlen(text)));
}

/* Writes tensors of two f32 rows; the first element of each is its number in the list. names is
 * separated by spaces. */
static void put_weights(fixture *fx, const char *file, const char *names, dtype type,
                        const json_t *metadata) {
    static const int64_t shape[] = {2, 4};
    st_writer *w;
    int index[16], n = 0;
    assert_ok(fx->ctx, st_writer_new(&w, fx->ctx, test_path(fx->dir, file)));
    for (const char *at = names; *at; at += *at == ' ') {
        char name[64];
        int length = (int)strcspn(at, " ");
        snprintf(name, sizeof name, "%.*s", length, at);
        assert_ok(fx->ctx, st_writer_add(w, name, type, 2, shape, &index[n++]));
        at += length;
    }
    assert_ok(fx->ctx, st_writer_begin(w, metadata));
    for (int i = 0; i < n; i++) {
        float values[8] = {(float)i, 1, 2, 3, 4, 5, 6, 7};
        size_t n_bytes = 8 * (size_t)dtype_table[type].block_bytes;
        assert_ok(fx->ctx, st_writer_put(w, index[i], 0, values, n_bytes));
    }
    assert_ok(fx->ctx, st_writer_finish(w));
}

static checkpoint *open_good(fixture *fx) {
    checkpoint *c = NULL;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, fx->dir, 0));
    return c;
}

static void open_bad(fixture *fx, const char *path, jang_status wanted, const char *text) {
    checkpoint *c = NULL;
    assert_fails(fx->ctx, checkpoint_open(&c, fx->ctx, path, 0), wanted, text);
    assert_null(c);
}

/* ---- Which files ---- */

static void test_checkpoint_opens_a_single_file(void **state) {
    fixture *fx = *state;
    put_text(fx, "config.json", "{\"model_type\":\"llama\"}");
    put_weights(fx, "model.safetensors", "z b.weight a.weight", DT_F32, NULL);
    put_weights(fx, "consolidated.safetensors", "other", DT_F32, NULL);
    checkpoint *c = open_good(fx);
    size_t n;
    const tensor_view *list = checkpoint_tensors(c, &n);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].name, "a.weight");
    assert_string_equal(list[2].name, "z");
    assert_ptr_equal(checkpoint_find(c, "b.weight"), &list[1]);
    assert_null(checkpoint_find(c, "b"));
    assert_int_equal(checkpoint_bytes(c), 96);
    assert_int_equal(checkpoint_get_kind(c), CHECKPOINT_DIRECTORY);
    assert_string_equal(checkpoint_path(c), fx->dir);
    checkpoint_close(c);
    checkpoint_close(NULL);
}

static void test_checkpoint_opens_shards_by_their_index(void **state) {
    fixture *fx = *state;
    put_text(fx, "config.json", "{}");
    put_weights(fx, "real.bin", "a b", DT_F32, NULL);
    put_weights(fx, "m-2.safetensors", "c", DT_F32, NULL);
    assert_int_equal(symlink("real.bin", test_path(fx->dir, "m-1.safetensors")), 0);
    put_text(fx, "model.safetensors.index.json",
             "{\"metadata\":{\"total_size\":96},\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":"
             "\"m-1.safetensors\",\"c\":\"m-2.safetensors\"}}");
    checkpoint *c = open_good(fx);
    size_t n;
    checkpoint_tensors(c, &n);
    assert_int_equal(n, 3);
    float out[4];
    assert_ok(fx->ctx, checkpoint_rows_f32(out, c, checkpoint_find(c, "b"), 0, 1));
    assert_float_equal(out[0], 1.0f, 0.0f);
    checkpoint_close(c);
}

static void test_checkpoint_opens_shards_without_an_index(void **state) {
    fixture *fx = *state;
    put_text(fx, "config.json", "{}");
    put_weights(fx, "model-00001-of-00002.safetensors", "a b", DT_F32, NULL);
    open_bad(fx, fx->dir, JANG_ERR_FORMAT,
             "missing shard model-00002-of-00002.safetensors of 2 (there is no index either)");
    put_weights(fx, "model-00002-of-00002.safetensors", "c", DT_F32, NULL);
    checkpoint *c = open_good(fx);
    assert_non_null(checkpoint_find(c, "c"));
    checkpoint_close(c);
    put_weights(fx, "model-00002-of-00002.safetensors", "c a", DT_F32, NULL);
    open_bad(fx, fx->dir, JANG_ERR_FORMAT, "two tensors are named a");
}

static void test_checkpoint_refuses_a_wrong_index(void **state) {
    fixture *fx = *state;
    static const struct {
        const char *index, *says;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"m.safetensors\",\"b\":\"n.safetensors\",\"c\":\"o\"}}",
         "missing shard n.safetensors (2 of the 3 files"},
        {"{\"weight_map\":{\"a\":\"../m.safetensors\"}}",
         "tensor a: \"../m.safetensors\" is no file name in the model's directory"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "is no file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "is no file name"},
        {"{\"weight_map\":{\"a\":7}}", "tensor a: expected a file name"},
        {"{\"weight_map\":[]}", "expected an object"},
        {"{}", "no weight_map"},
        {"{\"weight_map\":{\"x\":\"m.safetensors\"}}",
         "tensor x is not in m.safetensors as the index says"},
        {"{\"weight_map\":{", "byte 15"},
        {"{\"weight_map\":{\"a\":\"m.safetensors\",\"a\":\"m.safetensors\"}}",
         "tensor a is there twice"},
        {"{\"weight_map\":{\"a\\u0000b\":\"m.safetensors\"}}", "is not in any file"},
        {"{\"weight_map\":{\"a\":\"m.safetensors\\u0000\"}}", "is no file name"},
        {"{\"weight_map\":{},\"weight_map\":{}}", "a second weight_map"},
        {"[]", "expected an object"},
    };
    put_text(fx, "config.json", "{}");
    put_weights(fx, "m.safetensors", "a", DT_F32, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text(fx, "model.safetensors.index.json", cases[i].index);
        open_bad(fx, fx->dir, JANG_ERR_FORMAT, cases[i].says);
    }
}

/* A wrong index of many tensors takes no longer than a right one. */
static void test_checkpoint_refuses_a_large_wrong_index_fast(void **state) {
    fixture *fx = *state;
    enum { N = 50000 };
    buf header, index, file;
    buf_init(&header, fx->ctx, BUF_NO_LIMIT);
    buf_init(&index, fx->ctx, BUF_NO_LIMIT);
    buf_init(&file, fx->ctx, BUF_NO_LIMIT);
    for (int i = 0; i < N; i++) {
        buf_printf(&header,
                   "%c\"model.layers.%d.weight\":{\"dtype\":\"U8\",\"shape\":[0],"
                   "\"data_offsets\":[0,0]}",
                   i ? ',' : '{', i);
        buf_printf(&index, "%s\"model.layers.%d.weight\":\"m.safetensors\"",
                   i ? "," : "{\"weight_map\":{", i);
    }
    buf_putc(&header, '}');
    buf_puts(&index, ",\"last\":\"m.safetensors\"}}");
    uint64_t n_header = header.size;
    buf_put(&file, &n_header, 8);
    buf_put(&file, header.data, header.size);
    put_text(fx, "config.json", "{}");
    put_text(fx, "model.safetensors.index.json", index.data);
    assert_ok(fx->ctx,
              file_write(fx->ctx, test_path(fx->dir, "m.safetensors"), file.data, file.size));
    double start = clock_seconds();
    open_bad(fx, fx->dir, JANG_ERR_FORMAT, "tensor last is not in m.safetensors");
    assert_true(clock_seconds() - start < 2.0); /* a plain build takes about 0.05 */
    buf_free(&header);
    buf_free(&index);
    buf_free(&file);
}

static void test_checkpoint_names_what_is_missing(void **state) {
    fixture *fx = *state;
    open_bad(fx, test_path(fx->dir, "nowhere"), JANG_ERR_IO, "no such file or directory");
    open_bad(fx, fx->dir, JANG_ERR_FORMAT, "no config.json");
    put_text(fx, "config.json", "{}");
    open_bad(fx, fx->dir, JANG_ERR_FORMAT, "no weights");
    put_text(fx, "config.json", "[1]");
    open_bad(fx, fx->dir, JANG_ERR_FORMAT, "config.json: expected an object");
    put_text(fx, "config.json", "{\"a\":1,\"a\":2}");
    open_bad(fx, fx->dir, JANG_ERR_FORMAT, "config.json: not valid JSON");
    put_text(fx, "x.bin", "neither this nor that");
    open_bad(fx, test_path(fx->dir, "x.bin"), JANG_ERR_FORMAT, "x.bin: the header");
}

static void test_checkpoint_reads_texts_without_weights(void **state) {
    fixture *fx = *state;
    put_text(fx, "tokenizer.json", "{\"x\":1}");
    checkpoint *c = NULL;
    const char *text;
    size_t n;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, fx->dir, CHECKPOINT_TEXT_ONLY));
    assert_ok(fx->ctx, checkpoint_text(&text, &n, c, "tokenizer.json"));
    assert_int_equal(n, 7);
    assert_string_equal(text, "{\"x\":1}");
    assert_ok(fx->ctx, checkpoint_text(&text, &n, c, "vocab.json"));
    assert_null(text);
    checkpoint_close(c);
}

static void test_checkpoint_sends_v1_to_upgrade(void **state) {
    fixture *fx = *state;
    put_text(fx, "config.json", "{}");
    put_weights(fx, "model.safetensors", "model.q.qweight", DT_U8, NULL);
    open_bad(fx, fx->dir, JANG_ERR_UNSUPPORTED, "jang upgrade");
    put_weights(fx, "model.safetensors", "model.q.qweight", DT_I32, NULL);
    checkpoint_close(open_good(fx)); /* GPTQ's name is the same, its type is not */
    put_weights(fx, "w-00001.jang.safetensors", "a", DT_F32, NULL);
    open_bad(fx, fx->dir, JANG_ERR_UNSUPPORTED, "jang upgrade");
    assert_int_equal(remove(test_path(fx->dir, "w-00001.jang.safetensors")), 0);
    put_text(fx, "model.jang.index.json", "{}");
    open_bad(fx, fx->dir, JANG_ERR_UNSUPPORTED, "legacy JANG v1 model (model.jang.index.json)");
}

/* ---- One-file models ---- */

static void test_checkpoint_opens_a_jang_file(void **state) {
    fixture *fx = *state;
    json_t *metadata = json_pack("{s:s,s:s,s:s,s:s}", "format", "mlx", "config.json",
                                 "{\"model_type\":\"llama\",\"quantization\":{\"bits\":4,"
                                 "\"group_size\":64}}",
                                 "tokenizer.json", "{}", "../evil.json", "x");
    put_weights(fx, "model.jang", "a b", DT_F32, metadata);
    json_decref(metadata);
    checkpoint *c = NULL;
    const json_t *config;
    int bits, group;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, test_path(fx->dir, "model.jang"), 0));
    assert_int_equal(checkpoint_get_kind(c), CHECKPOINT_JANG_FILE);
    assert_ok(fx->ctx, checkpoint_json(&config, c, "config.json"));
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "llama");
    assert_ok(fx->ctx, checkpoint_quantization(&bits, &group, c, "x"));
    assert_int_equal(bits, 4);
    assert_non_null(checkpoint_find(c, "b"));
    const char *copy = test_path(fx->dir, "copy");
    assert_ok(fx->ctx, directory_make(fx->ctx, copy));
    assert_ok(fx->ctx, checkpoint_copy_texts(c, copy));
    assert_true(file_exists(test_path(copy, "tokenizer.json")));
    assert_false(file_exists(test_path(copy, "config.json")));
    assert_false(file_exists(test_path(fx->dir, "evil.json")));
    checkpoint_close(c);

    put_weights(fx, "plain.safetensors", "a b", DT_F32, NULL);
    open_bad(fx, test_path(fx->dir, "plain.safetensors"), JANG_ERR_FORMAT,
             "its __metadata__ holds no config.json");
}

/* ---- Rows ---- */

static void test_checkpoint_reads_rows_of_every_floating_type(void **state) {
    fixture *fx = *state;
    static const char *const names[] = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"};
    char *data;
    size_t n;
    assert_ok(fx->ctx,
              file_read(&data, &n, fx->ctx, TEST_DATA "/format/dtypes.safetensors", 1 << 20));
    assert_ok(fx->ctx, file_write(fx->ctx, test_path(fx->dir, "model.safetensors"), data, n));
    ctx_free(fx->ctx, data);
    put_text(fx, "config.json", "{}");
    checkpoint *c = open_good(fx);
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.values", names[i]);
        const tensor_view *wanted = checkpoint_find(c, name);
        float out[28];
        assert_ok(fx->ctx, checkpoint_rows_f32(out, c, checkpoint_find(c, names[i]), 1, 4));
        assert_memory_equal(out, wanted->data + 28, sizeof out);
    }
    float out[6];
    assert_fails(fx->ctx, checkpoint_rows_f32(out, c, checkpoint_find(c, "I32"), 0, 2),
                 JANG_ERR_UNSUPPORTED, "tensor I32: type I32 is not a type of weights");
    checkpoint_drop_rows(c, checkpoint_find(c, "F32"), 0, 5);
    checkpoint_drop_rows(c, checkpoint_find(c, "empty"), 0, 0);
    assert_ok(fx->ctx, checkpoint_rows_f32(out, c, checkpoint_find(c, "empty"), 0, 0));
    checkpoint_close(c);
}

/* ---- Chat templates ---- */

static void check_template(fixture *fx, const char *wanted) {
    checkpoint *c = NULL;
    const char *text;
    size_t n;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, fx->dir, CHECKPOINT_TEXT_ONLY));
    assert_ok(fx->ctx, checkpoint_chat_template(&text, &n, c));
    if (wanted) {
        assert_string_equal(text, wanted);
        assert_int_equal(n, strlen(wanted));
    } else {
        assert_null(text);
    }
    checkpoint_close(c);
}

static void test_checkpoint_finds_the_chat_template(void **state) {
    fixture *fx = *state;
    check_template(fx, NULL);
    put_text(fx, "tokenizer_config.json", "{\"chat_template\":null}");
    check_template(fx, NULL);
    put_text(fx, "tokenizer_config.json", "{\"chat_template\":\"one\"}");
    check_template(fx, "one");
    put_text(fx, "tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"r\"},{\"name\":\"default\","
             "\"template\":\"d\"},{\"name\":\"tool_use\",\"template\":\"t\"}]}");
    check_template(fx, "d");
    put_text(fx, "chat_template.json", "{\"chat_template\":\"two\"}");
    check_template(fx, "two");
    put_text(fx, "chat_template.jinja", "three");
    check_template(fx, "three");
}

/* ---- Quantization ---- */

static void check_pair(fixture *fx, const char *config, const char *module, int bits, int group) {
    put_text(fx, "config.json", config);
    checkpoint *c = NULL;
    int b = -1, g = -1;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, fx->dir, CHECKPOINT_TEXT_ONLY));
    assert_ok(fx->ctx, checkpoint_quantization(&b, &g, c, module));
    checkpoint_close(c);
    if (b != bits || g != group) {
        fail_msg("%s in %s: %d, %d instead of %d, %d", module, config, b, g, bits, group);
    }
}

static void test_checkpoint_resolves_quantization(void **state) {
    fixture *fx = *state;
    static const char flat[] =
        "{\"quantization\":{\"group_size\":64,\"bits\":4,\"mode\":\"affine\","
        "\"model.layers.0.mlp\":{\"bits\":6,\"group_size\":32},"
        "\"language_model.model.layers.1.mlp\":{\"group_size\":null,\"bits\":3},"
        "\"model.language_model.layers.2.mlp\":{\"bits\":2},"
        "\"language_model.lm_head\":{\"bits\":8},\"x\":false,\"y\":true,\"z\":null},"
        "\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":99}}";
    check_pair(fx, flat, "model.layers.9.mlp", 4, 64);
    check_pair(fx, flat, "model.layers.0.mlp", 6, 32);
    check_pair(fx, flat, "language_model.model.layers.0.mlp", 6, 32);
    check_pair(fx, flat, "model.language_model.layers.0.mlp", 6, 32);
    check_pair(fx, flat, "model.layers.1.mlp", 3, 64);
    check_pair(fx, flat, "model.layers.2.mlp", 2, 64);
    check_pair(fx, flat, "lm_head", 8, 64);
    check_pair(fx, flat, "language_model.lm_head", 8, 64);
    check_pair(fx, flat, "x", 0, 0);
    check_pair(fx, flat, "y", 4, 64);
    check_pair(fx, flat, "z", 4, 64);
    check_pair(fx, "{}", "x", 0, 0);
    check_pair(fx, "{\"quantization\":null}", "x", 0, 0);
    check_pair(fx, "{\"quantization_config\":{\"bits\":5,\"group_size\":128}}", "x", 5, 128);
    check_pair(fx, "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", "x", 0, 0);
    check_pair(fx, "{\"text_config\":{\"quantization\":{\"bits\":8,\"group_size\":32}}}", "x", 8,
               32);
    /* a global group that is null is mlx-lm's default */
    check_pair(fx, "{\"quantization\":{\"bits\":4,\"group_size\":null}}", "x", 4, 64);
}

static void test_checkpoint_refuses_wrong_quantization(void **state) {
    fixture *fx = *state;
    static const struct {
        const char *config;
        jang_status status;
        const char *says;
    } cases[] = {
        {"{\"quantization\":{\"bits\":7,\"group_size\":64}}", JANG_ERR_FORMAT, "7 bits"},
        {"{\"quantization\":{\"bits\":4,\"group_size\":16}}", JANG_ERR_FORMAT, "groups of 16"},
        {"{\"quantization\":{\"bits\":4,\"group_size\":-1}}", JANG_ERR_FORMAT, "groups of -1"},
        {"{\"quantization\":{\"bits\":\"4\"}}", JANG_ERR_FORMAT, "bits: expected an integer"},
        {"{\"quantization\":{\"bits\":4,\"group_size\":32,\"mode\":\"mxfp4\"}}",
         JANG_ERR_UNSUPPORTED, "mode \"mxfp4\""},
        {"{\"quantization\":{\"bits\":4,\"m\":[]}}", JANG_ERR_FORMAT, "m: expected an object"},
        {"{\"quantization\":{\"bits\":4,\"m\":{\"bits\":1}}}", JANG_ERR_FORMAT,
         "quantization: m: 1 bits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text(fx, "config.json", cases[i].config);
        checkpoint *c = NULL;
        int b, g;
        assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, fx->dir, CHECKPOINT_TEXT_ONLY));
        assert_fails(fx->ctx, checkpoint_quantization(&b, &g, c, "m"), cases[i].status,
                     cases[i].says);
        checkpoint_close(c);
    }
}

/* ---- Copying ---- */

static void test_checkpoint_copies_the_small_files(void **state) {
    fixture *fx = *state;
    static const char *const all[] = {
        "tokenizer.json", "tokenizer.model", "merges.txt",  "chat_template.jinja", "LICENSE",
        "config.json",    "x.index.json",    "weights.bin", "jang_config.json",    "README.md"};
    for (int i = 0; i < 10; i++) {
        put_text(fx, all[i], "{}");
    }
    const char *copy = test_path(fx->dir, "copy");
    assert_ok(fx->ctx, directory_make(fx->ctx, copy));
    checkpoint *c = NULL;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, fx->dir, CHECKPOINT_TEXT_ONLY));
    assert_ok(fx->ctx, checkpoint_copy_texts(c, copy));
    for (int i = 0; i < 10; i++) {
        assert_int_equal(file_exists(test_path(copy, all[i])), i < 5);
    }
    assert_fails(fx->ctx, checkpoint_copy_texts(c, test_path(fx->dir, "none")), JANG_ERR_IO,
                 "cannot create");
    checkpoint_close(c);
}

/* ---- Frame ---- */

/* ---- What is in memory ---- */

/* KiB that are resident of the mapping an address lies in, or -1 where the system does not say. */
static long resident_kib(const void *address) {
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long from, to;
    long kib = -1;
    for (bool here = false; f && kib < 0 && fgets(line, sizeof line, f);) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            here = (uintptr_t)address >= from && (uintptr_t)address < to;
        } else if (here) {
            sscanf(line, "Rss: %ld", &kib);
        }
    }
    if (f) {
        fclose(f);
    }
    return kib;
}

static void test_checkpoint_reads_ahead_and_gives_back_in_every_container(void **state) {
    fixture *fx = *state;
    put_text(fx, "config.json", "{}");
    put_weights(fx, "model.safetensors", "a b", DT_F32, NULL);
    const char *const paths[] = {fx->dir, TEST_DATA "/format/llama.gguf"};
    if (resident_kib(fx->dir) < 0) {
        skip();
    }
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        checkpoint *c = NULL;
        size_t n;
        assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, paths[i], 0));
        const tensor_view *t = checkpoint_tensors(c, &n);
        uint8_t first = t[0].data[0];
        checkpoint_drop(c);
        assert_int_equal(resident_kib(t[0].data), 0);
        assert_ok(fx->ctx, checkpoint_prefault(c, false));
        assert_true(resident_kib(t[0].data) > 0);
        checkpoint_drop(c);
        assert_int_equal(t[0].data[0], first);
        checkpoint_close(c);
    }
}

static int group_setup(void **state) {
    fixture *fx = calloc(1, sizeof *fx);
    fx->ctx = test_context();
    *state = fx;
    return 0;
}

static int group_teardown(void **state) {
    fixture *fx = *state;
    jang_context_free(fx->ctx);
    free(fx);
    return 0;
}

static int setup(void **state) {
    ((fixture *)*state)->dir = test_temp_dir();
    return 0;
}

static int teardown(void **state) {
    fixture *fx = *state;
    test_remove_tree(fx->dir);
    free(fx->dir);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_checkpoint_opens_a_single_file),
        TEST(test_checkpoint_opens_shards_by_their_index),
        TEST(test_checkpoint_opens_shards_without_an_index),
        TEST(test_checkpoint_refuses_a_wrong_index),
        TEST(test_checkpoint_refuses_a_large_wrong_index_fast),
        TEST(test_checkpoint_names_what_is_missing),
        TEST(test_checkpoint_reads_texts_without_weights),
        TEST(test_checkpoint_sends_v1_to_upgrade),
        TEST(test_checkpoint_opens_a_jang_file),
        TEST(test_checkpoint_reads_rows_of_every_floating_type),
        TEST(test_checkpoint_finds_the_chat_template),
        TEST(test_checkpoint_resolves_quantization),
        TEST(test_checkpoint_refuses_wrong_quantization),
        TEST(test_checkpoint_copies_the_small_files),
        TEST(test_checkpoint_reads_ahead_and_gives_back_in_every_container),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
