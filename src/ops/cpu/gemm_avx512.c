/* gemm_avx512.c - affine weights by many rows of 8-bit activations, for prompts and batches.
 *
 * Thirty-two rows of the weight are unpacked once into a panel: step s holds, for each row, the
 * four codes of that step as one 32-bit lane, so one broadcast of four activation codes serves 16
 * rows in each vpdpbusd. A tile is 32 rows by up to 12 rows of x: 24 integer accumulators, two
 * loads of weights and twelve broadcasts for 24 multiplications of 64 codes each. A call unpacks
 * several panels, so that x comes from the second-level cache for all but the first of them. At the
 * end of a group they are scaled into f32 accumulators, one for each group index mod 8 (the order
 * of sums of affine_avx512.h), which stay in the first-level cache. */
#include "ops/cpu/gemm_avx512.h"
#include "ops/cpu/gemm_tile_avx512.h"

#include <string.h>

/* Half of the second-level cache; the rest is for a tile of x and for what is asked for. */
#define GEMM_CACHED 524288

/* ---- The panel --------------------------------------------------------------------------------
 */

/* Scales and biases, each [n_groups][32 rows] f32, then codes: [n_in rounded up to Q8_PAD / 4
 * steps][32 rows][4], or less where few rows of x meet them. */
static int64_t padded(int64_t n_in) {
    return (n_in + Q8_PAD - 1) / Q8_PAD * Q8_PAD;
}

