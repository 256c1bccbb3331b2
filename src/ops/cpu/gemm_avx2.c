/* gemm_avx2.c - affine weights by many rows of 8-bit activations, with AVX2, and the rounding of
 * activations to 8 bits.
 *
 * Sixteen rows of the weight are unpacked once into a panel: step s holds, for each row, four codes
 * as one 32-bit lane, so one broadcast of four activation codes serves 8 rows in each vpmaddubsw.
 * A tile is 16 rows by up to 4 rows of x. Codes of 8 bits do not fit vpmaddubsw; they go as two
 * steps, the low and the high four bits, and the sum of the second counts sixteenfold. The order
 * of sums is that of gemv_avx2.c. */
#include "base/half.h"
#include "ops/cpu/affine_avx2.h"
#include "ops/rounding.h"

#include <string.h>

#define TILE_ROWS 16
#define TILE_TOKENS 4

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

/* Rounds one group. Returns whether any code has a high part. */
static bool quantize_group(int8_t *low, int8_t *high, float *scale, float *sum, const float *x,
                           int n, float limit) {
    float factor;
    if (!rounding_scale(scale, &factor, largest(x, n), limit)) {
        memset(low, 0, (size_t)n);
        memset(high, 0, (size_t)n);
        *sum = *scale;
        return false;
    }
    __m256 inverse = _mm256_set1_ps(factor);
    __m256i total = _mm256_setzero_si256(), any = total, half = _mm256_set1_epi32(128);
    for (int i = 0; i < n; i += 8) {
        __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        __m256i above = _mm256_srai_epi32(_mm256_add_epi32(q, half), 8);
        total = _mm256_add_epi32(total, q);
        any = _mm256_or_si256(any, above);
        store_bytes(low + i, _mm256_sub_epi32(q, _mm256_slli_epi32(above, 8)));
        store_bytes(high + i, above);
    }
    *sum = *scale * (float)sum_ints(total);
    return !_mm256_testz_si256(any, any);
}

