/* awq_fit.c - the nearest group of AWQ's form. */
#include "export/awq_fit.h"

#include "base/half.h"

#include <math.h>

#define MOST 15
#define ROUNDS 4
#define LARGEST_GROUP 128

static float f16_of(float x) {
    return f16_to_f32(f32_to_f16(x));
}

static int nearest(float x) {
    x = x > 0 ? x : 0; /* nor NaN */
    return (int)lrintf(x < MOST ? x : MOST);
}

/* Rounds the numbers to a grid; returns the squared error. */
static double to_grid(uint8_t *codes, const float *w, int n, float scale, int zero) {
    double error = 0;
    float inverse = scale != 0 ? 1 / scale : 0;
    for (int i = 0; i < n; i++) {
        codes[i] = (uint8_t)nearest(w[i] * inverse + (float)zero);
        double d = (double)w[i] - (double)((float)(codes[i] - zero) * scale);
        error += d * d;
    }
    return error;
}

/* The scale of least squares for given codes, or 0. */
static float best_scale(const uint8_t *codes, const float *w, int n, int zero) {
    double top = 0, below = 0;
    for (int i = 0; i < n; i++) {
        double q = codes[i] - zero;
        top += q * (double)w[i];
        below += q * q;
    }
    return below > 0 ? (float)(top / below) : 0;
}

/* The least scale with which all numbers lie within the codes. */
static float covering_scale(const float *w, int n, int zero) {
    float low = 0, high = 0;
    for (int i = 0; i < n; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    float down = zero > 0 ? -low / (float)zero : 0;
    float up = zero < MOST ? high / (float)(MOST - zero) : 0;
    return down > up ? down : up;
}

/* Goes on from a scale until nothing is gained, and keeps the best in *best and codes. */
static void descend(awq_group *best, uint8_t *codes, const float *w, int n, float scale, int zero) {
    uint8_t trial[LARGEST_GROUP];
    for (int round = 0; round < ROUNDS && scale != 0 && isfinite(scale); round++) {
        double error = to_grid(trial, w, n, scale, zero);
        if (error < best->error) {
            *best = (awq_group){scale, zero, error};
            memcpy(codes, trial, (size_t)n);
        }
        float next = f16_of(best_scale(trial, w, n, zero));
        if (next == scale) {
            break;
        }
        scale = next;
    }
}

awq_group awq_fit(uint8_t *codes, const float *w, int n, float scale, float bias) {
    awq_group best = {.error = INFINITY};
    if (scale < 0) { /* the same grid from its other end */
        bias += MOST * scale;
        scale = -scale;
    }
    int middle = scale > 0 ? nearest(-bias / scale) : bias < 0 ? MOST : 0;
    for (int zero = middle - 1; zero <= middle + 1; zero++) {
        if (zero < 0 || zero > MOST) {
            continue;
        }
        descend(&best, codes, w, n, f16_of(scale), zero);
        if (best.error > 0) {
            descend(&best, codes, w, n, f16_of(covering_scale(w, n, zero)), zero);
        }
    }
    if (!isfinite(best.error)) { /* all zero: any grid has that */
        best = (awq_group){f16_of(1), 0, to_grid(codes, w, n, 1, 0)};
    }
    return best;
}

uint32_t awq_word(const uint8_t codes[8]) {
    static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    uint32_t word = 0;
    for (int i = 0; i < 8; i++) {
        word |= (uint32_t)codes[order[i]] << (4 * i);
    }
    return word;
}