size_t gemm_panel_bytes__avx512(int64_t n_in) {
    size_t n_groups = (size_t)(n_in / 32 + 1), codes = (size_t)padded(n_in) * GEMM_ROWS;
    codes = codes > GEMM_FEW_BYTES ? codes : GEMM_FEW_BYTES;
    return codes + 2 * n_groups * GEMM_ROWS * sizeof(float);
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

/* The codes of sixteen rows that have row_bytes, starts[i] being that of row i; out is their place
 * in the panel, lane 0 or 16 of the first step. */
ALWAYS_INLINE void unpack_rows(uint8_t *out, const uint8_t *const *starts, int64_t row_bytes,
                               int bits) {
    const int planes = planes_of(bits), size = chunk_bytes_of(bits);
    spread s = spread_for(bits);
    for (int64_t at = 0, step = 0; at < row_bytes; at += size, step += 16 * planes) {
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

static void unpack_sixteen(uint8_t *out, const uint8_t *const *starts, int64_t row_bytes,
                           int bits){CALL_BY_WIDTH(bits, unpack_rows, out, starts, row_bytes)}

/* Sixteen values of a 16-bit type as f32. */
ALWAYS_INLINE __m512 widen(__m256i half, dtype type) {
    return type == DT_F16 ? _mm512_cvtph_ps(half)
                          : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Groups g .. g + n - 1 of all rows, n at most 8 and 8 if full, of a 16-bit type. */
ALWAYS_INLINE void spread_eight(float *out, const uint8_t *scales, dtype type, const int64_t *rows,
                                int64_t g, int64_t n, bool full) {
    __mmask8 there = (__mmask8)((1u << (full ? 8 : n)) - 1);
    __m512i m[8], a[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) { /* 128-bit lane l: row 8 l + i */
        __m128i lanes[4];
#pragma GCC unroll 4
        for (int l = 0; l < 4; l++) {
            const uint8_t *at = scales + 2 * (rows[8 * l + i] + g);
            lanes[l] = full ? _mm_loadu_si128((const __m128i *)(const void *)at)
                            : _mm_maskz_loadu_epi16(there, at);
        }
        __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(lanes[0]), lanes[1], 1);
        __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(lanes[2]), lanes[3], 1);
        m[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) { /* pairs of rows */
        a[i] = _mm512_unpacklo_epi16(m[i], m[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi16(m[i], m[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { /* quads: groups 0 1, 2 3, 4 5, 6 7 */
        m[i] = _mm512_unpacklo_epi32(a[i], a[i + 2]);
        m[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 2]);
        m[i + 2] = _mm512_unpacklo_epi32(a[i + 1], a[i + 3]);
        m[i + 3] = _mm512_unpackhi_epi32(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512i v = i % 2 ? _mm512_unpackhi_epi64(m[i / 2], m[4 + i / 2])
                          : _mm512_unpacklo_epi64(m[i / 2], m[4 + i / 2]);
        if (full || i < n) {
            _mm512_store_ps(out + (g + i) * GEMM_ROWS, widen(_mm512_castsi512_si256(v), type));
            _mm512_store_ps(out + (g + i) * GEMM_ROWS + 16,
                            widen(_mm512_extracti64x4_epi64(v, 1), type));
        }
    }
}

ALWAYS_INLINE void spread_all(float *out, const uint8_t *scales, dtype type, const int64_t *rows,
                              int64_t n_groups) {
    int64_t g = 0;
    for (; g + 8 <= n_groups; g += 8) {
        spread_eight(out, scales, type, rows, g, 8, true);
    }
    if (g < n_groups) {
        spread_eight(out, scales, type, rows, g, n_groups - g, false);
    }
}

/* Scales (or biases) of the panel's rows, rows[i] being the index of row i's first. */
static void spread_scales(float *out, const uint8_t *scales, dtype type, const int64_t *rows,
                          int64_t n_groups) {
    if (type == DT_F16) {
        spread_all(out, scales, DT_F16, rows, n_groups);
    } else if (type == DT_BF16) {
        spread_all(out, scales, DT_BF16, rows, n_groups);
    } else {
        for (int64_t g = 0; g < n_groups; g++) {
            for (int i = 0; i < GEMM_ROWS; i++) {
                memcpy(out + g * GEMM_ROWS + i, scales + 4 * (rows[i] + g), sizeof *out);
            }
        }
    }
}

/* ---- The tile ---------------------------------------------------------------------------------
 */

/* Asks for group g of the rows ahead. */
ALWAYS_INLINE void fetch_group(const gemm_tile *k, int64_t g) {
    int64_t size = k->steps * k->ahead_bytes;
    for (int64_t i = 0; i < size; i += 64) {
        _mm_prefetch((const char *)k->ahead + g * size + i, _MM_HINT_T1);
    }
    fetch_scales(k, g);
}

/* n_tok, the tile's width, is a constant where this is inlined. */
ALWAYS_INLINE void run_tile(const gemm_tile *k, const uint8_t *codes, int n_tok) {
    lane_sums acc[8];
    clear_lanes(k, acc, n_tok);
    for (int64_t g = 0; g < k->n_groups; g++) {
        int64_t at = g * k->steps * n_tok;
        const uint8_t *w = codes + g * k->steps * STEP_BYTES;
        tile_dots dot;
        fetch_group(k, g);
        dot_high(dot, w, k->high + at, k->picks + g * Q8_PICKS * n_tok, k, n_tok, true);
        dot_steps(dot, w, k->low + at, k->steps, n_tok, true);
        add_group(k, acc, dot, g, n_tok);
    }
    store_tile(k, acc, n_tok);
}

#define TILE(n)                                                                                    \
    static void kern_tile_q8_32x##n##__avx512(const gemm_tile *k, const uint8_t *codes) {          \
        run_tile(k, codes, n);                                                                     \
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

static void (*const tiles[GEMM_TOKENS + 1])(const gemm_tile *k, const uint8_t *codes) = {
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

/* Where the rows ahead lie, for the tile to ask for them. They have the same input, but can be of
 * another weight. */
static void look_ahead(gemm_tile *k, rows_ahead ahead) {
    const weight_desc *w = ahead.w;
    k->ahead_bytes = k->ahead_scale_bytes = 0;
    if (!w || ahead.from + GEMM_ROWS > w->n_out) {
        return;
    }
    int64_t scale_bytes = dtype_table[w->scale_type].block_bytes;
    int64_t scales_at = ahead.from * k->n_groups * scale_bytes;
    k->ahead = (const uint8_t *)w->data + ahead.from * w->n_in * w->bits / 8;
    k->ahead_bytes = GEMM_ROWS * 4 * w->bits / 8;
    k->ahead_scale_bytes = GEMM_ROWS * scale_bytes;
    k->ahead_scales = (const uint8_t *)w->scales + scales_at;
    k->ahead_biases = (const uint8_t *)w->biases + scales_at;
}

/* The part of x that a tile from row t on takes. */
static int take_rows(gemm_tile *k, const q8_rows *x, int64_t t) {
    int64_t left = x->n_row - t;
    q8_rows tile = q8_part(x, t, left);
    k->low = (const uint32_t *)(const void *)tile.low;
    k->high = (const uint32_t *)(const void *)tile.high;
    k->picks = tile.picks;
    k->x_scales = tile.scales;
    k->x_sums = tile.sums;
    return (int)(left < GEMM_TOKENS ? left : GEMM_TOKENS);
}

/* How many high parts a row has in a group is the same for every panel. The processor foresees the
 * branches of so many groups of rows; beyond, a branch for each row costs more than it saves. */
#define FORESEEN 24576

/* Rows from .. to-1 of w, 32 at most, beyond which the last is repeated. */
typedef struct panel {
    gemm_packed packed;
    float *scales, *biases;
    uint8_t *codes;
} panel;

static panel panel_of(const weight_desc *w, int64_t from, int64_t to, uint8_t *memory) {
    int64_t n_groups = w->n_in / w->group, groups[GEMM_ROWS];
    panel p = {
        .packed = {.row_bytes = w->n_in * w->bits / 8, .bits = w->bits, .last = to == w->n_out}};
    p.scales = (float *)(void *)memory;
    p.biases = p.scales + n_groups * GEMM_ROWS;
    p.codes = memory + 2 * n_groups * GEMM_ROWS * (int64_t)sizeof(float);
    for (int i = 0; i < GEMM_ROWS; i++) {
        int64_t r = from + i < to ? from + i : to - 1;
        p.packed.starts[i] = (const uint8_t *)w->data + r * p.packed.row_bytes;
        groups[i] = r * n_groups;
    }
    spread_scales(p.scales, w->scales, w->scale_type, groups, n_groups);
    spread_scales(p.biases, w->biases, w->scale_type, groups, n_groups);
    return p;
}

/* Many rows of x: each tile of them meets all panels while it is in the cache. */
static void run_panels(gemm_tile *k, const weight_desc *w, const q8_rows *x, int64_t from,
                       int64_t to, rows_ahead ahead, float *y, int64_t y_stride, uint8_t *memory) {
    const int64_t stride = (int64_t)gemm_panel_bytes__avx512(w->n_in), n = to - from;
    for (int64_t r = 0; r < n; r += GEMM_ROWS) {
        panel p = panel_of(w, from + r, to, memory + r / GEMM_ROWS * stride);
        for (int h = 0; h < GEMM_ROWS; h += 16) {
            unpack_sixteen(p.codes + 4 * h, p.packed.starts + h, p.packed.row_bytes, w->bits);
        }
    }
    for (int64_t t = 0; t < x->n_row; t += GEMM_TOKENS) {
        int n_tok = take_rows(k, x, t);
        for (int64_t r = 0; r < n; r += GEMM_ROWS) {
            uint8_t *at = memory + r / GEMM_ROWS * stride;
            k->scales = (float *)(void *)at;
            k->biases = k->scales + k->n_groups * GEMM_ROWS;
            k->n_rows = (int)(n - r < GEMM_ROWS ? n - r : GEMM_ROWS);
            k->y = y + t * y_stride + r;
            look_ahead(k, t + GEMM_TOKENS < x->n_row ? (rows_ahead){0}
                                                     : (rows_ahead){ahead.w, ahead.from + r});
            tiles[n_tok](k, at + 2 * k->n_groups * GEMM_ROWS * (int64_t)sizeof(float));
        }
    }
}

void kern_gemm_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          rows_ahead ahead, float *y, int64_t y_stride, uint8_t *memory) {
    gemm_tile k = {.n_groups = w->n_in / w->group,
                   .steps = w->group / 4,
                   .by_row = w->n_in / w->group * x->n_row <= FORESEEN,
                   .y_stride = y_stride};
    if (x->n_row > GEMM_TOKENS) {
        run_panels(&k, w, x, from, to, ahead, y, y_stride, memory);
        return;
    }
    panel p = panel_of(w, from, to, memory);
    k.scales = p.scales;
    k.biases = p.biases;
    k.y = y;
    k.n_rows = (int)(to - from);
    look_ahead(&k, ahead);
    gemm_few__avx512(&k, take_rows(&k, x, 0), &p.packed, p.codes);
}

const affine_kernels affine_avx512 = {
    .orders = {[2] = 2, [3] = 3, [4] = 4, [5] = 5, [6] = 5, [8] = 8},
    .quantize = kern_quantize_q8__avx512,
    .gemv = kern_gemv_q8__avx512,
    .gemv_max = 2,
    .gemm = kern_gemm_q8__avx512,
    .gemm_rows = GEMM_ROWS,
    .gemm_tile = GEMM_TOKENS,
    .gemm_panel_bytes = gemm_panel_bytes__avx512,
    .gemm_cached = GEMM_CACHED,
};
