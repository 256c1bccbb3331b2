/* int_parts.c - finds and checks the tensors of AWQ's and GPTQ's modules. */
#include "quant/int_parts.h"

#include "base/buf.h"
#include "format/int_packed.h"

#include <string.h>

#define SUFFIX ".qweight"

/* ---- The section of config.json ---- */

static jang_status read_numbers(int_source *s, json_at at) {
    int64_t bits;
    jang_status status = json_get_int(&bits, at, "bits", 4, 1, 16);
    if (status == JANG_OK) {
        status = json_get_int(&s->group, at, "group_size", 128, -1, 1 << 20);
    }
    if (status != JANG_OK) {
        return status;
    }
    s->bits = (int)bits;
    s->group = s->group == -1 ? 0 : s->group;
    bool known = s->is_awq ? bits == 4 : bits == 2 || bits == 3 || bits == 4 || bits == 8;
    if (!known) {
        return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: quantization_config: %lld bits; %s checkpoints are read with %s",
                        at.what, (long long)bits, s->is_awq ? "AWQ" : "GPTQ",
                        s->is_awq ? "4" : "2, 3, 4 or 8");
    }
    return JANG_OK;
}

static jang_status read_format(int_source *s, json_at at) {
    const char *key = s->is_awq ? "version" : "checkpoint_format", *format;
    jang_status status = json_get_string(&format, at, key, s->is_awq ? "gemm" : "gptq");
    if (status != JANG_OK) {
        return status;
    }
    if (s->is_awq && (strcmp(format, "gemm") == 0 || strcmp(format, "GEMM") == 0)) {
        return JANG_OK;
    }
    if (!s->is_awq && strcmp(format, "gptq") == 0) {
        s->zero_add = 1;
        return JANG_OK;
    }
    if (!s->is_awq && strcmp(format, "gptq_v2") == 0) {
        return JANG_OK;
    }
    return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                    "%s: quantization_config: %s \"%s\" is not read; %s is", at.what, key, format,
                    s->is_awq ? "gemm" : "gptq or gptq_v2");
}

jang_status int_source_read(int_source *out, ctx_t *ctx, const json_t *config) {
    const json_t *section;
    const char *method;
    int_source s = {0};
    json_at at = {ctx, "config.json", config};
    jang_status status = json_get_object(&section, at, "quantization_config");
    at.object = section;
    if (status == JANG_OK) {
        status = json_get_string(&method, at, "quant_method", "");
    }
    if (status != JANG_OK) {
        return status;
    }
    s.is_awq = strcmp(method, "awq") == 0;
    s.is_int = s.is_awq || strcmp(method, "gptq") == 0;
    if (s.is_int) {
        status = read_numbers(&s, at);
    }
    if (s.is_int && status == JANG_OK) {
        status = read_format(&s, at);
    }
    if (status == JANG_OK) {
        *out = s;
    }
    return status;
}

/* ---- A module's tensors ---- */

static const tensor_view *find_beside(const checkpoint *c, const char *name, size_t n_module,
                                      const char *suffix) {
    char text[512];
    size_t n = strlen(suffix);
    if (n_module + n + 1 > sizeof text) {
        return NULL;
    }
    memcpy(text, name, n_module);
    memcpy(text + n_module, suffix, n + 1);
    return checkpoint_find(c, text);
}

