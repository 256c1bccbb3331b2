/* ops_cases.c - random weights, activations and caches for the tests of operators. */
#include "ops_cases.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t type_bytes(dtype type) {
    return type == DT_F32 ? 4 : 2;
}

/* Stores value as type and returns what is stored. */
static float put(uint8_t *at, dtype type, float value) {
    if (type == DT_F32) {
        memcpy(at, &value, 4);
        return value;
    }
    uint16_t h = type == DT_F16 ? f32_to_f16(value) : f32_to_bf16(value);
    memcpy(at, &h, 2);
    return type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

static void put_code(uint8_t *row, int64_t i, int bits, unsigned code) {
    for (int b = 0; b < bits; b++) {
        int64_t at = i * bits + b;
        row[at / 8] |= (uint8_t)((code >> b & 1) << at % 8);
    }
}

case_weight case_weight_new(test_rng *rng, int64_t n_out, int64_t n_in, int bits, int group,
                            dtype type, bool with_bias) {
    size_t row = bits ? (size_t)(n_in * bits / 8) : (size_t)n_in * type_bytes(type);
    size_t n_groups = bits ? (size_t)(n_out * n_in / group) : 0, size = type_bytes(type);
    size_t codes = row * (size_t)n_out, scales = n_groups * size;
    case_weight w = {.memory = calloc(1, codes + 2 * scales + (size_t)n_out * size + 1),
                     .dense = malloc((size_t)(n_out * n_in) * sizeof(float)),
                     .size = malloc((size_t)(n_out * n_in) * sizeof(float))};
    uint8_t *data = w.memory + 1; /* an odd address */
    w.desc = (weight_desc){.name = "case",
                           .n_out = n_out,
                           .n_in = n_in,
                           .type = type,
                           .bits = bits,
                           .group = group,
                           .scale_type = type,
                           .data = data,
                           .scales = data + codes,
                           .biases = data + codes + scales,
                           .bias = with_bias ? data + codes + 2 * scales : NULL,
                           .bias_type = type};
    float scale = 0, bias = 0;
    for (int64_t i = 0; i < n_out * n_in; i++) {
        if (!bits) {
            w.dense[i] = put(data + (size_t)i * size, type, 0.05f * rng_normal(rng));
            w.size[i] = fabsf(w.dense[i]);
            continue;
        }
        if (i % group == 0) {
            size_t at = codes + (size_t)(i / group) * size;
            scale = put(data + at, type, 0.01f * rng_normal(rng));
            bias = put(data + at + scales, type, 0.05f * rng_normal(rng));
        }
        unsigned code = (unsigned)rng_below(rng, 1 << bits);
        put_code(data + (size_t)(i / n_in) * row, i % n_in, bits, code);
        w.dense[i] = (float)code * scale + bias;
        w.size[i] = fabsf((float)code * scale) + fabsf(bias);
    }
    for (int64_t i = 0; with_bias && i < n_out; i++) {
        put(data + codes + 2 * scales + (size_t)i * size, type, rng_normal(rng));
    }
    return w;
}

void case_weight_free(case_weight *w) {
    free(w->memory);
    free(w->dense);
    free(w->size);
}

ops_mat case_mat(ops *o, int64_t n_row, int64_t width, const float *data) {
    size_t n_bytes = (size_t)(n_row * width) * sizeof(float);
    ops_mat m = {.stride = width, .n_row = n_row, .width = width};
    assert_ok(o->ctx, o->table->buf_new(&m.buf, o, n_bytes));
    if (data) {
        assert_ok(o->ctx, o->table->write(o, m.buf, 0, data, n_bytes));
    }
    return m;
}

void case_read(ops *o, ops_mat m, float *data) {
    size_t n_bytes = (size_t)(m.n_row * m.width) * sizeof(float);
    assert_ok(o->ctx, o->table->finish(o));
    assert_ok(o->ctx, o->table->read(o, m.buf, 0, data, n_bytes));
}

float *case_activations(test_rng *rng, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    float scale = 1;
    for (int64_t i = 0; i < n; i++) {
        if (i % 32 == 0) {
            int kind = (int)rng_below(rng, 8);
            scale = kind == 0 ? 0.0f : kind == 1 ? 30.0f : 1.0f;
        }
        x[i] = scale * rng_normal(rng);
    }
    return x;
}
