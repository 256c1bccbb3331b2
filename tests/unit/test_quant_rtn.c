/* test_quant_rtn.c - round to nearest against mlx.core.quantize: tests/golden/quant/rtn.safetensors
 * holds awkward groups and what mlx makes of them (scripts/fixtures/quant_rtn.py). */
#include "base/half.h"
#include "format/affine.h"
#include "format/safetensors.h"
#include "quant/quantizer.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_COLUMNS 256

static const int widths[] = {2, 3, 4, 5, 6, 8};
static const int groups[] = {32, 64, 128};

static const tensor_view *find(const st_file *f, const char *name) {
    for (size_t i = 0; i < f->n_tensors; i++) {
        if (strcmp(f->tensors[i].name, name) == 0) {
            return &f->tensors[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

/* Element i of a tensor as f32. */
static float element(const tensor_view *t, size_t i) {
    uint16_t h;
    float f;
    if (t->type == DT_F32) {
        memcpy(&f, t->data + 4 * i, 4);
        return f;
    }
    memcpy(&h, t->data + 2 * i, 2);
    return t->type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

/* A scale rounded to the type mlx stored it in. */
static float rounded(float x, dtype type) {
    return type == DT_F32   ? x
           : type == DT_F16 ? f16_to_f32(f32_to_f16(x))
                            : bf16_to_f32(f32_to_bf16(x));
}

static void check_case(const st_file *f, const tensor_view *w, const char *type, int bits,
                       int group, quant_fn fn, const char *isa) {
    size_t n = (size_t)tensor_count(w), n_groups = n / (size_t)group;
    float *rows = calloc(n, sizeof *rows), *scales = calloc(n_groups, sizeof *scales),
          *biases = calloc(n_groups, sizeof *biases);
    uint8_t *codes = calloc(n, 1), *wanted = calloc(n, 1);
    for (size_t i = 0; i < n; i++) {
        rows[i] = element(w, i);
    }
    quant_block block = {rows,  w->shape[0], N_COLUMNS, bits,   group,
                         codes, scales,      biases,    DT_F32, NULL};
    assert_true(fn(&block));

    char name[64];
    snprintf(name, sizeof name, "%s.%d.%d.weight", type, bits, group);
    uint32_t *words = malloc(find(f, name)->n_bytes);
    memcpy(words, find(f, name)->data, find(f, name)->n_bytes);
    affine_unpack(wanted, words, (int64_t)n, bits);
    snprintf(name, sizeof name, "%s.%d.%d.scales", type, bits, group);
    const tensor_view *s = find(f, name);
    snprintf(name, sizeof name, "%s.%d.%d.biases", type, bits, group);
    const tensor_view *b = find(f, name);
    for (size_t i = 0; i < n; i++) {
        if (codes[i] != wanted[i]) {
            fail_msg("%s %s %d bits group %d: row %zu column %zu: code %d, mlx has %d", isa, type,
                     bits, group, i / N_COLUMNS, i % N_COLUMNS, codes[i], wanted[i]);
        }
    }
    for (size_t i = 0; i < n_groups; i++) {
        if (rounded(scales[i], s->type) != element(s, i) ||
            rounded(biases[i], b->type) != element(b, i)) {
            fail_msg("%s %s %d bits group %d: group %zu: %g %g, mlx has %g %g", isa, type, bits,
                     group, i, (double)scales[i], (double)biases[i], (double)element(s, i),
                     (double)element(b, i));
        }
    }
    free(words);
    free(rows);
    free(scales);
    free(biases);
    free(codes);
    free(wanted);
}

static void check_isa(const st_file *f, const quantizer *q, cpu_isa isa) {
    static const char *const types[] = {"F32", "F16", "BF16"};
    for (size_t t = 0; t < 3; t++) {
        char name[16];
        snprintf(name, sizeof name, "%s.w", types[t]);
        const tensor_view *w = find(f, name);
        for (size_t b = 0; b < sizeof widths / sizeof *widths; b++) {
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                check_case(f, w, types[t], widths[b], groups[g], q->fn[isa], cpu_isa_name(isa));
            }
        }
    }
}

static void test_quant_rtn_equals_mlx_code_for_code(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    const quantizer *q = NULL;
    assert_ok(ctx, quantizer_find(&q, ctx, "rtn"));
    st_file f;
    assert_ok(ctx, st_open(&f, ctx, TEST_DATA "/quant/rtn.safetensors"));
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (q->fn[isa] && cpu_has((cpu_isa)isa)) {
            check_isa(&f, q, (cpu_isa)isa);
        }
    }
    st_close(&f);
    jang_context_free(ctx);
}

static void test_quant_rtn_meets_the_largest_weight(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    const quantizer *q = NULL;
    assert_ok(ctx, quantizer_find(&q, ctx, "rtn"));
    test_rng rng = {11};
    float w[64], scale, bias;
    uint8_t codes[64];
    for (int round = 0; round < 200; round++) {
        int edge = 0;
        for (int i = 0; i < 64; i++) {
            w[i] = rng_normal(&rng);
            edge = fabsf(w[i]) > fabsf(w[edge]) ? i : edge;
        }
        quant_block block = {w, 1, 64, 4, 64, codes, &scale, &bias, DT_F32, NULL};
        assert_true(quantizer_function(q, CPU_SCALAR)(&block));
        assert_float_equal((float)codes[edge] * scale + bias, w[edge], 0);
        /* zero is on the grid */
        float zero = -bias / scale;
        assert_float_equal(zero, rintf(zero), 1e-5);
    }
    jang_context_free(ctx);
}

static void test_quant_rtn_notices_what_is_not_finite(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    const quantizer *q = NULL;
    assert_ok(ctx, quantizer_find(&q, ctx, "rtn"));
    static const uint32_t values[] = {0x7f800000, 0xff800000, 0x7fc00000,
                                      0xffc00000, 0x7f800001, 0xffffffff};
    float w[128], scales[4], biases[4];
    uint8_t codes[128];
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (!q->fn[isa] || !cpu_has((cpu_isa)isa)) {
            continue;
        }
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            for (int at = 0; at < 128; at += 31) {
                for (int i = 0; i < 128; i++) {
                    w[i] = (float)(i - 60);
                }
                quant_block block = {w, 2, 64, 4, 32, codes, scales, biases, DT_F32, NULL};
                assert_true(q->fn[isa](&block));
                w[at] = f32_from_bits(values[v]);
                assert_false(q->fn[isa](&block));
            }
        }
        w[0] = 3.4028235e38f; /* the largest number is finite */
        for (int i = 1; i < 128; i++) {
            w[i] = 0;
        }
        quant_block block = {w, 1, 128, 4, 128, codes, scales, biases, DT_F32, NULL};
        assert_true(q->fn[isa](&block));
    }
    jang_context_free(ctx);
}

static void test_quant_methods_are_named_in_the_error(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    const quantizer *q = NULL;
    assert_fails(ctx, quantizer_find(&q, ctx, "magic"), JANG_ERR_ARGUMENT, "methods are: rtn");
    assert_null(q);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_rtn_equals_mlx_code_for_code),
        cmocka_unit_test(test_quant_rtn_meets_the_largest_weight),
        cmocka_unit_test(test_quant_rtn_notices_what_is_not_finite),
        cmocka_unit_test(test_quant_methods_are_named_in_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
