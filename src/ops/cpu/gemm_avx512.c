/* gemm_avx512.c - affine weights by many rows of 8-bit activations, for prompts and batches.
 *
 * Thirty-two rows of the weight are unpacked once into a panel: step s holds, for each row, the
 * four codes of that step as one 32-bit lane, so one broadcast of four activation codes serves 16
 * rows in each vpdpbusd. A tile is 32 rows by up to 12 rows of x: 24 integer accumulators, two
 * loads of weights and twelve broadcasts for 24 multiplications of 64 codes each. At the end of a
 * group they are scaled into f32 accumulators, one for each group index mod 8 (the order of sums
 * of affine_avx512.h), which stay in the first-level cache. */
#include "ops/cpu/gemm_avx512.h"
#include "ops/cpu/affine_avx512.h"

/* ---- The panel --------------------------------------------------------------------------------
 */

/* Codes [n_in rounded up to Q8_PAD / 4 steps][32 rows][4], then scales and biases, each
 * [n_groups][32 rows] f32. Where one tile is all that meets it, codes are made a block at a time,
 * when the tile comes to it, in place of those before, so that they never leave the first-level
 * cache. */
typedef struct panel {
    uint8_t *codes;
    float *scales, *biases;
    const uint8_t *starts[GEMM_ROWS]; /* of the rows' packed codes */
    int64_t row_bytes;
    int bits;
    int64_t block_groups; /* groups of a block; 0: all codes are there */
} panel;

static int64_t padded(int64_t n_in) {
    return (n_in + Q8_PAD - 1) / Q8_PAD * Q8_PAD;
}

size_t gemm_panel_bytes__avx512(int64_t n_in) {
    size_t n_groups = (size_t)(n_in / 32 + 1);
    return (size_t)padded(n_in) * GEMM_ROWS + 2 * n_groups * GEMM_ROWS * sizeof(float);
}

/* m[i] lane j <-> m[j] lane i. */
ALWAYS_INLINE void transpose(__m512i *m) {
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(m[i], m[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(m[i], m[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    /* b[4 i + j] holds column 4 q + j of rows 4 i .. 4 i + 3 in its 128-bit lane q */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i low01 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x44);
        __m512i high01 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xee);
        __m512i low23 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x44);
        __m512i high23 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xee);
        m[j] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        m[4 + j] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
        m[8 + j] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        m[12 + j] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
    }
}

/* Bytes from .. to-1 of sixteen rows of codes that have row_bytes, starts[i] being that of row i;
 * from is where a chunk begins, out its place in the panel at lane 0 or 16. */
ALWAYS_INLINE void unpack_rows(uint8_t *out, const uint8_t *const *starts, int64_t from, int64_t to,
                               int64_t row_bytes, int bits) {
    const int planes = planes_of(bits), size = chunk_bytes_of(bits);
    spread s = spread_for(bits);
    for (int64_t at = from, step = 0; at < to; at += size, step += 16 * planes) {
        __m512i m[16];
        bool full = at + size <= row_bytes;
        for (int i = 0; i < 16; i++) {
            __m512i packed = full ? load_chunk(starts[i] + at, bits, true, 0)
                                  : load_chunk(starts[i] + at, bits, false, row_bytes - at);
            m[i] = planes == 1 ? plane_of(packed, bits, 0, &s) : packed;
        }
        transpose(m);
        for (int i = 0; i < 16; i++) {
            for (int p = 0; p < planes; p++) {
                __m512i codes = planes == 1 ? m[i] : plane_of(m[i], bits, p, &s);
                _mm512_store_si512(out + (step + i * planes + p) * GEMM_ROWS * 4, codes);
            }
        }
    }
}

static void unpack_sixteen(uint8_t *out, const uint8_t *const *starts, int64_t from, int64_t to,
                           int64_t row_bytes, int bits) {
    switch (bits) {
    case 2:
        unpack_rows(out, starts, from, to, row_bytes, 2);
        break;
    case 3:
        unpack_rows(out, starts, from, to, row_bytes, 3);
        break;
    case 4:
        unpack_rows(out, starts, from, to, row_bytes, 4);
        break;
    case 5:
        unpack_rows(out, starts, from, to, row_bytes, 5);
        break;
    case 6:
        unpack_rows(out, starts, from, to, row_bytes, 6);
        break;
    default:
        unpack_rows(out, starts, from, to, row_bytes, 8);
    }
}

