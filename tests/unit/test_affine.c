/* test_affine.c - MLX's affine layout against MLX's own output. */
#include "support.h"

#include "base/half.h"
#include "format/affine.h"
#include "format/safetensors.h"

#include <stdio.h>
#include <string.h>

#define GOLDEN TEST_DATA "/format/affine.safetensors"

static const int widths[] = {2, 3, 4, 5, 6, 8};
static const int groups[] = {32, 64, 128};

static const tensor_view *part(const st_file *f, const char *module, const char *what) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", module, what);
    for (size_t i = 0; i < f->n_tensors; i++) {
        if (strcmp(f->tensors[i].name, name) == 0) {
            return &f->tensors[i];
        }
    }
    return NULL;
}

/* Code i of a row by the definition: bits i*b .. i*b+b-1 of one LSB-first stream. */
static unsigned code_at(const uint8_t *row, int64_t i, int bits) {
    unsigned code = 0;
    for (int k = 0; k < bits; k++) {
        int64_t at = i * bits + k;
        code |= (unsigned)(row[at / 8] >> at % 8 & 1) << k;
    }
    return code;
}

static void test_affine_packs_as_one_bit_stream(void **state) {
    (void)state;
    test_rng rng = {1};
    for (int w = 0; w < 6; w++) {
        for (int64_t n = 32; n <= 352; n += 32) {
            int bits = widths[w];
            uint8_t codes[352], again[352];
            uint32_t words[352 * 8 / 32 + 1];
            for (int64_t i = 0; i < n; i++) {
                codes[i] = (uint8_t)rng_below(&rng, 1 << bits);
            }
            int64_t n_words = affine_row_words(n, bits);
            words[n_words] = 0xdeadbeef;
            affine_pack(words, codes, n, bits);
            assert_int_equal(words[n_words], 0xdeadbeef);
            for (int64_t i = 0; i < n; i++) {
                assert_int_equal(code_at((uint8_t *)words, i, bits), codes[i]);
            }
            affine_unpack(again, words, n, bits);
            assert_memory_equal(again, codes, (size_t)n);
        }
    }
}

/* MLX may fuse product and sum, which saves the rounding of the product: at most half a unit in
 * its last place, and the sum's own rounding may then fall to the other side. */
static void check_values(const float *got, const float *wanted, int64_t n, float largest) {
    float tolerance = largest * 0x1p-23f;
    for (int64_t i = 0; i < n; i++) {
        assert_float_equal(got[i], wanted[i], tolerance);
    }
}

/* Both directions of one module of the golden file. */
static void check_module(ctx_t *ctx, const st_file *f, const char *name, int bits, int group) {
    const tensor_view *weight = part(f, name, "weight"), *scales = part(f, name, "scales");
    const tensor_view *biases = part(f, name, "biases"), *values = part(f, name, "values");
    int got_bits, got_group;
    assert_ok(ctx, affine_infer(&got_bits, &got_group, ctx, weight, scales, biases, bits, group));
    assert_int_equal(got_bits, bits);
    assert_int_equal(got_group, group);
    int64_t n = tensor_columns(values);
    size_t words = (size_t)affine_row_words(n, bits) * 4;
    size_t scale_bytes = (size_t)(n / group * dtype_table[scales->type].block_bytes);
    for (int64_t r = 0; r < tensor_rows(values); r++) {
        float out[384], wanted[384];
        uint8_t codes[384];
        uint32_t row[96], packed[96];
        memcpy(row, weight->data + (size_t)r * words, words);
        memcpy(wanted, values->data + (size_t)(r * n) * 4, (size_t)n * 4);
        affine_row_f32(out, weight->data + (size_t)r * words,
                       scales->data + (size_t)r * scale_bytes,
                       biases->data + (size_t)r * scale_bytes, scales->type, n, bits, group);
        check_values(out, wanted, n, 8.0f); /* |code * scale| stays below 8 in this file */
        affine_unpack(codes, row, n, bits);
        affine_pack(packed, codes, n, bits);
        assert_memory_equal(packed, row, words);
    }
}

static void test_affine_equals_mlx(void **state) {
    static const char *const types[] = {"f32", "f16", "bf16"};
    ctx_t *ctx = *state;
    st_file f;
    assert_ok(ctx, st_open(&f, ctx, GOLDEN));
    int n = 0;
    for (int t = 0; t < 3; t++) {
        for (int w = 0; w < 6; w++) {
            for (int g = 0; g < 3; g++) {
                char name[64];
                snprintf(name, sizeof name, "%s.%d.%d", types[t], widths[w], groups[g]);
                if (part(&f, name, "weight")) {
                    check_module(ctx, &f, name, widths[w], groups[g]);
                    n++;
                }
            }
        }
    }
    assert_int_equal(n, 18 + 6 + 6);
    st_close(&f);
}

static tensor_view view_2d(const char *name, dtype type, int64_t rows, int64_t columns) {
    return (tensor_view){.name = name, .type = type, .n_dim = 2, .shape = {rows, columns}};
}

static void test_affine_infers_every_pair_with_a_hint(void **state) {
    ctx_t *ctx = *state;
    for (int w = 0; w < 6; w++) {
        for (int g = 0; g < 3; g++) {
            tensor_view weight = view_2d("w", DT_U32, 8, affine_row_words(768, widths[w]));
            tensor_view scales = view_2d("s", DT_BF16, 8, 768 / groups[g]);
            int bits, group;
            assert_ok(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales, widths[w],
                                        groups[g]));
            assert_int_equal(bits, widths[w]);
            assert_int_equal(group, groups[g]);
            /* a hint of the group alone is enough, whatever the global width */
            assert_ok(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales,
                                        widths[w] == 8 ? 2 : 8, groups[g]));
            assert_int_equal(bits, widths[w]);
        }
    }
}

static void test_affine_refuses_shapes_that_fit_nothing(void **state) {
    ctx_t *ctx = *state;
    int bits = -1, group = -1;
    tensor_view weight = view_2d("model.q", DT_U32, 8, 96), scales = view_2d("s", DT_F16, 8, 7);
    assert_fails(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales, 0, 0),
                 JANG_ERR_FORMAT, "tensor model.q: 96 words and 7 groups");
    scales.shape[0] = 9;
    assert_fails(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales, 0, 0),
                 JANG_ERR_FORMAT, "different shapes");
    scales = view_2d("s", DT_U8, 8, 12);
    assert_fails(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales, 0, 0),
                 JANG_ERR_FORMAT, "scales of type U8");
    weight.type = DT_I32;
    assert_fails(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales, 0, 0),
                 JANG_ERR_FORMAT, "type I32");
    weight = view_2d("huge", DT_U32, 8, INT64_MAX / 2);
    scales = view_2d("s", DT_F16, 8, 7);
    assert_fails(ctx, affine_infer(&bits, &group, ctx, &weight, &scales, &scales, 0, 0),
                 JANG_ERR_FORMAT, "fit no width");
    assert_int_equal(bits, -1);
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
        cmocka_unit_test(test_affine_packs_as_one_bit_stream),
        cmocka_unit_test(test_affine_equals_mlx),
        cmocka_unit_test(test_affine_infers_every_pair_with_a_hint),
        cmocka_unit_test(test_affine_refuses_shapes_that_fit_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
