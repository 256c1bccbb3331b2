/* scaled.c - FP8 with block scales and MXFP4, to f32. */
#include "format/scaled.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

void scaled_fp8_f32(float *restrict out, const uint8_t *row, const void *scales, int64_t at,
                    int64_t n, int64_t block) {
    for (int64_t i = 0; i < n;) {
        int64_t b = (at + i) / block, end = (b + 1) * block - at;
        float scale;
        memcpy(&scale, (const uint8_t *)scales + 4 * b, sizeof scale);
        for (end = end < n ? end : n; i < end; i++) {
            out[i] = f8_e4m3_to_f32(row[at + i]) * scale;
        }
    }
}

void scaled_mxfp4_f32(float *restrict out, const uint8_t *codes, const uint8_t *scales,
                      int64_t n_groups) {
    static const float values[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                     -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    for (int64_t g = 0; g < n_groups; g++) {
        float scale = scales[g] == 255 ? NAN : ldexpf(1, scales[g] - 127);
        for (int i = 0; i < MXFP4_BYTES; i++) {
            uint8_t pair = codes[g * MXFP4_BYTES + i];
            out[g * MXFP4_GROUP + 2 * i] = values[pair & 15] * scale;
            out[g * MXFP4_GROUP + 2 * i + 1] = values[pair >> 4] * scale;
        }
    }
}
