/* gemm_avx2_body.h - affine weights by many rows of 8-bit activations, and the rounding of
 * activations to 8 bits (affine_avx2.h).
 *
 * Sixteen rows of the weight are unpacked once into a panel: step s holds, for each row, four codes
 * as one 32-bit lane, so one broadcast of four activation codes serves 8 rows in each product. A
 * tile is 16 rows by up to 4 rows of x, 6 with vpdpbusd. Codes of 8 bits do not fit vpmaddubsw;
 * they go as two steps then, the low and the high four bits, and the sum of the second counts
 * sixteenfold. The order of sums is that of gemv_avx2_body.h. */
#include "base/half.h"
#include "ops/cpu/affine_avx2.h"
#include "ops/rounding.h"

#include <string.h>

#define TILE_ROWS 16
#define TILE_TOKENS (HAS_DOT ? 6 : 4)

/* ---- Activations ------------------------------------------------------------------------------
 */

static int32_t sum_ints(__m256i v) {
    int32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, v);
    for (int i = 0; i < 8; i++) {
        sum += lanes[i];
    }
    return sum;
}

static float largest(const float *x, int n) {
    __m256i top = _mm256_setzero_si256(), magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int i = 0; i < n; i += 8) {
        top = _mm256_max_epi32(top, _mm256_and_si256(load32(x + i), magnitude));
    }
    int32_t lanes[8], bits = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, top);
    for (int i = 0; i < 8; i++) {
        bits = lanes[i] > bits ? lanes[i] : bits;
    }
    return f32_from_bits((uint32_t)bits);
}

/* The eight lanes' low bytes. */
ALWAYS_INLINE void store_bytes(int8_t *out, __m256i v) {
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64((__m128i *)(void *)out, _mm_packs_epi16(words, words));
}

/* Rounds one group. Returns which steps, of four codes each, have high parts. */
static uint32_t quantize_group(int8_t *low, int8_t *high, float *scale, float *sum, const float *x,
                               int n, float limit) {
    float factor;
    if (!rounding_scale(scale, &factor, largest(x, n), limit)) {
        memset(low, 0, (size_t)n);
        memset(high, 0, (size_t)n);
        *sum = *scale;
        return 0;
    }
    __m256 inverse = _mm256_set1_ps(factor);
    __m256i total = _mm256_setzero_si256(), half = _mm256_set1_epi32(128);
    uint32_t steps = 0;
    for (int i = 0; i < n; i += 8) {
        __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        __m256i above = _mm256_srai_epi32(_mm256_add_epi32(q, half), 8);
        total = _mm256_add_epi32(total, q);
        __m256i none = _mm256_cmpeq_epi32(above, _mm256_setzero_si256());
        int there = ~_mm256_movemask_ps(_mm256_castsi256_ps(none)) & 255;
        steps |= (uint32_t)(((there & 15) != 0) | ((there > 15) << 1)) << i / 4;
        store_bytes(low + i, _mm256_sub_epi32(q, _mm256_slli_epi32(above, 8)));
        store_bytes(high + i, above);
    }
    *sum = *scale * (float)sum_ints(total);
    return steps;
}

static void NAME(kern_quantize_q8)(const q8_rows *out, int64_t row, const float *x, int64_t n,
                                   int bits, int group, float limit, q8_order order) {
    int planes = order == Q8_FOR_GEMV ? planes_of(bits) : 1, chunk = 32 * planes;
    q8_rows to = q8_part(out, row, 1);
    for (int64_t i = 0, g = 0; i < n; i += Q8_PAD) {
        int8_t low[Q8_PAD] = {0}, high[Q8_PAD] = {0};
        for (int j = 0; j < Q8_PAD && i + j < n; j += group, g++) {
            uint32_t steps = quantize_group(low + j, high + j, &to.scales[g], &to.sums[g],
                                            x + i + j, group, limit);
            memcpy(to.picks + g * Q8_PICKS, &steps, sizeof steps);
        }
        for (int j = 0; j < Q8_PAD; j++) {
            int64_t at = i + j / chunk * chunk + j % chunk % planes * 32 + j % chunk / planes;
            to.low[at] = low[j];
            to.high[at] = high[j];
        }
    }
}

/* ---- The panel --------------------------------------------------------------------------------
 */

