/* tune_group_body.h - tune_group.h's arithmetic, written once and compiled for each instruction
 * set, with equal results. */
#ifndef JANG_QUANT_TUNE_GROUP_BODY_H
#define JANG_QUANT_TUNE_GROUP_BODY_H

#include "quant/tune_group.h"

#include <math.h>

#define TG_TINY 1e-8f        /* gradients by steps of the codes that are no larger move less */
#define TG_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, ties to even */

#define TG_INLINE static inline __attribute__((always_inline))

/* How far Adam moves one number, by its gradient in steps of the codes. */
TG_INLINE float tg_adam(float *mean, float *square, float grad, float rate, const latent_rates *r) {
    float m = *mean = TUNE_MEAN_BETA * *mean + (1 - TUNE_MEAN_BETA) * grad;
    float s = *square = TUNE_SQUARE_BETA * *square + (1 - TUNE_SQUARE_BETA) * grad * grad;
    return rate * m / (sqrtf(s * r->square) + TG_TINY);
}

TG_INLINE float tg_code(float z, float top) {
    float cut = z < 0 ? 0 : z > top ? top : z;
    return (cut + TG_ROUND) - TG_ROUND;
}

TG_INLINE float tg_sum(const float *lanes) {
    float sum = 0;
    for (int k = 0; k < TUNE_LANES; k++) {
        sum += lanes[k];
    }
    return sum;
}

/* Turns gradients of values into those of places, 0 where the code is cut, and adds up those of
 * scale and centre. */
TG_INLINE void tg_gradients(const tune_group *g, const float *factors, float *by_scale,
                            float *by_centre) {
    float scale = *g->scale, top = g->top, middle = top / 2;
    float scales[TUNE_LANES] = {0}, centres[TUNE_LANES] = {0};
    for (int64_t i = 0; i < g->n; i += TUNE_LANES) {
        for (int64_t k = 0; k < TUNE_LANES; k++) {
            float grad = factors ? g->grad[i + k] / factors[i + k] : g->grad[i + k];
            float place = g->place[i + k], in = place >= 0 && place <= top ? scale : 0.0f;
            scales[k] += grad * (tg_code(place, top) - middle);
            centres[k] += grad;
            g->grad[i + k] = in * grad;
        }
    }
    *by_scale = tg_sum(scales);
    *by_centre = tg_sum(centres);
}

TG_INLINE void tg_move(const tune_group *g, const float *factors, const latent_rates *rates) {
    float scale = *g->scale, centre = *g->centre, top = g->top, middle = top / 2;
    float *restrict place = g->place, *restrict value = g->value, *restrict grad = g->grad;
    float *restrict mean = g->of_place.mean, *restrict square = g->of_place.square;
    for (int64_t i = 0; i < g->n; i++) {
        place[i] -= tg_adam(&mean[i], &square[i], grad[i], rates->place, rates);
        float v = scale * (tg_code(place[i], top) - middle) + centre;
        value[i] = factors ? v / factors[i] : v;
        grad[i] = 0;
    }
}

TG_INLINE void tg_step(const tune_group *g, const float *factors, const latent_rates *rates) {
    float by_scale, by_centre, unit = g->unit;
    tg_gradients(g, factors, &by_scale, &by_centre);
    *g->scale -=
        unit * tg_adam(g->of_scale.mean, g->of_scale.square, unit * by_scale, rates->scale, rates);
    *g->centre -= unit * tg_adam(g->of_centre.mean, g->of_centre.square, unit * by_centre,
                                 rates->scale, rates);
    tg_move(g, factors, rates);
}

/* Columns with factors are a case by themselves, so that the others divide by nothing. */
TG_INLINE void tg_group(const tune_group *g, const latent_rates *rates) {
    if (g->factors) {
        tg_step(g, g->factors, rates);
    } else {
        tg_step(g, NULL, rates);
    }
}

#endif
