/* test_export.c - jang_export: blocks against their readers, whole files read again, refusals. */
#include "base/file.h"
#include "base/half.h"
#include "export/awq_fit.h"
#include "format/checkpoint.h"
#include "format/gguf_blocks.h"
#include "format/gguf_encode.h"
#include "model_files.h"
#include "quant/parts.h"
#include "torture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Blocks ---- */

#define N 256

static float drawn(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (1 << 24) - 0.5f;
}

/* Codes come back as they were, with scales and biases that f16 holds. */
static void test_export_takes_codes_over(void **state) {
    (void)state;
    static const struct {
        dtype type;
        int bits;
    } forms[] = {{DT_Q4_1, 2}, {DT_Q4_1, 3}, {DT_Q4_1, 4}, {DT_Q5_1, 5}, {DT_Q5_1, 3}};
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        for (int group = 32; group <= 128; group *= 2) {
            uint32_t seed = 1 + (uint32_t)f;
            uint8_t codes[N], out[N];
            float x[N], back[N], scales[N / 32], biases[N / 32];
            for (int g = 0; g < N / group; g++) {
                scales[g] = f16_to_f32(f32_to_f16(drawn(&seed)));
                biases[g] = f16_to_f32(f32_to_f16(drawn(&seed)));
            }
            for (int i = 0; i < N; i++) {
                codes[i] = (uint8_t)((drawn(&seed) + 0.5f) * (float)(1 << forms[f].bits));
                x[i] = scales[i / group] * (float)codes[i] + biases[i / group];
            }
            const gguf_row row = {x, codes, scales, biases, N, forms[f].bits, group};
            gguf_encode_row(out, forms[f].type, &row);
            gguf_blocks_reader(forms[f].type)(back, out, N);
            assert_memory_equal(x, back, sizeof x);
        }
    }
}

/* Q8_0 is off by half a step at most, and exact on a grid through 0. */
static void test_export_rounds_to_q8_0(void **state) {
    (void)state;
    uint32_t seed = 7;
    uint8_t out[N * 2], codes[N];
    float x[N], back[N], scales[N / 64], biases[N / 64];
    for (int i = 0; i < N; i++) {
        x[i] = i / 32 == 3 ? 0 : drawn(&seed) * (float)(1 + i / 32);
    }
    gguf_encode_row(out, DT_Q8_0, &(gguf_row){.x = x, .n = N});
    gguf_blocks_reader(DT_Q8_0)(back, out, N);
    for (int i = 0; i < N; i++) {
        float step = 0.5f * (float)(1 + i / 32) / 127;
        assert_true(fabsf(x[i] - back[i]) <= step * 0.51f);
    }
    for (int g = 0; g < N / 64; g++) {
        scales[g] = f16_to_f32(f32_to_f16(0.01f + fabsf(drawn(&seed))));
        biases[g] = -31 * scales[g];
    }
    for (int i = 0; i < N; i++) {
        codes[i] = (uint8_t)(i * 7 % 64);
        x[i] = scales[i / 64] * (float)codes[i] + biases[i / 64];
    }
    const gguf_row row = {x, codes, scales, biases, N, 6, 64};
    gguf_encode_row(out, DT_Q8_0, &row);
    gguf_blocks_reader(DT_Q8_0)(back, out, N);
    for (int i = 0; i < N; i++) {
        assert_true(fabsf(x[i] - back[i]) <= 1e-6f);
    }
}

/* ---- AWQ's groups ---- */

static double off(const float *w, const uint8_t *codes, const awq_group *g, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double d = (double)w[i] - (double)g->scale * (codes[i] - g->zero);
        sum += d * d;
    }
    return sum;
}

/* A bias that is a multiple of the scale, from either end, is kept exactly. */
static void test_export_awq_keeps_a_grid_through_zero(void **state) {
    (void)state;
    for (int zero = 0; zero < 16; zero++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            uint8_t codes[32];
            float w[32], scale = (float)sign * 0.0625f, bias = -(float)zero * scale;
            for (int i = 0; i < 32; i++) {
                codes[i] = (uint8_t)(i * 5 % 16);
                w[i] = scale * (float)codes[i] + bias;
            }
            awq_group g = awq_fit(codes, w, 32, scale, bias);
            assert_true(g.error == 0 && off(w, codes, &g, 32) == 0);
            assert_true(g.scale > 0 && g.zero >= 0 && g.zero < 16);
        }
    }
}

