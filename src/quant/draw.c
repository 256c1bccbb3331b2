/* draw.c - see draw.h. */
#include "quant/draw.h"

double draw_chance(uint64_t seed, uint64_t row, uint64_t at) {
    uint64_t x = seed + 0x9e3779b97f4a7c15u * (row * 0x100000001b3u + at + 1);
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)((x ^ x >> 31) >> 11) / 9007199254740992.0;
}

int32_t draw_token(const float *p, int32_t n, double goal) {
    double until = 0;
    int32_t token = 0;
    for (int32_t i = 0; i < n && until <= goal; i++) {
        until += (double)p[i];
        token = p[i] > 0 ? i : token;
    }
    return token;
}
