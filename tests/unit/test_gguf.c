/* test_gguf.c - GGUF files against gguf-py and transformers, and damaged ones. */
#include "support.h"

#include "format/checkpoint.h"
#include "format/gguf.h"
#include "format/gguf_blocks.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN(name) TEST_DATA "/format/" name

typedef struct fixture {
    ctx_t *ctx;
    char *dir;
    json_t *golden;
} fixture;

/* ---- Blocks ---- */

static void test_gguf_dequantizes_every_block_type(void **state) {
    fixture *fx = *state;
    gguf_file *g;
    st_file values;
    size_t n;
    assert_ok(fx->ctx, gguf_open(&g, fx->ctx, GOLDEN("blocks.gguf")));
    assert_ok(fx->ctx, st_open(&values, fx->ctx, GOLDEN("blocks.safetensors")));
    const tensor_view *list = gguf_tensors(g, &n);
    assert_int_equal(n, 10);
    assert_int_equal(values.n_tensors, 10);
    for (size_t i = 0; i < n; i++) {
        const tensor_view *t = &list[i], *wanted = NULL;
        for (size_t j = 0; j < n; j++) {
            wanted = strcmp(values.tensors[j].name, t->name) == 0 ? &values.tensors[j] : wanted;
        }
        assert_non_null(wanted);
        assert_string_equal(dtype_table[t->type].name, t->name);
        assert_int_equal(t->shape[0], 2);
        assert_int_equal(t->shape[1], 512);
        float out[1024];
        gguf_blocks_reader(t->type)(out, t->data, 1024);
        assert_memory_equal(out, wanted->data, sizeof out);
    }
    assert_null(gguf_blocks_reader(DT_F16));
    st_close(&values);
    gguf_close(g);
}

/* ---- A whole model ---- */

/* The golden file has the values of the keys it names; more keys are fine. */
static void check_config(const json_t *got, json_t *wanted) {
    const char *key;
    json_t *value;
    json_object_foreach(wanted, key, value) {
        const json_t *mine = json_object_get(got, key);
        if (json_is_object(value)) {
            check_config(mine, value);
        } else if (json_is_number(value)) {
            assert_true(json_is_number(mine));
            assert_true(json_number_value(mine) == json_number_value(value));
        } else if (!json_equal(mine, value)) {
            fail_msg("config key %s differs", key);
        }
    }
}

static void check_weights(fixture *fx, checkpoint *c, const char *path) {
    st_file wanted;
    size_t n;
    assert_ok(fx->ctx, st_open(&wanted, fx->ctx, path));
    checkpoint_tensors(c, &n);
    assert_int_equal(n, wanted.n_tensors);
    for (size_t i = 0; i < wanted.n_tensors; i++) {
        const tensor_view *w = &wanted.tensors[i], *t = checkpoint_find(c, w->name);
        if (!t) {
            fail_msg("no tensor %s", w->name);
            return;
        }
        assert_int_equal(t->n_dim, w->n_dim);
        assert_memory_equal(t->shape, w->shape, sizeof *t->shape * (size_t)t->n_dim);
        float *out = malloc(w->n_bytes);
        assert_non_null(out);
        int64_t rows = tensor_rows(t), half = rows / 2;
        assert_ok(fx->ctx, checkpoint_rows_f32(out, c, t, 0, half));
        assert_ok(fx->ctx,
                  checkpoint_rows_f32(out + half * tensor_columns(t), c, t, half, rows - half));
        if (memcmp(out, w->data, w->n_bytes) != 0) {
            fail_msg("tensor %s differs", w->name);
        }
        checkpoint_drop_rows(c, t, 0, rows);
        free(out);
    }
    st_close(&wanted);
}