/* Sixteen rows of scales (or biases), rows[i] being the index of row i's first. */
static void spread_scales(float *out, const uint8_t *scales, dtype type, const int64_t *rows,
                          int64_t n_groups) {
    for (int64_t g = 0; g < n_groups; g += 16) {
        __m512i m[16];
        for (int i = 0; i < 16; i++) {
            m[i] = _mm512_castps_si512(load_scales(scales, type, rows[i] + g, n_groups - g));
        }
        transpose(m);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (g + i < n_groups) {
                _mm512_store_si512(out + (g + i) * GEMM_ROWS, m[i]);
            }
        }
    }
}

/* Puts groups from .. to-1 of all rows at the beginning of the panel's codes; from is where a chunk
 * begins. */
static void unpack_groups(const panel *p, int64_t from, int64_t to, int group) {
    int64_t begin = from * group * p->bits / 8, end = to * group * p->bits / 8;
    end = end < p->row_bytes ? end : p->row_bytes;
    for (int h = 0; h < GEMM_ROWS; h += 16) {
        unpack_sixteen(p->codes + 4 * h, p->starts + h, begin, end, p->row_bytes, p->bits);
    }
}

/* Asks for the bytes of all rows that follow the first `from` groups, as many as a block has: rows
 * side by side are too many streams for the processor to follow. */
static void fetch_block(const panel *p, int64_t from, int group) {
    int64_t begin = from * group * p->bits / 8, size = p->block_groups * group * p->bits / 8;
    for (int i = 0; i < GEMM_ROWS; i++) {
        for (int64_t j = 0; j < size; j += 64) {
            _mm_prefetch((const char *)p->starts[i] + begin + j + 63, _MM_HINT_T0);
        }
    }
}

/* Rows beyond the last repeat it. */
static panel make_panel(uint8_t *memory, const weight_desc *w, int64_t from, int64_t to,
                        bool in_blocks) {
    int64_t n_groups = w->n_in / w->group, row_bytes = w->n_in * w->bits / 8;
    panel p = {.codes = memory, .row_bytes = row_bytes, .bits = w->bits};
    p.scales = (float *)(void *)(memory + padded(w->n_in) * GEMM_ROWS);
    p.biases = p.scales + n_groups * GEMM_ROWS;
    for (int h = 0; h < GEMM_ROWS; h += 16) {
        int64_t groups[16];
        for (int i = 0; i < 16; i++) {
            int64_t r = from + h + i < to ? from + h + i : to - 1;
            p.starts[h + i] = (const uint8_t *)w->data + r * row_bytes;
            groups[i] = r * n_groups;
        }
        spread_scales(p.scales + h, w->scales, w->scale_type, groups, n_groups);
        spread_scales(p.biases + h, w->biases, w->scale_type, groups, n_groups);
    }
    if (in_blocks) {
        p.block_groups = (w->bits == 2 ? 256 : 128) / w->group;
    } else {
        unpack_groups(&p, 0, n_groups, w->group);
    }
    return p;
}

/* ---- The tile ---------------------------------------------------------------------------------
 */

typedef struct gemm_tile {
    panel w;
    const uint32_t *low, *high;     /* [step][width] */
    const uint8_t *picks;           /* [group][Q8_PICKS][width] */
    const float *x_scales, *x_sums; /* [group][width] */
    int64_t n_groups;
    int steps; /* of a group */
    float *y;
    int64_t y_stride;
    int n_rows;           /* to store */
    const uint8_t *ahead; /* weights of the rows that come next; NULL: none are asked for */
    const uint8_t *ahead_scales, *ahead_biases;
    int64_t ahead_bytes, ahead_scale_bytes; /* for each group */
} gemm_tile;

/* The f32 accumulators of one tile, [group mod 8][row of x][half]. */
typedef __m512 lane_sums[GEMM_TOKENS][2];

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

/* How far ahead codes of the panel are asked for, in bytes: it lies in the second-level cache. */
#define GEMM_AHEAD 1024

