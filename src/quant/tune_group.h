/* tune_group.h - a step of tuning for one group of weights (tune.h), for each instruction set. */
#ifndef JANG_QUANT_TUNE_GROUP_H
#define JANG_QUANT_TUNE_GROUP_H

#include "base/cpu.h"

#include <stdint.h>

/* A group's weights are a multiple of these; they are added up in so many sums. */
#define TUNE_LANES 16

/* How much of Adam's means is left after a step. */
#define TUNE_MEAN_BETA 0.9f
#define TUNE_SQUARE_BETA 0.99f

/* A mean of gradients and one of their squares, for each number (Adam, arXiv:1412.6980). */
typedef struct moments {
    float *mean, *square;
} moments;

/* How far a step of Adam goes, in steps of the codes, over its mean's correction; one over the
 * correction of the squares. */
typedef struct latent_rates {
    float place, scale;
    float square;
} latent_rates;

/* n weights of one group. A weight's code is its place rounded, cut to the width, and its value
 * scale * (code - middle) + centre, over its column's factor. Places stay where they are when scale
 * and centre move, or else these would change codes by chance. */
typedef struct tune_group {
    int64_t n;
    const float *factors; /* [n] of the columns, or NULL */
    float top;            /* the largest code */
    float unit;           /* size of a step of the codes at the start */
    float *place, *value; /* [n] */
    float *grad;          /* [n] of value; becomes 0 */
    moments of_place;     /* [n] */
    float *scale, *centre;
    moments of_scale, of_centre; /* of one number each */
} tune_group;

/* The gradients of scale, centre and places by those of the values (straight through the
 * rounding), a step of each, and the new values. */
typedef void tune_group_fn(const tune_group *g, const latent_rates *rates);

tune_group_fn *tune_group_function(cpu_isa isa);

/* The value of a place; *code: what it gets. */
float tune_value(float place, float scale, float centre, float top, float *code);

tune_group_fn tune_group__scalar, tune_group__avx2, tune_group__avx512;

#endif
