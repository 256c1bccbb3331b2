/* test_format_memory.c - every allocation failing in turn, while files are opened and read: an
 * error each time, and nothing left behind. */
#include "support.h"

#include "format/checkpoint.h"
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shared by the context and the JSON library, which has its own hooks. */
static struct {
    long until_failure; /* allocations that still succeed; < 0: no limit */
    long n_live;
} heap = {-1, 0};

static bool may_allocate(void) {
    if (heap.until_failure == 0) {
        return false;
    }
    heap.until_failure -= heap.until_failure > 0;
    return true;
}

static void *counting_malloc(size_t size) {
    void *ptr = may_allocate() ? malloc(size) : NULL;
    heap.n_live += ptr != NULL;
    return ptr;
}

static void counting_free(void *ptr) {
    heap.n_live -= ptr != NULL;
    free(ptr);
}

static void *counting_realloc(void *user, void *ptr, size_t size) {
    (void)user;
    if (size == 0) {
        counting_free(ptr);
        return NULL;
    }
    if (!ptr) {
        return counting_malloc(size);
    }
    return may_allocate() ? realloc(ptr, size) : NULL;
}

typedef jang_status (*work_fn)(ctx_t *ctx, const char *path);

/* Runs the work with the first, second, third ... allocation failing until none fails. */
static void torture(const char *path, work_fn work) {
    jang_context_options options = jang_context_options_default();
    ctx_t *ctx = NULL;
    options.n_threads = 1;
    options.reallocate = counting_realloc;
    assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
    long n_live = heap.n_live, n = 0;
    for (jang_status status = JANG_ERR_MEMORY; status != JANG_OK; n++) {
        heap.until_failure = n;
        status = work(ctx, path);
        bool failed = heap.until_failure == 0;
        heap.until_failure = -1;
        assert_int_equal(heap.n_live, n_live);
        assert_true(n < 100000);
        /* the JSON library's scanner reports a failed allocation as a token it cannot read */
        bool told =
            status == JANG_ERR_MEMORY || strstr(jang_context_error(ctx), "not valid JSON") != NULL;
        if (status != JANG_OK && (!told || !failed)) {
            fail_msg("%s, allocation %ld: %s: %s", path, n, jang_status_name(status),
                     jang_context_error(ctx));
        }
    }
    assert_true(n > 3);
    print_message("%ld allocations\n", n - 1);
    jang_context_free(ctx);
    assert_int_equal(heap.n_live, 0);
}

static jang_status open_safetensors(ctx_t *ctx, const char *path) {
    st_file f;
    jang_status status = st_open(&f, ctx, path);
    if (status == JANG_OK) {
        st_close(&f);
    }
    return status;
}

/* Opens a model and asks for everything that it makes when asked. */
static jang_status open_model(ctx_t *ctx, const char *path) {
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

static jang_status write_file(ctx_t *ctx, const char *path) {
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
    torture(TEST_DATA "/format/dtypes.safetensors", open_safetensors);
}

static void test_format_memory_gguf(void **state) {
    (void)state;
    torture(TEST_DATA "/format/llama.gguf", open_model);
    torture(TEST_DATA "/format/spm.gguf", open_model);
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
    torture(test_path(dir, "model-1.safetensors"), write_file);
    put(dir, "config.json",
        "{\"model_type\":\"llama\",\"quantization\":{\"bits\":4,\"group_size\":64}}");
    put(dir, "tokenizer.json", "{}");
    put(dir, "tokenizer_config.json", "{\"chat_template\":[{\"name\":\"x\",\"template\":\"y\"}]}");
    torture(dir, open_model);
    put(dir, "model.safetensors.index.json",
        "{\"weight_map\":{\"tensor.0\":\"model-1.safetensors\",\"tensor.69\":"
        "\"model-1.safetensors\"}}");
    torture(dir, open_model);
    test_remove_tree(dir);
    free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_memory_safetensors),
        cmocka_unit_test(test_format_memory_gguf),
        cmocka_unit_test(test_format_memory_directory_and_writer),
    };
    json_set_alloc_funcs(counting_malloc, counting_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