/* dot += the steps of a group. n_tok, the tile's width, is a constant where this is inlined. */
ALWAYS_INLINE void dot_steps(__m512i (*dot)[2], const uint8_t *w, const uint32_t *x, int steps,
                             int n_tok) {
    for (int s = 0; s < steps; s++) {
        __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
        _mm_prefetch((const char *)w + GEMM_AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)w + GEMM_AHEAD + 64, _MM_HINT_T0);
#pragma GCC unroll 12
        for (int t = 0; t < n_tok; t++) {
            __m512i codes = _mm512_set1_epi32((int)x[t]);
            add_dots(&dot[t][0], w0, codes);
            add_dots(&dot[t][1], w1, codes);
        }
        w += GEMM_ROWS * 4;
        x += n_tok;
    }
}

/* dot += 256 times the products with the high parts. Where each row has few of them, only those
 * are done: the k-th of every row together, a row that has fewer taking a zero instead. */
ALWAYS_INLINE void dot_high(__m512i (*dot)[2], const uint8_t *w, const uint32_t *x,
                            const uint8_t *picks, int steps, int n_tok) {
    __m128i counts = _mm_maskz_loadu_epi8((__mmask16)((1u << n_tok) - 1), picks);
    if (_mm_test_epi8_mask(counts, counts) == 0) {
        return;
    }
    int most = 2 * steps / 3 < Q8_PICKS ? 2 * steps / 3 : Q8_PICKS - 1;
    if (_mm_cmpgt_epu8_mask(counts, _mm_set1_epi8((char)most))) {
        dot_steps(dot, w, x, steps, n_tok);
    } else {
        for (int k = 1; _mm_cmpge_epu8_mask(counts, _mm_set1_epi8((char)k)); k++) {
            picks += n_tok;
#pragma GCC unroll 12
            for (int t = 0; t < n_tok; t++) {
                const uint8_t *at = w + picks[t] * (GEMM_ROWS * 4);
                __m512i codes = _mm512_set1_epi32((int)x[picks[t] * n_tok + t]);
                add_dots(&dot[t][0], _mm512_load_si512(at), codes);
                add_dots(&dot[t][1], _mm512_load_si512(at + 64), codes);
            }
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < n_tok; t++) {
        dot[t][0] = _mm512_slli_epi32(dot[t][0], 8);
        dot[t][1] = _mm512_slli_epi32(dot[t][1], 8);
    }
}

/* Asks for the weights of the next panel while this one is multiplied. They lie in one piece, while
 * unpacking reads its rows side by side, which memory does not deliver well. */
ALWAYS_INLINE void fetch_next(const gemm_tile *k, int64_t g) {
    for (int64_t i = 0; k->ahead && i < k->ahead_bytes; i += 64) {
        _mm_prefetch((const char *)k->ahead + g * k->ahead_bytes + i, _MM_HINT_T1);
    }
    for (int64_t i = 0; k->ahead && i < k->ahead_scale_bytes; i += 64) {
        _mm_prefetch((const char *)k->ahead_scales + g * k->ahead_scale_bytes + i, _MM_HINT_T1);
        _mm_prefetch((const char *)k->ahead_biases + g * k->ahead_scale_bytes + i, _MM_HINT_T1);
    }
}

/* The codes of group g, unpacked if they are not there yet. */
ALWAYS_INLINE const uint8_t *codes_of(const panel *p, int64_t g, int steps) {
    int64_t at = g;
    if (p->block_groups) {
        at = g % p->block_groups;
        if (at == 0) {
            unpack_groups(p, g, g + p->block_groups, 4 * steps);
            fetch_block(p, g + p->block_groups, 4 * steps);
        }
    }
    return p->codes + at * steps * GEMM_ROWS * 4;
}

/* n_tok, the tile's width, is a constant where this is inlined. */
ALWAYS_INLINE void run_tile(const gemm_tile *k, int n_tok) {
    lane_sums acc[8];
    for (int64_t g = k->n_groups; g < 8; g++) {
        for (int t = 0; t < n_tok; t++) {
            acc[g][t][0] = acc[g][t][1] = _mm512_setzero_ps();
        }
    }
    for (int64_t g = 0; g < k->n_groups; g++) {
        int64_t at = g * k->steps * n_tok;
        const uint8_t *w = codes_of(&k->w, g, k->steps);
        __m512i dot[GEMM_TOKENS][2];
        fetch_next(k, g);
#pragma GCC unroll 12
        for (int t = 0; t < n_tok; t++) {
            dot[t][0] = dot[t][1] = _mm512_setzero_si512();
        }
        dot_high(dot, w, k->high + at, k->picks + g * Q8_PICKS * n_tok, k->steps, n_tok);
        dot_steps(dot, w, k->low + at, k->steps, n_tok);
        __m512 *sum = &acc[g & 7][0][0];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512 scale = _mm512_load_ps(k->w.scales + g * GEMM_ROWS + 16 * h);
            __m512 bias = _mm512_load_ps(k->w.biases + g * GEMM_ROWS + 16 * h);
#pragma GCC unroll 12
            for (int t = 0; t < n_tok; t++) {
                __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(k->x_scales[g * n_tok + t]));
                __m512 a = g < 8 ? _mm512_setzero_ps() : sum[2 * t + h];
                a = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(dot[t][h]), a);
                sum[2 * t + h] = _mm512_fmadd_ps(bias, _mm512_set1_ps(k->x_sums[g * n_tok + t]), a);
            }
        }
    }
    store_tile(k, acc, n_tok);
}

