/* affine_avx512.h - what the AVX-512 kernels for affine weights share: layouts, unpacking, scales.
 *
 * Planes. A chunk is 64 * planes codes. For 2 and 4 bits it is 64 bytes of the weight as they lie:
 * byte j holds codes j * planes + p in bits from p * bits up, so plane p of a chunk is one shift
 * and one mask away, and activations are stored plane by plane. The other widths have one plane,
 * whose 64 codes a byte permutation and a multishift put in order.
 *
 * Order of sums. The integer dot product of a group is exact. Group g belongs to lane g mod 8 of
 * the f32 accumulator, which takes its groups in order, each as
 *     acc = fma(scale * sx, dot, acc);  acc = fma(bias, sx * sum, acc)
 * and in the end ((0+4) + (2+6)) + ((1+5) + (3+7)) of the lanes is the result. */
#ifndef JANG_OPS_AFFINE_AVX512_H
#define JANG_OPS_AFFINE_AVX512_H

#include "ops/cpu/kernel_table.h"

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Rows of x that a tile of the GEMM takes; their codes are interleaved 4 bytes by 4. */
#define GEMM_TOKENS 12
#define GEMM_ROWS 32

ALWAYS_INLINE int planes_of(int bits) {
    return bits == 2 ? 4 : bits == 4 ? 2 : 1;
}

/* Codes of a row of the weight as the GEMV's vectors take them: gemv_groups groups share a vector,
 * each with as many lanes, and gemv_parts vectors of bytes together have all codes of these groups.
 * Of 3, 5 and 6 bits a 64-bit lane gets 8 codes of each of so many planes, which follow each other
 * in the weight. */
ALWAYS_INLINE int gemv_planes(int bits) {
    return bits == 2 ? 4 : bits == 3 || bits == 4 ? 2 : 1;
}

ALWAYS_INLINE int gemv_groups(int bits, int group) {
    if (bits == 2 || bits == 4 || bits == 8) {
        int codes = 64 * gemv_planes(bits);
        return codes > group ? codes / group : 1;
    }
    return group == 128 ? 1 : (bits == 3 ? 256 : 128) / group;
}

ALWAYS_INLINE int gemv_parts(int bits, int group) {
    return gemv_groups(bits, group) * group / 64;
}

/* acc += the sums of four products u8 * s8 each. The intrinsic would do, but compilers (gcc 12)
 * copy accumulators that stay in their register, and then run out of registers in large tiles. */
ALWAYS_INLINE void add_dots(__m512i *acc, __m512i w, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(w), "v"(x));
}

/* Bytes of packed codes in a chunk. */
ALWAYS_INLINE int chunk_bytes_of(int bits) {
    return 8 * bits * planes_of(bits);
}

ALWAYS_INLINE __mmask64 first_bytes(int64_t n) {
    return n >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1;
}

/* For 3, 5 and 6 bits: puts the `bits` bytes that hold codes 8 j .. 8 j + 7 at the head of 64-bit
 * lane j, then takes the eight codes out of it. */
typedef struct spread {
    __m512i bytes, shifts, mask;
} spread;

ALWAYS_INLINE spread spread_for(int bits) {
    spread s;
    uint8_t at[64];
    uint64_t shifts = 0;
    for (int i = 0; i < 64; i++) {
        at[i] = (uint8_t)((i / 8 * bits + i % 8) & 63);
    }
    for (int i = 0; i < 8; i++) {
        shifts |= (uint64_t)(i * bits) << 8 * i;
    }
    s.bytes = _mm512_loadu_si512(at);
    s.shifts = _mm512_set1_epi64((long long)shifts);
    s.mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    return s;
}

/* Plane p of a chunk. */
ALWAYS_INLINE __m512i plane_of(__m512i packed, int bits, int p, const spread *s) {
    if (bits == 8) {
        return packed;
    }
    if (planes_of(bits) == 1) {
        __m512i lanes = _mm512_permutexvar_epi8(s->bytes, packed);
        return _mm512_and_si512(_mm512_multishift_epi64_epi8(s->shifts, lanes), s->mask);
    }
    typedef uint16_t words __attribute__((vector_size(64)));
    return _mm512_and_si512((__m512i)((words)packed >> (p * bits)), s->mask);
}

/* A chunk at p. Nothing beyond its bytes is read; full: all its bytes are there, else n. */
ALWAYS_INLINE __m512i load_chunk(const uint8_t *p, int bits, bool full, int64_t n) {
    if (full && chunk_bytes_of(bits) == 64) {
        return _mm512_loadu_si512(p);
    }
    if (full && bits == 6) {
        return _mm512_maskz_loadu_epi64(0x3f, p);
    }
    if (full && bits == 5) {
        return _mm512_maskz_loadu_epi64(0x1f, p);
    }
    if (full) {
        return _mm512_maskz_loadu_epi64(0x07, p);
    }
    return _mm512_maskz_loadu_epi8(first_bytes(n < chunk_bytes_of(bits) ? n : chunk_bytes_of(bits)),
                                   p);
}

/* Sixteen scales or biases as f32; n of them are there. */
ALWAYS_INLINE __m512 load_scales(const uint8_t *p, dtype type, int64_t at, int64_t n) {
    __mmask16 mask = (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
    if (type == DT_F32) {
        return _mm512_maskz_loadu_ps(mask, p + 4 * at);
    }
    __m256i half = _mm256_maskz_loadu_epi16(mask, p + 2 * at);
    if (type == DT_F16) {
        return _mm512_cvtph_ps(half);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

#endif
