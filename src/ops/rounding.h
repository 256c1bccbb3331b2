/* rounding.h - how inputs of quantized products are rounded to integers.
 *
 * A group of an input row becomes x = scale * q with integers q of 16 bits, kept as two bytes
 * q = low + 256 * high, low in -128 .. 127. The scale comes from the smaller of two numbers: the
 * group's largest magnitude, and a limit that is a few times the row's root mean square. So an
 * outlier does not make the rest of its group coarse, and high is zero for most elements: the
 * products with it, which cost as much as those with low, can mostly be left out.
 *
 * With one byte and no limit the mean KL of SmolLM2 at 4 bits against f32 activations is 7e-3
 * nats, and no smaller group brings it under 1e-3. The limit depends on the input's own row alone,
 * so results stay independent of the rows beside it. Nothing is clipped: where the limit is below
 * the 256th part of a group's largest magnitude, that part takes its place. */
#ifndef JANG_OPS_ROUNDING_H
#define JANG_OPS_ROUNDING_H

#include "ops/ops.h"

#include <math.h>

/* How carefully a weight's inputs are rounded: by limits in root mean squares of the row. A plain
 * one leaves a few elements in a hundred with a high part, a fine one most, the finest nearly all.
 * Mean KL of SmolLM2 in nats with fine attention and output: JANG_4M 4.0e-4, JANG_3M 6.7e-4, 8 bits
 * 3.2e-4. Models of 2 bits stand on an edge: JANG_2S has 3.6e-3 with a limit of 0.5. */
typedef enum rounding_care { ROUND_PLAIN, ROUND_FINE, ROUND_FINEST } rounding_care;

static inline rounding_care rounding_care_of(const weight_desc *d) {
    return d->bits == 2 ? ROUND_FINEST : d->fine ? ROUND_FINE : ROUND_PLAIN;
}

/* The limit of a row x [n], n a multiple of 16; not finite where x is not. */
float rounding_limit(const float *x, int64_t n, rounding_care care);

/* Largest q: 127 * 256. */
#define ROUND_RANGE 256.0f

/* The scale of a group whose largest magnitude is max, and its inverse, for q = rint(x * inverse).
 * False: the group's codes are zeros; the scale is then NaN where it is not finite, so that the
 * result shows it, and 0 where it is below 2^-100, so that no inverse overflows. */
static inline bool rounding_scale(float *scale, float *inverse, float max, float limit) {
    if (!(max >= 0x1p-100f && max < INFINITY)) {
        *scale = max < 1 ? 0 : NAN;
        *inverse = 0;
        return false;
    }
    float top = limit < max ? limit : max, least = max / ROUND_RANGE;
    top = top < least ? least : top;
    *scale = top / 127.0f;
    *inverse = 127.0f / top;
    return true;
}

#endif
