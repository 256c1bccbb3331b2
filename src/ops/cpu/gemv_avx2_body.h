/* gemv_avx2_body.h - affine weights by one to four rows of 8-bit activations (affine_avx2.h).
 *
 * A chunk is 32 * planes codes. 2 and 4 bits: 32 bytes as they lie, plane p one shift away, byte j
 * of it code j * planes + p of the chunk; activations are stored plane by plane. The other widths
 * have one plane: for 3, 5 and 6 bits each code's 16-bit window is moved into a lane of its own,
 * shifted by a multiplication, and packed. Without vpdpbusd, vpmaddubsw multiplies unsigned codes
 * by signed activations: 2 * 63 * 128 fits 16 bits; codes of 8 bits do not, they are widened first.
 *
 * Order of sums as in affine_avx512.h: lane g mod 8. */
#include "ops/cpu/affine_avx2.h"

#include <string.h>

/* Bytes that loading a chunk touches. */
ALWAYS_INLINE int chunk_reach(int bits) {
    return bits == 2 || bits == 4 || bits == 8 ? 32 : 2 * bits + 16;
}

/* A chunk's codes, in planes of 32; 8 bits: as they lie. */
ALWAYS_INLINE void unpack_chunk(__m256i *codes, const uint8_t *w, int bits, const windows *k) {
    typedef uint16_t words __attribute__((vector_size(32)));
    if (planes_of(bits) == 1) {
        codes[0] = bits == 8 ? load32(w) : cross_codes(w, bits, k);
        return;
    }
    __m256i packed = load32(w), mask = _mm256_set1_epi8((char)((1 << bits) - 1));
#pragma GCC unroll 4
    for (int p = 0; p < planes_of(bits); p++) {
        codes[p] = _mm256_and_si256((__m256i)((words)packed >> (p * bits)), mask);
    }
}

