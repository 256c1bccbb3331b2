/* ref_rows.c - operators that treat each row of activations by itself. */
#include "ops/ref/ref.h"

#include <math.h>
#include <string.h>

void ref_rms_norm(ops *o, const ops_weight *w, float eps, float offset, ops_mat x, ops_mat y) {
    (void)o;
    int64_t n = w->d.n_in * w->d.n_out; /* a vector, whichever way it lies */
    for (int64_t t = 0; t < x.n_row; t++) {
        for (int64_t at = 0; at < x.width; at += n) {
            const float *in = host_row(x, t) + at;
            float *out = host_row(y, t) + at;
            double sum = 0;
            for (int64_t i = 0; i < n; i++) {
                sum += (double)in[i] * in[i];
            }
            double factor = 1 / sqrt(sum / (double)n + (double)eps);
            for (int64_t i = 0; i < n; i++) {
                double weight = (double)host_element(w->d.data, w->d.type, i) + (double)offset;
                out[i] = (float)(in[i] * factor * weight);
            }
        }
    }
}

/* Turns one head by the angles position * inv_freq (f32, as transformers computes them). */
static void turn_head(float *head, const rope_desc *rope, int32_t pos) {
    int half = rope->n_rot / 2;
    for (int i = 0; i < half; i++) {
        float angle = (float)pos * host_element(rope->inv_freq->d.data, DT_F32, i);
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
            turn_head(host_row(x, t) + (int64_t)h * head_dim, rope, batch->pos[t]);
        }
    }
}

static double activate(activation act, double x) {
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case ACT_GELU_TANH: /* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)) */
        return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    }
    return NAN;
}

void ref_gated(ops *o, activation act, ops_mat gate, ops_mat up, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < y.n_row; t++) {
        const float *g = host_row(gate, t), *u = host_row(up, t);
        float *out = host_row(y, t);
        for (int64_t i = 0; i < y.width; i++) {
            out[i] = (float)(activate(act, g[i]) * u[i]);
        }
    }
}

void ref_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y) {
    (void)o;
    for (int32_t i = 0; i < batch->n_out; i++) {
        memmove(host_row(y, i), host_row(x, batch->out[i]), (size_t)x.width * sizeof(float));
    }
}
