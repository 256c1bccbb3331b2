/* test_format_memory.c - every allocation failing in turn, while files are opened and read: an
 * error each time, and nothing left behind. */
#include "torture.h"

#include "format/checkpoint.h"
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static jang_status open_safetensors(ctx_t *ctx, const void *path) {
    st_file f;
    jang_status status = st_open(&f, ctx, path);
    if (status == JANG_OK) {
        st_close(&f);
    }
    return status;
}

/* Opens a model and asks for everything that it makes when asked. */
static jang_status open_model(ctx_t *ctx, const void *path) {
    checkpoint *c;
    const json_t *json;
    const char *text;
    size_t n;
    int bits, group;
    jang_status status = checkpoint_open(&c, ctx, path, 0);
    if (status != JANG_OK) {
        return status;
    }
    status = checkpoint_json(&json, c, "generation_config.json");
    if (status == JANG_OK) {
        status = checkpoint_text(&text, &n, c, "tokenizer.json");
    }
    if (status == JANG_OK) {
        status = checkpoint_chat_template(&text, &n, c);
    }
    if (status == JANG_OK) {
        status = checkpoint_quantization(&bits, &group, c, "model.layers.0.mlp.up_proj");
    }
    checkpoint_close(c);
    return status;
}

static jang_status write_file(ctx_t *ctx, const void *path) {
    static const int64_t shape[] = {2, 2};
    float values[4] = {1, 2, 3, 4};
    st_writer *w;
    int index = 0;
    jang_status status = st_writer_new(&w, ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    for (int i = 0; status == JANG_OK && i < 70; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensor.%d", i);
        status = st_writer_add(w, name, DT_F32, 2, shape, &index);
    }
    if (status == JANG_OK) {
        status = st_writer_begin(w, NULL);
    }
    for (int i = 0; status == JANG_OK && i < 70; i++) {
        status = st_writer_put(w, i, 0, values, sizeof values);
    }
    if (status != JANG_OK) {
        st_writer_discard(w);
        return status;
    }
    return st_writer_finish(w);
}

static void test_format_memory_safetensors(void **state) {
    (void)state;
    static const char path[] = TEST_DATA "/format/dtypes.safetensors";
    torture(path, TORTURE_ALL_AFTER, open_safetensors, path);
}

static void test_format_memory_gguf(void **state) {
    (void)state;
    static const char *const paths[] = {TEST_DATA "/format/llama.gguf",
                                        TEST_DATA "/format/spm.gguf"};
    for (size_t i = 0; i < 2; i++) {
        torture(paths[i], TORTURE_ALL_AFTER, open_model, paths[i]);
    }
}

static void put(const char *dir, const char *name, const char *text) {
    FILE *f = fopen(test_path(dir, name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void test_format_memory_directory_and_writer(void **state) {
    (void)state;
    char *dir = test_temp_dir();
    const char *path = test_path(dir, "model-1.safetensors");
    torture("writing", TORTURE_ALL_AFTER, write_file, path);
    put(dir, "config.json",
        "{\"model_type\":\"llama\",\"quantization\":{\"bits\":4,\"group_size\":64}}");
    put(dir, "tokenizer.json", "{}");
    put(dir, "tokenizer_config.json", "{\"chat_template\":[{\"name\":\"x\",\"template\":\"y\"}]}");
    torture("a directory", TORTURE_ALL_AFTER, open_model, dir);
    put(dir, "model.safetensors.index.json",
        "{\"weight_map\":{\"tensor.0\":\"model-1.safetensors\",\"tensor.69\":"
        "\"model-1.safetensors\"}}");
    torture("a directory", TORTURE_ALL_AFTER, open_model, dir);
    test_remove_tree(dir);
    free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_memory_safetensors),
        cmocka_unit_test(test_format_memory_gguf),
        cmocka_unit_test(test_format_memory_directory_and_writer),
    };
    torture_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
