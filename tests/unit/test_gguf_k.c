/* test_gguf_k.c - GGUF's blocks of 256: what rounding to them costs, odd numbers, and exports whose
 * types are chosen by it. */
#include "base/file.h"
#include "base/half.h"
#include "format/gguf_blocks.h"
#include "format/gguf_encode.h"
#include "format/safetensors.h"
#include "model_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 2048

static double drawn(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 24);
}

static float bell(uint32_t *state) {
    double sum = 0;
    for (int i = 0; i < 6; i++) {
        sum += drawn(state);
    }
    return (float)(sum - 3) * 0.03f;
}

static float f16_of(float x) {
    return f16_to_f32(f32_to_f16(x));
}

/* A row rounded to codes from the least to the largest number of each group. */
typedef struct coded {
    float x[N], scales[N / 32], biases[N / 32];
    uint8_t codes[N];
    double own; /* squared error of that */
} coded;

static void make_codes(coded *c, const float *w, int bits, int group, bool through_zero) {
    float last = (float)((1 << bits) - 1);
    c->own = 0;
    for (int first = 0; first < N; first += group) {
        float low = 0, high = 0;
        for (int i = first; i < first + group; i++) {
            low = w[i] < low ? w[i] : low;
            high = w[i] > high ? w[i] : high;
        }
        float scale = f16_of((high - low) / last);
        float bias = through_zero ? roundf(low / scale) * scale : low;
        scale = first / group % 3 == 1 ? -scale : scale; /* such grids go down from their bias */
        bias = scale < 0 ? bias - scale * last : bias;
        c->scales[first / group] = scale;
        c->biases[first / group] = bias = f16_of(bias);
        for (int i = first; i < first + group; i++) {
            float q = roundf((w[i] - bias) / scale);
            q = q < 0 ? 0 : q > last ? last : q;
            c->codes[i] = (uint8_t)q;
            c->x[i] = scale * q + bias;
            c->own += ((double)c->x[i] - (double)w[i]) * ((double)c->x[i] - (double)w[i]);
        }
    }
}

/* The squared error of a row written and read again. */
static double written_error(const coded *c, dtype type, int bits, int group, float *back) {
    static uint8_t out[N * 4];
    const gguf_row row = {c->x, c->codes, c->scales, c->biases, N, bits, group};
    double error = 0;
    memset(out, 0xa5, sizeof out);
    gguf_encode_row(out, type, &row);
    gguf_blocks_reader(type)(back, out, N);
    for (int i = 0; i < N; i++) {
        double d = (double)back[i] - (double)c->x[i];
        error += d * d;
    }
    size_t n_bytes = (size_t)(N / dtype_table[type].block * dtype_table[type].block_bytes);
    assert_int_equal(out[n_bytes], 0xa5);
    return error;
}

/* Shares of what the codes' own rounding costs, squared. What is below 1/16 is what `small` takes;
 * the limits are a half above what was measured. */
static void test_gguf_k_costs(void **state) {
    (void)state;
    static const struct {
        dtype type;
        int bits, group;
        bool through_zero;
        double limit;
    } cases[] = {
        {DT_Q2_K, 2, 32, false, 0.019},  {DT_Q2_K, 2, 128, false, 0.0043},
        {DT_Q3_K, 3, 64, true, 0.002},   {DT_Q3_K, 3, 64, false, 0.72},
        {DT_Q4_K, 3, 32, false, 0.0055}, {DT_Q4_K, 4, 32, false, 0.0225},
        {DT_Q4_K, 4, 64, false, 0.0145}, {DT_Q4_K, 4, 128, false, 0.0003},
        {DT_Q5_K, 5, 32, false, 0.105},  {DT_Q5_K, 5, 64, false, 0.047},
        {DT_Q6_K, 6, 32, false, 1.08},   {DT_Q6_K, 6, 64, true, 0.29},
    };
    static float w[N], back[N];
    static coded c;
    uint32_t seed = 3;
    for (int i = 0; i < N; i++) {
        w[i] = bell(&seed);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_codes(&c, w, cases[i].bits, cases[i].group, cases[i].through_zero);
        double error = written_error(&c, cases[i].type, cases[i].bits, cases[i].group, back);
        if (!(error <= cases[i].limit * c.own)) {
            fail_msg("%s of %d bits: %g of the codes' own error", dtype_table[cases[i].type].name,
                     cases[i].bits, error / c.own);
        }
    }
}

