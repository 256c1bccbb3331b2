/* gemv_avx512.c - affine weights by one to four rows of 8-bit activations, for decoding.
 *
 * Rows of the weight are read one after the other, in blocks of 16 groups. A chunk's planes meet
 * their activations in vpdpbusd; the 32-bit lanes of a group are then added by a tree of shuffles
 * that leaves the 16 groups' dot products in one vector, in order, to be multiplied with 16 scales
 * at once. Layouts and the order of sums are in affine_avx512.h. */
#include "ops/cpu/affine_avx512.h"
#include "ops/cpu/gemm_avx512.h"

#define GEMV_TOKENS 4

/* Each 128-bit lane: the sums of that lane of a, b, c, d. */
ALWAYS_INLINE __m512i add_quads(__m512i a, __m512i b, __m512i c, __m512i d) {
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* [a0+a1, a2+a3, b0+b1, b2+b3] of the 128-bit lanes. */
ALWAYS_INLINE __m512i add_lanes(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* n vectors, each of 16 / n groups that have n lanes each, to one of 16 groups in order. */
ALWAYS_INLINE __m512i add_groups(const __m512i *v, int n) {
    if (n == 16) {
        __m512i a = add_lanes(add_quads(v[0], v[1], v[2], v[3]), add_quads(v[4], v[5], v[6], v[7]));
        __m512i b =
            add_lanes(add_quads(v[8], v[9], v[10], v[11]), add_quads(v[12], v[13], v[14], v[15]));
        return add_lanes(a, b);
    }
    if (n == 8) {
        __m512i a = add_lanes(add_quads(v[0], v[1], v[2], v[3]), add_quads(v[4], v[5], v[6], v[7]));
        const __m512i order =
            _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
        return _mm512_permutexvar_epi32(order, a);
    }
    if (n == 4) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        return _mm512_permutexvar_epi32(order, add_quads(v[0], v[1], v[2], v[3]));
    }
    __m512 a = _mm512_castsi512_ps(v[0]), b = _mm512_castsi512_ps(v[1]);
    __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd));
    const __m512i order = _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    return _mm512_permutexvar_epi32(order, _mm512_add_epi32(even, odd));
}

/* One block of a row: n_groups of its 16 groups are there (full: all). */
typedef struct gemv_block {
    const uint8_t *codes, *scales, *biases;
    dtype type;
    int64_t group_at, n_groups; /* index of its first group in scales and biases */
    const int8_t *x;
    int64_t x_stride;
    const float *x_scales, *x_sums;
    int64_t x_group_stride;
} gemv_block;

/* Adds the block's part of the products to acc. bits, group, n_tok, full are constants where this
 * is inlined. */
ALWAYS_INLINE void add_block(__m256 *acc, const gemv_block *k, const spread *s, int bits, int group,
                             int n_tok, bool full) {
    const int planes = planes_of(bits), chunk = 64 * planes;
    const int per_vector = group > chunk ? group / chunk : 1; /* chunks */
    const int n_vectors = group > chunk ? 16 : 16 * group / chunk;
    int64_t bytes = k->n_groups * group * bits / 8;
    __m512i v[GEMV_TOKENS][16];
#pragma GCC unroll 16
    for (int i = 0; i < n_vectors; i++) {
        for (int t = 0; t < n_tok; t++) {
            v[t][i] = _mm512_setzero_si512();
        }
#pragma GCC unroll 2
        for (int c = i * per_vector; c < (i + 1) * per_vector; c++) {
            int64_t at = c * chunk_bytes_of(bits);
            if (!full && at >= bytes) {
                break;
            }
            __m512i packed = load_chunk(k->codes + at, bits, full, bytes - at);
#pragma GCC unroll 4
            for (int p = 0; p < planes; p++) {
                __m512i w = plane_of(packed, bits, p, s);
                for (int t = 0; t < n_tok; t++) {
                    const int8_t *x = k->x + t * k->x_stride + c * chunk + 64 * p;
                    v[t][i] = _mm512_dpbusd_epi32(v[t][i], w, _mm512_loadu_si512(x));
                }
            }
        }
    }
    __m512 scale = load_scales(k->scales, k->type, k->group_at, full ? 16 : k->n_groups);
    __m512 bias = load_scales(k->biases, k->type, k->group_at, full ? 16 : k->n_groups);
    __mmask16 there = (__mmask16)(full ? 0xffffu : (1u << k->n_groups) - 1);
    for (int t = 0; t < n_tok; t++) {
        __m512 dot = _mm512_cvtepi32_ps(add_groups(v[t], n_vectors));
        __m512 x_scale = _mm512_loadu_ps(k->x_scales + t * k->x_group_stride);
        __m512 x_sum = _mm512_loadu_ps(k->x_sums + t * k->x_group_stride);
        __m512 factor = _mm512_mul_ps(scale, x_scale);
#define HALF(a, i) ((i) ? _mm512_extractf32x8_ps(a, 1) : _mm512_castps512_ps256(a))
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __mmask8 m = (__mmask8)(there >> 8 * h);
            acc[t] = _mm256_mask3_fmadd_ps(HALF(factor, h), HALF(dot, h), acc[t], m);
            acc[t] = _mm256_mask3_fmadd_ps(HALF(bias, h), HALF(x_sum, h), acc[t], m);
        }
#undef HALF
    }
}

