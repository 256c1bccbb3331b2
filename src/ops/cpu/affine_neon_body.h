/* affine_neon_body.h - affine products with NEON, written once over a dot product of bytes.
 *
 * The including file defines NAME(kernel) and
 *     dot_codes(acc, codes, x, bits)   acc's lane l += the products of bytes 4 l .. 4 l + 3
 * and, where it has something better than that for tiles, TILE_DOTS.
 *
 * A block is 128 codes of a row: eight vectors, which loads with 2-, 3- or 4-way de-interleaving,
 * shifts and masks take out of 16 bytes a bit of width. Activations for the GEMV are stored in the
 * order in which the vectors deliver the codes (places). Whatever the order, adding lanes in pairs
 * makes of a block four sums, of 32 codes each, and of one, two or four blocks those of four
 * groups.
 *
 * Order of sums: group g belongs to lane g mod 4 of an f32 accumulator, which takes its groups in
 * order; the result is (0+2) + (1+3) of the lanes. GEMV and GEMM both keep to it. */
#include "ops/cpu/kernel_table.h"

#include "base/half.h"
#include "ops/hostbuf.h"
#include "ops/rounding.h"

#include <arm_neon.h>
#include <string.h>

#define BLOCK 128
#define GEMV_TOKENS 4

/* ---- Unpacking -------------------------------------------------------------------------------
 */

/* For codes that cross bytes and come out of no plane (5 bits): the two bytes that each of sixteen
 * lies in, and how far these are shifted. */
typedef struct cross_tables {
    uint8x16_t low, high;
    int8x16_t down, up;
} cross_tables;

ALWAYS_INLINE cross_tables cross_for(int bits) {
    uint8_t low[16], high[16];
    int8_t down[16], up[16];
    for (int i = 0; i < 16; i++) {
        low[i] = (uint8_t)(i * bits / 8);
        high[i] = (uint8_t)(i * bits / 8 + 1);
        down[i] = (int8_t)(-i * bits % 8);
        up[i] = (int8_t)(8 - i * bits % 8);
    }
    return (cross_tables){vld1q_u8(low), vld1q_u8(high), vld1q_s8(down), vld1q_s8(up)};
}

/* Sixteen codes of 5 bits, in order, from 16 bytes of which 10 belong to them. */
ALWAYS_INLINE uint8x16_t cross_codes(const uint8_t *p, int bits, const cross_tables *k) {
    uint8x16_t bytes = vld1q_u8(p);
    uint8x16_t low = vshlq_u8(vqtbl1q_u8(bytes, k->low), k->down);
    uint8x16_t high = vshlq_u8(vqtbl1q_u8(bytes, k->high), k->up);
    return vandq_u8(vorrq_u8(low, high), vdupq_n_u8((uint8_t)((1 << bits) - 1)));
}

/* Bytes behind a block that loading it may touch. */
#define OVERREAD 6

/* A block's codes. Byte j of vector v is code
 *   2, 6 bits: 64 (v / 4) + 4 j + v % 4     3 bits: 8 j + v
 *   4 bits:    32 (v / 2) + 2 j + v % 2     5, 8 bits: 16 v + j */
