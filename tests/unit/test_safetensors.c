/* test_safetensors.c - reading and writing safetensors files, and refusing damaged ones. */
#include "support.h"

#include "format/safetensors.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct fixture {
    ctx_t *ctx;
    char *dir;
} fixture;

static const tensor_view *find(const st_file *f, const char *name) {
    for (size_t i = 0; i < f->n_tensors; i++) {
        if (strcmp(f->tensors[i].name, name) == 0) {
            return &f->tensors[i];
        }
    }
    return NULL;
}

/* ---- Reading ---- */

static void test_safetensors_reads_every_type(void **state) {
    fixture *fx = *state;
    static const char *const names[] = {"F64",     "F32", "F16", "BF16", "F8_E4M3",
                                        "F8_E5M2", "I64", "I32", "I16",  "I8",
                                        "U64",     "U32", "U16", "U8",   "BOOL"};
    st_file f;
    assert_ok(fx->ctx, st_open(&f, fx->ctx, TEST_DATA "/format/dtypes.safetensors"));
    assert_int_equal(f.n_tensors, 15 + 6 + 3);
    for (int i = 0; i < 15; i++) {
        const tensor_view *t = find(&f, names[i]);
        assert_non_null(t);
        assert_int_equal(t->type, i);
        assert_int_equal(t->n_dim, 2);
        assert_int_equal(t->shape[1], i < 6 ? 7 : 3);
    }
    int32_t third;
    memcpy(&third, find(&f, "I32")->data + 12, 4);
    assert_int_equal(third, 3);
    assert_int_equal(find(&f, "empty")->n_bytes, 0);
    assert_int_equal(find(&f, "empty")->shape[1], 4);
    assert_int_equal(find(&f, "scalar")->n_dim, 0);
    assert_non_null(find(&f, "n\xc3\xa4me \"q\"\\"));
    assert_string_equal(json_string_value(json_object_get(f.metadata, "note")), "a } \" b");
    st_close(&f);
}

/* Writes header and n_data zero bytes as a file. */
static const char *make_file(fixture *fx, const char *header, size_t n_data) {
    const char *path = test_path(fx->dir, "x.safetensors");
    buf b;
    buf_init(&b, fx->ctx, BUF_NO_LIMIT);
    uint64_t n = strlen(header);
    buf_put(&b, &n, 8);
    buf_puts(&b, header);
    for (size_t i = 0; i < n_data; i++) {
        buf_putc(&b, 0);
    }
    assert_ok(fx->ctx, file_write(fx->ctx, path, b.data, b.size));
    buf_free(&b);
    return path;
}