#define TILE(n)                                                                                    \
    static void kern_tile_q8_32x##n##__avx512(const gemm_tile *k) {                                \
        run_tile(k, n);                                                                            \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)

static void (*const tiles[GEMM_TOKENS + 1])(const gemm_tile *k) = {
    NULL,
    kern_tile_q8_32x1__avx512,
    kern_tile_q8_32x2__avx512,
    kern_tile_q8_32x3__avx512,
    kern_tile_q8_32x4__avx512,
    kern_tile_q8_32x5__avx512,
    kern_tile_q8_32x6__avx512,
    kern_tile_q8_32x7__avx512,
    kern_tile_q8_32x8__avx512,
    kern_tile_q8_32x9__avx512,
    kern_tile_q8_32x10__avx512,
    kern_tile_q8_32x11__avx512,
    kern_tile_q8_32x12__avx512,
};

void kern_gemm_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          float *y, int64_t y_stride, uint8_t *memory) {
    gemm_tile k = {.w = make_panel(memory, w, from, to, x->n_row <= GEMM_TOKENS),
                   .n_groups = w->n_in / w->group,
                   .steps = w->group / 4,
                   .y_stride = y_stride,
                   .n_rows = (int)(to - from)};
    if (to + GEMM_ROWS <= w->n_out) {
        k.ahead = (const uint8_t *)w->data + to * w->n_in * w->bits / 8;
        k.ahead_bytes = GEMM_ROWS * w->group * w->bits / 8;
        k.ahead_scale_bytes = GEMM_ROWS * dtype_table[w->scale_type].block_bytes;
        k.ahead_scales =
            (const uint8_t *)w->scales + to / GEMM_ROWS * k.n_groups * k.ahead_scale_bytes;
        k.ahead_biases =
            (const uint8_t *)w->biases + to / GEMM_ROWS * k.n_groups * k.ahead_scale_bytes;
    }
    for (int64_t t = 0; t < x->n_row; t += GEMM_TOKENS) {
        int64_t left = x->n_row - t;
        q8_rows tile = q8_part(x, t, left);
        k.low = (const uint32_t *)(const void *)tile.low;
        k.high = (const uint32_t *)(const void *)tile.high;
        k.picks = tile.picks;
        k.x_scales = tile.scales;
        k.x_sums = tile.sums;
        k.y = y + t * y_stride;
        tiles[left < GEMM_TOKENS ? left : GEMM_TOKENS](&k);
        k.ahead = NULL;
    }
}

const affine_kernels affine_avx512 = {
    .orders = {[2] = 2, [3] = 3, [4] = 4, [5] = 8, [6] = 8, [8] = 8},
    .quantize = kern_quantize_q8__avx512,
    .gemv = kern_gemv_q8__avx512,
    .gemv_max = 2,
    .gemm = kern_gemm_q8__avx512,
    .gemm_rows = GEMM_ROWS,
    .gemm_tile = GEMM_TOKENS,
    .gemm_panel_bytes = gemm_panel_bytes__avx512,
};
