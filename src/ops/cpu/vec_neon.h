/* vec_neon.h - vectors of 4 floats for the bodies in *_body.h, on aarch64. See vec_scalar.h for
 * what each function means. */
#ifndef JANG_OPS_VEC_NEON_H
#define JANG_OPS_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define VEC_N 4
#define VEC_TILE 4
typedef float32x4_t vf;

static inline vf v_set(float a) {
    return vdupq_n_f32(a);
}
static inline vf v_load(const float *p) {
    return vld1q_f32(p);
}
static inline vf v_load_n(const float *p, int n) {
    float a[4] = {0};
    memcpy(a, p, (size_t)n * sizeof *a);
    return vld1q_f32(a);
}
static inline void v_store(float *p, vf a) {
    vst1q_f32(p, a);
}
static inline void v_store_n(float *p, vf a, int n) {
    float b[4];
    vst1q_f32(b, a);
    memcpy(p, b, (size_t)n * sizeof *b);
}
static inline vf v_f16(const void *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
static inline vf v_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
static inline vf v_f16_n(const void *p, int n) {
    uint16_t h[4] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return v_f16(h);
}
static inline vf v_bf16_n(const void *p, int n) {
    uint16_t h[4] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return v_bf16(h);
}
static inline uint32x4_t v_bytes(const void *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
    return vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
}
static inline vf v_s8(const void *p) {
    int32x4_t wide = vshlq_n_s32(vreinterpretq_s32_u32(v_bytes(p)), 24);
    return vcvtq_f32_s32(vshrq_n_s32(wide, 24));
}
static inline vf v_bits(const void *p, int shift, int mask) {
    uint32x4_t wide = vshlq_u32(v_bytes(p), vdupq_n_s32(-shift));
    return vcvtq_f32_u32(vandq_u32(wide, vdupq_n_u32((uint32_t)mask)));
}
static inline void v_put_f16(uint16_t *p, vf a) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}
static inline vf v_fma(vf a, vf b, vf c) {
    return vfmaq_f32(c, a, b);
}
static inline vf v_max(vf a, vf b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vf v_min(vf a, vf b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vf v_abs(vf a) {
    return vabsq_f32(a);
}
static inline vf v_round(vf a) {
    return vrndnq_f32(a);
}
/* In two steps of half the size, so that 2^n may leave the range of normal numbers. */
static inline vf v_scale2(vf a, vf n) {
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    int32x4_t rest = vsubq_s32(whole, half), bias = vdupq_n_s32(127);
    vf f = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    vf g = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(a, f), g);
}
static inline vf v_if_below(vf a, vf b, vf yes, vf no) {
    return vbslq_f32(vcltq_f32(a, b), yes, no);
}
static inline float v_sum(vf a) {
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
static inline float v_top(vf a) {
    return vmaxvq_f32(a);
}

#endif
