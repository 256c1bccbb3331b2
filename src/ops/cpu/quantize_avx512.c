/* quantize_avx512.c - activations to integers, in the orders that the AVX-512 kernels read. */
#include "ops/cpu/affine_avx512.h"
#include "ops/cpu/gemm_avx512.h"
#include "ops/rounding.h"

#include <string.h>

/* Rounds one group. Returns whether any code has a high part. */
ALWAYS_INLINE bool quantize_group(int8_t *low, int8_t *high, float *scale, float *sum,
                                  const float *x, int n, float limit) {
    __m512i top = _mm512_setzero_si512(), magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int i = 0; i < n; i += 16) {
        top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    }
    int bits = _mm512_reduce_max_epi32(top);
    float max, factor;
    memcpy(&max, &bits, sizeof max);
    if (!rounding_scale(scale, &factor, max, limit)) {
        memset(low, 0, (size_t)n);
        memset(high, 0, (size_t)n);
        *sum = *scale;
        return false;
    }
    __m512 inverse = _mm512_set1_ps(factor);
    __m512i total = _mm512_setzero_si512(), any = total, half = _mm512_set1_epi32(128);
    for (int i = 0; i < n; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
        __m512i above = _mm512_srai_epi32(_mm512_add_epi32(q, half), 8);
        total = _mm512_add_epi32(total, q);
        any = _mm512_or_si512(any, above);
        _mm_storeu_si128((__m128i *)(void *)(low + i), _mm512_cvtepi32_epi8(q));
        _mm_storeu_si128((__m128i *)(void *)(high + i), _mm512_cvtepi32_epi8(above));
    }
    *sum = *scale * (float)_mm512_reduce_add_epi32(total);
    return _mm512_test_epi32_mask(any, any) != 0;
}

/* Sources of the bytes of the two planes of 4 bits, which codes go to in turn, and of the four
 * planes of 2 bits in one register of codes. */
#define EVERY_SECOND(a) a, a + 2, a + 4, a + 6, a + 8, a + 10, a + 12, a + 14
#define PLANE_OF_TWO(p)                                                                            \
    {                                                                                              \
        EVERY_SECOND(p), EVERY_SECOND(p + 16), EVERY_SECOND(p + 32), EVERY_SECOND(p + 48),         \
            EVERY_SECOND(p + 64), EVERY_SECOND(p + 80), EVERY_SECOND(p + 96),                      \
            EVERY_SECOND(p + 112)                                                                  \
    }
#define EVERY_FOURTH(a)                                                                            \
    a, a + 4, a + 8, a + 12, a + 16, a + 20, a + 24, a + 28, a + 32, a + 36, a + 40, a + 44,       \
        a + 48, a + 52, a + 56, a + 60
static const uint8_t two_planes[2][64] = {PLANE_OF_TWO(0), PLANE_OF_TWO(1)};
static const uint8_t four_planes[64] = {EVERY_FOURTH(0), EVERY_FOURTH(1), EVERY_FOURTH(2),
                                        EVERY_FOURTH(3)};

ALWAYS_INLINE void store_two_planes(int8_t *out, const __m512i *v) {
    for (int p = 0; p < 2; p++) {
        __m512i order = _mm512_loadu_si512(two_planes[p]);
        for (int i = 0; i < 4; i += 2) {
            __m512i plane = _mm512_permutex2var_epi8(v[i], order, v[i + 1]);
            _mm512_storeu_si512(out + 64 * (i + p), plane);
        }
    }
}

/* Each register gives a 128-bit lane to every plane. */
ALWAYS_INLINE void store_four_planes(int8_t *out, const __m512i *v) {
    __m512i order = _mm512_loadu_si512(four_planes), a[4];
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_permutexvar_epi8(order, v[i]);
    }
    __m512i low01 = _mm512_shuffle_i32x4(a[0], a[1], 0x44);
    __m512i low23 = _mm512_shuffle_i32x4(a[2], a[3], 0x44);
    __m512i high01 = _mm512_shuffle_i32x4(a[0], a[1], 0xee);
    __m512i high23 = _mm512_shuffle_i32x4(a[2], a[3], 0xee);
    _mm512_storeu_si512(out, _mm512_shuffle_i32x4(low01, low23, 0x88));
    _mm512_storeu_si512(out + 64, _mm512_shuffle_i32x4(low01, low23, 0xdd));
    _mm512_storeu_si512(out + 128, _mm512_shuffle_i32x4(high01, high23, 0x88));
    _mm512_storeu_si512(out + 192, _mm512_shuffle_i32x4(high01, high23, 0xdd));
}

/* Eight codes each that unpacking keeps together, for 3, 5 and 6 bits (affine_avx512.h). */
static void store_eights(int8_t *out, const int8_t *codes, int bits, int group) {
    const int planes = gemv_planes(bits), groups = gemv_groups(bits, group);
    const int lanes = 8 / groups, n = 8 * gemv_parts(bits, group);
    for (int i = 0; i < Q8_PAD / 8; i++) {
        int lane = i % 8, plane = i / 8 % planes, step = i % n / (8 * planes);
        int in_group = (step * lanes + lane % lanes) * planes + plane;
        int from = i / n * n + lane / lanes * (n / groups) + in_group;
        memcpy(out + 8 * i, codes + 8 * from, 8);
    }
}

