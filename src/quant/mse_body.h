/* mse_body.h - the arithmetic of mse.h, written once and compiled for each instruction set.
 *
 * A group is normalized: u = (w - middle) / half, so that its range is [-1, 1]; codes are counted
 * from the middle of theirs, which keeps the sums small. One pass over the group with a grid gives
 * the sums that both the error of any grid with these codes and the best grid follow from. */
#ifndef JANG_QUANT_MSE_BODY_H
#define JANG_QUANT_MSE_BODY_H

#include "quant/rtn_body.h"

#define MSE_LANES 16
#define MSE_MAX_PASSES 12

/* One group at work. */
typedef struct mse_group {
    float u[128], v[128]; /* normalized weights, and what their errors weigh */
    float middle, half;   /* w = middle + half * u */
    float sv, su, suu;    /* sums of v, v u, v u^2 */
    float center;         /* of the codes: (2^bits - 1) / 2 */
    dtype type;           /* of scale and bias */
} mse_group;

/* A grid on normalized weights and centered codes: u ~ step * (code - center) + offset. */
typedef struct mse_grid {
    float step, offset;
    double error; /* weighted, with the nearest codes of the pass that made it */
} mse_grid;

/* Sums over a group with the nearest codes c of a grid: v c, v c^2, v u c. */
typedef struct mse_sums {
    float c, cc, uc;
} mse_sums;

RTN_INLINE float mse_add_lanes(const float *x) {
    float s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = x[i] + x[i + 8];
    }
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

RTN_INLINE float mse_stored(float x, dtype type) {
    return type == DT_BF16  ? bf16_to_f32(f32_to_bf16(x))
           : type == DT_F16 ? f16_to_f32(f32_to_f16(x))
                            : x;
}

/* The code nearest to u, from the center of the codes; top is the largest such. */
RTN_INLINE float mse_code(float u, float inverse, float shift, float top) {
    float c = (u * inverse + shift) + RTN_MAGIC; /* shift makes codes whole numbers ... */
    c -= RTN_MAGIC;
    c = c < 0.0f ? 0.0f : c;
    return c > top ? top : c;
}

RTN_INLINE mse_sums mse_pass(const mse_group *m, mse_grid g, int group) {
    float inverse = 1.0f / g.step, top = 2 * m->center;
    float shift = m->center - g.offset * inverse;
    float c1[MSE_LANES] = {0}, c2[MSE_LANES] = {0}, uc[MSE_LANES] = {0};
    for (int i = 0; i < group; i += MSE_LANES) {
        for (int l = 0; l < MSE_LANES; l++) {
            float u = m->u[i + l], v = m->v[i + l];
            float c = mse_code(u, inverse, shift, top) - m->center;
            float vc = v * c;
            c1[l] += vc;
            c2[l] += vc * c;
            uc[l] += vc * u;
        }
    }
    return (mse_sums){mse_add_lanes(c1), mse_add_lanes(c2), mse_add_lanes(uc)};
}

/* Rounds a grid to what can be stored: scale first, then bias. */
RTN_INLINE mse_grid mse_round(const mse_group *m, double step, double offset) {
    float scale = mse_stored((float)(step * (double)m->half), m->type);
    mse_grid g = {scale / m->half, 0, 0};
    /* bias belongs to code 0, center steps below the offset */
    double bias = (double)m->middle + (double)m->half * offset - (double)scale * (double)m->center;
    float stored = mse_stored((float)bias, m->type);
    g.offset = (stored - m->middle) / m->half + g.step * m->center;
    return g;
}

RTN_INLINE double mse_error(const mse_group *m, mse_grid g, mse_sums s) {
    double a = (double)g.step, b = (double)g.offset;
    return (double)m->suu - 2 * a * (double)s.uc - 2 * b * (double)m->su + a * a * (double)s.cc +
           2 * a * b * (double)s.c + b * b * (double)m->sv;
}

/* The best grid for the codes that the sums belong to: false if there is none (equal codes). */
RTN_INLINE bool mse_solve(mse_grid *out, const mse_group *m, mse_sums s) {
    double sv = (double)m->sv, mean = (double)s.c / sv;
    double var = (double)s.cc - mean * (double)s.c;
    if (!(var > 1e-9 * sv)) {
        return false;
    }
    double step = ((double)s.uc - mean * (double)m->su) / var;
    if (!(fabs(step) > 1e-6)) {
        return false;
    }
    mse_grid g = mse_round(m, step, 0);
    if (g.step == 0.0f) {
        return false;
    }
    double offset = ((double)m->su - (double)g.step * (double)s.c) / sv;
    *out = mse_round(m, (double)g.step, offset);
    return true;
}

/* Alternates from a start until the error stops falling; keeps the best grid in *best. */
RTN_INLINE void mse_descend(mse_grid *best, const mse_group *m, mse_grid g, int group, int passes) {
    double last = 1e300;
    for (int i = 0; i < passes; i++) {
        mse_sums s = mse_pass(m, g, group);
        g.error = mse_error(m, g, s);
        if (g.error < best->error) {
            *best = g;
        }
        if (!(g.error < last * 0.9995) || !mse_solve(&g, m, s)) {
            return;
        }
        last = g.error;
    }
}

/* Least squares shrinks: the fitted weights have the variance of the true ones less that of the
 * errors, and a model of such layers whispers. Stretches a grid until the covariance of fitted and
 * true weights is the variance of the true ones. */
