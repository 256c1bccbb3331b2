/* rounding.c - limits of the scales of rounded inputs. */
#include "ops/rounding.h"

float rounding_limit(const float *x, int64_t n, bool fine) {
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
    return (fine ? ROUND_FINE : ROUND_PLAIN) * sqrtf(sum / (float)n);
}
