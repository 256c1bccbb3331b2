/* ref_rows.c - operators that treat each row of activations by itself. */
#include "ops/ref/ref.h"

#include <math.h>
#include <string.h>

/* Where a norm takes the middle to be, and by what it multiplies. */
static void measure(const norm_desc *d, const float *x, double *mean, double *factor) {
    double sum = 0, squares = 0, n = (double)d->width;
    for (int64_t i = 0; i < d->width; i++) {
        sum += x[i];
    }
    *mean = d->kind == NORM_LAYER ? sum / n : 0;
    for (int64_t i = 0; i < d->width; i++) {
        squares += (x[i] - *mean) * (x[i] - *mean);
    }
    double size = d->kind == NORM_L2 ? squares : squares / n;
    *factor = d->kind == NORM_NONE ? 1 : 1 / sqrt(size + (double)d->eps);
}

/* Element i of a vector that is gone through again and again. */
static double cyclic(const ops_weight *w, int64_t i) {
    return host_element(w->d.data, w->d.type, i % (w->d.n_in * w->d.n_out));
}

void ref_norm(ops *o, const norm_desc *d, ops_mat x, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < x.n_row; t++) {
        for (int64_t at = 0; at < x.width; at += d->width) {
            const float *in = host_row(x, t) + at;
            float *out = host_row(y, t) + at;
            double mean, factor;
            measure(d, in, &mean, &factor);
            for (int64_t i = 0; i < d->width; i++) {
                double weight = d->weight ? cyclic(d->weight, at + i) + (double)d->offset : 1;
                double bias = d->bias ? cyclic(d->bias, at + i) : 0;
                out[i] = (float)((in[i] - mean) * factor * weight + bias);
            }
        }
    }
}

/* Turns one head by the angles position * inv_freq (f32, as transformers computes them). */
static void turn_head(float *head, const rope_desc *rope, const ops_weight *freq, int32_t pos) {
    int half = rope->n_rot / 2;
    for (int i = 0; i < half; i++) {
        float angle = (float)pos * host_element(freq->d.data, DT_F32, i);
        float c = cosf(angle) * rope->scale, s = sinf(angle) * rope->scale;
        float *a = rope->interleaved ? &head[2 * i] : &head[i];
        float *b = rope->interleaved ? &head[2 * i + 1] : &head[i + half];
        float x = *a, y = *b;
        *a = x * c - y * s;
        *b = y * c + x * s;
    }
}

void ref_rope(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
              int head_dim) {
    (void)o;
    for (int32_t t = 0; t < batch->n_tok; t++) {
        for (int h = 0; h < n_head; h++) {
            turn_head(host_row(x, t) + (int64_t)h * head_dim, rope, host_rope_freq(rope, batch, t),
                      batch->pos[t]);
        }
    }
}

static double xielu(double a, double b, double x) {
    return x > 0 ? a * x * x + 0.5 * x : b * (expm1(fmin(x, -1e-6)) - x) + 0.5 * x;
}

static double activate(const act_desc *d, double x) {
    double a = d->a, b = d->b, positive = fmax(x, 0);
    switch (d->kind) {
    case ACT_LINEAR:
        return a * x;
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case ACT_GELU_TANH: /* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)) */
        return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case ACT_RELU:
        return positive;
    case ACT_RELU2:
        return positive * positive;
    case ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACT_SOFTCAP:
        return a * tanh(x / a);
    case ACT_CLAMP:
        return x < -a ? -a : x > a ? a : x;
    case ACT_XIELU:
        return xielu(a, b, x);
    }
    return NAN;
}

void ref_gated(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < y.n_row; t++) {
        const float *g = host_row(gate, t), *u = up.buf ? host_row(up, t) : NULL;
        float *out = host_row(y, t);
        for (int64_t i = 0; i < y.width; i++) {
            out[i] = (float)(activate(act, g[i]) * (u ? u[i] : 1));
        }
    }
}

void ref_add(ops *o, float scale, ops_mat x, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < y.n_row; t++) {
        const float *in = host_row(x, t);
        float *out = host_row(y, t);
        for (int64_t i = 0; i < y.width; i++) {
            out[i] += scale * in[i];
        }
    }
}

void ref_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y) {
    (void)o;
    for (int32_t i = 0; i < batch->n_out; i++) {
        memmove(host_row(y, i), host_row(x, batch->out[i]), (size_t)x.width * sizeof(float));
    }
}