ALWAYS_INLINE void unpack_block(uint8x16_t *codes, const uint8_t *p, int bits,
                                const cross_tables *k) {
    const uint8x16_t mask = vdupq_n_u8((uint8_t)((1 << bits) - 1));
    for (int h = 0; h < 2 && bits == 2; h++) {
        uint8x16_t v = vld1q_u8(p + 16 * h);
        codes[4 * h] = vandq_u8(v, mask);
        codes[4 * h + 1] = vandq_u8(vshrq_n_u8(v, 2), mask);
        codes[4 * h + 2] = vandq_u8(vshrq_n_u8(v, 4), mask);
        codes[4 * h + 3] = vshrq_n_u8(v, 6);
    }
    for (int h = 0; h < 2 && bits == 6; h++) {
        uint8x16x3_t v = vld3q_u8(p + 48 * h);
        codes[4 * h] = vandq_u8(v.val[0], mask);
        codes[4 * h + 1] = vandq_u8(vsliq_n_u8(vshrq_n_u8(v.val[0], 6), v.val[1], 2), mask);
        codes[4 * h + 2] = vandq_u8(vsliq_n_u8(vshrq_n_u8(v.val[1], 4), v.val[2], 4), mask);
        codes[4 * h + 3] = vshrq_n_u8(v.val[2], 2);
    }
    for (int i = 0; i < 4 && bits == 4; i++) {
        uint8x16_t v = vld1q_u8(p + 16 * i);
        codes[2 * i] = vandq_u8(v, mask);
        codes[2 * i + 1] = vshrq_n_u8(v, 4);
    }
    if (bits == 3) {
        uint8x16x3_t v = vld3q_u8(p);
        codes[0] = vandq_u8(v.val[0], mask);
        codes[1] = vandq_u8(vshrq_n_u8(v.val[0], 3), mask);
        codes[2] = vandq_u8(vsliq_n_u8(vshrq_n_u8(v.val[0], 6), v.val[1], 2), mask);
        codes[3] = vandq_u8(vshrq_n_u8(v.val[1], 1), mask);
        codes[4] = vandq_u8(vshrq_n_u8(v.val[1], 4), mask);
        codes[5] = vandq_u8(vsliq_n_u8(vshrq_n_u8(v.val[1], 7), v.val[2], 1), mask);
        codes[6] = vandq_u8(vshrq_n_u8(v.val[2], 2), mask);
        codes[7] = vshrq_n_u8(v.val[2], 5);
    }
    for (int i = 0; i < 8 && (bits == 5 || bits == 8); i++) {
        codes[i] = bits == 8 ? vld1q_u8(p + 16 * i) : cross_codes(p + 10 * i, bits, k);
    }
}

/* The vectors of a block, in the codes' own order. */
ALWAYS_INLINE void store_block(uint8_t *out, const uint8x16_t *codes, int bits) {
    for (int h = 0; h < 2 && (bits == 2 || bits == 6); h++) {
        const uint8x16_t *c = codes + 4 * h;
        vst4q_u8(out + 64 * h, ((uint8x16x4_t){{c[0], c[1], c[2], c[3]}}));
    }
    for (int i = 0; i < 4 && bits == 4; i++) {
        vst2q_u8(out + 32 * i, ((uint8x16x2_t){{codes[2 * i], codes[2 * i + 1]}}));
    }
    for (int h = 0; h < 2 && bits == 3; h++) {
        uint16x8x4_t pairs;
        for (int i = 0; i < 4; i++) {
            uint8x16_t both = h ? vzip2q_u8(codes[2 * i], codes[2 * i + 1])
                                : vzip1q_u8(codes[2 * i], codes[2 * i + 1]);
            pairs.val[i] = vreinterpretq_u16_u8(both);
        }
        vst4q_u16((uint16_t *)(void *)(out + 64 * h), pairs);
    }
    for (int i = 0; i < 8 && (bits == 5 || bits == 8); i++) {
        vst1q_u8(out + 16 * i, codes[i]);
    }
}

/* The block whose first byte is at p, of which `left` are there and `behind` more of the weight. */
ALWAYS_INLINE void load_block(uint8x16_t *codes, const uint8_t *p, int64_t left, int64_t behind,
                              int bits, const cross_tables *k) {
    uint8_t whole[16 * 8 + OVERREAD];
    const int size = BLOCK / 8 * bits;
    if (left < size || (bits == 5 && left + behind < size + OVERREAD)) {
        memset(whole, 0, sizeof whole);
        memcpy(whole, p, (size_t)(left < size ? left : size));
        p = whole;
    }
    unpack_block(codes, p, bits, k);
}

/* ---- Activations -----------------------------------------------------------------------------
 */

/* Numbers of a block in the order of unpack_block's vectors. */
static void place_block(int8_t *x, int bits) {
    uint8_t *p = (uint8_t *)x;
    uint8x16_t v[8];
    for (int h = 0; h < 2 && (bits == 2 || bits == 6); h++) {
        uint8x16x4_t four = vld4q_u8(p + 64 * h);
        for (int i = 0; i < 4; i++) {
            v[4 * h + i] = four.val[i];
        }
    }
    for (int i = 0; i < 4 && bits == 4; i++) {
        uint8x16x2_t two = vld2q_u8(p + 32 * i);
        v[2 * i] = two.val[0];
        v[2 * i + 1] = two.val[1];
    }
    if (bits == 3) {
        uint16x8x4_t a = vld4q_u16((const uint16_t *)(const void *)p);
        uint16x8x4_t b = vld4q_u16((const uint16_t *)(const void *)(p + 64));
        for (int i = 0; i < 4; i++) {
            uint8x16_t first = vreinterpretq_u8_u16(a.val[i]);
            uint8x16_t second = vreinterpretq_u8_u16(b.val[i]);
            v[2 * i] = vuzp1q_u8(first, second);
            v[2 * i + 1] = vuzp2q_u8(first, second);
        }
    }
    for (int i = 0; i < 8 && bits != 5 && bits != 8; i++) {
        vst1q_u8(p + 16 * i, v[i]);
    }
}

