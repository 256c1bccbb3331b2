/* lattice_body.h - lattice.h's arithmetic, written once and compiled for each instruction set.
 *
 * State: r = t - s q - b and h = M r. Changing q_j by d changes r_j by -s d and h by -s d M_j, so
 * the best whole step of one code is round(h_j / (s M_jj)). */
#ifndef JANG_QUANT_LATTICE_BODY_H
#define JANG_QUANT_LATTICE_BODY_H

#include "base/half.h"
#include "quant/lattice.h"

#include <math.h>

#define LAT_INLINE static inline __attribute__((always_inline))
#define LAT_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number */
#define N_LANES LATTICE_ROWS
#define EACH_LANE(l) for (int l = 0; l < N_LANES; l++)

LAT_INLINE float lat_stored(float x, dtype type) {
    return type == DT_BF16  ? bf16_to_f32(f32_to_bf16(x))
           : type == DT_F16 ? f16_to_f32(f32_to_f16(x))
                            : x;
}

/* y = M x */
LAT_INLINE void lat_product(float (*restrict y)[N_LANES], const float *restrict m,
                            float (*restrict x)[N_LANES], int group) {
    for (int i = 0; i < group; i += 4) {
        float a[4][N_LANES] = {{0}};
        for (int j = 0; j < group; j++) {
            for (int k = 0; k < 4; k++) {
                float w = m[(i + k) * group + j];
                EACH_LANE(l) {
                    a[k][l] += w * x[j][l];
                }
            }
        }
        for (int k = 0; k < 4; k++) {
            EACH_LANE(l) {
                y[i + k][l] = a[k][l];
            }
        }
    }
}

/* One pass over the codes; returns whether any changed. */
LAT_INLINE bool lat_sweep(lattice *w, const float *restrict inverse) {
    int group = w->group;
    float top = (float)((1 << w->bits) - 1);
    float inv_scale[N_LANES];
    EACH_LANE(l) {
        inv_scale[l] = 1.0f / w->scale[l];
    }
    bool any = false;
    for (int j = 0; j < group; j++) {
        float d[N_LANES], moved = 0;
        EACH_LANE(l) {
            float c = (w->q[j][l] + w->h[j][l] * inverse[j] * inv_scale[l]) + LAT_MAGIC;
            c -= LAT_MAGIC;
            c = c < 0.0f ? 0.0f : c;
            c = c > top ? top : c;
            d[l] = c - w->q[j][l];
            w->q[j][l] = c;
        }
        EACH_LANE(l) {
            moved += fabsf(d[l]);
        }
        if (moved == 0.0f) {
            continue;
        }
        any = true;
        EACH_LANE(l) {
            d[l] *= w->scale[l];
        }
        const float *restrict row = w->m + j * group;
        for (int i = 0; i < group; i++) {
            EACH_LANE(l) {
                w->h[i][l] -= row[i] * d[l];
            }
        }
    }
    return any;
}

/* Sums over the group that scale and bias follow from. */
typedef struct lat_sums {
    float qmq[N_LANES], qm1[N_LANES], qh[N_LANES], h1[N_LANES];
} lat_sums;

/* Best scale and bias for the codes, rounded as stored; h follows. ones is M 1, one 1^T M 1. */
LAT_INLINE void lat_refit(lattice *w, const float *restrict ones, float one) {
    int group = w->group;
    float mq[LATTICE_MAX][N_LANES];
    lat_product(mq, w->m, w->q, group);
    lat_sums s = {{0}, {0}, {0}, {0}};
    for (int i = 0; i < group; i++) {
        EACH_LANE(l) {
            s.qmq[l] += w->q[i][l] * mq[i][l];
            s.qm1[l] += w->q[i][l] * ones[i];
            s.qh[l] += w->q[i][l] * w->h[i][l];
            s.h1[l] += w->h[i][l];
        }
    }
    float ds[N_LANES], db[N_LANES];
    EACH_LANE(l) {
        float det = s.qmq[l] * one - s.qm1[l] * s.qm1[l];
        float step = det > 1e-6f * s.qmq[l] * one ? (s.qh[l] * one - s.h1[l] * s.qm1[l]) / det : 0;
        float scale = lat_stored(w->scale[l] + step, w->type);
        scale = scale == 0.0f || !isfinite(scale) ? w->scale[l] : scale;
        ds[l] = scale - w->scale[l];
        float bias = lat_stored(w->bias[l] + (s.h1[l] - ds[l] * s.qm1[l]) / one, w->type);
        bias = isfinite(bias) ? bias : w->bias[l];
        db[l] = bias - w->bias[l];
        w->scale[l] = scale;
        w->bias[l] = bias;
    }
    for (int i = 0; i < group; i++) {
        EACH_LANE(l) {
            w->h[i][l] -= mq[i][l] * ds[l] + ones[i] * db[l];
        }
    }
}

typedef struct lat_metric {
    float inverse[LATTICE_MAX], ones[LATTICE_MAX], one; /* 1 / M_jj, M 1, 1^T M 1 */
} lat_metric;

