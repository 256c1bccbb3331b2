/* affine_avx2.h - what the kernels for affine weights with vectors of 32 bytes share.
 *
 * They are written once, in gemv_avx2_body.h and gemm_avx2_body.h, and compiled for AVX2 alone and
 * with AVX-VNNI, which has vpdpbusd for these vectors: the dot product of unsigned and signed bytes
 * in one instruction, for codes of any width. NAME(kernel) is what they are called. */
#ifndef JANG_OPS_AFFINE_AVX2_H
#define JANG_OPS_AFFINE_AVX2_H

#include "ops/cpu/kernel_table.h"

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define GEMV_TOKENS 4 /* rows of x at most */

#ifdef __AVXVNNI__
#define NAME(kernel) kernel##__avx_vnni
#define HAS_DOT true
#else
#define NAME(kernel) kernel##__avx2
#define HAS_DOT false
#endif

void NAME(kern_gemv_q8)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,
                        int64_t y_stride);

ALWAYS_INLINE int planes_of(int bits) {
    return bits == 2 ? 4 : bits == 4 ? 2 : 1;
}

#ifdef __AVXVNNI__
/* acc += the sums of four products u8 * s8 each. The intrinsic would do, but compilers copy
 * accumulators that stay in their register, and then run out of registers. */
ALWAYS_INLINE __m256i add_dots(__m256i acc, __m256i codes, __m256i x) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
    return acc;
}
#else
/* The same for codes of fewer than 8 bits. */
ALWAYS_INLINE __m256i add_dots(__m256i acc, __m256i codes, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(codes, x);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

ALWAYS_INLINE __m128i load16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

ALWAYS_INLINE __m256i load32(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Constants of the widths whose codes cross bytes. */
typedef struct windows {
    __m256i bytes[2], shifts[2]; /* for codes 0-7 and 8-15 of each 128-bit lane */
} windows;

ALWAYS_INLINE windows windows_for(int bits) {
    windows w;
    uint8_t at[2][32];
    uint16_t shift[2][16];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 16; i++) {
            int bit = (i % 8 + 8 * half) * bits;
            at[half][2 * i] = (uint8_t)(bit / 8 & 15);
            at[half][2 * i + 1] = (uint8_t)((bit / 8 + 1) & 15);
            shift[half][i] = (uint16_t)(1u << ((16 - bits - bit % 8) & 15));
        }
        w.bytes[half] = _mm256_loadu_si256((const __m256i *)(const void *)at[half]);
        w.shifts[half] = _mm256_loadu_si256((const __m256i *)(const void *)shift[half]);
    }
    return w;
}

/* 32 codes of 3, 5 or 6 bits in order. */
ALWAYS_INLINE __m256i cross_codes(const uint8_t *p, int bits, const windows *k) {
    typedef uint16_t words __attribute__((vector_size(32)));
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * bits));
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), half[2];
    for (int i = 0; i < 2; i++) {
        __m256i window = _mm256_shuffle_epi8(both, k->bytes[i]);
        half[i] = (__m256i)((words)_mm256_mullo_epi16(window, k->shifts[i]) >> (16 - bits));
    }
    return _mm256_packus_epi16(half[0], half[1]);
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