/* Returns whether any number has a high part. n is a multiple of 16. */
static bool quantize_group(int8_t *low, int8_t *high, float *scale, float *sum, const float *x,
                           int n, float limit) {
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4) {
        uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + i));
        top = vmaxq_u32(top, vandq_u32(bits, vdupq_n_u32(0x7fffffffu)));
    }
    float inverse;
    bool usable = rounding_scale(scale, &inverse, f32_from_bits(vmaxvq_u32(top)), limit);
    if (!usable) {
        memset(low, 0, (size_t)n);
        memset(high, 0, (size_t)n);
        *sum = *scale * 0.0f;
        return false;
    }
    int32x4_t total = vdupq_n_s32(0);
    int8x16_t any = vdupq_n_s8(0);
    for (int i = 0; i < n; i += 16) {
        int16x4_t q[4];
        for (int k = 0; k < 4; k++) {
            int32x4_t four = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * k), inverse));
            total = vaddq_s32(total, four);
            q[k] = vmovn_s32(four);
        }
        int16x8_t a = vcombine_s16(q[0], q[1]), b = vcombine_s16(q[2], q[3]);
        const int16x8_t half = vdupq_n_s16(128);
        int8x16_t upper =
            vcombine_s8(vshrn_n_s16(vaddq_s16(a, half), 8), vshrn_n_s16(vaddq_s16(b, half), 8));
        any = vorrq_s8(any, upper);
        vst1q_s8(low + i, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
        vst1q_s8(high + i, upper);
    }
    *sum = *scale * (float)vaddvq_s32(total);
    return vmaxvq_u8(vreinterpretq_u8_s8(any)) != 0;
}

static void NAME(kern_quantize_q8)(const q8_rows *out, int64_t row, const float *x, int64_t n,
                                   int bits, int group, float limit, q8_order order) {
    q8_rows to = q8_part(out, row, 1);
    int64_t n_groups = n / group, whole = (n + BLOCK - 1) / BLOCK * BLOCK;
    for (int64_t g = 0; g < n_groups; g++) {
        to.picks[g * Q8_PICKS] =
            quantize_group(to.low + g * group, to.high + g * group, &to.scales[g], &to.sums[g],
                           x + g * group, group, limit);
    }
    for (int64_t g = n_groups; g % 4; g++) {
        to.scales[g] = to.sums[g] = 0;
        to.picks[g * Q8_PICKS] = 0;
    }
    memset(to.low + n, 0, (size_t)(whole - n));
    memset(to.high + n, 0, (size_t)(whole - n));
    for (int64_t i = 0; i < whole && order == Q8_FOR_GEMV; i += BLOCK) {
        place_block(to.low + i, bits);
        place_block(to.high + i, bits);
    }
}

/* ---- GEMV ------------------------------------------------------------------------------------
 */

/* A block's products, as the sums of its four times 32 codes. */
ALWAYS_INLINE int32x4_t dot_block(const uint8x16_t *codes, const int8_t *x, int bits) {
    int32x4_t sum[4];
    for (int i = 0; i < 4; i++) {
        sum[i] = vdupq_n_s32(0);
    }
    for (int v = 0; v < 8; v++) {
        const int i = bits == 3 ? v % 2 : bits == 2 || bits == 6 ? v / 4 : v / 2;
        sum[i] = dot_codes(sum[i], codes[v], vld1q_s8(x + 16 * v), bits);
    }
    if (bits == 3) { /* lane l: codes 32 l .. */
        return vaddq_s32(sum[0], sum[1]);
    }
    if (bits == 2 || bits == 6) { /* lanes 2 l and 2 l + 1 of each: its codes 32 l .. */
        return vpaddq_s32(sum[0], sum[1]);
    }
    return vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
}