#define T(name, type, shape, begin, end)                                                           \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void test_safetensors_refuses_hostile_headers(void **state) {
    fixture *fx = *state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *says;
        jang_status status;
    } cases[] = {
        {"{" T("a", "F32", "[2]", "0", "8") "}", 7, "tensor a: its bytes end at 8 of 7", 0},
        {"{" T("a", "F32", "[2]", "0", "8") "}", 9, "1 bytes after the last tensor", 0},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "4", "12") "}", 12,
         "tensor b overlaps tensor a: it begins at byte 4, the other ends at 8", 0},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "0", "8") "}", 8, "overlaps",
         0},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}", 12,
         "tensor b: a hole of 4 bytes", 0},
        {"{" T("a", "F32", "[3]", "0", "8") "}", 8,
         "tensor a: dtype and shape make 12 bytes, its offsets span 8", 0},
        {"{" T("a", "F32", "[2]", "8", "0") "}", 8, "begin <= end", 0},
        {"{" T("a", "F32", "[4611686018427387904]", "0", "8") "}", 8, "overflows", 0},
        {"{" T("a", "U8", "[4294967296,4294967296]", "0", "0") "}", 8, "overflows", 0},
        {"{" T("a", "U8", "[4294967296,4294967296,0]", "0", "0") "}", 0, "overflows", 0},
        {"{" T("a", "F32", "[99999999999999999999]", "0", "8") "}", 8, "over 2^63", 0},
        {"{" T("a", "F32", "[9223372036854775808]", "0", "8") "}", 8, "over 2^63", 0},
        {"{" T("a", "F32", "[-2]", "0", "8") "}", 8, "tensor a: negative number", 0},
        {"{" T("a", "F32", "[2]", "-8", "0") "}", 8, "tensor a: negative number", 0},
        {"{" T("a", "F32", "[2.5]", "0", "8") "}", 8, "',' or ']'", 0},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,2]", "0", "8") "}", 8, "more than 8 numbers", 0},
        {"{" T("a", "F32", "[2]", "0", "8,9") "}", 8, "more than 2 numbers", 0},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("a", "F32", "[2]", "8", "16") "}", 16,
         "two tensors are named a", 0},
        {"{" T("a", "F4", "[2]", "0", "1") "}", 1, "unknown dtype F4", JANG_ERR_UNSUPPORTED},
        {"{" T("a", "Q4_0", "[32]", "0", "18") "}", 18, "unknown dtype", JANG_ERR_UNSUPPORTED},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", 1, "tensor a: no data_offsets", 0},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 1, "second key", 0},
        {"{\"a\":{\"size\":1}}", 1, "unknown key \"size\"", 0},
        {"{\"a\":[]}", 1, "expected '{'", 0},
        {"{\"a\":{}}", 1, "a string", 0},
        {"[]", 0, "expected '{'", 0},
        {" {}", 0, "expected '{'", 0},
        {"{}x", 0, "nothing but spaces", 0},
        {"{\"a", 0, "a string", 0},
        {"{\"a\\", 0, "a string", 0},
        {"{\"a\\u0000b\":{}}", 0, "control characters", 0},
        {"{\"\xff\":{}}", 0, "not valid JSON", 0},
        {"{\"a\tb\":{}}", 0, "a string", 0},
        {"{\"__metadata__\":{\"a\":1}}", 0, "a is not a string", 0},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "not valid JSON", 0},
        {"{\"__metadata__\":{\"a\":\"b}", 0, "end of a string", 0},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "two tensors are named", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = make_file(fx, cases[i].header, cases[i].n_data);
        st_file f;
        assert_fails(fx->ctx, st_open(&f, fx->ctx, path),
                     cases[i].status ? cases[i].status : JANG_ERR_FORMAT, cases[i].says);
        assert_non_null(strstr(jang_context_error(fx->ctx), "x.safetensors"));
    }
}

static void test_safetensors_refuses_wrong_header_lengths(void **state) {
    fixture *fx = *state;
    static const uint64_t lengths[] = {2, 100, (uint64_t)1 << 40, UINT64_MAX, INT64_MAX};
    const char *path = test_path(fx->dir, "x.safetensors");
    for (int i = 0; i < 5; i++) {
        char bytes[] = "........{}  ";
        memcpy(bytes, &lengths[i], 8);
        assert_ok(fx->ctx, file_write(fx->ctx, path, bytes, 12));
        st_file f;
        assert_fails(fx->ctx, st_open(&f, fx->ctx, path), JANG_ERR_FORMAT,
                     i == 0 ? "after the last tensor" : "the header is said to have");
    }
    for (size_t n = 0; n < 10; n++) {
        assert_ok(fx->ctx, file_write(fx->ctx, path, "\2\0\0\0\0\0\0\0{}", n));
        st_file f;
        assert_fails(fx->ctx, st_open(&f, fx->ctx, path), JANG_ERR_FORMAT, "too short");
    }
    st_file f;
    assert_fails(fx->ctx, st_open(&f, fx->ctx, fx->dir), JANG_ERR_IO, "not a regular file");
    assert_fails(fx->ctx, st_open(&f, fx->ctx, test_path(fx->dir, "none")), JANG_ERR_IO,
                 "cannot open");
}

