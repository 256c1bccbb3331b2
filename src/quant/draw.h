/* draw.h - tokens drawn by a model's own probabilities, the same every time. */
#ifndef JANG_QUANT_DRAW_H
#define JANG_QUANT_DRAW_H

#include <stdint.h>

/* A number from 0 to 1 that a seed, a row and a position give (splitmix64). */
double draw_chance(uint64_t seed, uint64_t row, uint64_t at);

/* The token at which the sum over p [n], of numbers that are not negative, passes goal. */
int32_t draw_token(const float *p, int32_t n, double goal);

#endif