/* What a tokenizer does is the tokenizer's test; here, that each part is there and equal. */
static void check_tokenizer(fixture *fx, checkpoint *c, const char *name) {
    const char *text;
    size_t n;
    json_t *got;
    const json_t *wanted = json_object_get(json_object_get(fx->golden, name), "tokenizer");
    assert_ok(fx->ctx, checkpoint_text(&text, &n, c, "tokenizer.json"));
    assert_ok(fx->ctx, json_parse(&got, fx->ctx, "tokenizer.json", text, n));
    const json_t *model = json_object_get(got, "model");
    assert_true(json_equal(json_object_get(model, "vocab"), json_object_get(wanted, "vocab")));
    assert_true(json_equal(json_object_get(model, "merges"), json_object_get(wanted, "merges")));
    assert_true(
        json_equal(json_object_get(got, "added_tokens"), json_object_get(wanted, "added_tokens")));
    json_decref(got);
}

static void check_model(fixture *fx, const char *name) {
    char path[512];
    checkpoint *c;
    const json_t *config;
    snprintf(path, sizeof path, "%s/format/%s.gguf", TEST_DATA, name);
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, path, 0));
    assert_int_equal(checkpoint_get_kind(c), CHECKPOINT_GGUF);
    assert_ok(fx->ctx, checkpoint_json(&config, c, "config.json"));
    check_config(config, json_object_get(json_object_get(fx->golden, name), "config"));
    snprintf(path, sizeof path, "%s/format/%s.safetensors", TEST_DATA, name);
    check_weights(fx, c, path);
    check_tokenizer(fx, c, name);
    checkpoint_close(c);
}

static void test_gguf_llama_equals_transformers(void **state) {
    check_model(*state, "llama");
}

static void test_gguf_qwen2_equals_transformers(void **state) {
    check_model(*state, "qwen2");
}

static void test_gguf_makes_the_small_files(void **state) {
    fixture *fx = *state;
    checkpoint *c;
    const json_t *json;
    const char *text;
    size_t n;
    int bits, group;
    assert_ok(fx->ctx, checkpoint_open(&c, fx->ctx, GOLDEN("llama.gguf"), 0));
    assert_ok(fx->ctx, checkpoint_json(&json, c, "generation_config.json"));
    const json_t *ends = json_object_get(json, "eos_token_id");
    assert_int_equal(json_array_size(ends), 2);
    assert_int_equal(json_integer_value(json_array_get(ends, 1)), 264);
    assert_ok(fx->ctx, checkpoint_json(&json, c, "tokenizer_config.json"));
    assert_string_equal(json_string_value(json_object_get(json, "bos_token")), "<|begin|>");
    assert_ok(fx->ctx, checkpoint_chat_template(&text, &n, c));
    assert_string_equal(text, "{{ messages[0]['content'] }} \xc3\xa4 \"quoted\"");
    assert_ok(fx->ctx,
              checkpoint_quantization(&bits, &group, c, "model.layers.0.self_attn.q_proj"));
    assert_int_equal(bits, 0);
    assert_ok(fx->ctx, checkpoint_json(&json, c, "jang_config.json"));
    assert_null(json);

    assert_ok(fx->ctx, checkpoint_copy_texts(c, fx->dir));
    assert_true(file_exists(test_path(fx->dir, "tokenizer.json")));
    assert_true(file_exists(test_path(fx->dir, "tokenizer_config.json")));
    assert_true(file_exists(test_path(fx->dir, "generation_config.json")));
    assert_false(file_exists(test_path(fx->dir, "config.json")));
    checkpoint_close(c);
}