static void test_safetensors_survives_a_depth_bomb(void **state) {
    fixture *fx = *state;
    static const char *const starts[] = {
        "{\"a\":", "{\"a\":{\"shape\":", "{\"__metadata__\":{\"a\":"};
    size_t n = 1 << 20;
    char *text = malloc(n + 1);
    assert_non_null(text);
    for (int i = 0; i < 3; i++) {
        memset(text, '[', n);
        text[n] = 0;
        memcpy(text, starts[i], strlen(starts[i]));
        st_file f;
        assert_fails(fx->ctx, st_open(&f, fx->ctx, make_file(fx, text, 0)), JANG_ERR_FORMAT,
                     "expected");
    }
    free(text);
}

static void test_safetensors_opens_30000_tensors_fast(void **state) {
    fixture *fx = *state;
    buf b;
    buf_init(&b, fx->ctx, BUF_NO_LIMIT);
    for (int i = 0; i < 30000; i++) {
        buf_printf(&b,
                   "%c\"model.layers.%d.mlp.experts.%d.gate_proj.weight\":{\"dtype\":\"U8\","
                   "\"shape\":[2,2],\"data_offsets\":[%d,%d]}",
                   i ? ',' : '{', i / 256, i % 256, 4 * i, 4 * i + 4);
    }
    buf_putc(&b, '}');
    const char *path = make_file(fx, b.data, 120000);
    buf_free(&b);
    st_file f;
    double start = clock_seconds();
    assert_ok(fx->ctx, st_open(&f, fx->ctx, path));
    double seconds = clock_seconds() - start;
    print_message("30,000 tensors opened in %.1f ms\n", seconds * 1e3);
    assert_int_equal(f.n_tensors, 30000);
    assert_string_equal(f.tensors[257].name, "model.layers.1.mlp.experts.1.gate_proj.weight");
    assert_true(seconds < 1.0); /* a plain build takes about 0.01; sanitizers and load take more */
    st_close(&f);
}

/* ---- Writing ---- */

static void test_safetensors_writes_what_it_reads(void **state) {
    fixture *fx = *state;
    const char *path = test_path(fx->dir, "out.safetensors");
    static const int64_t odd[] = {3, 1}, even[] = {4, 64}, none[] = {0, 5};
    st_writer *w;
    int a, b, c, d;
    assert_ok(fx->ctx, st_writer_new(&w, fx->ctx, path));
    assert_ok(fx->ctx, st_writer_add(w, "a\"\\\xc3\xa4", DT_BF16, 2, odd, &a));
    assert_ok(fx->ctx, st_writer_add(w, "b", DT_U32, 2, even, &b));
    assert_ok(fx->ctx, st_writer_add(w, "c", DT_F64, 0, NULL, &c));
    assert_ok(fx->ctx, st_writer_add(w, "d", DT_F32, 2, none, &d));
    json_t *metadata = json_pack("{s:s}", "format", "mlx");
    assert_ok(fx->ctx, st_writer_begin(w, metadata));
    json_decref(metadata);
    uint32_t words[256];
    for (uint32_t i = 0; i < 256; i++) {
        words[i] = i * 0x01010101u;
    }
    double x = -2.5;
    assert_ok(fx->ctx, st_writer_put(w, c, 0, &x, 8));
    assert_ok(fx->ctx, st_writer_put(w, b, 512, words + 128, 512));
    assert_ok(fx->ctx, st_writer_put(w, b, 0, words, 512));
    assert_ok(fx->ctx, st_writer_put(w, a, 0, words + 7, 6));
    assert_ok(fx->ctx, st_writer_finish(w));

    st_file f;
    assert_ok(fx->ctx, st_open(&f, fx->ctx, path));
    assert_int_equal(f.n_tensors, 4);
    assert_memory_equal(find(&f, "b")->data, words, sizeof words);
    assert_memory_equal(find(&f, "c")->data, &x, 8);
    assert_memory_equal(find(&f, "a\"\\\xc3\xa4")->data, words + 7, 6);
    assert_non_null(find(&f, "d"));
    for (size_t i = 0; i < f.n_tensors; i++) {
        size_t at = (size_t)(f.tensors[i].data - f.map.data);
        assert_int_equal(at % (size_t)dtype_table[f.tensors[i].type].block_bytes, 0);
    }
    assert_int_equal((find(&f, "b")->data - f.map.data) % 64, 0);
    assert_string_equal(json_string_value(json_object_get(f.metadata, "format")), "mlx");
    st_close(&f);
}

