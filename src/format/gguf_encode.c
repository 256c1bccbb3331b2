/* gguf_encode.c - numbers to GGUF's types of blocks of 32, and to plain ones; those of 256 are in
 * gguf_encode_k.c. */
#include "format/gguf_encode.h"

#include "base/half.h"

#include <assert.h>
#include <math.h>

static void store_f16(uint8_t *at, float x) {
    uint16_t h = f32_to_f16(x);
    memcpy(at, &h, sizeof h);
}

/* ---- Plain types ---- */

static void put_f32(uint8_t *restrict out, const gguf_row *row) {
    memcpy(out, row->x, (size_t)row->n * sizeof *row->x);
}

static void put_f16(uint8_t *restrict out, const gguf_row *row) {
    for (int64_t i = 0; i < row->n; i++) {
        store_f16(out + 2 * i, row->x[i]);
    }
}

static void put_bf16(uint8_t *restrict out, const gguf_row *row) {
    for (int64_t i = 0; i < row->n; i++) {
        uint16_t h = f32_to_bf16(row->x[i]);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

/* ---- Codes taken over ---- */

/* Scale and bias of the group that a block lies in. */
static void put_grid(uint8_t *out, const gguf_row *row, int64_t block) {
    int64_t group = block * 32 / row->group;
    store_f16(out, row->scales[group]);
    store_f16(out + 2, row->biases[group]);
}

static void put_q4_1(uint8_t *restrict out, const gguf_row *row) {
    assert(row->codes && row->bits <= 4);
    for (int64_t b = 0; b < row->n / 32; b++, out += 20) {
        const uint8_t *codes = row->codes + b * 32;
        put_grid(out, row, b);
        for (int i = 0; i < 16; i++) {
            out[4 + i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
        }
    }
}

static void put_q5_1(uint8_t *restrict out, const gguf_row *row) {
    assert(row->codes && row->bits <= 5);
    for (int64_t b = 0; b < row->n / 32; b++, out += 24) {
        const uint8_t *codes = row->codes + b * 32;
        uint32_t high = 0;
        put_grid(out, row, b);
        for (int i = 0; i < 16; i++) {
            out[8 + i] = (uint8_t)((codes[i] & 15) | (codes[i + 16] & 15) << 4);
            high |= (uint32_t)(codes[i] >> 4) << i | (uint32_t)(codes[i + 16] >> 4) << (i + 16);
        }
        memcpy(out + 4, &high, sizeof high);
    }
}

/* ---- Q8_0 ---- */

/* Codes of 32 numbers for a step that f16 holds; returns the squared error. */
static double codes_q8_0(int8_t codes[32], const float *x, float step) {
    double error = 0;
    float inverse = step != 0 ? 1 / step : 0;
    for (int i = 0; i < 32; i++) {
        float q = nearbyintf(x[i] * inverse);
        q = q > 127 ? 127 : q < -127 ? -127 : q;
        codes[i] = (int8_t)q;
        double d = (double)x[i] - (double)(step * q);
        error += d * d;
    }
    return error;
}

static float f16_of(float x) {
    return f16_to_f32(f32_to_f16(x));
}

/* The step that the largest number sets, or the row's own one: all numbers of a group whose bias is
 * a multiple of its scale lie on that. The better one is taken. */
static void put_q8_0(uint8_t *restrict out, const gguf_row *row) {
    for (int64_t b = 0; b < row->n / 32; b++, out += 34) {
        const float *x = row->x + b * 32;
        float largest = 0;
        for (int i = 0; i < 32; i++) {
            largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        }
        float step = f16_of(largest / 127);
        int8_t codes[32], other[32];
        double error = codes_q8_0(codes, x, step);
        float own = row->codes ? f16_of(fabsf(row->scales[b * 32 / row->group])) : 0;
        if (own > 0 && largest <= own * 127.5f && codes_q8_0(other, x, own) < error) {
            memcpy(codes, other, sizeof codes);
            step = own;
        }
        store_f16(out, step);
        memcpy(out + 2, codes, sizeof codes);
    }
}

void gguf_encode_row(uint8_t *restrict out, dtype type, const gguf_row *row) {
    static void (*const writers[DT_COUNT])(uint8_t *restrict out, const gguf_row *row) = {
        [DT_F32] = put_f32,   [DT_F16] = put_f16,   [DT_BF16] = put_bf16,
        [DT_Q4_1] = put_q4_1, [DT_Q5_1] = put_q5_1, [DT_Q8_0] = put_q8_0};
    assert(row->n % dtype_table[type].block == 0);
    if (dtype_table[type].block == 256) {
        gguf_encode_k(out, type, row);
        return;
    }
    assert(writers[type]);
    writers[type](out, row);
}
