/* ref_recurrent.c - convolutions, Mamba's scans and the delta rule, token by token, by their
 * definitions. A part of a slot holds:
 *
 *     conv    [n_tap - 1][width] the inputs of the tokens before, the oldest first
 *     scan    [width][n_state]
 *     ssd     [n_head][n_state][head_dim]
 *     delta   [n_head][k_dim][v_dim] */
#include "ops/ref/ref.h"

#include <math.h>
#include <string.h>

static const float *f32(const ops_weight *w) {
    return w->d.data;
}

void ref_take_blocks(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width, ops_mat y) {
    (void)o;
    for (int64_t t = 0; t < x.n_row; t++) {
        for (int64_t b = 0; b < x.width / stride; b++) {
            memcpy(host_row(y, t) + b * width, host_row(x, t) + b * stride + from,
                   (size_t)width * sizeof(float));
        }
    }
}

void ref_conv(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat y) {
    (void)o;
    int64_t n_past = desc->weight->d.n_out - 1, width = x.width;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        const batch_seq *seq = &batch->seqs[s];
        float *past = host_state_begin(at, seq);
        for (int32_t t = seq->first; t < seq->first + seq->n_tok; t++) {
            const float *now = host_row(x, t);
            for (int64_t i = 0; i < width; i++) {
                double sum = desc->bias ? (double)f32(desc->bias)[i] : 0;
                for (int64_t j = 0; j <= n_past; j++) {
                    sum += (double)f32(desc->weight)[j * width + i] *
                           (j < n_past ? past[j * width + i] : now[i]);
                }
                host_row(y, t)[i] = (float)(desc->silu ? sum / (1 + exp(-sum)) : sum);
            }
            if (n_past) {
                size_t row = (size_t)width * sizeof *past;
                memmove(past, past + width, (size_t)(n_past - 1) * row);
                memcpy(past + (n_past - 1) * width, now, row);
            }
        }
    }
}

void ref_time_step(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step, ops_mat decay) {
    (void)o;
    for (int64_t t = 0; t < x.n_row; t++) {
        for (int64_t i = 0; i < x.width; i++) {
            double u = (double)host_row(x, t)[i] + (desc->bias ? (double)f32(desc->bias)[i] : 0);
            double dt = u > 0 ? u + log1p(exp(-u)) : log1p(exp(u));
            dt = fmin(fmax(dt, (double)desc->min), (double)desc->max);
            if (step.buf) {
                host_row(step, t)[i] = (float)dt;
            }
            if (decay.buf) {
                host_row(decay, t)[i] = (float)exp(dt * (double)f32(desc->a)[i]);
            }
        }
    }
}

void ref_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat step, ops_mat b, ops_mat c, ops_mat y) {
    (void)o;
    int n = desc->n_state;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        const batch_seq *seq = &batch->seqs[s];
        float *state = host_state_begin(at, seq);
        for (int32_t t = seq->first; t < seq->first + seq->n_tok; t++) {
            for (int64_t i = 0; i < x.width; i++) {
                double in = host_row(x, t)[i], dt = host_row(step, t)[i];
                double sum = in * (double)f32(desc->d)[i];
                for (int j = 0; j < n; j++) {
                    float *h = &state[i * n + j];
                    double decay = exp(dt * (double)f32(desc->a)[i * n + j]);
                    *h = (float)(decay * *h + dt * in * host_row(b, t)[j]);
                    sum += (double)*h * host_row(c, t)[j];
                }
                host_row(y, t)[i] = (float)sum;
            }
        }
    }
}

void ref_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
             ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y) {
    (void)o;
    int64_t n = desc->n_state, width = desc->head_dim;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        const batch_seq *seq = &batch->seqs[s];
        float *state = host_state_begin(at, seq);
        for (int32_t t = seq->first; t < seq->first + seq->n_tok; t++) {
            for (int h = 0; h < desc->n_head; h++) {
                int64_t group = (int64_t)h * desc->n_group / desc->n_head;
                const float *bs = host_row(b, t) + group * n, *cs = host_row(c, t) + group * n;
                double dt = host_row(step, t)[h], keep = host_row(decay, t)[h];
                for (int64_t i = 0; i < width; i++) {
                    double in = host_row(x, t)[h * width + i];
                    double sum = in * (double)f32(desc->d)[h];
                    for (int64_t j = 0; j < n; j++) {
                        float *v = &state[(h * n + j) * width + i];
                        *v = (float)(keep * *v + dt * in * bs[j]);
                        sum += (double)*v * cs[j];
                    }
                    host_row(y, t)[h * width + i] = (float)sum;
                }
            }
        }
    }
}

/* One token of one head: state [k_dim][v_dim]; decay one number or k_dim of them. */
static void delta_token(float *state, const delta_desc *d, const float *q, const float *k,
                        const float *v, const float *decay, bool by_row, double strength,
                        float *y) {
    for (int j = 0; j < d->v_dim; j++) {
        double known = 0, sum = 0;
        for (int i = 0; i < d->k_dim; i++) {
            float *s = &state[(int64_t)i * d->v_dim + j];
            *s *= decay[by_row ? i : 0];
            known += (double)k[i] * *s;
        }
        double change = strength * (v[j] - known);
        for (int i = 0; i < d->k_dim; i++) {
            float *s = &state[(int64_t)i * d->v_dim + j];
            *s = (float)(*s + k[i] * change);
            sum += (double)q[i] * *s;
        }
        y[j] = (float)sum;
    }
}

void ref_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch, ops_mat q,
               ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y) {
    (void)o;
    int64_t k_dim = desc->k_dim, v_dim = desc->v_dim;
    bool by_row = decay.width != desc->n_head;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        const batch_seq *seq = &batch->seqs[s];
        float *state = host_state_begin(at, seq);
        for (int32_t t = seq->first; t < seq->first + seq->n_tok; t++) {
            for (int h = 0; h < desc->n_head; h++) {
                int64_t from = (int64_t)h * desc->n_k_head / desc->n_head * k_dim;
                double strength = host_row(beta, t)[h];
                delta_token(state + h * k_dim * v_dim, desc, host_row(q, t) + from,
                            host_row(k, t) + from, host_row(v, t) + h * v_dim,
                            host_row(decay, t) + (by_row ? h * k_dim : h), by_row, strength,
                            host_row(y, t) + h * v_dim);
            }
        }
    }
}