static void test_safetensors_writer_refuses_and_removes(void **state) {
    fixture *fx = *state;
    const char *path = test_path(fx->dir, "out.safetensors");
    static const int64_t shape[] = {8}, blocks[] = {32}, huge[] = {INT64_MAX};
    st_writer *w;
    int a = -1;
    assert_ok(fx->ctx, st_writer_new(&w, fx->ctx, path));
    assert_fails(fx->ctx, st_writer_add(w, "q", DT_Q4_0, 1, blocks, &a), JANG_ERR_ARGUMENT,
                 "type Q4_0");
    assert_fails(fx->ctx, st_writer_add(w, "h", DT_F32, 1, huge, &a), JANG_ERR_ARGUMENT,
                 "tensor h");
    assert_ok(fx->ctx, st_writer_add(w, "a", DT_U8, 1, shape, &a));
    assert_ok(fx->ctx, st_writer_begin(w, NULL));
    assert_ok(fx->ctx, st_writer_put(w, a, 0, "1234", 4));
    assert_fails(fx->ctx, st_writer_finish(w), JANG_ERR_ARGUMENT, "4 of 8 bytes");
    assert_false(file_exists(path));

    assert_ok(fx->ctx, st_writer_new(&w, fx->ctx, path));
    assert_true(file_exists(path));
    st_writer_discard(w);
    assert_false(file_exists(path));
    st_writer_discard(NULL);
    assert_fails(fx->ctx, st_writer_new(&w, fx->ctx, test_path(fx->dir, "no/such")), JANG_ERR_IO,
                 "cannot create");
}

/* A file size limit acts as a full disk does: write returns an error in the middle. */
static void test_safetensors_writer_reports_a_full_disk(void **state) {
    fixture *fx = *state;
    const char *path = test_path(fx->dir, "out.safetensors");
    static const int64_t shape[] = {1 << 20};
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){4096, old.rlim_max};
    st_writer *w;
    int a;
    assert_ok(fx->ctx, st_writer_new(&w, fx->ctx, path));
    assert_ok(fx->ctx, st_writer_add(w, "a", DT_U8, 1, shape, &a));
    assert_ok(fx->ctx, st_writer_begin(w, NULL));
    char *data = calloc(1, 1 << 20);
    assert_non_null(data);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    jang_status status = st_writer_put(w, a, 0, data, 1 << 20);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_fails(fx->ctx, status, JANG_ERR_IO, "out.safetensors: cannot write: File too large");
    st_writer_discard(w);
    assert_false(file_exists(path));
    free(data);
    signal(SIGXFSZ, before);
}

static int setup(void **state) {
    fixture *fx = calloc(1, sizeof *fx);
    fx->ctx = test_context();
    fx->dir = test_temp_dir();
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    fixture *fx = *state;
    test_remove_tree(fx->dir);
    free(fx->dir);
    jang_context_free(fx->ctx);
    free(fx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_reads_every_type),
        cmocka_unit_test(test_safetensors_refuses_hostile_headers),
        cmocka_unit_test(test_safetensors_refuses_wrong_header_lengths),
        cmocka_unit_test(test_safetensors_survives_a_depth_bomb),
        cmocka_unit_test(test_safetensors_opens_30000_tensors_fast),
        cmocka_unit_test(test_safetensors_writes_what_it_reads),
        cmocka_unit_test(test_safetensors_writer_refuses_and_removes),
        cmocka_unit_test(test_safetensors_writer_reports_a_full_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
