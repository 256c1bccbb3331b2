/* affine_neon_i8mm.c - affine products with aarch64's matrix products of bytes.
 *
 * usmmla multiplies two rows of eight unsigned codes with two rows of eight signed activations. A
 * tile is 4 rows of the weight, unpacked once, by 4 rows of x: four usmmla for 4 x 4 x 8 products.
 * Integers are exact, so a tile gives what row_dot gives; what is left over goes through that. */
#include <arm_neon.h>
#include <stdint.h>

#define NAME(kernel) kernel##__neon_i8mm

/* n is a multiple of 32. */
static int32_t dot_q8(const uint8_t *restrict w, const int8_t *restrict x, int n) {
    int32x4_t a = vdupq_n_s32(0), b = vdupq_n_s32(0);
    for (int i = 0; i < n; i += 32) {
        a = vusdotq_s32(a, vld1q_u8(w + i), vld1q_s8(x + i));
        b = vusdotq_s32(b, vld1q_u8(w + i + 16), vld1q_s8(x + i + 16));
    }
    return vaddvq_s32(vaddq_s32(a, b));
}

#include "ops/cpu/affine_rows_body.h"

#define TILE 4

/* dots[r][t] of n codes of 4 rows of w and of x, each so many bytes apart. */
static void dot_tile(int32_t (*dots)[TILE], const uint8_t *w, int64_t w_stride, const int8_t *x,
                     int64_t x_stride, int n) {
    int32x4_t sum[2][2];
    for (int i = 0; i < 4; i++) {
        sum[i / 2][i % 2] = vdupq_n_s32(0);
    }
    for (int i = 0; i < n; i += 8, w += 8, x += 8) {
        uint8x16_t a[2];
        int8x16_t b[2];
        for (int h = 0; h < 2; h++) {
            a[h] = vcombine_u8(vld1_u8(w + 2 * h * w_stride), vld1_u8(w + (2 * h + 1) * w_stride));
            b[h] = vcombine_s8(vld1_s8(x + 2 * h * x_stride), vld1_s8(x + (2 * h + 1) * x_stride));
        }
        for (int j = 0; j < 4; j++) {
            sum[j / 2][j % 2] = vusmmlaq_s32(sum[j / 2][j % 2], a[j / 2], b[j % 2]);
        }
    }
    for (int j = 0; j < 4; j++) { /* [w0 x0, w0 x1, w1 x0, w1 x1] */
        int32_t four[4];
        vst1q_s32(four, sum[j / 2][j % 2]);
        for (int k = 0; k < 4; k++) {
            dots[j / 2 * 2 + k / 2][j % 2 * 2 + k % 2] = four[k];
        }
    }
}

/* Rows r .. r+3 of w, unpacked, by four rows of x. */
static void run_tile(const weight_desc *w, const uint8_t *codes, int64_t r, const q8_rows *x,
                     float *y, int64_t y_stride) {
    int64_t n_groups = w->n_in / w->group;
    float sum[TILE][TILE] = {{0}};
    for (int64_t g = 0; g < n_groups; g++) {
        int32_t low[TILE][TILE], high[TILE][TILE] = {{0}};
        int64_t at = g * w->group;
        bool any = false;
        for (int t = 0; t < TILE; t++) {
            any = any || x->picks[(t * x->group_stride + g) * Q8_PICKS];
        }
        dot_tile(low, codes + at, w->n_in, x->low + at, x->code_stride, w->group);
        if (any) {
            dot_tile(high, codes + at, w->n_in, x->high + at, x->code_stride, w->group);
        }
        for (int i = 0; i < TILE; i++) {
            float scale = host_element(w->scales, w->scale_type, (r + i) * n_groups + g);
            float bias = host_element(w->biases, w->scale_type, (r + i) * n_groups + g);
            for (int t = 0; t < TILE; t++) {
                int32_t dot = low[i][t] + 256 * high[i][t];
                sum[i][t] += scale * x->scales[t * x->group_stride + g] * (float)dot;
                sum[i][t] += bias * x->sums[t * x->group_stride + g];
            }
        }
    }
    for (int t = 0; t < TILE; t++) {
        for (int i = 0; i < TILE; i++) {
            y[t * y_stride + i] = sum[i][t];
        }
    }
}

static void kern_gemm_q8_tiles__neon_i8mm(const weight_desc *w, const q8_rows *x, int64_t from,
                                          int64_t to, rows_ahead ahead, float *y, int64_t y_stride,
                                          uint8_t *panel) {
    int64_t row_bytes = w->n_in * w->bits / 8, r = from;
    for (; x->n_row >= TILE && r + TILE <= to; r += TILE) {
        for (int64_t i = 0; i < TILE; i++) {
            unpack_codes(panel + i * w->n_in, (const uint8_t *)w->data + (r + i) * row_bytes,
                         w->n_in, w->bits);
        }
        int64_t t = 0;
        for (; t + TILE <= x->n_row; t += TILE) {
            q8_rows four = q8_part(x, t, TILE);
            run_tile(w, panel, r, &four, y + t * y_stride + r - from, y_stride);
        }
        for (; t < x->n_row; t++) {
            q8_rows one = q8_part(x, t, 1);
            for (int64_t i = 0; i < TILE; i++) {
                y[t * y_stride + r + i - from] = row_dot(w, panel + i * w->n_in, r + i, &one);
            }
        }
    }
    kern_gemm_q8__neon_i8mm(w, x, r, to, ahead, y + r - from, y_stride, panel);
}

static size_t tile_bytes(int64_t n_in) {
    return TILE * panel_bytes(n_in);
}

const affine_kernels affine_neon_i8mm = {
    .orders = {0},
    .quantize = kern_quantize_q8__neon_i8mm,
    .gemv = NULL,
    .gemv_max = 0,
    .gemm = kern_gemm_q8_tiles__neon_i8mm,
    .gemm_rows = 32,
    .gemm_tile = 1,
    .gemm_panel_bytes = tile_bytes,
};
