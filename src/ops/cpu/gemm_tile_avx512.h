/* gemm_tile_avx512.h - the tile of the AVX-512 GEMM: 32 rows of a weight by up to 12 rows of x.
 *
 * Rows of the weight are unpacked into steps: a step holds, for each row, four codes as one 32-bit
 * lane, so one broadcast of four activation codes serves 16 rows in each vpdpbusd. Two loads of
 * weights and twelve broadcasts feed 24 integer accumulators. At the end of a group they are scaled
 * into f32 accumulators, one for each group index mod 8 (the order of sums of affine_avx512.h),
 * which stay in the first-level cache. Who unpacks, and when, is the including file's affair. */
#ifndef JANG_OPS_GEMM_TILE_AVX512_H
#define JANG_OPS_GEMM_TILE_AVX512_H

#include "ops/cpu/affine_avx512.h"

#include <string.h>

#define STEP_BYTES (GEMM_ROWS * 4)

typedef struct gemm_tile {
    const float *scales, *biases; /* [group][32 rows] */
    const uint32_t *low, *high;   /* [step][width] */
    const uint8_t *picks;         /* [group][Q8_PICKS][width] */
    bool by_row; /* each row by itself, else the k-th of every row together, zeros for who has none
                  */
    const float *x_scales, *x_sums; /* [group][width] */
    int64_t n_groups;
    int steps; /* of a group */
    float *y;
    int64_t y_stride;
    int n_rows; /* to store */
    /* Weights of the rows that come next, to be asked for meanwhile: they lie in one piece, while
     * unpacking reads rows side by side, which memory does not deliver well. NULL: none. */
    const uint8_t *ahead, *ahead_scales, *ahead_biases;
    int64_t ahead_bytes, ahead_scale_bytes; /* for each step; for each group */
} gemm_tile;

/* The integer accumulators of a group, [row of x][half of the rows]. */
typedef __m512i tile_dots[GEMM_TOKENS][2];

/* The f32 accumulators of one tile, [group mod 8][row of x][half]. */
typedef __m512 lane_sums[GEMM_TOKENS][2];

/* Packed codes of 32 rows. */
typedef struct gemm_packed {
    const uint8_t *starts[GEMM_ROWS];
    int64_t row_bytes;
    int bits;
    bool last; /* nothing that may be read lies behind them */
} gemm_packed;

/* The tile of n_tok rows of x, up to GEMM_TOKENS, from packed codes. They are unpacked into memory
 * at codes (GEMM_FEW_BYTES) while the tile goes on. */
#define GEMM_FEW_BYTES (2 * 32 * STEP_BYTES)
void gemm_few__avx512(const gemm_tile *k, int n_tok, const gemm_packed *w, uint8_t *codes);

