/* ref_linear.c - products with dense and affine weights, and rows of weights.
 *
 * Affine weights by default multiply activations that were rounded to integers of 16 bits, one
 * scale for each group of the weight's columns (ops/rounding.h):
 *     qx = round(x / sx),  y = sum_g sx_g (s_g sum(q qx) + b_g sum(qx))
 * since sum (s q + b) sx qx is that. In exact mode, and for dense weights, x stays f32. */
#include "ops/ref/ref.h"

#include "base/half.h"
#include "ops/rounding.h"

#include <math.h>

void ref_weight_row(float *out, const ops_weight *w, int64_t r) {
    const weight_desc *d = &w->d;
    if (!d->bits) {
        for (int64_t i = 0; i < d->n_in; i++) {
            out[i] = host_element(d->data, d->type, r * d->n_in + i);
        }
        return;
    }
    const uint8_t *codes = host_affine_row(w, r);
    int64_t n_groups = d->n_in / d->group;
    for (int64_t i = 0; i < d->n_in; i++) {
        int64_t g = r * n_groups + i / d->group;
        float scaled =
            (float)ref_code(codes, i, d->bits) * host_element(d->scales, d->scale_type, g);
        out[i] = scaled + host_element(d->biases, d->scale_type, g);
    }
}

static void quantize_group(int16_t *codes, float *scale, int32_t *sum, const float *x, int n,
                           float limit) {
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits = f32_bits(x[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    float inverse;
    bool usable = rounding_scale(scale, &inverse, f32_from_bits(top), limit);
    *sum = 0;
    for (int i = 0; i < n; i++) {
        codes[i] = usable ? (int16_t)lrintf(x[i] * inverse) : 0;
        *sum += codes[i];
    }
}

/* The rounded x must be in r->codes, r->scales, r->sums for this weight's group size. */
static double dot_affine(const ref_ops *r, const ops_weight *w, int64_t row) {
    const weight_desc *d = &w->d;
    const uint8_t *codes = host_affine_row(w, row);
    int64_t n_groups = d->n_in / d->group;
    double y = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        int32_t dot = 0;
        for (int64_t i = g * d->group; i < (g + 1) * d->group; i++) {
            dot += (int32_t)ref_code(codes, i, d->bits) * r->codes[i];
        }
        double scale = host_element(d->scales, d->scale_type, row * n_groups + g);
        double bias = host_element(d->biases, d->scale_type, row * n_groups + g);
        y += (double)r->scales[g] * (scale * dot + bias * r->sums[g]);
    }
    return y;
}

static double dot_f32(const float *x, const float *w, int64_t n) {
    double y = 0;
    for (int64_t i = 0; i < n; i++) {
        y += (double)x[i] * w[i];
    }
    return y;
}

static float bias_of(const weight_desc *d, int64_t row) {
    return d->bias ? host_element(d->bias, d->bias_type, row) : 0;
}

/* y += W x for x [n_in] rounded. */
static void add_rounded(ref_ops *r, const ops_weight *w, const float *x, float *y) {
    int group = w->d.group;
    float limit = rounding_limit(x, w->d.n_in, rounding_care_of(&w->d));
    for (int64_t g = 0; g < w->d.n_in / group; g++) {
        quantize_group(r->codes + g * group, &r->scales[g], &r->sums[g], x + g * group, group,
                       limit);
    }
    for (int64_t row = 0; row < w->d.n_out; row++) {
        y[row] = (float)(y[row] + dot_affine(r, w, row));
    }
}

/* y += W x, with f32 x. */
static void add_exact(ref_ops *r, const ops_weight *w, const float *x, float *y) {
    for (int64_t row = 0; row < w->d.n_out; row++) {
        ref_weight_row(r->weight_row, w, row);
        y[row] = (float)(y[row] + dot_f32(x, r->weight_row, w->d.n_in));
    }
}

void ref_multiply(ref_ops *r, const ops_weight *w, const float *x, float *y, bool accumulate) {
    for (int64_t row = 0; row < w->d.n_out; row++) {
        y[row] = (accumulate ? y[row] : 0) + bias_of(&w->d, row);
    }
    if (!w->d.bits || r->exact) {
        add_exact(r, w, x, y);
        return;
    }
    add_rounded(r, w, x, y);
}

void ref_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    ref_ops *r = ref_of(o);
    if (x.width > r->width) {
        host_fail(o, JANG_ERR_ARGUMENT, "linear: width %lld, but reserve said %lld",
                  (long long)x.width, (long long)r->width);
        return;
    }
    for (int i = 0; i < n_items; i++) {
        for (int64_t t = 0; t < x.n_row; t++) {
            ref_multiply(r, items[i].weight, host_row(x, t), host_row(items[i].y, t),
                         items[i].accumulate);
        }
    }
}

void ref_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
               ops_mat y) {
    (void)o;
    const int32_t *rows = host_batch_rows(batch, by);
    for (int32_t t = 0; t < batch->n_tok; t++) {
        float *row = host_row(y, t);
        ref_weight_row(row, w, rows[t]);
        for (int64_t i = 0; i < w->d.n_in; i++) {
            row[i] *= scale;
        }
    }
}
