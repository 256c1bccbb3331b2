/* affine_avx2.h - what the AVX2 kernels for affine weights share. */
#ifndef JANG_OPS_AFFINE_AVX2_H
#define JANG_OPS_AFFINE_AVX2_H

#include "ops/cpu/kernel_table.h"

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

void kern_gemv_q8__avx2(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,
                        int64_t y_stride);

ALWAYS_INLINE int planes_of(int bits) {
    return bits == 2 ? 4 : bits == 4 ? 2 : 1;
}

ALWAYS_INLINE __m128i load16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

ALWAYS_INLINE __m256i load32(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Eight scales or biases from index `at` on as f32; n of them are there, the others read as 0. */
ALWAYS_INLINE __m256 load_scales(const uint8_t *p, dtype type, int64_t at, int64_t n) {
    if (type == DT_F32) {
        __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                                           _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        return _mm256_maskload_ps((const float *)(const void *)(p + 4 * at), there);
    }
    uint16_t last[8] = {0};
    p += 2 * at;
    if (n < 8) {
        for (int64_t i = 0; i < n; i++) {
            __builtin_memcpy(&last[i], p + 2 * i, 2);
        }
        p = (const uint8_t *)last;
    }
    __m128i half = load16(p);
    if (type == DT_F16) {
        return _mm256_cvtph_ps(half);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* ((0+4) + (2+6)) + ((1+5) + (3+7)) */
ALWAYS_INLINE float sum_lanes(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

#endif
