/* softmax.h - numbers turned into probabilities, and how far two such distributions are apart. */
#ifndef JANG_BASE_SOFTMAX_H
#define JANG_BASE_SOFTMAX_H

#include <stdint.h>

/* p [n] = exp(x) / sum of exp(x), n >= 1; p may be x. */
void softmax(float *p, const float *x, int64_t n);

/* KL(softmax(want) || softmax(x)) in nats; want, x [n]. */
double softmax_divergence(const float *want, const float *x, int64_t n);

/* The same, and x becomes weight times its gradient by x: softmax(x) - softmax(want). */
double softmax_divergence_back(float *x, const float *want, int64_t n, float weight);

#endif