/* Other groups: never worse than half a step of the least grid that covers them; constant and zero
 * ones are finite and near. */
static void test_export_awq_fits_any_group(void **state) {
    (void)state;
    uint32_t seed = 5;
    for (int trial = 0; trial < 200; trial++) {
        uint8_t codes[64];
        float w[64], scale = 0.01f + drawn(&seed) * 0.01f, bias = drawn(&seed) * 0.4f;
        float low = 0, high = 0;
        for (int i = 0; i < 64; i++) {
            codes[i] = (uint8_t)((drawn(&seed) + 0.5f) * 16);
            w[i] = scale * (float)codes[i] + bias;
            low = w[i] < low ? w[i] : low;
            high = w[i] > high ? w[i] : high;
        }
        awq_group g = awq_fit(codes, w, 64, scale, bias);
        double step = (double)(high - low) / 14;
        assert_true(off(w, codes, &g, 64) <= 64 * step * step / 4);
    }
    static const float constants[] = {0, 0.5f, -0.5f, 1e-6f, -3e4f};
    for (size_t k = 0; k < sizeof constants / sizeof constants[0]; k++) {
        uint8_t codes[64] = {0};
        float w[64];
        for (int i = 0; i < 64; i++) {
            w[i] = constants[k];
        }
        awq_group g = awq_fit(codes, w, 64, 0, constants[k]);
        double each = sqrt(off(w, codes, &g, 64) / 64);
        assert_true(each <= 0.001 * fabs((double)constants[k]) + 2e-7); /* f16 ends there */
    }
}

