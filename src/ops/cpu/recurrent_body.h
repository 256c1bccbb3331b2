/* recurrent_body.h - convolutions, Mamba's scans and the delta rule, written once over the vectors
 * of vec_<isa>.h. Part of floats_<isa>.c, after rows_body.h.
 *
 * The recurrences run token by token, on a block of a head's state that stays in the nearest cache
 * for all tokens of a step (128 rows of 32 columns are 16 KiB). The columns of a state do not see
 * each other, so a block is a problem of its own, and vectors run along the columns: the sums over
 * the rows are then in the rows' order, without a sum across lanes. Chunked forms (SSD's, the delta
 * rule's WY form) turn the same work into products of matrices, which pays where there are matrix
 * units; here they would take as many multiplications, and their rounding would depend on where a
 * prompt is cut. */

#define BLOCK_VECTORS (STATE_BLOCK / VEC_N)

/* log(1 + exp(x)), without overflow and without loss for very negative x: with e = exp(-|x|) and
 * s = e / (2 + e) <= 1/3 it is max(x, 0) + 2 artanh(s); the series ends below f32's precision. */
static inline vf v_softplus(vf x) {
    vf e = v_exp(v_set(0) - v_abs(x)), s = e / (v_set(2) + e), q = s * s;
    vf p = v_fma(q, v_set(1.0f / 13), v_set(1.0f / 11));
    p = v_fma(p, q, v_set(1.0f / 9));
    p = v_fma(p, q, v_set(1.0f / 7));
    p = v_fma(p, q, v_set(1.0f / 5));
    p = v_fma(p, q, v_set(1.0f / 3));
    p = v_fma(p * q, s, s);
    return v_fma(v_set(2), p, v_max(v_set(0), x));
}

/* The n lanes of a vector at p; n is VEC_N mostly, which costs a branch that is never missed. */
static inline vf v_part(const float *p, int n) {
    return n == VEC_N ? v_load(p) : v_load_n(p, n);
}

static inline void v_put(float *p, vf a, int n) {
    if (n == VEC_N) {
        v_store(p, a);
    } else {
        v_store_n(p, a, n);
    }
}

static inline int v_lanes(int64_t left) {
    return left < VEC_N ? (int)left : VEC_N;
}

static void kern_conv(float *y, const float *const *taps, int n_tap, const float *w,
                      int64_t w_stride, const float *bias, int64_t n, bool silu) {
    for (int64_t i = 0; i < n; i += VEC_N) {
        int lanes = v_lanes(n - i);
        vf sum = bias ? v_part(bias + i, lanes) : v_set(0);
        for (int j = 0; j < n_tap; j++) {
            sum = v_fma(v_part(w + j * w_stride + i, lanes), v_part(taps[j] + i, lanes), sum);
        }
        v_put(y + i, silu ? v_silu(sum) : sum, lanes);
    }
}

static void kern_time_step(float *step, float *decay, const float *x, const float *bias,
                           const float *a, int64_t n, float min, float max) {
    for (int64_t i = 0; i < n; i += VEC_N) {
        int lanes = v_lanes(n - i);
        vf u = v_part(x + i, lanes);
        if (bias) {
            u = u + v_part(bias + i, lanes);
        }
        u = v_softplus(u);
        u = v_min(v_set(max), v_max(v_set(min), u));
        if (step) {
            v_put(step + i, u, lanes);
        }
        if (decay) {
            v_put(decay + i, v_exp(u * v_part(a + i, lanes)), lanes);
        }
    }
}

/* One channel and token: vectors run along the state. */
static inline float scan_channel(float *h, const float *a, const float *b, const float *c, int n,
                                 float step, float in) {
    vf sum = v_set(0), dt = v_set(step), dx = v_set(step * in);
    for (int j = 0; j < n; j += VEC_N) {
        int lanes = v_lanes(n - j);
        vf keep = v_exp(dt * v_part(a + j, lanes));
        vf state = v_fma(dx, v_part(b + j, lanes), keep * v_part(h + j, lanes));
        v_put(h + j, state, lanes);
        sum = v_fma(state, v_part(c + j, lanes), sum);
    }
    return v_sum(sum);
}

static void kern_scan(const scan_block *s) {
    for (int64_t t = 0; t < s->n_tok; t++) {
        const float *x = s->x + t * s->x_stride, *step = s->step + t * s->step_stride;
        const float *b = s->b + t * s->b_stride, *c = s->c + t * s->c_stride;
        float *y = s->y + t * s->y_stride;
        for (int64_t i = 0; i < s->n; i++) {
            int64_t at = i * s->n_state;
            float sum = scan_channel(s->state + at, s->a + at, b, c, s->n_state, step[i], x[i]);
            y[i] = sum + s->d[i] * x[i];
        }
    }
}