/* Four scales or biases from number `at` on as f32; n of them are there, the others are 0. */
ALWAYS_INLINE float32x4_t load_scales(const uint8_t *p, dtype type, int64_t at, int64_t n) {
    uint8_t last[16] = {0};
    const int size = type == DT_F32 ? 4 : 2;
    p += at * size;
    if (n < 4) {
        memcpy(last, p, (size_t)(n * size));
        p = last;
    }
    if (type == DT_F32) {
        return vreinterpretq_f32_u8(vld1q_u8(p));
    }
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(p));
    if (type == DT_F16) {
        return vcvt_f32_f16(vreinterpret_f16_u16(half));
    }
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* acc + the products of four groups, scaled: factors and offsets of the weight and of x. */
ALWAYS_INLINE float32x4_t add_scaled(float32x4_t acc, int32x4_t dots, float32x4_t scale,
                                     float32x4_t bias, float32x4_t x_scale, float32x4_t x_sum) {
    acc = vfmaq_f32(acc, vmulq_f32(scale, x_scale), vcvtq_f32_s32(dots));
    return vfmaq_f32(acc, bias, x_sum);
}

/* Four groups' products of one row of the weight, from group g on, with n_tok rows of x. */
ALWAYS_INLINE void dot_groups(int32x4_t *dots, const weight_desc *w, const q8_rows *x, int64_t r,
                              int64_t g, const cross_tables *k, int bits, int group, int n_tok) {
    const int n_block = group / 32;
    const int64_t row_bytes = w->n_in * bits / 8, from = g * group;
    const uint8_t *row = (const uint8_t *)w->data + r * row_bytes;
    int32x4_t sums[GEMV_TOKENS][4];
    bool any[GEMV_TOKENS];
    for (int t = 0; t < n_tok; t++) {
        const uint8_t *picks = x->picks + (t * x->group_stride + g) * Q8_PICKS;
        any[t] = picks[0] || picks[Q8_PICKS] || picks[2 * Q8_PICKS] || picks[3 * Q8_PICKS];
    }
#pragma GCC unroll 4
    for (int b = 0; b < n_block; b++) {
        int64_t at = from + b * BLOCK, byte = at * bits / 8;
        uint8x16_t codes[8];
        if (at >= w->n_in) {
            for (int t = 0; t < n_tok; t++) {
                sums[t][b] = vdupq_n_s32(0);
            }
            continue;
        }
        load_block(codes, row + byte, row_bytes - byte, (w->n_out - 1 - r) * row_bytes, bits, k);
        for (int t = 0; t < n_tok; t++) {
            sums[t][b] = dot_block(codes, x->low + t * x->code_stride + at, bits);
            if (any[t]) {
                int32x4_t high = dot_block(codes, x->high + t * x->code_stride + at, bits);
                sums[t][b] = vaddq_s32(sums[t][b], vshlq_n_s32(high, 8));
            }
        }
    }
    for (int t = 0; t < n_tok; t++) {
        int32x4_t *s = sums[t];
        dots[t] = n_block == 1   ? s[0]
                  : n_block == 2 ? vpaddq_s32(s[0], s[1])
                                 : vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
    }
}