/* Puts Q8_PAD codes into the order in which gemv_avx512.c unpacks those of the weight. */
static void store_planes(int8_t *out, const int8_t *codes, int bits, int group) {
    __m512i v[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_loadu_si512(codes + 64 * i);
    }
    if (bits == 2) {
        store_four_planes(out, v);
    } else if (bits == 4) {
        store_two_planes(out, v);
    } else if (bits == 8) {
        memcpy(out, codes, Q8_PAD);
    } else {
        store_eights(out, codes, bits, group);
    }
}

/* Puts Q8_PAD codes into the order of a panel's steps: of each 4 * planes codes, those of plane 0,
 * then of plane 1, ...; 4 bytes of it go to every width-th place of out. Returns the set of steps
 * that are not zero. */
static uint64_t store_steps(uint32_t *out, const int8_t *codes, int planes, int width) {
    uint8_t at[16];
    for (int i = 0; i < 16; i++) {
        int block = 4 * planes, j = i % block;
        at[i] = (uint8_t)(i / block * block + j % 4 * planes + j / 4);
    }
    __m512i order = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)at));
    uint32_t steps[Q8_PAD / 4];
    uint64_t there = 0;
    for (int i = 0; i < 4; i++) {
        __m512i v = _mm512_shuffle_epi8(_mm512_loadu_si512(codes + 64 * i), order);
        _mm512_storeu_si512(steps + 16 * i, v);
        there |= (uint64_t)_mm512_test_epi32_mask(v, v) << 16 * i;
    }
    for (int i = 0; i < Q8_PAD / 4; i++) {
        out[i * width] = steps[i];
    }
    return there;
}

/* How many steps of a group have a high part in this row, and which; the places left over name a
 * step that has none. */
static void store_picks(uint8_t *picks, uint64_t there, int steps, int width) {
    uint64_t left = there, none = ~there;
    picks[0] = (uint8_t)__builtin_popcountll(there);
    for (int k = 1; k < Q8_PICKS; k++, left &= left - 1) {
        int step = __builtin_ctzll(left ? left : none);
        picks[k * width] = (uint8_t)(step < steps ? step : 0);
    }
}

/* One row of x in the order of a tile, of which it is row `column`. */
static void quantize_for_gemm(q8_rows *tile, int column, int width, const float *x, int64_t n,
                              int bits, int group, float limit) {
    int64_t n_groups = n / group;
    const int steps = group / 4;
    for (int64_t i = 0, g = 0; i < n; i += Q8_PAD) {
        int8_t low[Q8_PAD] = {0}, high[Q8_PAD] = {0};
        int64_t first = g;
        for (int j = 0; j < Q8_PAD && g < n_groups; j += group, g++) {
            int64_t at = g * width + column;
            quantize_group(low + j, high + j, &tile->scales[at], &tile->sums[at], x + i + j, group,
                           limit);
        }
        int64_t at = i / 4 * width + column;
        store_steps((uint32_t *)(void *)tile->low + at, low, planes_of(bits), width);
        uint64_t there =
            store_steps((uint32_t *)(void *)tile->high + at, high, planes_of(bits), width);
        for (int64_t j = first; j < g; j++, there >>= steps) {
            uint8_t *picks = tile->picks + j * Q8_PICKS * width + column;
            store_picks(picks, there & (((uint64_t)1 << steps) - 1), steps, width);
        }
    }
}

/* Which 32 of Q8_PAD codes have something in them, bit by bit. */
static uint64_t pieces_there(const int8_t *codes) {
    uint64_t there = 0;
    for (int i = 0; i < Q8_PAD / 32; i++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(codes + 32 * i));
        there |= (uint64_t)(_mm256_test_epi32_mask(v, v) != 0) << i;
    }
    return there;
}

/* One row of x in the order of the planes. picks become a word of 64 bits for each 16 groups, whose
 * bit i says whether there is a high part in their i-th 32 codes. */
static void quantize_for_gemv(q8_rows *to, const float *x, int64_t n, int bits, int group,
                              float limit) {
    int64_t n_groups = n / group, block = 16 * group;
    uint64_t picks = 0;
    for (int64_t i = 0, g = 0; i < n; i += Q8_PAD) {
        int8_t low[Q8_PAD] = {0}, high[Q8_PAD] = {0};
        bool any = false;
        for (int j = 0; j < Q8_PAD && g < n_groups; j += group, g++) {
            any |= quantize_group(low + j, high + j, &to->scales[g], &to->sums[g], x + i + j, group,
                                  limit);
        }
        store_planes(to->low + i, low, bits, group);
        if (any) {
            store_planes(to->high + i, high, bits, group);
            picks |= pieces_there(to->high + i) << i % block / 32;
        } else {
            memset(to->high + i, 0, Q8_PAD);
        }
        if ((i + Q8_PAD) % block == 0 || i + Q8_PAD >= n) {
            memcpy(to->picks + i / block * (int64_t)sizeof picks, &picks, sizeof picks);
            picks = 0;
        }
    }
}

void kern_quantize_q8__avx512(const q8_rows *out, int64_t row, const float *x, int64_t n, int bits,
                              int group, float limit, q8_order order) {
    if (order == Q8_FOR_GEMV) {
        q8_rows to = q8_part(out, row, 1);
        quantize_for_gemv(&to, x, n, bits, group, limit);
        return;
    }
    int64_t first = row / GEMM_TOKENS * GEMM_TOKENS, left = out->n_row - first;
    int width = (int)(left < GEMM_TOKENS ? left : GEMM_TOKENS);
    q8_rows tile = q8_part(out, first, width);
    quantize_for_gemm(&tile, (int)(row - first), width, x, n, bits, group, limit);
}