/* Steps [n][16 rows][4 codes] (8 bits: two a step, low and high), then scales and biases, each
 * [n_groups][16 rows] f32. Rows beyond the last repeat it. */
typedef struct panel {
    uint8_t *codes;
    float *scales, *biases;
} panel;

/* Whether codes are too large for one product. */
ALWAYS_INLINE bool is_wide(int bits) {
    return bits == 8 && !HAS_DOT;
}

/* Bytes of a step. */
ALWAYS_INLINE int step_bytes(bool wide) {
    return TILE_ROWS * (wide ? 8 : 4);
}

static size_t gemm_panel_bytes(int64_t n_in) {
    size_t n_groups = (size_t)n_in / 32 + 1;
    return 3 * (size_t)n_in * TILE_ROWS + 2 * n_groups * TILE_ROWS * sizeof(float);
}

/* 32 codes, in order, of which the row has `left` bytes. */
ALWAYS_INLINE __m256i unpack_some(const uint8_t *p, int64_t left, int bits, const windows *k) {
    uint8_t last[32] = {0};
    if (bits != 8 && left < 2 * bits + 16) { /* the end of the row: loads are longer than codes */
        memcpy(last, p, (size_t)(4 * bits));
        p = last;
    }
    if (planes_of(bits) == 1) {
        return bits == 8 ? load32(p) : cross_codes(p, bits, k);
    }
    const __m128i mask = _mm_set1_epi8((char)((1 << bits) - 1));
    __m128i v = load16(p), plane[4], half[2];
    for (int i = 0; i < planes_of(bits); i++) {
        plane[i] = _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128(i * bits)), mask);
    }
    half[0] = _mm_unpacklo_epi8(plane[0], plane[1]);
    half[1] = _mm_unpackhi_epi8(plane[0], plane[1]);
    if (bits == 2) { /* of 64 codes the first 32 */
        __m128i other = _mm_unpacklo_epi8(plane[2], plane[3]);
        half[1] = _mm_unpackhi_epi16(half[0], other);
        half[0] = _mm_unpacklo_epi16(half[0], other);
    }
    return _mm256_inserti128_si256(_mm256_castsi128_si256(half[0]), half[1], 1);
}