static void test_export_awq_orders_a_word(void **state) {
    (void)state;
    const uint8_t codes[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    assert_int_equal(awq_word(codes), 0x75316420);
}

/* ---- Files ---- */

static char *scratch;
static char quantized[512], file_path[512]; /* within it */

static int make_scratch(void **state) {
    (void)state;
    scratch = test_temp_dir();
    snprintf(quantized, sizeof quantized, "%s/source", scratch);
    snprintf(file_path, sizeof file_path, "%s/export.gguf", scratch);
    return 0;
}

static int remove_scratch(void **state) {
    (void)state;
    test_remove_tree(scratch);
    free(scratch);
    return 0;
}

static void quantize(ctx_t *ctx, const char *fixture, int bits) {
    char source[512];
    snprintf(source, sizeof source, MODELS "%s", fixture);
    jang_convert_options o = options_of(source, quantized, NULL);
    o.bits = bits;
    o.group_size = 32;
    o.method = "rtn";
    o.force = true;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
}

static jang_export_options gguf_options(void) {
    return (jang_export_options){
        .source = quantized, .format = "gguf", .output = file_path, .force = true};
}

/* Every number of the file is that of the model, for each of two counts of threads. */
static void test_export_writes_the_same_numbers(void **state) {
    (void)state;
    static const char *const fixtures[] = {"llama-bf16", "qwen2-tied-bf16"};
    for (size_t f = 0; f < 2; f++) {
        ctx_t *ctx = context_with(f ? 1 : 3);
        quantize(ctx, fixtures[f], f ? 4 : 5);
        jang_export_options o = gguf_options();
        char *report = NULL;
        assert_ok(ctx, jang_export(&report, ctx, &o));
        checkpoint *a, *b;
        part_list parts;
        assert_ok(ctx, checkpoint_open(&a, ctx, quantized, 0));
        assert_ok(ctx, checkpoint_open(&b, ctx, file_path, 0));
        assert_ok(ctx, part_list_make(&parts, ctx, a));
        size_t n;
        checkpoint_tensors(b, &n);
        assert_int_equal(n, parts.n_parts);
        for (size_t i = 0; i < parts.n_parts; i++) {
            const model_part *part = &parts.parts[i];
            const tensor_view *t = checkpoint_find(b, part->name);
            assert_non_null(t);
            float *want = calloc((size_t)part->params, 4), *got = calloc((size_t)part->params, 4);
            assert_ok(ctx, part_rows_f32(want, a, part, 0, part->rows));
            assert_ok(ctx, checkpoint_rows_f32(got, b, t, 0, part->rows));
            assert_memory_equal(want, got, (size_t)part->params * 4);
            free(want);
            free(got);
        }
        json_t *json = NULL;
        assert_ok(ctx, json_parse(&json, ctx, "report", report, strlen(report)));
        size_t i;
        const json_t *tensor;
        json_array_foreach(json_object_get(json, "tensors"), i, tensor) {
            assert_int_equal(json_integer_value(json_object_get(tensor, "exact")), 1);
            assert_true(json_real_value(json_object_get(tensor, "error")) == 0);
        }
        assert_int_equal(i, parts.n_parts);
        json_decref(json);
        jang_free(ctx, report);
        part_list_free(&parts);
        checkpoint_close(a);
        checkpoint_close(b);
        jang_context_free(ctx);
    }
}

/* ---- The hub's names ---- */

static void same_tensor(ctx_t *ctx, const checkpoint *a, const tensor_view *s, const checkpoint *b,
                        const char *name) {
    const tensor_view *t = checkpoint_find(b, name);
    if (!t || t->n_dim != s->n_dim ||
        memcmp(t->shape, s->shape, sizeof(int64_t) * (size_t)s->n_dim) != 0) {
        fail_msg("%s: %s is not there, or has another shape", checkpoint_path(b), name);
        return;
    }
    size_t n = (size_t)tensor_count(s);
    float *want = calloc(n + 1, 4), *got = calloc(n + 1, 4);
    assert_ok(ctx, checkpoint_rows_f32(want, a, s, 0, tensor_rows(s)));
    assert_ok(ctx, checkpoint_rows_f32(got, b, t, 0, tensor_rows(t)));
    for (size_t i = 0; i < n; i++) { /* 1 + w - 1 may lose the last bits of w */
        if (!(fabsf(want[i] - got[i]) <= 1.2e-7f)) {
            fail_msg("%s: element %zu is %g, not %g", name, i, (double)got[i], (double)want[i]);
        }
    }
    free(want);
    free(got);
}

/* Of a checkpoint's name, what an export calls it: text models stand alone, and GPT-2's have the
 * name that transformers gives them. */
static void exported_name(char out[256], const char *name) {
    static const char text[] = "language_model.";
    bool inner = strncmp(name, text, strlen(text)) == 0;
    bool gpt2 =
        strncmp(name, "h.", 2) == 0 || strncmp(name, "w", 1) == 0 || strncmp(name, "ln_f.", 5) == 0;
    snprintf(out, 256, "%s%s", gpt2 ? "transformer." : "", name + (inner ? strlen(text) : 0));
}

/* Whether a tensor is no part of the text model. */
static bool is_left(const char *name) {
    static const char *const pieces[] = {"visual.", "vision", "multi_modal", "mtp.", ".attn.bias"};
    bool left = false;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        left |= strstr(name, pieces[i]) != NULL;
    }
    return left;
}

static void export_hf(ctx_t *ctx, const char *source, const char *output) {
    const jang_export_options o = {
        .source = source, .format = "hf", .output = output, .type = "f32", .force = true};
    assert_ok(ctx, jang_export(NULL, ctx, &o));
}

/* All tensors of one are in the other, and no more. */
static void same_model(ctx_t *ctx, const char *one, const char *other) {
    checkpoint *a, *b;
    assert_ok(ctx, checkpoint_open(&a, ctx, one, 0));
    assert_ok(ctx, checkpoint_open(&b, ctx, other, 0));
    size_t n, n_made, n_same = 0;
    const tensor_view *tensors = checkpoint_tensors(a, &n);
    checkpoint_tensors(b, &n_made);
    for (size_t i = 0; i < n; i++) {
        if (!is_left(tensors[i].name)) {
            char name[256];
            exported_name(name, tensors[i].name);
            same_tensor(ctx, a, &tensors[i], b, name);
            n_same++;
        }
    }
    assert_int_equal(n_same, n_made);
    checkpoint_close(a);
    checkpoint_close(b);
}