/* llama-bpe adds a begin token where the file does not say; qwen2 does not and normalizes. */
static void test_gguf_pre_tokenizers_follow_the_name(void **state) {
    fixture *fx = *state;
    static const struct {
        const char *path, *has, *has_not;
    } cases[] = {
        {GOLDEN("llama.gguf"), "\\\\p{N}{1,3}", "NFC"},
        {GOLDEN("llama.gguf"), "\"ignore_merges\":true", "\"post_processor\":null"},
        {GOLDEN("qwen2.gguf"), "{\"type\":\"NFC\"}", "{1,3}"},
        {GOLDEN("qwen2.gguf"), "\"post_processor\":null", "TemplateProcessing"},
        {GOLDEN("spm.gguf"), "\"byte_fallback\":true", "ByteLevel"},
        {GOLDEN("spm.gguf"), "{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}", "use_regex"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        gguf_file *g;
        const char *text;
        size_t n;
        assert_ok(fx->ctx, gguf_open(&g, fx->ctx, cases[i].path));
        assert_ok(fx->ctx, gguf_tokenizer_json(&text, &n, g));
        assert_non_null(strstr(text, cases[i].has));
        assert_null(strstr(text, cases[i].has_not));
        gguf_close(g);
    }
}

static void test_gguf_sentencepiece_merges_equal_transformers(void **state) {
    fixture *fx = *state;
    gguf_file *g;
    const char *text;
    size_t n;
    json_t *got;
    const json_t *wanted = json_object_get(json_object_get(fx->golden, "spm"), "tokenizer");
    assert_ok(fx->ctx, gguf_open(&g, fx->ctx, GOLDEN("spm.gguf")));
    assert_ok(fx->ctx, gguf_tokenizer_json(&text, &n, g));
    assert_ok(fx->ctx, json_parse(&got, fx->ctx, "tokenizer.json", text, n));
    const json_t *model = json_object_get(got, "model");
    assert_true(json_equal(json_object_get(model, "merges"), json_object_get(wanted, "merges")));
    assert_true(json_equal(json_object_get(model, "vocab"), json_object_get(wanted, "vocab")));
    assert_true(
        json_equal(json_object_get(got, "added_tokens"), json_object_get(wanted, "added_tokens")));
    json_decref(got);
    gguf_close(g);
}

/* ---- Damaged files, made piece by piece ---- */

typedef struct maker {
    buf b;
} maker;

static void put_u32(maker *m, uint32_t n) {
    buf_put(&m->b, &n, 4);
}

static void put_u64(maker *m, uint64_t n) {
    buf_put(&m->b, &n, 8);
}

static void put_text(maker *m, const char *text) {
    put_u64(m, strlen(text));
    buf_puts(&m->b, text);
}

static void begin(maker *m, fixture *fx, uint32_t version, uint64_t n_tensors, uint64_t n_values) {
    buf_init(&m->b, fx->ctx, BUF_NO_LIMIT);
    buf_puts(&m->b, "GGUF");
    put_u32(m, version);
    put_u64(m, n_tensors);
    put_u64(m, n_values);
}

static void put_number(maker *m, const char *key, uint32_t n) {
    put_text(m, key);
    put_u32(m, 4);
    put_u32(m, n);
}

static void put_tensor(maker *m, const char *name, uint64_t rows, uint64_t columns, uint32_t type,
                       uint64_t offset) {
    put_text(m, name);
    put_u32(m, 2);
    put_u64(m, columns);
    put_u64(m, rows);
    put_u32(m, type);
    put_u64(m, offset);
}

/* Pads to 32 bytes and adds data. */
static void put_data(maker *m, size_t n_bytes) {
    while (m->b.size % 32) {
        buf_putc(&m->b, 0);
    }
    for (size_t i = 0; i < n_bytes; i++) {
        buf_putc(&m->b, 0);
    }
}

static void expect_failure(fixture *fx, maker *m, jang_status wanted, const char *text) {
    const char *path = test_path(fx->dir, "x.gguf");
    gguf_file *g = NULL;
    assert_ok(fx->ctx, file_write(fx->ctx, path, m->b.data, m->b.size));
    assert_fails(fx->ctx, gguf_open(&g, fx->ctx, path), wanted, text);
    assert_non_null(strstr(jang_context_error(fx->ctx), "x.gguf"));
    assert_null(g);
    buf_free(&m->b);
}

static void test_gguf_refuses_bad_starts(void **state) {
    fixture *fx = *state;
    static const struct {
        uint32_t version;
        uint64_t n_tensors, n_values;
        jang_status status;
        const char *says;
    } cases[] = {
        {1, 0, 0, JANG_ERR_UNSUPPORTED, "version 1, versions 2 and 3"},
        {0x03000000, 0, 0, JANG_ERR_UNSUPPORTED, "big-endian"},
        {3, UINT64_MAX, 0, JANG_ERR_FORMAT, "too many for a file of"},
        {3, 0, UINT64_MAX / 13, JANG_ERR_FORMAT, "too many for a file of"},
    };
    maker m;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(&m, fx, cases[i].version, cases[i].n_tensors, cases[i].n_values);
        put_data(&m, 64);
        expect_failure(fx, &m, cases[i].status, cases[i].says);
    }
    buf_init(&m.b, fx->ctx, BUF_NO_LIMIT);
    buf_puts(&m.b, "GGML............");
    expect_failure(fx, &m, JANG_ERR_FORMAT, "not a GGUF file");
    begin(&m, fx, 3, 0, 0);
    m.b.size = 20;
    expect_failure(fx, &m, JANG_ERR_FORMAT, "cut off or damaged");
}

