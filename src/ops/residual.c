/* residual.c - the second 8-bit row of an input: what the first rounding left. */
#include "ops/residual.h"

#include "base/half.h"

#include <math.h>

/* Added and taken away, it rounds a float of magnitude below 2^22 to the nearest even integer. */
#define ROUND_TO_INTEGER 12582912.0f

static float root_mean_square(const float *x, int64_t n) {
    float sums[8] = {0};
    for (int64_t i = 0; i < n; i += 8) {
        for (int j = 0; j < 8; j++) {
            sums[j] += x[i + j] * x[i + j];
        }
    }
    float sum =
        ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    return sqrtf(sum / (float)n);
}

static float largest(const float *x, int n) {
    int32_t top = 0;
    for (int i = 0; i < n; i++) {
        int32_t magnitude = (int32_t)(f32_bits(x[i]) & 0x7fffffffu);
        top = magnitude > top ? magnitude : top;
    }
    return f32_from_bits((uint32_t)top);
}

void residual_row(float *restrict out, const float *restrict x, int64_t n, int group, bool all) {
    float limit = all ? 0 : RESIDUAL_LIMIT * root_mean_square(x, n);
    for (int64_t g = 0; g < n; g += group, x += group, out += group) {
        float max = largest(x, group);
        bool usable = max >= 0x1p-100f && max < INFINITY && !(max < limit);
        float inverse = usable ? 127.0f / max : 0, scale = max / 127.0f;
        for (int i = 0; i < group; i++) {
            float code = (x[i] * inverse + ROUND_TO_INTEGER) - ROUND_TO_INTEGER;
            out[i] = usable ? x[i] - scale * code : 0;
        }
    }
}
