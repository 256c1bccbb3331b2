/* affine_rows_body.h - affine products row by row, for instruction sets whose only help is a dot
 * product: the including file defines dot_q8 and NAME(kernel) before.
 *
 * Activations keep their natural order. A row of the weight is unpacked once and multiplied with
 * every row of x; each result is summed group by group in order. */

#include "ops/cpu/kernel_table.h"

#include "base/half.h"
#include "ops/hostbuf.h"

#include <math.h>

/* See ref_linear.c: a group that is not finite gets the scale NaN, one below 2^-100 counts as 0. */
static void quantize_group(int8_t *codes, float *scale, float *sum, const float *x, int n) {
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits = f32_bits(x[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    float max = f32_from_bits(top);
    bool usable = max >= 0x1p-100f && max < INFINITY;
    float inverse = usable ? 127.0f / max : 0;
    int32_t total = 0;
    for (int i = 0; i < n; i++) {
        codes[i] = usable ? (int8_t)lrintf(x[i] * inverse) : 0;
        total += codes[i];
    }
    *scale = usable ? max / 127.0f : max < 1 ? 0 : NAN;
    *sum = *scale * (float)total;
}

static void NAME(kern_quantize_q8)(const q8_rows *out, int64_t row, const float *x, int64_t n,
                                   int bits, int group, q8_order order) {
    (void)bits;
    (void)order;
    for (int64_t g = 0; g < n / group; g++) {
        quantize_group(out->codes + row * out->code_stride + g * group,
                       out->scales + row * out->group_stride + g,
                       out->sums + row * out->group_stride + g, x + g * group, group);
    }
}

/* One row of unpacked codes by one row of x. */
static float row_dot(const weight_desc *w, const uint8_t *codes, int64_t r, const q8_rows *x,
                     int64_t t) {
    int group = w->group;
    int64_t n_groups = w->n_in / group;
    const int8_t *q = x->codes + t * x->code_stride;
    float y = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        float scale = host_element(w->scales, w->scale_type, r * n_groups + g);
        float bias = host_element(w->biases, w->scale_type, r * n_groups + g);
        float dot = (float)dot_q8(codes + g * group, q + g * group, group);
        y += scale * x->scales[t * x->group_stride + g] * dot;
        y += bias * x->sums[t * x->group_stride + g];
    }
    return y;
}

static void NAME(kern_gemm_q8)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                               float *y, int64_t y_stride, uint8_t *panel) {
    const uint8_t *packed = w->data;
    int64_t row_bytes = w->n_in * w->bits / 8;
    for (int64_t r = from; r < to; r++) {
        unpack_codes(panel, packed + r * row_bytes, w->n_in, w->bits);
        for (int64_t t = 0; t < x->n_row; t++) {
            y[t * y_stride + r - from] = row_dot(w, panel, r, x, t);
        }
    }
}

static size_t panel_bytes(int64_t n_in) {
    return (size_t)n_in;
}