static void test_gguf_refuses_bad_metadata(void **state) {
    fixture *fx = *state;
    maker m;
    begin(&m, fx, 3, 0, 2);
    put_number(&m, "a.b", 1);
    put_number(&m, "a.b", 2);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "metadata a.b is there twice");

    begin(&m, fx, 3, 0, 1);
    put_text(&m, "s");
    put_u32(&m, 8);
    put_u64(&m, UINT64_MAX - 3);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "a string of 18446744073709551612 bytes");

    begin(&m, fx, 3, 0, 1);
    put_text(&m, "l");
    put_u32(&m, 9);
    put_u32(&m, 10);
    put_u64(&m, UINT64_MAX / 8 + 2);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "a list of 2305843009213693953 items");

    begin(&m, fx, 3, 0, 1);
    put_text(&m, "deep");
    put_u32(&m, 9);
    put_u32(&m, 9);
    put_u64(&m, 1);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "lists of lists");

    begin(&m, fx, 3, 0, 1);
    put_text(&m, "what");
    put_u32(&m, 99);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "metadata type 99");

    begin(&m, fx, 3, 0, 1);
    put_text(&m, "bad\xff");
    put_u32(&m, 4);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "not UTF-8");

    begin(&m, fx, 3, 0, 1);
    put_number(&m, "general.alignment", 48);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "48 is no power of two");

    begin(&m, fx, 3, 0, 1);
    put_number(&m, "split.count", 3);
    put_data(&m, 32);
    expect_failure(fx, &m, JANG_ERR_UNSUPPORTED, "one of 3 parts");
}

/* A header with what a config needs and, at the end, a key of one f32. */
static void put_config(maker *m, fixture *fx, const char *key, uint32_t type, float value) {
    static const char *const counts[] = {"llama.block_count", "llama.embedding_length",
                                         "llama.feed_forward_length", "llama.attention.head_count",
                                         "llama.context_length"};
    begin(m, fx, 3, 0, 8);
    put_text(m, "general.architecture");
    put_u32(m, 8);
    put_text(m, "llama");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        put_number(m, strcmp(counts[i], key) == 0 ? "other" : counts[i], i == 1 ? 64 : 4);
    }
    put_text(m, "tokenizer.ggml.tokens");
    put_u32(m, 9);
    put_u32(m, 8);
    put_u64(m, 1);
    put_text(m, "a");
    put_text(m, key);
    put_u32(m, type);
    if (type == 9) { /* a list of one */
        put_u32(m, 6);
        put_u64(m, 1);
    }
    buf_put(&m->b, &value, 4);
}

