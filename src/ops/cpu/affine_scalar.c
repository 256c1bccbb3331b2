/* affine_scalar.c - affine products in portable C, for processors without kernels of their own.
 *
 * Activations keep their natural order. A row of the weight is unpacked once and multiplied with
 * every row of x; each result is summed group by group in order. */
#include "ops/cpu/kernel_table.h"

#include "base/half.h"
#include "ops/hostbuf.h"
#include "ops/rounding.h"

#include <math.h>

/* Returns whether any code has a high part. */
static bool quantize_group(int8_t *low, int8_t *high, float *scale, float *sum, const float *x,
                           int n, float limit) {
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits = f32_bits(x[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    float inverse;
    bool usable = rounding_scale(scale, &inverse, f32_from_bits(top), limit), any = false;
    int32_t total = 0;
    for (int i = 0; i < n; i++) {
        int32_t q = usable ? (int32_t)lrintf(x[i] * inverse) : 0;
        high[i] = (int8_t)((q + 128) >> 8);
        low[i] = (int8_t)(q - 256 * high[i]);
        any = any || high[i];
        total += q;
    }
    *sum = *scale * (float)total;
    return any;
}

static void kern_quantize_q8__scalar(const q8_rows *out, int64_t row, const float *x, int64_t n,
                                     int bits, int group, float limit, q8_order order) {
    (void)bits;
    (void)order;
    q8_rows to = q8_part(out, row, 1);
    for (int64_t g = 0; g < n / group; g++) {
        to.picks[g * Q8_PICKS] =
            quantize_group(to.low + g * group, to.high + g * group, &to.scales[g], &to.sums[g],
                           x + g * group, group, limit);
    }
}

static int32_t dot_q8(const uint8_t *restrict w, const int8_t *restrict x, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += w[i] * x[i];
    }
    return sum;
}

/* One row of unpacked codes by one row of x. */
static float row_dot(const weight_desc *w, const uint8_t *codes, int64_t r, const q8_rows *x) {
    int group = w->group;
    int64_t n_groups = w->n_in / group;
    float y = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        float scale = host_element(w->scales, w->scale_type, r * n_groups + g);
        float bias = host_element(w->biases, w->scale_type, r * n_groups + g);
        int32_t dot = dot_q8(codes + g * group, x->low + g * group, group);
        if (x->picks[g * Q8_PICKS]) {
            dot += 256 * dot_q8(codes + g * group, x->high + g * group, group);
        }
        y += scale * x->scales[g] * (float)dot;
        y += bias * x->sums[g];
    }
    return y;
}

static void kern_gemm_q8__scalar(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                                 rows_ahead ahead, float *y, int64_t y_stride, uint8_t *panel) {
    (void)ahead;
    const uint8_t *packed = w->data;
    int64_t row_bytes = w->n_in * w->bits / 8;
    for (int64_t r = from; r < to; r++) {
        unpack_codes(panel, packed + r * row_bytes, w->n_in, w->bits);
        for (int64_t t = 0; t < x->n_row; t++) {
            q8_rows row = q8_part(x, t, 1);
            y[t * y_stride + r - from] = row_dot(w, panel, r, &row);
        }
    }
}

static size_t panel_bytes(int64_t n_in) {
    return (size_t)n_in;
}

const affine_kernels affine_scalar = {
    .orders = {0},
    .quantize = kern_quantize_q8__scalar,
    .gemv = NULL,
    .gemv_max = 0,
    .gemm = kern_gemm_q8__scalar,
    .gemm_rows = 32,
    .gemm_tile = 1,
    .gemm_panel_bytes = panel_bytes,
};