/* Columns at .. at + nv vectors of a block; lanes < VEC_N only where nv is 1. */
static inline __attribute__((always_inline)) void ssd_columns(const ssd_block *s, int at,
                                                              const int nv, int lanes) {
    for (int64_t t = 0; t < s->n_tok; t++) {
        const float *x = s->x + t * s->x_stride + at;
        const float *b = s->b + t * s->b_stride, *c = s->c + t * s->c_stride;
        float *y = s->y + t * s->y_stride + at;
        vf step = v_set(s->step[t * s->step_stride]), keep = v_set(s->decay[t * s->decay_stride]);
        vf in[BLOCK_VECTORS], sum[BLOCK_VECTORS];
        for (int v = 0; v < nv; v++) {
            in[v] = step * v_part(x + v * VEC_N, lanes);
            sum[v] = v_set(0);
        }
        float *row = s->state + at;
        for (int i = 0; i < s->n_row; i++, row += s->n_column) {
            vf bi = v_set(b[i]), ci = v_set(c[i]);
            for (int v = 0; v < nv; v++) {
                vf h = v_fma(bi, in[v], keep * v_part(row + v * VEC_N, lanes));
                v_put(row + v * VEC_N, h, lanes);
                sum[v] = v_fma(ci, h, sum[v]);
            }
        }
        for (int v = 0; v < nv; v++) {
            vf skip = v_set(s->d) * v_part(x + v * VEC_N, lanes);
            v_put(y + v * VEC_N, sum[v] + skip, lanes);
        }
    }
}

static void kern_ssd(const ssd_block *s) {
    int at = 0;
    for (; at + STATE_BLOCK <= s->n_column; at += STATE_BLOCK) {
        ssd_columns(s, at, BLOCK_VECTORS, VEC_N);
    }
    for (; at < s->n_column; at += VEC_N) {
        ssd_columns(s, at, 1, v_lanes(s->n_column - at));
    }
}

/* Numbers of a token that go through the rows. */
typedef struct delta_row {
    const float *q, *k, *decay;
} delta_row;

static inline delta_row delta_at(const delta_block *d, int64_t t) {
    return (delta_row){d->q + t * d->q_stride, d->k + t * d->k_stride,
                       d->decay + t * d->decay_stride};
}

/* As ssd_columns. A token needs two passes over the state: one that lets it decay and finds what
 * it holds for the key, one that puts in the change and asks for the query. The second pass of a
 * token and the first of the next are one here, with the same operations on each number. */
static inline __attribute__((always_inline)) void delta_columns(const delta_block *d, int at,
                                                                const int nv, int lanes) {
    vf known[BLOCK_VECTORS], change[BLOCK_VECTORS], sum[BLOCK_VECTORS];
    delta_row now = delta_at(d, 0);
    float *row = d->state + at;
    for (int v = 0; v < nv; v++) {
        known[v] = v_set(0);
    }
    for (int i = 0; i < d->n_row; i++, row += d->n_column) {
        vf keep = v_set(now.decay[i * d->decay_step]), k = v_set(now.k[i]);
        for (int v = 0; v < nv; v++) {
            vf h = keep * v_part(row + v * VEC_N, lanes);
            v_put(row + v * VEC_N, h, lanes);
            known[v] = v_fma(k, h, known[v]);
        }
    }
    for (int64_t t = 0; t < d->n_tok; t++) {
        bool last = t + 1 == d->n_tok;
        delta_row next = delta_at(d, last ? t : t + 1);
        const float *value = d->v + t * d->v_stride + at;
        vf strength = v_set(d->beta[t * d->beta_stride]);
        for (int v = 0; v < nv; v++) {
            change[v] = strength * (v_part(value + v * VEC_N, lanes) - known[v]);
            known[v] = sum[v] = v_set(0);
        }
        row = d->state + at;
        for (int i = 0; i < d->n_row && !last; i++, row += d->n_column) {
            vf k = v_set(now.k[i]), q = v_set(now.q[i]), k2 = v_set(next.k[i]);
            vf keep = v_set(next.decay[i * d->decay_step]);
            for (int v = 0; v < nv; v++) {
                vf h = v_fma(k, change[v], v_part(row + v * VEC_N, lanes));
                sum[v] = v_fma(q, h, sum[v]);
                h = keep * h;
                v_put(row + v * VEC_N, h, lanes);
                known[v] = v_fma(k2, h, known[v]);
            }
        }
        for (int i = 0; i < d->n_row && last; i++, row += d->n_column) {
            vf k = v_set(now.k[i]), q = v_set(now.q[i]);
            for (int v = 0; v < nv; v++) {
                vf h = v_fma(k, change[v], v_part(row + v * VEC_N, lanes));
                sum[v] = v_fma(q, h, sum[v]);
                v_put(row + v * VEC_N, h, lanes);
            }
        }
        for (int v = 0; v < nv; v++) {
            v_put(d->y + t * d->y_stride + at + v * VEC_N, sum[v], lanes);
        }
        now = next;
    }
}

static void kern_delta(const delta_block *d) {
    int at = 0;
    for (; at + STATE_BLOCK <= d->n_column; at += STATE_BLOCK) {
        delta_columns(d, at, BLOCK_VECTORS, VEC_N);
    }
    for (; at < d->n_column; at += VEC_N) {
        delta_columns(d, at, 1, v_lanes(d->n_column - at));
    }
}