static void kern_quantize_q8__avx2(const q8_rows *out, int64_t row, const float *x, int64_t n,
                                   int bits, int group, float limit, q8_order order) {
    int planes = order == Q8_FOR_GEMV ? planes_of(bits) : 1, chunk = 32 * planes;
    q8_rows to = q8_part(out, row, 1);
    for (int64_t i = 0, g = 0; i < n; i += Q8_PAD) {
        int8_t low[Q8_PAD] = {0}, high[Q8_PAD] = {0};
        for (int j = 0; j < Q8_PAD && i + j < n; j += group, g++) {
            to.picks[g * Q8_PICKS] = quantize_group(low + j, high + j, &to.scales[g], &to.sums[g],
                                                    x + i + j, group, limit);
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

static size_t gemm_panel_bytes(int64_t n_in) {
    size_t n_groups = (size_t)n_in / 32 + 1;
    return 3 * (size_t)n_in * TILE_ROWS + 2 * n_groups * TILE_ROWS * sizeof(float);
}

static void spread_row(panel *p, const weight_desc *w, int64_t r, int lane) {
    int64_t n_groups = w->n_in / w->group;
    const uint8_t *packed = (const uint8_t *)w->data + r * (w->n_in * w->bits / 8);
    for (int64_t i = 0; i < w->n_in; i += 32) {
        uint8_t codes[32];
        unpack_codes(codes, packed + i * w->bits / 8, 32, w->bits);
        for (int s = 0; s < 8; s++) {
            uint32_t four;
            memcpy(&four, codes + 4 * s, sizeof four);
            uint32_t *step = (uint32_t *)(void *)p->codes;
            if (w->bits == 8) {
                step += (i / 4 + s) * 2 * TILE_ROWS + lane;
                step[0] = four & 0x0f0f0f0fu;
                step[TILE_ROWS] = four >> 4 & 0x0f0f0f0fu;
            } else {
                step[(i / 4 + s) * TILE_ROWS + lane] = four;
            }
        }
    }
    for (int64_t g = 0; g < n_groups; g += 8) {
        float scales[8], biases[8];
        int64_t n = n_groups - g < 8 ? n_groups - g : 8;
        _mm256_storeu_ps(scales, load_scales(w->scales, w->scale_type, r * n_groups + g, n));
        _mm256_storeu_ps(biases, load_scales(w->biases, w->scale_type, r * n_groups + g, n));
        for (int64_t i = 0; i < n; i++) {
            p->scales[(g + i) * TILE_ROWS + lane] = scales[i];
            p->biases[(g + i) * TILE_ROWS + lane] = biases[i];
        }
    }
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

/* dot += the products of group g with codes x [row][x_stride]; wide: codes of 8 bits in two steps.
 */
ALWAYS_INLINE void dot_group(__m256i (*dot)[2], const gemm_tile *k, const int8_t *x, int64_t g,
                             int n_tok, bool wide) {
    const __m256i one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
    const uint8_t *w = k->w.codes + g * k->steps * TILE_ROWS * 4 * (wide ? 2 : 1);
    x += k->t * k->x->code_stride + g * k->steps * 4;
    for (int s = 0; s < k->steps; s++, x += 4) {
        for (int part = 0; part < (wide ? 2 : 1); part++, w += TILE_ROWS * 4) {
            __m256i w0 = load32(w), w1 = load32(w + 32), by = part ? sixteen : one;
#pragma GCC unroll 4
            for (int t = 0; t < n_tok; t++) {
                __m256i codes = broadcast4(x + t * k->x->code_stride);
                __m256i a = _mm256_madd_epi16(_mm256_maddubs_epi16(w0, codes), by);
                __m256i b = _mm256_madd_epi16(_mm256_maddubs_epi16(w1, codes), by);
                dot[t][0] = _mm256_add_epi32(dot[t][0], a);
                dot[t][1] = _mm256_add_epi32(dot[t][1], b);
            }
        }
    }
}

/* The dot products of group g, with the high parts where there are any. */
ALWAYS_INLINE void dot_both(__m256i (*dot)[2], const gemm_tile *k, int64_t g, int n_tok,
                            bool wide) {
    bool any = false;
    for (int t = 0; t < n_tok; t++) {
        any = any || k->x->picks[((k->t + t) * k->x->group_stride + g) * Q8_PICKS];
        dot[t][0] = dot[t][1] = _mm256_setzero_si256();
    }
    if (any) {
        dot_group(dot, k, k->x->high, g, n_tok, wide);
#pragma GCC unroll 4
        for (int t = 0; t < n_tok; t++) {
            dot[t][0] = _mm256_slli_epi32(dot[t][0], 8);
            dot[t][1] = _mm256_slli_epi32(dot[t][1], 8);
        }
    }
    dot_group(dot, k, k->x->low, g, n_tok, wide);
}

ALWAYS_INLINE void run_tile(const gemm_tile *k, int n_tok, bool wide) {
    __m256 acc[8][TILE_TOKENS][2];
    memset(acc, 0, sizeof acc);
    for (int64_t g = 0; g < k->n_groups; g++) {
        __m256i dot[TILE_TOKENS][2];
        dot_both(dot, k, g, n_tok, wide);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256 scale = _mm256_loadu_ps(k->w.scales + g * TILE_ROWS + 8 * h);
            __m256 bias = _mm256_loadu_ps(k->w.biases + g * TILE_ROWS + 8 * h);
#pragma GCC unroll 4
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

static void kern_tile_q8_16x4__avx2(const gemm_tile *k) {
    run_tile(k, 4, false);
}

static void kern_tile_q8_16x1__avx2(const gemm_tile *k) {
    run_tile(k, 1, false);
}

static void kern_tile_q8_q8_16x4__avx2(const gemm_tile *k) {
    run_tile(k, 4, true);
}

static void kern_tile_q8_q8_16x1__avx2(const gemm_tile *k) {
    run_tile(k, 1, true);
}

static void kern_gemm_q8__avx2(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                               rows_ahead ahead, float *y, int64_t y_stride, uint8_t *memory) {
    (void)ahead;
    static void (*const tiles[2][2])(const gemm_tile *) = {
        {kern_tile_q8_16x1__avx2, kern_tile_q8_16x4__avx2},
        {kern_tile_q8_q8_16x1__avx2, kern_tile_q8_q8_16x4__avx2}};
    bool wide = w->bits == 8;
    gemm_tile k = {.w = {.codes = memory},
                   .x = x,
                   .n_groups = w->n_in / w->group,
                   .steps = w->group / 4,
                   .y_stride = y_stride,
                   .n_rows = (int)(to - from)};
    k.w.scales = (float *)(void *)(memory + (wide ? 2 : 1) * w->n_in * TILE_ROWS);
    k.w.biases = k.w.scales + k.n_groups * TILE_ROWS;
    for (int i = 0; i < TILE_ROWS; i++) {
        spread_row(&k.w, w, from + i < to ? from + i : to - 1, i);
    }
    for (int64_t t = 0; t < x->n_row;) {
        bool four = x->n_row - t >= TILE_TOKENS;
        k.t = t;
        k.y = y + t * y_stride;
        tiles[wide][four](&k);
        t += four ? TILE_TOKENS : 1;
    }
}

const affine_kernels affine_avx2 = {
    .orders = {[2] = 2, [3] = 1, [4] = 4, [5] = 1, [6] = 1, [8] = 1},
    .quantize = kern_quantize_q8__avx2,
    .gemv = kern_gemv_q8__avx2,
    .gemv_max = 4,
    .gemm = kern_gemm_q8__avx2,
    .gemm_rows = TILE_ROWS,
    .gemm_tile = 1,
    .gemm_panel_bytes = gemm_panel_bytes,
};