ALWAYS_INLINE void store_tile(const gemm_tile *k, lane_sums *acc, int n_tok) {
    for (int t = 0; t < n_tok; t++) {
        for (int h = 0; h < 2; h++) {
            __m512 a = _mm512_add_ps(_mm512_add_ps(acc[0][t][h], acc[4][t][h]),
                                     _mm512_add_ps(acc[2][t][h], acc[6][t][h]));
            __m512 b = _mm512_add_ps(_mm512_add_ps(acc[1][t][h], acc[5][t][h]),
                                     _mm512_add_ps(acc[3][t][h], acc[7][t][h]));
            int n = k->n_rows - 16 * h;
            if (n > 0) {
                __mmask16 mask = (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
                _mm512_mask_storeu_ps(k->y + t * k->y_stride + 16 * h, mask, _mm512_add_ps(a, b));
            }
        }
    }
}

/* Zeros where groups are too few to reach every lane. */
ALWAYS_INLINE void clear_lanes(const gemm_tile *k, lane_sums *acc, int n_tok) {
    for (int64_t g = k->n_groups; g < 8; g++) {
        for (int t = 0; t < n_tok; t++) {
            acc[g][t][0] = acc[g][t][1] = _mm512_setzero_ps();
        }
    }
}

/* How far ahead codes of a panel are asked for, in bytes: it lies in the second-level cache. */
#define GEMM_AHEAD 1024

/* dot += the products of some steps. n_tok, the tile's width, is a constant where this is inlined;
 * ahead: the codes come from the second-level cache. */
ALWAYS_INLINE void dot_steps(tile_dots dot, const uint8_t *w, const uint32_t *x, int steps,
                             int n_tok, bool ahead) {
    for (int s = 0; s < steps; s++) {
        __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
        if (ahead) {
            _mm_prefetch((const char *)w + GEMM_AHEAD, _MM_HINT_T0);
            _mm_prefetch((const char *)w + GEMM_AHEAD + 64, _MM_HINT_T0);
        }
#pragma GCC unroll 12
        for (int t = 0; t < n_tok; t++) {
            __m512i codes = _mm512_set1_epi32((int)x[t]);
            add_dots(&dot[t][0], w0, codes);
            add_dots(&dot[t][1], w1, codes);
        }
        w += STEP_BYTES;
        x += n_tok;
    }
}

/* How many high parts each row of a tile has in a group. */
typedef struct pick_counts {
    uint64_t first, rest; /* a byte for each of the first 8 rows, for the others */
} pick_counts;

ALWAYS_INLINE pick_counts counts_of(const uint8_t *picks, int n_tok) {
    pick_counts c = {0};
    memcpy(&c.first, picks, (size_t)(n_tok < 8 ? n_tok : 8));
    memcpy(&c.rest, picks + 8, (size_t)(n_tok > 8 ? n_tok - 8 : 0));
    return c;
}

/* Whether any row has k or more, both below 128. */
ALWAYS_INLINE bool any_reaches(pick_counts c, int k) {
    const uint64_t ones = 0x0101010101010101;
    uint64_t add = (uint64_t)(128 - k) * ones;
    return (((c.first + add) | (c.rest + add)) & 128 * ones) != 0;
}

/* The product with the high part at `pick` of row t. */
ALWAYS_INLINE void dot_pick(tile_dots dot, const uint8_t *w, const uint32_t *x, int pick, int t,
                            int n_tok) {
    const uint8_t *at = w + pick * STEP_BYTES;
    __m512i codes = _mm512_set1_epi32((int)x[pick * n_tok + t]);
    add_dots(&dot[t][0], _mm512_load_si512(at), codes);
    add_dots(&dot[t][1], _mm512_load_si512(at + 64), codes);
}

/* dot += the products with high parts, where each row has few. */
ALWAYS_INLINE void dot_picks(tile_dots dot, const uint8_t *w, const uint32_t *x,
                             const uint8_t *picks, pick_counts counts, bool by_row, int n_tok) {
    if (!by_row) {
        for (int k = 1; any_reaches(counts, k); k++) {
            picks += n_tok;
#pragma GCC unroll 12
            for (int t = 0; t < n_tok; t++) {
                dot_pick(dot, w, x, picks[t], t, n_tok);
            }
        }
        return;
    }
#pragma GCC unroll 12
    for (int t = 0; t < n_tok; t++) {
        uint64_t bytes = t < 8 ? counts.first >> 8 * t : counts.rest >> 8 * (t - 8);
        const uint8_t *pick = picks + t, *last = pick + (int)(bytes & 255) * n_tok;
        while (pick < last) {
            pick += n_tok;
            dot_pick(dot, w, x, *pick, t, n_tok);
        }
    }
}

/* dot = 256 times the products with the high parts, all steps where rows have many. */
ALWAYS_INLINE void dot_high(tile_dots dot, const uint8_t *w, const uint32_t *x,
                            const uint8_t *picks, const gemm_tile *k, int n_tok, bool ahead) {
    pick_counts counts = counts_of(picks, n_tok);
    int most = 2 * k->steps / 3 < Q8_PICKS ? 2 * k->steps / 3 : Q8_PICKS - 1;
#pragma GCC unroll 12
    for (int t = 0; t < n_tok; t++) {
        dot[t][0] = dot[t][1] = _mm512_setzero_si512();
    }
    if ((counts.first | counts.rest) == 0) {
        return;
    }
    if (any_reaches(counts, most + 1)) {
        dot_steps(dot, w, x, k->steps, n_tok, ahead);
    } else {
        dot_picks(dot, w, x, picks, counts, k->by_row, n_tok);
    }
#pragma GCC unroll 12
    for (int t = 0; t < n_tok; t++) {
        dot[t][0] = _mm512_slli_epi32(dot[t][0], 8);
        dot[t][1] = _mm512_slli_epi32(dot[t][1], 8);
    }
}

/* The end of group g: its dot products, scaled, go to its lane. */
ALWAYS_INLINE void add_group(const gemm_tile *k, lane_sums *acc, tile_dots dot, int64_t g,
                             int n_tok) {
    __m512 *sum = &acc[g & 7][0][0];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512 scale = _mm512_load_ps(k->scales + g * GEMM_ROWS + 16 * h);
        __m512 bias = _mm512_load_ps(k->biases + g * GEMM_ROWS + 16 * h);
#pragma GCC unroll 12
        for (int t = 0; t < n_tok; t++) {
            __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(k->x_scales[g * n_tok + t]));
            __m512 a = g < 8 ? _mm512_setzero_ps() : sum[2 * t + h];
            a = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(dot[t][h]), a);
            sum[2 * t + h] = _mm512_fmadd_ps(bias, _mm512_set1_ps(k->x_sums[g * n_tok + t]), a);
        }
    }
}

/* Asks for the scales and biases of group g of the rows ahead. */
ALWAYS_INLINE void fetch_scales(const gemm_tile *k, int64_t g) {
    for (int64_t i = 0; i < k->ahead_scale_bytes; i += 64) {
        int64_t at = g * k->ahead_scale_bytes + i;
        _mm_prefetch((const char *)k->ahead_scales + at, _MM_HINT_T1);
        _mm_prefetch((const char *)k->ahead_biases + at, _MM_HINT_T1);
    }
}

#endif
