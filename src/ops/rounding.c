/* rounding.c - limits of the scales of rounded inputs. */
#include "ops/rounding.h"

float rounding_limit(const float *x, int64_t n, rounding_care care) {
    static const float limits[] = {
        [ROUND_PLAIN] = 2.5f, [ROUND_FINE] = 0.5f, [ROUND_FINEST] = 0.05f};
    float sums[16] = {0};
    for (int64_t i = 0; i < n; i += 16) {
        for (int j = 0; j < 16; j++) {
            sums[j] += x[i + j] * x[i + j];
        }
    }
    float sum = 0;
    for (int j = 0; j < 8; j++) {
        sum += sums[j] + sums[j + 8];
    }
    return limits[care] * sqrtf(sum / (float)n);
}