/* Grids that a type can say are said exactly: scales and minima that are small multiples. */
static void test_gguf_k_finds_its_own_grids(void **state) {
    (void)state;
    static const struct {
        dtype type;
        int bits, top;
    } forms[] = {{DT_Q2_K, 2, 15}, {DT_Q4_K, 4, 63}, {DT_Q5_K, 5, 63}};
    static float back[N];
    static coded c;
    uint32_t seed = 11;
    for (size_t f = 0; f < 3; f++) {
        for (int g = 0; g < N / 32; g++) {
            int s = g % 8 ? 1 + (int)(drawn(&seed) * forms[f].top) : forms[f].top;
            int m = g % 8 ? (int)(drawn(&seed) * (forms[f].top + 1)) : forms[f].top;
            c.scales[g] = (float)s / 1024;
            c.biases[g] = -(float)m / 256;
        }
        for (int i = 0; i < N; i++) {
            c.codes[i] = (uint8_t)(drawn(&seed) * (1 << forms[f].bits));
            c.x[i] = c.scales[i / 32] * (float)c.codes[i] + c.biases[i / 32];
        }
        assert_true(written_error(&c, forms[f].type, forms[f].bits, 32, back) == 0);
    }
}

/* Zeros, constants, minima of both signs, numbers near the ends of f16: finite, and no further off
 * than the largest number. What f16 cannot hold is infinite or none, which an export refuses. */
static void test_gguf_k_odd_numbers(void **state) {
    (void)state;
    static const dtype types[] = {DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K};
    static const struct {
        float scale, bias;
        bool fits;
    } odd[] = {{0, 0, true},         {0, 0.25f, true},      {0, -3, true},     {0.1f, 0.5f, true},
               {-0.1f, 0.05f, true}, {1e-7f, 0, true},      {1e-30f, 0, true}, {2e4f, -3e4f, true},
               {0.5f, -1e-8f, true}, {1e30f, 1e30f, false}, {3e38f, 0, false}};
    static float back[N];
    static coded c;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        for (size_t k = 0; k < sizeof odd / sizeof odd[0]; k++) {
            float far = 0;
            for (int g = 0; g < N / 32; g++) {
                bool mixed = odd[k].fits && g % 5 == 4;
                c.scales[g] = odd[k].scale;
                c.biases[g] = mixed ? -odd[k].bias : odd[k].bias;
            }
            for (int i = 0; i < N; i++) {
                c.codes[i] = (uint8_t)(odd[k].fits ? i * 7 % 4 : i % 2);
                c.x[i] = c.scales[i / 32] * (float)c.codes[i] + c.biases[i / 32];
                far = fabsf(c.x[i]) > far ? fabsf(c.x[i]) : far;
            }
            (void)written_error(&c, types[t], 2, 32, back);
            bool finite = true;
            for (int i = 0; i < N; i++) {
                finite &= isfinite(back[i]) != 0;
                if (odd[k].fits && !(fabsf(back[i] - c.x[i]) <= 1.01f * far)) {
                    fail_msg("%s: %g became %g", dtype_table[types[t]].name, (double)c.x[i],
                             (double)back[i]);
                }
            }
            assert_int_equal(finite, odd[k].fits);
        }
    }
}

/* ---- Exports ---- */

/* A llama whose rows are long enough: one layer, hidden_size 256. */
static void write_wide_model(ctx_t *ctx, const char *directory) {
    static const struct {
        const char *name;
        int n_dim;
        int64_t shape[2];
    } tensors[] = {
        {"model.embed_tokens.weight", 2, {307, 256}},
        {"lm_head.weight", 2, {307, 256}},
        {"model.norm.weight", 1, {256}},
        {"model.layers.0.input_layernorm.weight", 1, {256}},
        {"model.layers.0.post_attention_layernorm.weight", 1, {256}},
        {"model.layers.0.self_attn.q_proj.weight", 2, {256, 256}},
        {"model.layers.0.self_attn.k_proj.weight", 2, {256, 256}},
        {"model.layers.0.self_attn.v_proj.weight", 2, {256, 256}},
        {"model.layers.0.self_attn.o_proj.weight", 2, {256, 256}},
        {"model.layers.0.mlp.gate_proj.weight", 2, {96, 256}},
        {"model.layers.0.mlp.up_proj.weight", 2, {96, 256}},
        {"model.layers.0.mlp.down_proj.weight", 2, {256, 96}}, /* no row for blocks of 256 */
    };
    const int n = sizeof tensors / sizeof tensors[0];
    char path[600];
    uint32_t seed = 5;
    st_writer *w;
    static float data[307 * 256];
    copy_directory(ctx, MODELS "llama-bf16", directory);
    patch_config(ctx, directory, "hidden_size", json_integer(256));
    patch_config(ctx, directory, "intermediate_size", json_integer(96));
    patch_config(ctx, directory, "num_hidden_layers", json_integer(1));
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_ok(ctx, st_writer_new(&w, ctx, path));
    for (int i = 0; i < n; i++) {
        int index;
        assert_ok(ctx, st_writer_add(w, tensors[i].name, DT_F32, tensors[i].n_dim, tensors[i].shape,
                                     &index));
        assert_int_equal(index, i);
    }
    assert_ok(ctx, st_writer_begin(w, NULL));
    for (int i = 0; i < n; i++) {
        size_t count =
            (size_t)(tensors[i].shape[0] * (tensors[i].n_dim == 2 ? tensors[i].shape[1] : 1));
        for (size_t k = 0; k < count; k++) {
            data[k] = tensors[i].n_dim == 2 ? bell(&seed) : 1;
        }
        assert_ok(ctx, st_writer_put(w, i, 0, data, count * sizeof *data));
    }
    assert_ok(ctx, st_writer_finish(w));
}

