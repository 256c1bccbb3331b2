/* softmax.c - see softmax.h. The largest number is taken off before exp, so that none overflows. */
#include "base/softmax.h"

#include <math.h>

static float largest(const float *x, int64_t n) {
    float top = x[0];
    for (int64_t i = 1; i < n; i++) {
        top = x[i] > top ? x[i] : top;
    }
    return top;
}

void softmax(float *p, const float *x, int64_t n) {
    float top = largest(x, n), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        p[i] = expf(x[i] - top);
        sum += p[i];
    }
    for (int64_t i = 0; i < n; i++) {
        p[i] /= sum;
    }
}

/* The largest of a row, and the sum of exp of what the others are less. */
typedef struct row_sum {
    float top;
    double sum;
} row_sum;

static double diverge(row_sum *want_sum, row_sum *x_sum, const float *want, const float *x,
                      int64_t n) {
    row_sum a = {.top = largest(want, n)}, b = {.top = largest(x, n)};
    double weighted = 0;
    for (int64_t i = 0; i < n; i++) {
        float p = expf(want[i] - a.top);
        a.sum += (double)p;
        weighted += (double)p * (double)(want[i] - x[i]);
        b.sum += (double)expf(x[i] - b.top);
    }
    *want_sum = a;
    *x_sum = b;
    return weighted / a.sum - log(a.sum) - (double)a.top + log(b.sum) + (double)b.top;
}

double softmax_divergence(const float *want, const float *x, int64_t n) {
    row_sum a, b;
    return diverge(&a, &b, want, x, n);
}

double softmax_divergence_back(float *x, const float *want, int64_t n, float weight) {
    row_sum a, b;
    double kl = diverge(&a, &b, want, x, n);
    float of_x = weight / (float)b.sum, of_want = weight / (float)a.sum;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - b.top) * of_x - expf(want[i] - a.top) * of_want;
    }
    return kl;
}
