/* rtn_body.h - the arithmetic of rtn.h, written once and compiled for each instruction set.
 *
 * Loops run over whole groups with a constant trip count, so that the compiler turns them into
 * vectors. Minimum and maximum are taken over integer keys that sort as the floats do: that order
 * is total, so lanes may be combined in any order. Rounding to the nearest even integer is done by
 * adding 1.5 * 2^23, whose unit in the last place is 1; a code's quotient lies well within 2^22. */
#ifndef JANG_QUANT_RTN_BODY_H
#define JANG_QUANT_RTN_BODY_H

#include "base/half.h"
#include "quant/quantizer.h"

#include <math.h>

#define RTN_INLINE static inline __attribute__((always_inline))
#define RTN_MAGIC 12582912.0f /* 1.5 * 2^23 */

/* Maps the bits of a float to an integer of the same order, and back. */
RTN_INLINE int32_t rtn_key(int32_t bits) {
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

typedef struct rtn_grid {
    float scale, bias;
} rtn_grid;

/* The grid of a group whose smallest and largest weight are given. */
RTN_INLINE rtn_grid rtn_fit(float w_min, float w_max, float n_bins) {
    bool low = __builtin_fabsf(w_min) > __builtin_fabsf(w_max);
    float step = (w_max - w_min) / n_bins;
    step = step < 1e-7f ? 1e-7f : step;
    rtn_grid g = {low ? step : -step, 0.0f};
    float edge = low ? w_min : w_max;
    float q0 = rintf(edge / g.scale); /* may be far beyond 2^22: a group of equal weights */
    if (q0 != 0.0f) {
        g.scale = edge / q0;
        g.bias = edge;
    }
    return g;
}

#define RTN_INFINITY 0x7f800000 /* the key of +infinity; NaN lies beyond it */

/* Returns whether all weights are finite. */
RTN_INLINE bool rtn_group(uint8_t *restrict codes, float *scale, float *bias,
                          const float *restrict w, int group, int bits) {
    int32_t keys[128], lo = INT32_MAX, hi = INT32_MIN;
    memcpy(keys, w, (size_t)group * sizeof *w);
    for (int i = 0; i < group; i++) {
        int32_t key = rtn_key(keys[i]);
        lo = key < lo ? key : lo;
        hi = key > hi ? key : hi;
    }
    int32_t top = (1 << bits) - 1;
    rtn_grid g = rtn_fit(f32_from_bits((uint32_t)rtn_key(lo)), f32_from_bits((uint32_t)rtn_key(hi)),
                         (float)top);
    for (int i = 0; i < group; i++) {
        float q = (w[i] - g.bias) / g.scale + RTN_MAGIC;
        memcpy(&keys[i], &q, sizeof q);
    }
    for (int i = 0; i < group; i++) {
        int32_t code = keys[i] - 0x4b400000; /* the bits of RTN_MAGIC */
        code = code < 0 ? 0 : code;
        codes[i] = (uint8_t)(code > top ? top : code);
    }
    *scale = g.scale;
    *bias = g.bias;
    return hi < RTN_INFINITY && lo > rtn_key(INT32_MIN | RTN_INFINITY);
}

RTN_INLINE bool rtn_groups(const quant_block *b, int group) {
    int64_t n_groups = b->n_rows * b->n_cols / group;
    bool finite = true;
    for (int64_t i = 0; i < n_groups; i++) {
        finite &= rtn_group(b->codes + i * group, b->scales + i, b->biases + i, b->w + i * group,
                            group, b->bits);
    }
    return finite;
}

RTN_INLINE bool rtn_block(const quant_block *b) {
    switch (b->group) {
    case 32:
        return rtn_groups(b, 32);
    case 64:
        return rtn_groups(b, 64);
    default:
        return rtn_groups(b, 128);
    }
}

#endif