ALWAYS_INLINE float sum_lanes(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* Rows from .. to-1 by n_tok rows of x from row t0 on. */
ALWAYS_INLINE void gemv_rows(const weight_desc *w, const q8_rows *x, int64_t t0, int64_t from,
                             int64_t to, float *y, int64_t y_stride, int bits, int group,
                             int n_tok) {
    spread s = spread_for(bits);
    int64_t n_groups = w->n_in / group, row_bytes = w->n_in * bits / 8;
    gemv_block k = {.scales = w->scales,
                    .biases = w->biases,
                    .type = w->scale_type,
                    .x_stride = x->code_stride,
                    .x_group_stride = x->group_stride};
    for (int64_t r = from; r < to; r++) {
        __m256 acc[GEMV_TOKENS];
        for (int t = 0; t < n_tok; t++) {
            acc[t] = _mm256_setzero_ps();
        }
        const uint8_t *row = (const uint8_t *)w->data + r * row_bytes;
        int64_t g = 0;
        for (;; g += 16) {
            k.codes = row + g * (group * bits / 8);
            k.group_at = r * n_groups + g;
            k.x = x->codes + t0 * x->code_stride + g * group;
            k.x_scales = x->scales + t0 * x->group_stride + g;
            k.x_sums = x->sums + t0 * x->group_stride + g;
            if (g + 16 > n_groups) {
                break;
            }
            add_block(acc, &k, &s, bits, group, n_tok, true);
        }
        k.n_groups = n_groups - g;
        if (k.n_groups > 0) {
            add_block(acc, &k, &s, bits, group, n_tok, false);
        }
        for (int t = 0; t < n_tok; t++) {
            y[(t0 + t) * y_stride + r - from] = sum_lanes(acc[t]);
        }
    }
}

typedef void (*gemv_fn)(const weight_desc *w, const q8_rows *x, int64_t t0, int64_t from,
                        int64_t to, float *y, int64_t y_stride);

#define GEMV(bits, group, n_tok)                                                                   \
    static void kern_gemv_q8_q##bits##_g##group##_x##n_tok##__avx512(                              \
        const weight_desc *w, const q8_rows *x, int64_t t0, int64_t from, int64_t to, float *y,    \
        int64_t y_stride) {                                                                        \
        gemv_rows(w, x, t0, from, to, y, y_stride, bits, group, n_tok);                            \
    }
#define GEMV_OF_GROUP(bits, group) GEMV(bits, group, 1) GEMV(bits, group, 2) GEMV(bits, group, 4)
#define GEMV_OF_BITS(bits) GEMV_OF_GROUP(bits, 32) GEMV_OF_GROUP(bits, 64) GEMV_OF_GROUP(bits, 128)
GEMV_OF_BITS(2)
GEMV_OF_BITS(3)
GEMV_OF_BITS(4)
GEMV_OF_BITS(5)
GEMV_OF_BITS(6)
GEMV_OF_BITS(8)

#define NAMES_OF_GROUP(bits, group)                                                                \
    {                                                                                              \
        kern_gemv_q8_q##bits##_g##group##_x1__avx512,                                              \
            kern_gemv_q8_q##bits##_g##group##_x2__avx512,                                          \
            kern_gemv_q8_q##bits##_g##group##_x4__avx512                                           \
    }
#define NAMES(bits)                                                                                \
    { NAMES_OF_GROUP(bits, 32), NAMES_OF_GROUP(bits, 64), NAMES_OF_GROUP(bits, 128) }

/* [bits][group 32, 64, 128][1, 2, 4 rows of x] */
static const gemv_fn gemv_table[9][3][3] = {
    [2] = NAMES(2), [3] = NAMES(3), [4] = NAMES(4), [5] = NAMES(5), [6] = NAMES(6), [8] = NAMES(8)};

void kern_gemv_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          float *y, int64_t y_stride) {
    const gemv_fn *fn = gemv_table[w->bits][w->group / 64];
    for (int64_t t = 0; t < x->n_row;) {
        int64_t left = x->n_row - t;
        int size = left >= 4 ? 2 : left >= 2 ? 1 : 0;
        fn[size](w, x, t, from, to, y, y_stride);
        t += (int64_t)1 << size;
    }
}