/* (0+2) + (1+3) */
ALWAYS_INLINE float sum_lanes(float32x4_t a) {
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* bits, group and n_tok are constants where this is inlined. */
ALWAYS_INLINE void gemv_rows(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                             float *y, int64_t y_stride, int bits, int group, int n_tok) {
    const cross_tables k = cross_for(bits);
    int64_t n_groups = w->n_in / group;
    for (int64_t r = from; r < to; r++) {
        float32x4_t acc[GEMV_TOKENS];
        for (int t = 0; t < n_tok; t++) {
            acc[t] = vdupq_n_f32(0);
        }
        for (int64_t g = 0; g < n_groups; g += 4) {
            int32x4_t dots[GEMV_TOKENS];
            dot_groups(dots, w, x, r, g, &k, bits, group, n_tok);
            float32x4_t scale =
                load_scales(w->scales, w->scale_type, r * n_groups + g, n_groups - g);
            float32x4_t bias =
                load_scales(w->biases, w->scale_type, r * n_groups + g, n_groups - g);
            for (int t = 0; t < n_tok; t++) {
                int64_t at = t * x->group_stride + g;
                acc[t] = add_scaled(acc[t], dots[t], scale, bias, vld1q_f32(x->scales + at),
                                    vld1q_f32(x->sums + at));
            }
        }
        for (int t = 0; t < n_tok; t++) {
            y[t * y_stride + r - from] = sum_lanes(acc[t]);
        }
    }
}

#include "ops/cpu/gemv_widths.h"

/* ---- GEMM ------------------------------------------------------------------------------------
 */

#define TILE 4
#define PANEL_ROWS 16

/* Rows of the weight, unpacked: codes [16][n_in rounded up to blocks] in their own order, scales
 * and biases [n_groups][16]. */
typedef struct neon_panel {
    uint8_t *codes;
    float *scales, *biases;
    int64_t stride;
} neon_panel;

static int64_t panel_stride(int64_t n_in) {
    return (n_in + BLOCK - 1) / BLOCK * BLOCK;
}

static size_t panel_bytes(int64_t n_in) {
    size_t scales = (size_t)(n_in / 32) * sizeof(float);
    return PANEL_ROWS * ((size_t)panel_stride(n_in) + 2 * scales);
}

ALWAYS_INLINE void unpack_row(uint8_t *out, const weight_desc *w, int64_t r, int bits) {
    const cross_tables k = cross_for(bits);
    const int64_t row_bytes = w->n_in * bits / 8, behind = (w->n_out - 1 - r) * row_bytes;
    const uint8_t *row = (const uint8_t *)w->data + r * row_bytes;
    for (int64_t at = 0; at < row_bytes; at += BLOCK / 8 * bits, out += BLOCK) {
        uint8x16_t codes[8];
        load_block(codes, row + at, row_bytes - at, behind, bits, &k);
        store_block(out, codes, bits);
    }
}

static void unpack_any_row(uint8_t *out, const weight_desc *w, int64_t r) {
    CALL_BY_WIDTH(w->bits, unpack_row, out, w, r)
}

/* Rows from .. to-1 of w, of which the last stands for those that are missing. */
static neon_panel panel_of(const weight_desc *w, int64_t from, int64_t to, uint8_t *memory) {
    neon_panel p = {.stride = panel_stride(w->n_in)};
    int64_t n_groups = w->n_in / w->group;
    p.scales = (float *)(void *)memory;
    p.biases = p.scales + n_groups * PANEL_ROWS;
    p.codes = (uint8_t *)(p.biases + n_groups * PANEL_ROWS);
    for (int64_t i = 0; i < PANEL_ROWS; i++) {
        int64_t r = from + i < to ? from + i : to - 1;
        unpack_any_row(p.codes + i * p.stride, w, r);
        for (int64_t g = 0; g < n_groups; g++) {
            p.scales[g * PANEL_ROWS + i] = host_element(w->scales, w->scale_type, r * n_groups + g);
            p.biases[g * PANEL_ROWS + i] = host_element(w->biases, w->scale_type, r * n_groups + g);
        }
    }
    return p;
}

#ifndef TILE_DOTS
#define TILE_DOTS dot_tile
/* out[r] lane t: the products of n codes of row r of the weight and of row t of x. */
ALWAYS_INLINE void dot_tile(int32x4_t *out, const uint8_t *w, int64_t w_stride,
                            const int8_t *const *x, int64_t at, int n, int bits) {
    int32x4_t sum[TILE][TILE];
    for (int i = 0; i < TILE * TILE; i++) {
        sum[i / TILE][i % TILE] = vdupq_n_s32(0);
    }
    for (int i = 0; i < n; i += 16) {
        for (int r = 0; r < TILE; r++) {
            uint8x16_t codes = vld1q_u8(w + r * w_stride + at + i);
            for (int t = 0; t < TILE; t++) {
                sum[r][t] = dot_codes(sum[r][t], codes, vld1q_s8(x[t] + at + i), bits);
            }
        }
    }
    for (int r = 0; r < TILE; r++) {
        out[r] = vpaddq_s32(vpaddq_s32(sum[r][0], sum[r][1]), vpaddq_s32(sum[r][2], sum[r][3]));
    }
}
#endif

/* Up to four rows of x; the last stands for those that are missing. */
typedef struct x_tile {
    const int8_t *low[TILE], *high[TILE];
    const float *scales[TILE], *sums[TILE];
    const uint8_t *picks[TILE];
} x_tile;

static x_tile x_tile_of(const q8_rows *x, int64_t from) {
    x_tile tile;
    for (int t = 0; t < TILE; t++) {
        q8_rows row = q8_part(x, from + t < x->n_row ? from + t : x->n_row - 1, 1);
        tile.low[t] = row.low;
        tile.high[t] = row.high;
        tile.scales[t] = row.scales;
        tile.sums[t] = row.sums;
        tile.picks[t] = row.picks;
    }
    return tile;
}

ALWAYS_INLINE float32x4_t gather(const float *const *rows, int64_t g) {
    const float four[TILE] = {rows[0][g], rows[1][g], rows[2][g], rows[3][g]};
    return vld1q_f32(four);
}

/* out[r] lane t: rows r of the panel from `first` on times row t of x. */
ALWAYS_INLINE void run_tile(float32x4_t *out, const weight_desc *w, const neon_panel *p, int first,
                            const x_tile *x, int bits) {
    float32x4_t acc[4][TILE];
    const uint8_t *codes = p->codes + first * p->stride;
    for (int i = 0; i < 4 * TILE; i++) {
        acc[i / TILE][i % TILE] = vdupq_n_f32(0);
    }
    for (int64_t g = 0; g < w->n_in / w->group; g++) {
        int64_t at = g * w->group, pick = g * Q8_PICKS;
        int32x4_t dots[TILE], high[TILE];
        TILE_DOTS(dots, codes, p->stride, x->low, at, w->group, bits);
        if (x->picks[0][pick] || x->picks[1][pick] || x->picks[2][pick] || x->picks[3][pick]) {
            TILE_DOTS(high, codes, p->stride, x->high, at, w->group, bits);
            for (int r = 0; r < TILE; r++) {
                dots[r] = vaddq_s32(dots[r], vshlq_n_s32(high[r], 8));
            }
        }
        float32x4_t x_scale = gather(x->scales, g), x_sum = gather(x->sums, g);
        for (int r = 0; r < TILE; r++) {
            int64_t i = g * PANEL_ROWS + first + r;
            acc[g & 3][r] = add_scaled(acc[g & 3][r], dots[r], vdupq_n_f32(p->scales[i]),
                                       vdupq_n_f32(p->biases[i]), x_scale, x_sum);
        }
    }
    for (int r = 0; r < TILE; r++) {
        out[r] = vaddq_f32(vaddq_f32(acc[0][r], acc[2][r]), vaddq_f32(acc[1][r], acc[3][r]));
    }
}

static void NAME(kern_gemm_q8)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                               rows_ahead ahead, float *y, int64_t y_stride, uint8_t *memory) {
    neon_panel p = panel_of(w, from, to, memory);
    (void)ahead;
    for (int64_t t = 0; t < x->n_row; t += TILE) {
        x_tile tile = x_tile_of(x, t);
        int64_t n_tok = x->n_row - t < TILE ? x->n_row - t : TILE;
        for (int64_t r = 0; r < to - from; r += TILE) {
            float32x4_t out[TILE];
            float results[TILE][TILE];
            if (w->bits == 8) {
                run_tile(out, w, &p, (int)r, &tile, 8);
            } else {
                run_tile(out, w, &p, (int)r, &tile, 7); /* or fewer: all the same here */
            }
            for (int i = 0; i < TILE; i++) {
                vst1q_f32(results[i], out[i]);
            }
            for (int64_t i = 0; i < n_tok * TILE; i++) {
                if (r + i % TILE < to - from) {
                    y[(t + i / TILE) * y_stride + r + i % TILE] = results[i % TILE][i / TILE];
                }
            }
        }
    }
}

#define AFFINE_KERNELS                                                                             \
    {                                                                                              \
        .orders = {[2] = 1, [3] = 2, [4] = 3, [5] = 4, [6] = 1, [8] = 4},                          \
        .quantize = NAME(kern_quantize_q8), .gemv = gemv_by_width, .gemv_max = GEMV_TOKENS,        \
        .gemm = NAME(kern_gemm_q8), .gemm_rows = PANEL_ROWS, .gemm_tile = 1,                       \
        .gemm_panel_bytes = panel_bytes,                                                           \
    }
