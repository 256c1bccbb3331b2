/* lattice_body.h - lattice.h's arithmetic, written once and compiled for each instruction set.
 *
 * State: r = t - s q - b and h = M r. Changing q_j by d changes r_j by -s d and h by -s d M_j, so
 * the best whole step of one code is round(h_j / (s M_jj)). A sweep keeps the h of LAT_STEP codes
 * at hand while it decides them, and brings the others up to date once for all of them. */
#ifndef JANG_QUANT_LATTICE_BODY_H
#define JANG_QUANT_LATTICE_BODY_H

#include "base/half.h"
#include "quant/lattice.h"

#include <math.h>
#include <string.h>

#define LAT_INLINE static inline __attribute__((always_inline))
#define LAT_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number */
#define LAT_STEP 8            /* divides every group */
#define N_LANES LATTICE_ROWS
#define EACH_LANE(l) for (int l = 0; l < N_LANES; l++)

typedef int32_t lat_mask __attribute__((vector_size(4 * N_LANES)));

/* Vectors go by pointer: how they go by value differs between instruction sets. */
LAT_INLINE void lat_choose(lattice_vec *out, const lat_mask *where, const lattice_vec *yes,
                           const lattice_vec *no) {
    *out = (lattice_vec)((*where & (lat_mask)*yes) | (~*where & (lat_mask)*no));
}

LAT_INLINE bool lat_any(const lat_mask *where) {
    uint64_t words[N_LANES / 2], all = 0;
    memcpy(words, where, sizeof words);
    for (int i = 0; i < N_LANES / 2; i++) {
        all |= words[i];
    }
    return all != 0;
}

LAT_INLINE float lat_stored(float x, dtype type) {
    return type == DT_BF16  ? bf16_to_f32(f32_to_bf16(x))
           : type == DT_F16 ? f16_to_f32(f32_to_f16(x))
                            : x;
}

/* The whole number of [0, top] nearest to x. */
LAT_INLINE void lat_code(lattice_vec *x, float top) {
    const lattice_vec zero = {0}, most = zero + top;
    *x = (*x + LAT_MAGIC) - LAT_MAGIC;
    lat_mask low = *x<zero, high = *x> most;
    lat_choose(x, &low, &zero, x);
    lat_choose(x, &high, &most, x);
}

/* y = M x */
LAT_INLINE void lat_product(lattice_vec *restrict y, const float *restrict m,
                            const lattice_vec *restrict x, int group) {
    for (int i = 0; i < group; i += LAT_STEP) {
        lattice_vec a[LAT_STEP] = {{0}};
        for (int j = 0; j < group; j++) {
            const float *row = m + j * group + i; /* M is symmetric */
            lattice_vec v = x[j];
            for (int k = 0; k < LAT_STEP; k++) {
                a[k] += row[k] * v;
            }
        }
        for (int k = 0; k < LAT_STEP; k++) {
            y[i + k] = a[k];
        }
    }
}

/* Subtracts from h[first .. last) what steps d of the codes at .. at + LAT_STEP take. */
LAT_INLINE void lat_follow(lattice *w, int first, int last, int at, const lattice_vec *d) {
    for (int i = first; i < last; i++) {
        const float *row = w->m + i * w->group + at;
        lattice_vec h = w->h[i];
        for (int k = 0; k < LAT_STEP; k++) {
            h -= row[k] * d[k];
        }
        w->h[i] = h;
    }
}

/* One pass over the codes; returns whether any changed. */
LAT_INLINE bool lat_sweep(lattice *w, const float *restrict inverse) {
    const lattice_vec scale = w->scale, inv_scale = 1.0f / scale, zero = {0};
    float top = (float)((1 << w->bits) - 1);
    bool any = false;
    for (int at = 0; at < w->group; at += LAT_STEP) {
        lattice_vec d[LAT_STEP], h[LAT_STEP];
        lat_mask moved = {0};
        for (int k = 0; k < LAT_STEP; k++) {
            h[k] = w->h[at + k];
        }
        for (int k = 0; k < LAT_STEP; k++) {
            lattice_vec q = w->q[at + k], c = q + h[k] * (inverse[at + k] * inv_scale);
            lat_code(&c, top);
            w->q[at + k] = c;
            c -= q;
            moved |= c != zero;
            d[k] = c * scale;
            const float *row = w->m + (at + k) * w->group + at;
            for (int i = 0; i < LAT_STEP; i++) {
                h[i] -= row[i] * d[k];
            }
        }
        if (!lat_any(&moved)) {
            continue;
        }
        any = true;
        for (int k = 0; k < LAT_STEP; k++) {
            w->h[at + k] = h[k];
        }
        lat_follow(w, 0, at, at, d);
        lat_follow(w, at + LAT_STEP, w->group, at, d);
    }
    return any;
}

typedef struct lat_metric {
    float inverse[LATTICE_MAX], ones[LATTICE_MAX], one; /* 1 / M_jj, M 1, 1^T M 1 */
} lat_metric;