static void test_gguf_refuses_numbers_that_are_not_finite(void **state) {
    fixture *fx = *state;
    static const struct {
        const char *key;
        uint32_t type; /* 6: f32, 9: list */
        float value;
        const char *says; /* NULL: fine */
    } cases[] = {
        {"llama.rope.freq_base", 6, 10000.0f, NULL},
        {"llama.rope.freq_base", 6, NAN, "llama.rope.freq_base: not a finite number"},
        {"llama.attention.layer_norm_rms_epsilon", 6, INFINITY, "epsilon: not a finite number"},
        {"llama.rope.scaling.factor", 6, NAN, "factor: not a finite number"},
        {"llama.attention.head_count", 9, 2.0f, NULL},
        {"llama.attention.head_count", 9, NAN, "head_count is out of range"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        maker m;
        gguf_file *g;
        const json_t *config = NULL;
        put_config(&m, fx, cases[i].key, cases[i].type, cases[i].value);
        const char *path = test_path(fx->dir, "x.gguf");
        assert_ok(fx->ctx, file_write(fx->ctx, path, m.b.data, m.b.size));
        assert_ok(fx->ctx, gguf_open(&g, fx->ctx, path));
        if (cases[i].says) {
            assert_fails(fx->ctx, gguf_config(&config, g), JANG_ERR_FORMAT, cases[i].says);
        } else {
            assert_ok(fx->ctx, gguf_config(&config, g));
        }
        gguf_close(g);
        buf_free(&m.b);
    }
}

static void test_gguf_bounds_the_merges_of_scores(void **state) {
    fixture *fx = *state;
    char text[1025];
    maker m;
    gguf_file *g;
    memset(text, 'a', sizeof text);
    begin(&m, fx, 3, 0, 2);
    put_text(&m, "tokenizer.ggml.model");
    put_u32(&m, 8);
    put_text(&m, "llama");
    put_text(&m, "tokenizer.ggml.tokens");
    put_u32(&m, 9);
    put_u32(&m, 8);
    put_u64(&m, 1024);
    for (size_t n = 1; n <= 1024; n++) {
        put_u64(&m, n);
        buf_put(&m.b, text, n);
    }
    const char *path = test_path(fx->dir, "x.gguf"), *json = NULL;
    size_t n_json;
    assert_ok(fx->ctx, file_write(fx->ctx, path, m.b.data, m.b.size));
    assert_ok(fx->ctx, gguf_open(&g, fx->ctx, path));
    assert_fails(fx->ctx, gguf_tokenizer_json(&json, &n_json, g), JANG_ERR_FORMAT,
                 "merges of 1024 tokens take more than 128 MiB");
    gguf_close(g);
    buf_free(&m.b);
}

static void test_gguf_refuses_bad_tensors(void **state) {
    fixture *fx = *state;
    static const struct {
        uint64_t rows, columns;
        uint32_t type;
        uint64_t offset;
        jang_status status;
        const char *says;
    } cases[] = {
        {2, 32, 0, 64, JANG_ERR_FORMAT, "tensor t: 256 bytes at 64, the file has 256"},
        {2, 32, 0, UINT64_MAX - 31, JANG_ERR_FORMAT, "tensor t: 256 bytes at"},
        {2, 32, 0, 8, JANG_ERR_FORMAT, "offset 8 is no multiple of the alignment 32"},
        {UINT64_MAX, 32, 0, 0, JANG_ERR_FORMAT, "axis of 18446744073709551615"},
        {(uint64_t)1 << 62, 32, 0, 0, JANG_ERR_FORMAT, "overflows"},
        {2, 33, 2, 0, JANG_ERR_FORMAT, "rows of 33 are no whole blocks of Q4_0 (32)"},
        {2, 32, 16, 0, JANG_ERR_UNSUPPORTED, "type IQ2_XXS (16) cannot be read"},
        {2, 32, 5, 0, JANG_ERR_UNSUPPORTED, "type unknown (5)"},
        {2, 32, 4000000000u, 0, JANG_ERR_UNSUPPORTED, "type unknown (4000000000)"},
    };
    maker m;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(&m, fx, 2, 1, 0);
        put_tensor(&m, "t", cases[i].rows, cases[i].columns, cases[i].type, cases[i].offset);
        put_data(&m, 256);
        expect_failure(fx, &m, cases[i].status, cases[i].says);
    }
    begin(&m, fx, 3, 2, 0);
    put_tensor(&m, "a", 2, 32, 0, 0);
    put_tensor(&m, "b", 2, 32, 0, 224);
    put_data(&m, 512);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "tensor b overlaps tensor a: it begins at byte 224");
    begin(&m, fx, 3, 2, 0);
    put_tensor(&m, "a", 2, 32, 0, 0);
    put_tensor(&m, "a", 2, 32, 0, 256);
    put_data(&m, 512);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "two tensors are named a");
    begin(&m, fx, 3, 1, 0);
    put_text(&m, "many");
    put_u32(&m, 9);
    put_data(&m, 256);
    expect_failure(fx, &m, JANG_ERR_FORMAT, "9 axes, at most 8");
}