/* m[i] lane j <-> m[j] lane i. */
ALWAYS_INLINE void transpose(__m256i *m) {
    __m256i a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32(m[i], m[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(m[i], m[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        m[i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x20);
        m[4 + i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x31);
    }
}

/* The codes of eight rows into their lanes of all steps. */
ALWAYS_INLINE void spread_eight(uint32_t *step, const uint8_t *const *rows, int64_t row_bytes,
                                int bits) {
    const windows k = windows_for(bits);
    const bool wide = is_wide(bits);
    const __m256i low = _mm256_set1_epi8(15);
    for (int64_t at = 0; at < row_bytes; at += 4 * bits) {
        __m256i m[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            m[i] = unpack_some(rows[i] + at, row_bytes - at, bits, &k);
        }
        transpose(m);
#pragma GCC unroll 8
        for (int s = 0; s < 8; s++) {
            if (wide) {
                __m256i upper = _mm256_and_si256(_mm256_srli_epi16(m[s], 4), low);
                _mm256_storeu_si256((__m256i *)(void *)(step + TILE_ROWS), upper);
                m[s] = _mm256_and_si256(m[s], low);
            }
            _mm256_storeu_si256((__m256i *)(void *)step, m[s]);
            step += TILE_ROWS * (wide ? 2 : 1);
        }
    }
}

static void spread_codes(uint32_t *step, const uint8_t *const *rows, int64_t row_bytes, int bits) {
    CALL_BY_WIDTH(bits, spread_eight, step, rows, row_bytes)
}

/* Scales or biases of eight rows, rows[i] being the index of row i's first, into their lanes. */
static void spread_scales(float *out, const uint8_t *scales, dtype type, const int64_t *rows,
                          int64_t n_groups) {
    for (int64_t g = 0; g < n_groups; g += 8) {
        int64_t n = n_groups - g < 8 ? n_groups - g : 8;
        __m256i m[8];
        for (int i = 0; i < 8; i++) {
            m[i] = _mm256_castps_si256(load_scales(scales, type, rows[i] + g, n));
        }
        transpose(m);
        for (int64_t i = 0; i < n; i++) {
            _mm256_storeu_ps(out + (g + i) * TILE_ROWS, _mm256_castsi256_ps(m[i]));
        }
    }
}

/* Rows from .. to-1 of w, of which the last stands for those that are missing. */
static panel panel_of(const weight_desc *w, int64_t from, int64_t to, uint8_t *memory) {
    const int64_t n_groups = w->n_in / w->group, row_bytes = w->n_in * w->bits / 8;
    panel p = {.codes = memory};
    p.scales = (float *)(void *)(memory + (is_wide(w->bits) ? 2 : 1) * w->n_in * TILE_ROWS);
    p.biases = p.scales + n_groups * TILE_ROWS;
    for (int lane = 0; lane < TILE_ROWS; lane += 8) {
        const uint8_t *rows[8];
        int64_t groups[8];
        for (int i = 0; i < 8; i++) {
            int64_t r = from + lane + i < to ? from + lane + i : to - 1;
            rows[i] = (const uint8_t *)w->data + r * row_bytes;
            groups[i] = r * n_groups;
        }
        spread_codes((uint32_t *)(void *)p.codes + lane, rows, row_bytes, w->bits);
        spread_scales(p.scales + lane, w->scales, w->scale_type, groups, n_groups);
        spread_scales(p.biases + lane, w->biases, w->scale_type, groups, n_groups);
    }
    return p;
}

/* ---- The tile ---------------------------------------------------------------------------------
 */

typedef struct gemm_tile {
    panel w;
    const q8_rows *x;
    int64_t t; /* its first row of x */
    int64_t n_groups;
    int steps; /* of a group */
    float *y;
    int64_t y_stride;
    int n_rows; /* to store */
} gemm_tile;

ALWAYS_INLINE __m256i broadcast4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

/* dot += the products of one step with four codes of a row of x; wide: codes of 8 bits in two
 * halves. */
ALWAYS_INLINE void dot_step(__m256i *dot, const uint8_t *w, __m256i codes, bool wide) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        dot[h] = add_dots(dot[h], load32(w + 32 * h), codes);
        if (wide) {
            __m256i upper = _mm256_maddubs_epi16(load32(w + TILE_ROWS * 4 + 32 * h), codes);
            upper = _mm256_madd_epi16(upper, _mm256_set1_epi16(16));
            dot[h] = _mm256_add_epi32(dot[h], upper);
        }
    }
}

/* dot += the products of a group with codes x [row][stride]. */
ALWAYS_INLINE void dot_group(__m256i (*dot)[2], const gemm_tile *k, const uint8_t *w,
                             const int8_t *x, int n_tok, bool wide) {
    for (int s = 0; s < k->steps; s++, x += 4, w += step_bytes(wide)) {
#pragma GCC unroll 6
        for (int t = 0; t < n_tok; t++) {
            dot_step(dot[t], w, broadcast4(x + t * k->x->code_stride), wide);
        }
    }
}

/* dot = 256 times the products of group g with the high parts: all steps where rows have many,
 * otherwise each row's own. */
ALWAYS_INLINE void dot_high(__m256i (*dot)[2], const gemm_tile *k, const uint8_t *w, int64_t g,
                            int n_tok, bool wide) {
    const int8_t *x = k->x->high + k->t * k->x->code_stride + g * k->steps * 4;
    uint32_t steps[TILE_TOKENS];
    int n = 0;
#pragma GCC unroll 6
    for (int t = 0; t < n_tok; t++) {
        memcpy(&steps[t], k->x->picks + ((k->t + t) * k->x->group_stride + g) * Q8_PICKS,
               sizeof steps[t]);
        n += __builtin_popcount(steps[t]);
        dot[t][0] = dot[t][1] = _mm256_setzero_si256();
    }
    if (n == 0) {
        return;
    }
    if (2 * n > n_tok * k->steps) {
        dot_group(dot, k, w, x, n_tok, wide);
    } else {
#pragma GCC unroll 6
        for (int t = 0; t < n_tok; t++) {
            for (uint32_t left = steps[t]; left; left &= left - 1) {
                int s = __builtin_ctz(left);
                dot_step(dot[t], w + s * step_bytes(wide),
                         broadcast4(x + t * k->x->code_stride + 4 * s), wide);
            }
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < n_tok; t++) {
        dot[t][0] = _mm256_slli_epi32(dot[t][0], 8);
        dot[t][1] = _mm256_slli_epi32(dot[t][1], 8);
    }
}

ALWAYS_INLINE void run_tile(const gemm_tile *k, int n_tok, bool wide) {
    __m256 acc[8][TILE_TOKENS][2];
    memset(acc, 0, sizeof acc);
    for (int64_t g = 0; g < k->n_groups; g++) {
        __m256i dot[TILE_TOKENS][2];
        const uint8_t *w = k->w.codes + g * k->steps * step_bytes(wide);
        dot_high(dot, k, w, g, n_tok, wide);
        dot_group(dot, k, w, k->x->low + k->t * k->x->code_stride + g * k->steps * 4, n_tok, wide);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256 scale = _mm256_loadu_ps(k->w.scales + g * TILE_ROWS + 8 * h);
            __m256 bias = _mm256_loadu_ps(k->w.biases + g * TILE_ROWS + 8 * h);
#pragma GCC unroll 6
            for (int t = 0; t < n_tok; t++) {
                int64_t at = (k->t + t) * k->x->group_stride + g;
                __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(k->x->scales[at]));
                __m256 sum =
                    _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(dot[t][h]), acc[g & 7][t][h]);
                acc[g & 7][t][h] = _mm256_fmadd_ps(bias, _mm256_set1_ps(k->x->sums[at]), sum);
            }
        }
    }
    for (int t = 0; t < n_tok; t++) {
        float rows[TILE_ROWS];
        for (int h = 0; h < 2; h++) {
            __m256 a = _mm256_add_ps(_mm256_add_ps(acc[0][t][h], acc[4][t][h]),
                                     _mm256_add_ps(acc[2][t][h], acc[6][t][h]));
            __m256 b = _mm256_add_ps(_mm256_add_ps(acc[1][t][h], acc[5][t][h]),
                                     _mm256_add_ps(acc[3][t][h], acc[7][t][h]));
            _mm256_storeu_ps(rows + 8 * h, _mm256_add_ps(a, b));
        }
        memcpy(k->y + t * k->y_stride, rows, (size_t)k->n_rows * sizeof *rows);
    }
}

