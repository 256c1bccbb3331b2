/* gemm_bf16_avx512.c - products in bf16 by AVX512_BF16.
 *
 * Up to 256 terms of the sums at a time: op(A) is packed into panels of 12 rows, op(B) into panels
 * of 32 columns, both as pairs of neighbouring terms, which is what vdpbf16ps multiplies. A panel
 * of B (16 KiB) stays in the first-level cache while all panels of A pass by. The inner loop holds
 * 12 by 32 sums in 24 registers; each step loads two vectors of B and broadcasts twelve pairs of A.
 */
#include "quant/gemm_bf16.h"

#include <immintrin.h>

#define WITH_BF16 __attribute__((target("avx512bf16")))
#define TERMS 256
#define PAIRS (TERMS / 2)
#define PANEL_A 12
#define PANEL_B 32

/* Where a packed matrix comes from: element (i, p), i along rows of the result, p along the sum, is
 * at data[i * step_i + p * step_p]; one of the steps is 1. */
typedef struct pack_source {
    const float *data;
    int64_t step_i, step_p;
    int64_t n_i, n_p;
} pack_source;

WITH_BF16 static inline __m512i to_bf16(__m512 x) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
}

static inline __mmask16 first_lanes(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1 << n) - 1);
}

/* Rows of the sum lie one after another: pairs are made of two vectors. */
WITH_BF16 static void pack_across(uint32_t *out, const pack_source *s, int64_t first, int width) {
    int64_t left = s->n_i - first;
    for (int64_t p = 0; p < s->n_p; p += 2) {
        const float *a = s->data + p * s->step_p + first, *b = a + s->step_p;
        for (int i = 0; i < width; i += 16) {
            int64_t n = left - i < width - i ? left - i : width - i;
            __mmask16 mask = first_lanes(n < 0 ? 0 : n);
            __m512i lo = to_bf16(_mm512_maskz_loadu_ps(mask, a + i));
            __m512i hi = _mm512_setzero_si512();
            if (p + 1 < s->n_p) {
                hi = to_bf16(_mm512_maskz_loadu_ps(mask, b + i));
            }
            __m512i pair = _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
            _mm512_mask_storeu_epi32(out + i, first_lanes(width - i), pair);
        }
        out += width;
    }
}

/* Turns 16 vectors of 16 into each other's columns: four steps, each of which exchanges halves,
 * quarters, pairs, and single elements. */
static inline void transpose(__m512i v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Terms of the sum lie one after another: 16 pairs of 16 rows at a time change places. */
WITH_BF16 static void pack_along(uint32_t *out, const pack_source *s, int64_t first, int width) {
    int64_t n_pairs = (s->n_p + 1) / 2;
    for (int at = 0; at < width; at += 16) {
        int n_rows = width - at < 16 ? width - at : 16;
        int64_t there = s->n_i - first - at;
        for (int64_t p = 0; p < n_pairs; p += 16) {
            int64_t left = s->n_p - 2 * p;
            __mmask16 lo = first_lanes(left), hi = first_lanes(left < 16 ? 0 : left - 16);
            __m512i v[16];
            for (int i = 0; i < 16; i++) {
                v[i] = _mm512_setzero_si512();
                if (i < n_rows && i < there) {
                    const float *row = s->data + (first + at + i) * s->step_i + 2 * p;
                    v[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, row + 16),
                                                        _mm512_maskz_loadu_ps(lo, row));
                }
            }
            transpose(v);
            int64_t end = n_pairs - p < 16 ? n_pairs - p : 16;
            for (int64_t k = 0; k < end; k++) {
                _mm512_mask_storeu_epi32(out + (p + k) * width + at, first_lanes(n_rows), v[k]);
            }
        }
    }
}

static void pack(uint32_t *out, const pack_source *s, int width) {
    int64_t n_pairs = (s->n_p + 1) / 2;
    for (int64_t first = 0; first < s->n_i; first += width, out += n_pairs * width) {
        if (s->step_i == 1) {
            pack_across(out, s, first, width);
        } else {
            pack_along(out, s, first, width);
        }
    }
}

/* One block of C: 12 rows by 32 columns, or what there is of them. */
typedef struct block_at {
    float *c;
    int64_t ldc, n_rows, n_columns;
    float alpha, beta;
} block_at;

WITH_BF16 static void multiply_panels(const block_at *at, const uint32_t *a, const uint32_t *b,
                                      int64_t n_pairs) {
    __m512 sums[PANEL_A][2];
    for (int i = 0; i < PANEL_A; i++) {
        sums[i][0] = sums[i][1] = _mm512_setzero_ps();
    }
    for (int64_t p = 0; p < n_pairs; p++) {
        __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + 16);
#pragma GCC unroll 12
        for (int i = 0; i < PANEL_A; i++) {
            __m512bh v = (__m512bh)_mm512_set1_epi32((int)a[i]);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], v, b0);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], v, b1);
        }
        a += PANEL_A;
        b += PANEL_B;
    }
    __m512 alpha = _mm512_set1_ps(at->alpha), beta = _mm512_set1_ps(at->beta);
    __mmask16 masks[2] = {first_lanes(at->n_columns),
                          first_lanes(at->n_columns < 16 ? 0 : at->n_columns - 16)};
#pragma GCC unroll 12
    for (int i = 0; i < PANEL_A; i++) {
        for (int k = 0; k < 2 && i < at->n_rows; k++) {
            float *c = at->c + i * at->ldc + 16 * k;
            __m512 y = _mm512_mul_ps(alpha, sums[i][k]);
            if (at->beta != 0.0f) {
                y = _mm512_fmadd_ps(beta, _mm512_maskz_loadu_ps(masks[k], c), y);
            }
            _mm512_mask_storeu_ps(c, masks[k], y);
        }
    }
}

static void multiply_block(const gemm_call *g, const uint32_t *a, const uint32_t *b,
                           int64_t n_pairs, float beta) {
    for (int64_t j = 0; j < g->n; j += PANEL_B) {
        for (int64_t i = 0; i < g->m; i += PANEL_A) {
            block_at at = {.c = g->c + i * g->ldc + j,
                           .ldc = g->ldc,
                           .n_rows = g->m - i,
                           .n_columns = g->n - j < PANEL_B ? g->n - j : PANEL_B,
                           .alpha = g->alpha,
                           .beta = beta};
            multiply_panels(&at, a + i * n_pairs, b + j * n_pairs, n_pairs);
        }
    }
}

void gemm_bf16__avx512(const gemm_call *g, void *scratch) {
    uint32_t *a = scratch, *b = a + (size_t)PAIRS * BF16_TILE;
    for (int64_t at = 0; at < g->k; at += TERMS) {
        int64_t n = g->k - at < TERMS ? g->k - at : TERMS;
        pack_source rows = {g->a + (g->trans_a ? at * g->lda : at), g->trans_a ? 1 : g->lda,
                            g->trans_a ? g->lda : 1, g->m, n};
        pack_source columns = {g->b + (g->trans_b ? at : at * g->ldb), g->trans_b ? g->ldb : 1,
                               g->trans_b ? 1 : g->ldb, g->n, n};
        pack(a, &rows, PANEL_A);
        pack(b, &columns, PANEL_B);
        multiply_block(g, a, b, (n + 1) / 2, at == 0 ? g->beta : 1.0f);
    }
}
