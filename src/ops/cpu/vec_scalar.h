/* vec_scalar.h - vectors of 4 floats in portable C, for processors without kernels of their own;
 * the compiler makes of them what it can. Here also stands what each function means. */
#ifndef JANG_OPS_VEC_SCALAR_H
#define JANG_OPS_VEC_SCALAR_H

#include "base/half.h"

#include <math.h>

#define VEC_N 4    /* floats in a vector */
#define VEC_TILE 2 /* vectors side by side in the tiles of the matrix kernels */
typedef float vf __attribute__((vector_size(16)));

static inline vf v_set(float a) {
    return (vf){a, a, a, a};
}
/* Loads and stores of any alignment; _n: of n < VEC_N elements only, the others read as 0. */
static inline vf v_load(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline vf v_load_n(const float *p, int n) {
    vf a = {0};
    memcpy(&a, p, (size_t)n * sizeof *p);
    return a;
}
static inline void v_store(float *p, vf a) {
    memcpy(p, &a, sizeof a);
}
static inline void v_store_n(float *p, vf a, int n) {
    memcpy(p, &a, (size_t)n * sizeof *p);
}
/* Loads of f16 and bf16. */
static inline vf v_f16_n(const void *p, int n) {
    uint16_t h[4] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return (vf){f16_to_f32(h[0]), f16_to_f32(h[1]), f16_to_f32(h[2]), f16_to_f32(h[3])};
}
static inline vf v_f16(const void *p) {
    return v_f16_n(p, 4);
}
static inline vf v_bf16_n(const void *p, int n) {
    uint16_t h[4] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return (vf){bf16_to_f32(h[0]), bf16_to_f32(h[1]), bf16_to_f32(h[2]), bf16_to_f32(h[3])};
}
static inline vf v_bf16(const void *p) {
    return v_bf16_n(p, 4);
}
/* Signed bytes; and (byte >> shift) & mask. */
static inline vf v_s8(const void *p) {
    int8_t b[4];
    memcpy(b, p, sizeof b);
    return (vf){b[0], b[1], b[2], b[3]};
}
static inline vf v_bits(const void *p, int shift, int mask) {
    uint8_t b[4];
    memcpy(b, p, sizeof b);
    return (vf){(float)(b[0] >> shift & mask), (float)(b[1] >> shift & mask),
                (float)(b[2] >> shift & mask), (float)(b[3] >> shift & mask)};
}
/* Stores as f16, rounded to nearest even. */
static inline void v_put_f16(uint16_t *p, vf a) {
    for (int i = 0; i < 4; i++) {
        p[i] = f32_to_f16(a[i]);
    }
}
/* a * b + c, rounded once where the processor can. */
static inline vf v_fma(vf a, vf b, vf c) {
    return a * b + c;
}
/* b where either is a NaN. */
static inline vf v_max(vf a, vf b) {
    return (vf){a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1], a[2] > b[2] ? a[2] : b[2],
                a[3] > b[3] ? a[3] : b[3]};
}
static inline vf v_min(vf a, vf b) {
    return (vf){a[0] < b[0] ? a[0] : b[0], a[1] < b[1] ? a[1] : b[1], a[2] < b[2] ? a[2] : b[2],
                a[3] < b[3] ? a[3] : b[3]};
}
static inline vf v_abs(vf a) {
    return (vf){fabsf(a[0]), fabsf(a[1]), fabsf(a[2]), fabsf(a[3])};
}
/* To the nearest whole number, ties to even. */
static inline vf v_round(vf a) {
    return (vf){rintf(a[0]), rintf(a[1]), rintf(a[2]), rintf(a[3])};
}
/* a * 2^n for whole n of -200 .. 200. */
static inline vf v_scale2(vf a, vf n) {
    return (vf){ldexpf(a[0], (int)n[0]), ldexpf(a[1], (int)n[1]), ldexpf(a[2], (int)n[2]),
                ldexpf(a[3], (int)n[3])};
}
/* Lane by lane: a < b ? yes : no. */
static inline vf v_if_below(vf a, vf b, vf yes, vf no) {
    return (vf){a[0] < b[0] ? yes[0] : no[0], a[1] < b[1] ? yes[1] : no[1],
                a[2] < b[2] ? yes[2] : no[2], a[3] < b[3] ? yes[3] : no[3]};
}
/* Sum of the lanes: the upper half added to the lower until one is left. */
static inline float v_sum(vf a) {
    return (a[0] + a[2]) + (a[1] + a[3]);
}
/* The largest lane. */
static inline float v_top(vf a) {
    float b = a[0] > a[2] ? a[0] : a[2], c = a[1] > a[3] ? a[1] : a[3];
    return b > c ? b : c;
}

#endif