LAT_INLINE void lat_measure(lat_metric *k, const lattice *w) {
    k->one = 0;
    for (int i = 0; i < w->group; i++) {
        float sum = 0;
        for (int j = 0; j < w->group; j++) {
            sum += w->m[i * w->group + j];
        }
        k->ones[i] = sum;
        k->inverse[i] = 1.0f / w->m[i * w->group + i];
        k->one += sum;
    }
}

/* Nearest codes of the grid at hand, and h; returns nothing of the error. */
LAT_INLINE void lat_begin(lattice *w) {
    float top = (float)((1 << w->bits) - 1), r[LATTICE_MAX][N_LANES], inverse[N_LANES];
    EACH_LANE(l) {
        inverse[l] = 1.0f / w->scale[l];
    }
    for (int i = 0; i < w->group; i++) {
        EACH_LANE(l) {
            float c = (w->t[i][l] - w->bias[l]) * inverse[l] + LAT_MAGIC;
            c -= LAT_MAGIC;
            c = c < 0.0f ? 0.0f : c;
            c = c > top ? top : c;
            w->q[i][l] = c;
            r[i][l] = w->t[i][l] - c * w->scale[l] - w->bias[l];
        }
    }
    lat_product(w->h, w->m, r, w->group);
}

LAT_INLINE void lat_error(float *restrict out, const lattice *w) {
    EACH_LANE(l) {
        out[l] = 0;
    }
    for (int i = 0; i < w->group; i++) {
        EACH_LANE(l) {
            float r = w->t[i][l] - w->q[i][l] * w->scale[l] - w->bias[l];
            out[l] += r * w->h[i][l];
        }
    }
}

/* The best found so far, lane by lane. */
typedef struct lat_best {
    float error[N_LANES], scale[N_LANES], bias[N_LANES];
    float q[LATTICE_MAX][N_LANES];
} lat_best;

LAT_INLINE void lat_keep(lat_best *best, const lattice *w) {
    float error[N_LANES];
    bool better[N_LANES];
    lat_error(error, w);
    EACH_LANE(l) {
        better[l] = error[l] < best->error[l];
        best->error[l] = better[l] ? error[l] : best->error[l];
        best->scale[l] = better[l] ? w->scale[l] : best->scale[l];
        best->bias[l] = better[l] ? w->bias[l] : best->bias[l];
    }
    for (int i = 0; i < w->group; i++) {
        EACH_LANE(l) {
            best->q[i][l] = better[l] ? w->q[i][l] : best->q[i][l];
        }
    }
}

/* Shares of the range, at each end, that the grids of the starts span. */
static const float lat_spans[][2] = {{1.0f, 1.0f},   {0.85f, 0.85f}, {0.7f, 0.7f},
                                     {0.55f, 0.55f}, {1.0f, 0.75f},  {0.75f, 1.0f}};
#define LAT_STARTS ((int)(sizeof lat_spans / sizeof *lat_spans))

LAT_INLINE void lat_solve(lattice *w) {
    lat_metric k;
    lat_measure(&k, w);
    float lo[N_LANES], hi[N_LANES];
    EACH_LANE(l) {
        lo[l] = hi[l] = w->t[0][l];
    }
    for (int i = 1; i < w->group; i++) {
        EACH_LANE(l) {
            lo[l] = w->t[i][l] < lo[l] ? w->t[i][l] : lo[l];
            hi[l] = w->t[i][l] > hi[l] ? w->t[i][l] : hi[l];
        }
    }
    lat_best best;
    EACH_LANE(l) {
        best.error[l] = INFINITY;
    }
    float top = (float)((1 << w->bits) - 1);
    int n_starts = w->bits >= 5 ? 2 : w->bits == 4 ? 3 : LAT_STARTS;
    for (int n = 0; n < n_starts; n++) {
        EACH_LANE(l) {
            float mid = lo[l] / 2 + hi[l] / 2, half = hi[l] / 2 - lo[l] / 2;
            float from = mid - half * lat_spans[n][0], to = mid + half * lat_spans[n][1];
            float scale = lat_stored((to - from) / top, w->type);
            w->scale[l] = scale > 0.0f ? scale : 1e-4f;
            w->bias[l] = lat_stored(from, w->type);
        }
        lat_begin(w);
        for (int i = 0; i < 3; i++) {
            bool moved = lat_sweep(w, k.inverse);
            lat_refit(w, k.ones, k.one);
            if (!moved && i > 0) {
                break;
            }
        }
        lat_sweep(w, k.inverse);
        lat_keep(&best, w);
    }
    for (int i = 0; i < w->group; i++) {
        EACH_LANE(l) {
            w->q[i][l] = best.q[i][l];
        }
    }
    EACH_LANE(l) {
        w->scale[l] = best.scale[l];
        w->bias[l] = best.bias[l];
    }
}

LAT_INLINE void lat_polish(lattice *w, int n_sweeps) {
    lat_metric k;
    lat_measure(&k, w);
    for (int i = 0; i < n_sweeps; i++) {
        lat_sweep(w, k.inverse);
        lat_refit(w, k.ones, k.one);
    }
    lat_sweep(w, k.inverse);
}

#endif