/* dot += the products of a chunk, in 32-bit lanes. */
ALWAYS_INLINE __m256i add_chunk(__m256i dot, const __m256i *codes, const int8_t *x, int bits) {
    if (HAS_DOT) {
#pragma GCC unroll 4
        for (int p = 0; p < planes_of(bits); p++) {
            dot = add_dots(dot, codes[p], load32(x + 32 * p));
        }
        return dot;
    }
    if (bits == 8) {
        for (int h = 0; h < 2; h++) {
            __m128i half =
                h ? _mm256_extracti128_si256(codes[0], 1) : _mm256_castsi256_si128(codes[0]);
            __m256i b = _mm256_cvtepi8_epi16(load16(x + 16 * h));
            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_cvtepu8_epi16(half), b));
        }
        return dot;
    }
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int p = 0; p < planes_of(bits); p++) {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes[p], load32(x + 32 * p)));
    }
    return _mm256_add_epi32(dot, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

/* n vectors of 8 / n groups each, to the sums of 8 groups in order. */
ALWAYS_INLINE __m256i add_groups(const __m256i *v, int n) {
    if (n == 2) {
        const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
        return _mm256_permutevar8x32_epi32(_mm256_hadd_epi32(v[0], v[1]), order);
    }
    __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    if (n == 4) {
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        return _mm256_permutevar8x32_epi32(a, order);
    }
    __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

/* One row of the weight from group g on: n_groups of 8 are there. */
typedef struct gemv_block {
    const uint8_t *codes;
    int64_t bytes; /* of codes to the end of the row */
    const uint8_t *scales, *biases;
    dtype type;
    int64_t at, n_groups; /* of scales */
    const int8_t *low, *high;
    const uint8_t *picks;
    const float *x_scales, *x_sums;
    int64_t x_stride, x_group_stride;
} gemv_block;

ALWAYS_INLINE void add_block(__m256 *acc, const gemv_block *b, const windows *k, int bits,
                             int group, int n_tok) {
    const int chunk = 32 * planes_of(bits), size = chunk * bits / 8;
    const int per_vector = group > chunk ? group / chunk : 1;
    const int n_vectors = group > chunk ? 8 : 8 * group / chunk;
    int64_t bytes = b->n_groups * group * bits / 8;
    __m256i v[GEMV_TOKENS][8];
    bool any[GEMV_TOKENS];
    for (int t = 0; t < n_tok; t++) {
        any[t] = false;
        for (int64_t g = 0; g < b->n_groups; g++) {
            uint32_t steps;
            memcpy(&steps, b->picks + (t * b->x_group_stride + g) * Q8_PICKS, sizeof steps);
            any[t] = any[t] || steps != 0;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n_vectors; i++) {
        __m256i high[GEMV_TOKENS];
        for (int t = 0; t < n_tok; t++) {
            v[t][i] = high[t] = _mm256_setzero_si256();
        }
        for (int c = i * per_vector; c < (i + 1) * per_vector && c * size < bytes; c++) {
            const uint8_t *w = b->codes + c * size;
            uint8_t last[32] = {0};
            if (b->bytes - c * size < chunk_reach(bits)) { /* the end of the row */
                int64_t left = b->bytes - c * size;
                memcpy(last, w, (size_t)left);
                w = last;
            }
            __m256i codes[4];
            unpack_chunk(codes, w, bits, k);
            for (int t = 0; t < n_tok; t++) {
                int64_t at = t * b->x_stride + c * chunk;
                v[t][i] = add_chunk(v[t][i], codes, b->low + at, bits);
                if (any[t]) {
                    high[t] = add_chunk(high[t], codes, b->high + at, bits);
                }
            }
        }
        for (int t = 0; t < n_tok; t++) {
            v[t][i] = _mm256_add_epi32(v[t][i], _mm256_slli_epi32(high[t], 8));
        }
    }
    __m256 scale = load_scales(b->scales, b->type, b->at, b->n_groups);
    __m256 bias = load_scales(b->biases, b->type, b->at, b->n_groups);
    for (int t = 0; t < n_tok; t++) {
        __m256 dot = _mm256_cvtepi32_ps(add_groups(v[t], n_vectors));
        __m256 factor = _mm256_mul_ps(scale, _mm256_loadu_ps(b->x_scales + t * b->x_group_stride));
        __m256 sum = _mm256_fmadd_ps(factor, dot, acc[t]);
        sum = _mm256_fmadd_ps(bias, _mm256_loadu_ps(b->x_sums + t * b->x_group_stride), sum);
        __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)b->n_groups),
                                           _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        acc[t] = _mm256_blendv_ps(acc[t], sum, _mm256_castsi256_ps(there));
    }
}

ALWAYS_INLINE void gemv_rows(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                             float *y, int64_t y_stride, int bits, int group, int n_tok) {
    windows k = windows_for(bits);
    int64_t n_groups = w->n_in / group, row_bytes = w->n_in * bits / 8;
    for (int64_t r = from; r < to; r++) {
        __m256 acc[GEMV_TOKENS];
        for (int t = 0; t < n_tok; t++) {
            acc[t] = _mm256_setzero_ps();
        }
        for (int64_t g = 0; g < n_groups; g += 8) {
            gemv_block b = {.bytes = row_bytes - g * group * bits / 8,
                            .scales = w->scales,
                            .biases = w->biases,
                            .type = w->scale_type,
                            .at = r * n_groups + g,
                            .n_groups = n_groups - g < 8 ? n_groups - g : 8,
                            .low = x->low + g * group,
                            .high = x->high + g * group,
                            .picks = x->picks + g * Q8_PICKS,
                            .x_scales = x->scales + g,
                            .x_sums = x->sums + g,
                            .x_stride = x->code_stride,
                            .x_group_stride = x->group_stride};
            b.codes = (const uint8_t *)w->data + (r + 1) * row_bytes - b.bytes;
            add_block(acc, &b, &k, bits, group, n_tok);
        }
        for (int t = 0; t < n_tok; t++) {
            y[t * y_stride + r - from] = sum_lanes(acc[t]);
        }
    }
}

#include "ops/cpu/gemv_widths.h"

void NAME(kern_gemv_q8)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,
                        int64_t y_stride) {
    gemv_by_width(w, x, from, to, y, y_stride);
}