/* A hub checkpoint as mlx-lm has it, and exported: the same names, shapes and numbers as before; as
 * it is, too. */
static void test_export_hf_gives_the_hub_its_names_back(void **state) {
    (void)state;
    static const char *const fixtures[] = {"qwen2moe-bf16",    "qwen3moe-bf16",
                                           "mixtral-bf16",     "olmoe-bf16",
                                           "phimoe-bf16",      "minimaxm2-bf16",
                                           "deepseek2-bf16",   "glm4moe-bf16",
                                           "lfm2_moe-bf16",    "jamba-bf16",
                                           "gptneox-f16",      "nemotron_h-moe-bf16",
                                           "ernie45moe-bf16",  "qwen3_5-bf16",
                                           "qwen3_next-bf16",  "mamba-f32",
                                           "deepseek3-bf16",   "deepseek3-noqlora-bf16",
                                           "kimik2-bf16",      "glm4moelite-bf16",
                                           "kimi_linear-bf16", "gptoss-bf16",
                                           "granitemoe-bf16",  "granitemoehybrid-bf16",
                                           "llama4text-bf16",  "granitemoehybrid-attention-bf16",
                                           "llama4-bf16",      "granitemoehybrid-dense-f16",
                                           "qwen3_5_moe-bf16", "gemma4text-experts-bf16",
                                           "gemma3-bf16",      "mistral3-bf16",
                                           "gpt2-f32",         "gpt2-options-f16"};
    ctx_t *ctx = test_context();
    char hub[600];
    snprintf(hub, sizeof hub, "%s/hub", scratch);
    for (size_t f = 0; f < sizeof fixtures / sizeof fixtures[0]; f++) {
        char source[512];
        snprintf(source, sizeof source, MODELS "%s", fixtures[f]);
        jang_convert_options c = options_of(source, quantized, "f32");
        c.force = true;
        assert_ok(ctx, jang_convert(NULL, ctx, &c));
        export_hf(ctx, quantized, hub);
        same_model(ctx, source, hub);
        export_hf(ctx, source, hub);
        same_model(ctx, source, hub);
    }
    jang_context_free(ctx);
}

/* Columns of codes are read as their rows are: exported at once, and by way of plain numbers. */
static void test_export_hf_turns_quantized_matrices(void **state) {
    (void)state;
    static const struct {
        const char *fixture;
        int bits;
    } cases[] = {{"gptoss-bf16", 3}, {"deepseek3-bf16", 5}, {"gpt2-f32", 8}, {"llama4-bf16", 2}};
    ctx_t *ctx = test_context();
    char plain[600], hub[600], other[600];
    snprintf(plain, sizeof plain, "%s/plain", scratch);
    snprintf(hub, sizeof hub, "%s/hub", scratch);
    snprintf(other, sizeof other, "%s/other", scratch);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        quantize(ctx, cases[i].fixture, cases[i].bits);
        jang_convert_options c = options_of(quantized, plain, "f32");
        c.force = true;
        assert_ok(ctx, jang_convert(NULL, ctx, &c));
        export_hf(ctx, quantized, hub);
        export_hf(ctx, plain, other);
        same_model(ctx, hub, other);
    }
    jang_context_free(ctx);
}

/* ---- Refusals ---- */

static void refused(ctx_t *ctx, const jang_export_options *o, jang_status want, const char *word) {
    char *report = (char *)&report;
    assert_int_equal(jang_export(&report, ctx, o), want);
    assert_ptr_equal(report, &report);
    if (!strstr(jang_context_error(ctx), word)) {
        fail_msg("\"%s\" does not say \"%s\"", jang_context_error(ctx), word);
    }
}

static bool stop_at_half(void *user, const jang_progress *p) {
    (void)user;
    return p->done * 2 < p->total;
}