/* Best scale and bias for the codes, rounded as stored; h follows. */
LAT_INLINE void lat_refit(lattice *w, const lat_metric *k) {
    lattice_vec mq[LATTICE_MAX], qmq = {0}, qm1 = {0}, qh = {0}, h1 = {0};
    lat_product(mq, w->m, w->q, w->group);
    for (int i = 0; i < w->group; i++) {
        qmq += w->q[i] * mq[i];
        qm1 += w->q[i] * k->ones[i];
        qh += w->q[i] * w->h[i];
        h1 += w->h[i];
    }
    float one = k->one;
    lattice_vec ds, db, old_scale = w->scale, old_bias = w->bias;
    EACH_LANE(l) {
        float det = qmq[l] * one - qm1[l] * qm1[l];
        float step = det > 1e-6f * qmq[l] * one ? (qh[l] * one - h1[l] * qm1[l]) / det : 0;
        float scale = lat_stored(old_scale[l] + step, w->type);
        scale = scale == 0.0f || !isfinite(scale) ? old_scale[l] : scale;
        float change = scale - old_scale[l];
        float bias = lat_stored(old_bias[l] + (h1[l] - change * qm1[l]) / one, w->type);
        bias = isfinite(bias) ? bias : old_bias[l];
        ds[l] = change;
        db[l] = bias - old_bias[l];
        w->scale[l] = scale;
        w->bias[l] = bias;
    }
    for (int i = 0; i < w->group; i++) {
        w->h[i] -= mq[i] * ds + k->ones[i] * db;
    }
}

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

/* Nearest codes of the grid at hand, and h. */
LAT_INLINE void lat_begin(lattice *w) {
    lattice_vec r[LATTICE_MAX], inverse = 1.0f / w->scale;
    float top = (float)((1 << w->bits) - 1);
    for (int i = 0; i < w->group; i++) {
        lattice_vec c = (w->t[i] - w->bias) * inverse;
        lat_code(&c, top);
        w->q[i] = c;
        r[i] = w->t[i] - c * w->scale - w->bias;
    }
    lat_product(w->h, w->m, r, w->group);
}

/* The best found so far, lane by lane. */
typedef struct lat_best {
    lattice_vec error, scale, bias;
    lattice_vec q[LATTICE_MAX];
} lat_best;

LAT_INLINE void lat_keep(lat_best *best, const lattice *w) {
    lattice_vec error = {0};
    for (int i = 0; i < w->group; i++) {
        error += (w->t[i] - w->q[i] * w->scale - w->bias) * w->h[i];
    }
    lat_mask better = error < best->error;
    lat_choose(&best->error, &better, &error, &best->error);
    lat_choose(&best->scale, &better, &w->scale, &best->scale);
    lat_choose(&best->bias, &better, &w->bias, &best->bias);
    for (int i = 0; i < w->group; i++) {
        lat_choose(&best->q[i], &better, &w->q[i], &best->q[i]);
    }
}

/* Shares of the range, at each end, that the grids of the starts span. */
static const float lat_spans[][2] = {{1.0f, 1.0f},   {0.85f, 0.85f}, {0.7f, 0.7f},
                                     {0.55f, 0.55f}, {1.0f, 0.75f},  {0.75f, 1.0f}};
#define LAT_STARTS ((int)(sizeof lat_spans / sizeof *lat_spans))

/* The grid of start n for targets from lo to hi. */
LAT_INLINE void lat_start(lattice *w, int n, const lattice_vec *lo, const lattice_vec *hi) {
    float top = (float)((1 << w->bits) - 1);
    EACH_LANE(l) {
        float mid = (*lo)[l] / 2 + (*hi)[l] / 2, half = (*hi)[l] / 2 - (*lo)[l] / 2;
        float from = mid - half * lat_spans[n][0], to = mid + half * lat_spans[n][1];
        float scale = lat_stored((to - from) / top, w->type);
        w->scale[l] = scale > 0.0f ? scale : 1e-4f;
        w->bias[l] = lat_stored(from, w->type);
    }
}

LAT_INLINE void lat_solve(lattice *w) {
    lat_metric k;
    lat_measure(&k, w);
    lattice_vec lo = w->t[0], hi = w->t[0];
    for (int i = 1; i < w->group; i++) {
        lat_mask low = w->t[i]<lo, high = w->t[i]> hi;
        lat_choose(&lo, &low, &w->t[i], &lo);
        lat_choose(&hi, &high, &w->t[i], &hi);
    }
    lat_best best = {.error = (lattice_vec){0} + INFINITY};
    int n_starts = w->bits >= 5 ? 2 : w->bits == 4 ? 3 : LAT_STARTS;
    for (int n = 0; n < n_starts; n++) {
        lat_start(w, n, &lo, &hi);
        lat_begin(w);
        for (int i = 0; i < 3; i++) {
            bool moved = lat_sweep(w, k.inverse);
            lat_refit(w, &k);
            if (!moved && i > 0) {
                break;
            }
        }
        lat_sweep(w, k.inverse);
        lat_keep(&best, w);
    }
    memcpy(w->q, best.q, (size_t)w->group * sizeof *w->q);
    w->scale = best.scale;
    w->bias = best.bias;
}

LAT_INLINE void lat_polish(lattice *w, int n_sweeps) {
    lat_metric k;
    lat_measure(&k, w);
    for (int i = 0; i < n_sweeps; i++) {
        lat_sweep(w, k.inverse);
        lat_refit(w, &k);
    }
    lat_sweep(w, k.inverse);
}

#endif
