/* vec_avx2.h - vectors of 8 floats for the bodies in *_body.h. See vec_scalar.h for what each
 * function means. */
#ifndef JANG_OPS_VEC_AVX2_H
#define JANG_OPS_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VEC_N 8
#define VEC_TILE 2
typedef __m256 vf;

static inline __m256i v_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf v_set(float a) {
    return _mm256_set1_ps(a);
}
static inline vf v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline vf v_load_n(const float *p, int n) {
    return _mm256_maskload_ps(p, v_mask(n));
}
static inline void v_store(float *p, vf a) {
    _mm256_storeu_ps(p, a);
}
static inline void v_store_n(float *p, vf a, int n) {
    _mm256_maskstore_ps(p, v_mask(n), a);
}
static inline __m128i v_halves_n(const void *p, int n) {
    uint16_t h[8] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return _mm_loadu_si128((const __m128i *)(const void *)h);
}
static inline vf v_f16(const void *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vf v_f16_n(const void *p, int n) {
    return _mm256_cvtph_ps(v_halves_n(p, n));
}
static inline vf v_bf16_bits(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
static inline vf v_bf16(const void *p) {
    return v_bf16_bits(_mm_loadu_si128((const __m128i *)p));
}
static inline vf v_bf16_n(const void *p, int n) {
    return v_bf16_bits(v_halves_n(p, n));
}
static inline vf v_s8(const void *p) {
    __m128i bytes = _mm_loadl_epi64((const __m128i *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
static inline vf v_bits(const void *p, int shift, int mask) {
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    wide = _mm256_srl_epi32(wide, _mm_cvtsi32_si128(shift));
    return _mm256_cvtepi32_ps(_mm256_and_si256(wide, _mm256_set1_epi32(mask)));
}
static inline void v_put_f16(uint16_t *p, vf a) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf v_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf v_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
static inline vf v_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
static inline vf v_abs(vf a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf v_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* In two steps of half the size, so that 2^n may leave the range of normal numbers. */
static inline vf v_scale2(vf a, vf n) {
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half), bias = _mm256_set1_epi32(127);
    vf f = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vf g = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, f), g);
}
static inline vf v_if_below(vf a, vf b, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
static inline float v_sum(vf a) {
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float v_top(vf a) {
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

#endif