static void test_export_refusals(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    quantize(ctx, "llama-bf16", 4);
    remove(file_path);
    size_t before = count_entries(scratch);
    jang_export_options o = gguf_options();
    o.format = "onnx";
    refused(ctx, &o, JANG_ERR_ARGUMENT, "hf, gguf and awq");
    o = gguf_options();
    o.output = quantized;
    refused(ctx, &o, JANG_ERR_EXISTS, "is a directory");
    o = gguf_options();
    o.on_progress = stop_at_half;
    refused(ctx, &o, JANG_ERR_CANCELLED, "cancelled");
    o = gguf_options();
    o.source = MODELS "gpt2-f32";
    refused(ctx, &o, JANG_ERR_UNSUPPORTED, "llama, mistral");
    o.source = MODELS "qwen3-tied-bias-f16";
    refused(ctx, &o, JANG_ERR_UNSUPPORTED, "bias: has no place in a GGUF of a qwen3");
    o = gguf_options();
    o.format = "awq";
    o.source = MODELS "mlx-llama-mixed-3-6";
    refused(ctx, &o, JANG_ERR_UNSUPPORTED, "has another width; AWQ needs codes of 4 bits");
    o.source = MODELS "llama-bf16";
    refused(ctx, &o, JANG_ERR_UNSUPPORTED, "has no codes");
    o.source = MODELS "gptoss-bf16";
    refused(ctx, &o, JANG_ERR_UNSUPPORTED, "has no codes");
    patch_config(ctx, quantized, "rope_scaling",
                 json_pack("{s:s, s:f}", "rope_type", "dynamic", "factor", 2.0));
    o = gguf_options();
    refused(ctx, &o, JANG_ERR_UNSUPPORTED, "\"dynamic\" has no place");
    assert_int_equal(count_entries(scratch), before);
    FILE *f = fopen(file_path, "w");
    assert_non_null(f);
    fclose(f);
    o.force = false;
    refused(ctx, &o, JANG_ERR_EXISTS, "exists");
    jang_context_free(ctx);
}

static void test_export_names_numbers_that_are_none(void **state) {
    (void)state;
    static const uint16_t infinite = 0x7f80;
    ctx_t *ctx = test_context();
    test_remove_tree(quantized);
    copy_directory(ctx, MODELS "qwen2-tied-bf16", quantized);
    patch_tensor(ctx, quantized, "model.embed_tokens.weight", 5, &infinite);
    jang_export_options o = gguf_options();
    refused(ctx, &o, JANG_ERR_FORMAT, "tensor model.embed_tokens.weight: a number is NaN");
    jang_context_free(ctx);
}

/* ---- Memory ---- */

static jang_status export_once(ctx_t *ctx, const void *arg) {
    char *report = NULL;
    jang_status status = jang_export(&report, ctx, arg);
    jang_free(ctx, report);
    return status;
}

static void test_export_survives_lack_of_memory(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    quantize(ctx, "qwen2-tied-bf16", 4);
    jang_context_free(ctx);
    const jang_export_options o = gguf_options();
    torture("gguf", TORTURE_ALL_AFTER, export_once, &o);
    char directory[600];
    snprintf(directory, sizeof directory, "%s/awq", scratch);
    jang_export_options awq = o;
    awq.format = "awq";
    awq.output = directory;
    torture("awq", TORTURE_ALL_AFTER, export_once, &awq);
    torture_spare_json();
    jang_export_options small = o;
    small.type = "small";
    torture("gguf, small", TORTURE_ONE, export_once, &small);
    torture_json();
}

int main(void) {
    torture_json();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_takes_codes_over),
        cmocka_unit_test(test_export_rounds_to_q8_0),
        cmocka_unit_test(test_export_awq_keeps_a_grid_through_zero),
        cmocka_unit_test(test_export_awq_fits_any_group),
        cmocka_unit_test(test_export_awq_orders_a_word),
        cmocka_unit_test(test_export_writes_the_same_numbers),
        cmocka_unit_test(test_export_hf_gives_the_hub_its_names_back),
        cmocka_unit_test(test_export_hf_turns_quantized_matrices),
        cmocka_unit_test(test_export_refusals),
        cmocka_unit_test(test_export_names_numbers_that_are_none),
        cmocka_unit_test(test_export_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
