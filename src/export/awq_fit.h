/* awq_fit.h - affine groups of 4 bits as AWQ has them: w = (code - zero) * scale, zero one of
 * 0..15.
 *
 * An affine group's bias is any number, here it must be a multiple of the scale. Where it nearly is
 * (what rounding to the nearest gives, mlx-lm's included) the codes stay; elsewhere scale and codes
 * are fitted anew, for each of a few zeros, by alternating least squares. */
#ifndef JANG_EXPORT_AWQ_FIT_H
#define JANG_EXPORT_AWQ_FIT_H

#include "base/tensor.h"

typedef struct awq_group {
    float scale; /* a number of f16 */
    int zero;
    double error; /* squared, over the group */
} awq_group;

/* Fits a group of n numbers w = code * scale + bias. codes [n] are replaced. */
awq_group awq_fit(uint8_t *codes, const float *w, int n, float scale, float bias);

/* Puts eight outputs' codes into a word: output 0 2 4 6 1 3 5 7 from the low end. */
uint32_t awq_word(const uint8_t codes[8]);

#endif
