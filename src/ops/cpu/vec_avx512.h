/* vec_avx512.h - vectors of 16 floats for the bodies in *_body.h. See vec_scalar.h for what each
 * function means. */
#ifndef JANG_OPS_VEC_AVX512_H
#define JANG_OPS_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define VEC_N 16
#define VEC_TILE 4
typedef __m512 vf;

static inline __mmask16 v_mask(int n) {
    return (__mmask16)((1u << n) - 1);
}
static inline vf v_set(float a) {
    return _mm512_set1_ps(a);
}
static inline vf v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline vf v_load_n(const float *p, int n) {
    return _mm512_maskz_loadu_ps(v_mask(n), p);
}
static inline void v_store(float *p, vf a) {
    _mm512_storeu_ps(p, a);
}
static inline void v_store_n(float *p, vf a, int n) {
    _mm512_mask_storeu_ps(p, v_mask(n), a);
}
static inline vf v_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf v_f16_n(const void *p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p));
}
static inline vf v_bf16(const void *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vf v_bf16_n(const void *p, int n) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(v_mask(n), p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vf v_s8(const void *p) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
static inline vf v_bits(const void *p, int shift, int mask) {
    __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    wide = _mm512_srl_epi32(wide, _mm_cvtsi32_si128(shift));
    return _mm512_cvtepi32_ps(_mm512_and_si512(wide, _mm512_set1_epi32(mask)));
}
static inline void v_put_f16(uint16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_maskz_cvtps_ph(0xffff, a, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf v_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf v_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
static inline vf v_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
static inline vf v_abs(vf a) {
    return _mm512_abs_ps(a);
}
/* gcc 12's macro of this intrinsic, not optimized, passes its mask as a signed number. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
static inline vf v_round(vf a) {
    return _mm512_maskz_roundscale_ps(0xffff, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#pragma GCC diagnostic pop
static inline vf v_scale2(vf a, vf n) {
    return _mm512_scalef_ps(a, n);
}
static inline vf v_if_below(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
/* Adds halves to halves: lanes i + 8, then + 4, + 2, + 1. */
static inline float v_sum(vf a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float v_top(vf a) {
    return _mm512_reduce_max_ps(a);
}

#endif