/* Every shorter version of a good file fails, none crashes. */
static void test_gguf_refuses_every_truncation(void **state) {
    fixture *fx = *state;
    char *data;
    size_t n;
    const char *path = test_path(fx->dir, "x.gguf");
    assert_ok(fx->ctx, file_read(&data, &n, fx->ctx, GOLDEN("spm.gguf"), 1 << 20));
    for (size_t k = 0; k + 32 < n; k += 7) {
        gguf_file *g = NULL;
        assert_ok(fx->ctx, file_write(fx->ctx, path, data, k));
        if (gguf_open(&g, fx->ctx, path) == JANG_OK) {
            fail_msg("%zu of %zu bytes were accepted", k, n);
        }
    }
    ctx_free(fx->ctx, data);
}

static void test_gguf_names_what_it_does_not_know(void **state) {
    fixture *fx = *state;
    const char *path = test_path(fx->dir, "x.gguf");
    checkpoint *c = NULL;
    maker m;
    begin(&m, fx, 3, 0, 1);
    put_text(&m, "general.architecture");
    put_u32(&m, 8);
    put_text(&m, "mamba");
    put_data(&m, 32);
    assert_ok(fx->ctx, file_write(fx->ctx, path, m.b.data, m.b.size));
    assert_fails(fx->ctx, checkpoint_open(&c, fx->ctx, path, 0), JANG_ERR_UNSUPPORTED,
                 "architecture \"mamba\" is not known; llama, mistral, qwen2, qwen3 are");
    buf_free(&m.b);
    begin(&m, fx, 3, 0, 1);
    put_text(&m, "general.architecture");
    put_u32(&m, 8);
    put_text(&m, "llama");
    put_data(&m, 32);
    assert_ok(fx->ctx, file_write(fx->ctx, path, m.b.data, m.b.size));
    assert_fails(fx->ctx, checkpoint_open(&c, fx->ctx, path, 0), JANG_ERR_FORMAT,
                 "no metadata llama.block_count");
    buf_free(&m.b);
}

static int setup(void **state) {
    fixture *fx = calloc(1, sizeof *fx);
    fx->ctx = test_context();
    fx->dir = test_temp_dir();
    assert_ok(fx->ctx, json_read(&fx->golden, fx->ctx, GOLDEN("gguf.json")));
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    fixture *fx = *state;
    test_remove_tree(fx->dir);
    free(fx->dir);
    json_decref(fx->golden);
    jang_context_free(fx->ctx);
    free(fx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_dequantizes_every_block_type),
        cmocka_unit_test(test_gguf_llama_equals_transformers),
        cmocka_unit_test(test_gguf_qwen2_equals_transformers),
        cmocka_unit_test(test_gguf_makes_the_small_files),
        cmocka_unit_test(test_gguf_pre_tokenizers_follow_the_name),
        cmocka_unit_test(test_gguf_sentencepiece_merges_equal_transformers),
        cmocka_unit_test(test_gguf_refuses_bad_starts),
        cmocka_unit_test(test_gguf_refuses_bad_metadata),
        cmocka_unit_test(test_gguf_refuses_bad_tensors),
        cmocka_unit_test(test_gguf_bounds_the_merges_of_scores),
        cmocka_unit_test(test_gguf_refuses_numbers_that_are_not_finite),
        cmocka_unit_test(test_gguf_refuses_every_truncation),
        cmocka_unit_test(test_gguf_names_what_it_does_not_know),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