RTN_INLINE mse_grid mse_regain(const mse_group *m, mse_grid g, int group) {
    mse_sums s = mse_pass(m, g, group);
    double mean = (double)m->su / (double)m->sv;
    double var = (double)m->suu - mean * (double)m->su;
    double cov = (double)g.step * ((double)s.uc - mean * (double)s.c);
    if (!(cov > 0.5 * var)) {
        return g;
    }
    double step = (double)g.step * var / cov;
    mse_grid out = mse_round(m, step, ((double)m->su - step * (double)s.c) / (double)m->sv);
    out.error = g.error;
    return out.step == 0.0f ? g : out;
}

/* Grids over a part of the range, at each end: what share of [-1, 1] the codes span. */
static const float mse_spans[][2] = {
    {0.9f, 0.9f}, {0.8f, 0.8f}, {0.7f, 0.7f}, {1.0f, 0.8f}, {0.8f, 1.0f}};

#define MSE_SPANS (sizeof mse_spans / sizeof *mse_spans)

RTN_INLINE mse_grid mse_search(const mse_group *m, mse_grid start, int group) {
    mse_grid best = {start.step, start.offset, 1e300};
    mse_descend(&best, m, start, group, MSE_MAX_PASSES);
    mse_grid full = mse_round(m, 1.0 / (double)m->center, 0);
    if (full.step != 0.0f) {
        mse_descend(&best, m, full, group, MSE_MAX_PASSES);
    }
    mse_grid second = {0, 0, 1e300};
    for (size_t i = 0; i < MSE_SPANS; i++) {
        double lo = -(double)mse_spans[i][0], hi = (double)mse_spans[i][1];
        mse_grid g = mse_round(m, (hi - lo) / 2 / (double)m->center, (hi + lo) / 2);
        if (g.step != 0.0f) {
            g.error = mse_error(m, g, mse_pass(m, g, group));
            second = g.error < second.error ? g : second;
        }
    }
    if (second.error < 1e300) {
        mse_descend(&best, m, second, group, MSE_MAX_PASSES);
    }
    return best.error < 1e300 ? mse_regain(m, best, group) : best;
}

/* Writes the codes of a grid, and its scale and bias. */
RTN_INLINE void mse_write(uint8_t *restrict codes, float *scale, float *bias, const mse_group *m,
                          mse_grid g, int group) {
    int32_t bits[128];
    float inverse = 1.0f / g.step, top = 2 * m->center, shift = m->center - g.offset * inverse;
    for (int i = 0; i < group; i++) {
        float c = mse_code(m->u[i], inverse, shift, top) + RTN_MAGIC;
        memcpy(&bits[i], &c, sizeof c);
    }
    for (int i = 0; i < group; i++) {
        codes[i] = (uint8_t)(bits[i] - 0x4b400000);
    }
    *scale = mse_stored(g.step * m->half, m->type);
    *bias = mse_stored(m->middle + m->half * (g.offset - g.step * m->center), m->type);
}

/* Normalizes a group and sums what does not depend on the grid. */
RTN_INLINE void mse_prepare(mse_group *m, const float *restrict w, const float *restrict importance,
                            int group) {
    float inverse = 1.0f / m->half;
    float sv[MSE_LANES] = {0}, su[MSE_LANES] = {0}, suu[MSE_LANES] = {0};
    for (int i = 0; i < group; i += MSE_LANES) {
        for (int l = 0; l < MSE_LANES; l++) {
            float u = (w[i + l] - m->middle) * inverse;
            float v = importance ? importance[i + l] : 1.0f;
            m->u[i + l] = u;
            m->v[i + l] = v;
            sv[l] += v;
            su[l] += v * u;
            suu[l] += v * u * u;
        }
    }
    m->sv = mse_add_lanes(sv);
    m->su = mse_add_lanes(su);
    m->suu = mse_add_lanes(suu);
}

RTN_INLINE bool mse_one(uint8_t *restrict codes, float *scale, float *bias, const float *restrict w,
                        const float *importance, int group, int bits, dtype type) {
    float lo = w[0], hi = w[0];
    if (!rtn_group(codes, scale, bias, w, group, bits)) {
        return false;
    }
    for (int i = 1; i < group; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    if (bits == 2 && !importance) {
        return true; /* see mse.h */
    }
    mse_group m = {.middle = lo / 2 + hi / 2,
                   .half = hi / 2 - lo / 2,
                   .center = (float)((1 << bits) - 1) / 2,
                   .type = type};
    if (!(m.half > 1e-30f && m.half < 1e30f)) {
        return true; /* equal weights, which round to nearest meets, or hopeless ones */
    }
    mse_prepare(&m, w, importance, group);
    mse_grid start = {*scale / m.half, 0, 0};
    start.offset = (*bias - m.middle) / m.half + start.step * m.center;
    mse_grid best = mse_search(&m, start, group);
    if (best.error < 1e300) {
        mse_write(codes, scale, bias, &m, best, group);
    }
    return true;
}

RTN_INLINE bool mse_groups(const quant_block *b, int group) {
    int64_t n_groups = b->n_cols / group;
    bool finite = true;
    for (int64_t i = 0, at = 0; i < b->n_rows; i++) {
        for (int64_t k = 0; k < n_groups; k++, at++) {
            const float *importance = b->importance ? b->importance + k * group : NULL;
            finite &= mse_one(b->codes + at * group, b->scales + at, b->biases + at,
                              b->w + at * group, importance, group, b->bits, b->type);
        }
    }
    return finite;
}

RTN_INLINE bool mse_block(const quant_block *b) {
    switch (b->group) {
    case 32:
        return mse_groups(b, 32);
    case 64:
        return mse_groups(b, 64);
    default:
        return mse_groups(b, 128);
    }
}

#endif