#define TILE(name, n_tok, wide)                                                                    \
    static void NAME(kern_tile_##name)(const gemm_tile *k) {                                       \
        run_tile(k, n_tok, wide);                                                                  \
    }
#define TILES(name, wide)                                                                          \
    TILE(name, TILE_TOKENS, wide) TILE(name##_x2, 2, wide) TILE(name##_x1, 1, wide)
TILES(q8_16, false)
TILES(q8_wide_16, true)

static void NAME(kern_gemm_q8)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                               rows_ahead ahead, float *y, int64_t y_stride, uint8_t *memory) {
    (void)ahead;
    static void (*const tiles[2][3])(const gemm_tile *) = {
        {NAME(kern_tile_q8_16_x1), NAME(kern_tile_q8_16_x2), NAME(kern_tile_q8_16)},
        {NAME(kern_tile_q8_wide_16_x1), NAME(kern_tile_q8_wide_16_x2), NAME(kern_tile_q8_wide_16)}};
    gemm_tile k = {.w = panel_of(w, from, to, memory),
                   .x = x,
                   .n_groups = w->n_in / w->group,
                   .steps = w->group / 4,
                   .y_stride = y_stride,
                   .n_rows = (int)(to - from)};
    for (int64_t t = 0; t < x->n_row;) {
        static const int sizes[] = {1, 2, TILE_TOKENS};
        int64_t left = x->n_row - t;
        int size = left >= TILE_TOKENS ? 2 : left >= 2;
        k.t = t;
        k.y = y + t * y_stride;
        tiles[is_wide(w->bits)][size](&k);
        t += sizes[size];
    }
}

#define AFFINE_KERNELS                                                                             \
    {                                                                                              \
        .orders = {[2] = 2, [3] = 1, [4] = 4, [5] = 1, [6] = 1, [8] = 1},                          \
        .quantize = NAME(kern_quantize_q8), .gemv = NAME(kern_gemv_q8), .gemv_max = GEMV_TOKENS,   \
        .gemm = NAME(kern_gemm_q8), .gemm_rows = TILE_ROWS, .gemm_tile = 1,                        \
        .gemm_panel_bytes = gemm_panel_bytes,                                                      \
    }