static bool ends_with(const char *name, const char *suffix, size_t *n_module) {
    size_t n = strlen(name), m = strlen(suffix);
    *n_module = n > m ? n - m : 0;
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static bool is_matrix(const tensor_view *t, dtype type, int64_t rows, int64_t columns) {
    return t && t->type == type && t->n_dim == 2 && t->shape[0] == rows && t->shape[1] == columns;
}

static jang_status fail_shape(ctx_t *ctx, const checkpoint *c, const char *name, const char *what) {
    return ctx_fail(ctx, JANG_ERR_FORMAT,
                    "%s: tensor %s: its %s is missing or of another shape "
                    "than quantization_config says",
                    checkpoint_path(c), name, what);
}

/* Sets n_in and n_out from the shape of the codes. */
static bool find_sizes(const int_source *s, const tensor_view *t, int64_t *n_in, int64_t *n_out) {
    if (t->type != DT_I32 || t->n_dim != 2 || t->shape[0] < 1 || t->shape[1] < 1 ||
        t->shape[0] > INT32_MAX || t->shape[1] > INT32_MAX / 32) {
        return false;
    }
    *n_in = s->is_awq ? t->shape[0] : t->shape[0] * 32 / s->bits;
    *n_out = s->is_awq ? t->shape[1] * 8 : t->shape[1];
    return s->is_awq || (t->shape[0] * 32 % s->bits == 0 && *n_out * s->bits % 32 == 0);
}

int_packed int_part_packed(const model_part *part) {
    return (int_packed){
        .layout = part->packing == PACKING_AWQ ? INT_AWQ : INT_GPTQ,
        .bits = part->bits,
        .zero_add = part->zero_add,
        .n_in = part->columns,
        .n_out = part->rows,
        .group = part->group,
        .n_group = part->scales->shape[0],
        .codes = part->weight->data,
        .zeros = part->biases->data,
        .scales = part->scales->data,
        .scale_type = part->scales->type,
        .group_of = part->order ? part->order->data : NULL,
    };
}

static jang_status check_groups(ctx_t *ctx, const checkpoint *c, const model_part *part) {
    const int_packed p = int_part_packed(part);
    int64_t bad = int_packed_bad_group(&p);
    if (bad < 0) {
        return JANG_OK;
    }
    return ctx_fail(ctx, JANG_ERR_FORMAT,
                    "%s: tensor %s: input %lld is in a group that is none of its %lld",
                    checkpoint_path(c), part->weight->name, (long long)bad, (long long)p.n_group);
}

jang_status int_part_describe(model_part *part, ctx_t *ctx, const checkpoint *c,
                              const int_source *s, const char *name) {
    const tensor_view *t = part->weight;
    size_t n_module;
    int64_t n_in, n_out;
    (void)ends_with(t->name, SUFFIX, &n_module);
    if (!find_sizes(s, t, &n_in, &n_out)) {
        return fail_shape(ctx, c, t->name, "matrix of I32 codes");
    }
    int64_t group = s->group ? s->group : n_in, n_group = (n_in + group - 1) / group;
    part->scales = find_beside(c, t->name, n_module, ".scales");
    part->biases = find_beside(c, t->name, n_module, ".qzeros");
    part->order = s->is_awq ? NULL : find_beside(c, t->name, n_module, ".g_idx");
    dtype type = part->scales ? part->scales->type : DT_F16;
    if (!is_matrix(part->scales, type, n_group, n_out) ||
        (type != DT_F16 && type != DT_BF16 && type != DT_F32)) {
        return fail_shape(ctx, c, t->name, ".scales");
    }
    if (!is_matrix(part->biases, DT_I32, n_group, n_out * s->bits / 32)) {
        return fail_shape(ctx, c, t->name, ".qzeros");
    }
    if (part->order &&
        (part->order->type != DT_I32 || part->order->n_dim != 1 || part->order->shape[0] != n_in)) {
        return fail_shape(ctx, c, t->name, ".g_idx");
    }
    part->name = name;
    part->packing = s->is_awq ? PACKING_AWQ : PACKING_GPTQ;
    part->bits = s->bits;
    part->group = (int)group;
    part->zero_add = s->zero_add;
    part->n_dim = 2;
    part->shape[0] = n_out;
    part->shape[1] = n_in;
    part->n_bytes = t->n_bytes + part->scales->n_bytes + part->biases->n_bytes;
    part_set_sizes(part);
    return check_groups(ctx, c, part);
}

bool int_part_owns(const checkpoint *c, const int_source *source, const tensor_view *t) {
    static const char *const suffixes[] = {".scales", ".qzeros", ".g_idx"};
    for (size_t i = 0; source->is_int && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t n_module;
        if (ends_with(t->name, suffixes[i], &n_module)) {
            return find_beside(c, t->name, n_module, SUFFIX) != NULL;
        }
    }
    return false;
}

void int_part_rows_f32(float *out, const model_part *part, int64_t first, int64_t n) {
    const int_packed p = int_part_packed(part);
    int_packed_rows_f32(out, &p, first, n);
}