/* What became of a tensor. */
static const json_t *row_of(const json_t *report, const char *name) {
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(report, "tensors"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0) {
            return row;
        }
    }
    fail_msg("%s is not in the report", name);
    return NULL;
}

static json_t *export_as(ctx_t *ctx, const char *source, const char *output, const char *type) {
    const jang_export_options o = {
        .source = source, .format = "gguf", .output = output, .type = type, .force = true};
    char *text = NULL;
    json_t *report = NULL;
    assert_ok(ctx, jang_export(&text, ctx, &o));
    assert_ok(ctx, json_parse(&report, ctx, "report", text, strlen(text)));
    jang_free(ctx, text);
    return report;
}

/* By width, method and the length of rows: 6 bits are rounded where others cost more anyway. */
static void test_gguf_k_types_of_exports(void **state) {
    (void)state;
    static const struct {
        const char *profile;
        int bits, group;
        const char *method, *up, *q;
    } cases[] = {
        {NULL, 2, 32, "rtn", "Q2_K", "Q2_K"},      {NULL, 3, 64, "rtn", "Q3_K", "Q3_K"},
        {NULL, 3, 32, "mse", "Q4_K", "Q4_K"},      {NULL, 4, 64, "mse", "Q4_K", "Q4_K"},
        {NULL, 5, 64, "mse", "Q5_K", "Q5_K"},      {NULL, 6, 32, "mse", "Q8_0", "Q8_0"},
        {"JANG_2S", 0, 32, "mse", "Q2_K", "Q6_K"}, {"JANG_6M", 0, 32, "mse", "Q8_0", "Q8_0"},
    };
    ctx_t *ctx = context_with(2);
    char *scratch = test_temp_dir(), wide[500], made[500], file[500];
    snprintf(wide, sizeof wide, "%s/wide", scratch);
    snprintf(made, sizeof made, "%s/made", scratch);
    snprintf(file, sizeof file, "%s/out.gguf", scratch);
    write_wide_model(ctx, wide);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        jang_convert_options c = options_of(wide, made, cases[i].profile);
        c.bits = cases[i].bits;
        c.group_size = cases[i].group;
        c.method = cases[i].method;
        c.force = true;
        assert_ok(ctx, jang_convert(NULL, ctx, &c));
        json_t *small = export_as(ctx, made, file, "small"),
               *exact = export_as(ctx, made, file, NULL);
        const struct {
            const char *name, *type;
        } wanted[] = {{"model.layers.0.mlp.up_proj.weight", cases[i].up},
                      {"model.layers.0.self_attn.q_proj.weight", cases[i].q}};
        for (size_t k = 0; k < 2; k++) {
            const json_t *row = row_of(small, wanted[k].name);
            assert_string_equal(json_string_value(json_object_get(row, "to")), wanted[k].type);
        }
        const json_t *down = row_of(small, "model.layers.0.mlp.down_proj.weight");
        assert_true(json_equal(down, row_of(exact, "model.layers.0.mlp.down_proj.weight")));
        assert_true(json_number_value(json_object_get(small, "true_bits")) <=
                    json_number_value(json_object_get(exact, "true_bits")));
        json_decref(small);
        json_decref(exact);
    }
    test_remove_tree(scratch);
    free(scratch);
    jang_context_free(ctx);
}

static void test_gguf_k_types_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *format, *type, *word;
    } cases[] = {{"gguf", "f16", "type f16 is none of format gguf: exact, small"},
                 {"hf", "JANG_4M", "type JANG_4M is none of format hf: f16, bf16, f32"},
                 {"awq", "small", "format awq has no types"}};
    ctx_t *ctx = context_with(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const jang_export_options o = {.source = MODELS "llama-bf16",
                                       .format = cases[i].format,
                                       .output = "never-made",
                                       .type = cases[i].type};
        assert_fails(ctx, jang_export(NULL, ctx, &o), JANG_ERR_ARGUMENT, cases[i].word);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_k_costs),
        cmocka_unit_test(test_gguf_k_finds_its_own_grids),
        cmocka_unit_test(test_gguf_k_odd_numbers),
        cmocka_unit_test(test_gguf_k_types_of_exports),
        cmocka_unit_test(test_gguf_k_types_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
