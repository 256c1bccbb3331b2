/* int_packed.c - reads AWQ's and GPTQ's packed matrices row by row. */
#include "format/int_packed.h"

#include "base/half.h"

#include <string.h>

static uint32_t word_at(const uint8_t *words, int64_t i) {
    uint32_t word;
    memcpy(&word, words + 4 * i, sizeof word);
    return word;
}

static float float_at(const uint8_t *data, dtype type, int64_t i) {
    if (type == DT_F32) {
        float x;
        memcpy(&x, data + 4 * i, sizeof x);
        return x;
    }
    uint16_t h;
    memcpy(&h, data + 2 * i, sizeof h);
    return type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

/* Code i of a stream of codes whose words lie `stride` words apart. */
static unsigned stream_code(const uint8_t *words, int64_t at, int64_t stride, int64_t i, int bits) {
    int64_t bit = i * bits, word = bit / 32;
    int shift = (int)(bit % 32);
    uint64_t two = word_at(words, at + word * stride);
    if (shift + bits > 32) {
        two |= (uint64_t)word_at(words, at + (word + 1) * stride) << 32;
    }
    return (unsigned)(two >> shift) & ((1u << bits) - 1);
}

/* Code of output o in a row of AWQ's words. */
static unsigned awq_code(const uint8_t *words, int64_t row, int64_t n_out, int64_t o) {
    static const uint8_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    uint32_t word = word_at(words, row * (n_out / 8) + o / 8);
    return word >> (4 * place[o % 8]) & 15;
}

static int64_t group_of(const int_packed *p, int64_t i) {
    return p->group_of ? (int32_t)word_at(p->group_of, i) : i / p->group;
}

int64_t int_packed_bad_group(const int_packed *p) {
    for (int64_t i = 0; i < p->n_in; i++) {
        int64_t group = group_of(p, i);
        if (group < 0 || group >= p->n_group) {
            return i;
        }
    }
    return -1;
}

bool int_packed_in_order(const int_packed *p) {
    for (int64_t i = 0; i < p->n_in; i++) {
        if (group_of(p, i) != i / p->group) {
            return false;
        }
    }
    return true;
}

uint8_t int_packed_code(const int_packed *p, int64_t o, int64_t i) {
    return (uint8_t)(p->layout == INT_AWQ ? awq_code(p->codes, i, p->n_out, o)
                                          : stream_code(p->codes, o, p->n_out, i, p->bits));
}

/* The zero of an output's group, which is at most 256. */
static int zero_of(const int_packed *p, int64_t o, int64_t g) {
    unsigned zero = p->layout == INT_AWQ
                        ? awq_code(p->zeros, g, p->n_out, o)
                        : stream_code(p->zeros, g * (p->n_out * p->bits / 32), 1, o, p->bits);
    return (int)zero + p->zero_add;
}

void int_packed_group(float *scale, float *bias, const int_packed *p, int64_t o, int64_t g) {
    *scale = float_at(p->scales, p->scale_type, g * p->n_out + o);
    int zero = zero_of(p, o, g);
    *bias = zero ? (float)-zero * *scale : 0;
}

static float weight_of(const int_packed *p, int64_t o, int64_t i) {
    int64_t g = group_of(p, i);
    int above = int_packed_code(p, o, i) - zero_of(p, o, g);
    return (float)above * float_at(p->scales, p->scale_type, g * p->n_out + o);
}

void int_packed_rows_f32(float *restrict out, const int_packed *p, int64_t first, int64_t n) {
    /* Inputs outside, so that the words of neighbouring outputs are read together. */
    for (int64_t i = 0; i < p->n_in; i++) {
        for (int64_t r = 0; r < n; r++) {
            out[r * p->n_in + i] = weight_of(p, first + r, i);
        }
    }
}
