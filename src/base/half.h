/* half.h - 16- and 8-bit floating types to f32 and back, rounding to nearest even. */
#ifndef JANG_BASE_HALF_H
#define JANG_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float f32_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t f32_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h) {
    return f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float f) {
    uint32_t bits = f32_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40); /* a quiet NaN */
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Moves exponent and mantissa in place and scales by 2^112; f32 arithmetic does the subnormals. */
static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x0f800000u) { /* infinity, NaN */
        return f32_from_bits(sign | 0x70000000u | rest);
    }
    float f = f32_from_bits(rest) * 0x1p112f;
    return f32_from_bits(sign | f32_bits(f));
}

static inline uint16_t f32_to_f16(float f) {
    uint32_t bits = f32_bits(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (rest >= 0x477ff000u) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    }
    if (rest < 0x38800000u) { /* below 2^-14: adding 0.5 aligns the subnormal's last bit */
        uint32_t sub = f32_bits(f32_from_bits(rest) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | sub);
    }
    uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

/* F8_E4M3FN: no infinities, 0x7f and 0xff are NaN. */
static inline float f8_e4m3_to_f32(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80) << 24;
    if ((h & 0x7f) == 0x7f) {
        return f32_from_bits(sign | 0x7fc00000u);
    }
    float f = f32_from_bits((uint32_t)(h & 0x7f) << 20) * 0x1p120f;
    return f32_from_bits(sign | f32_bits(f));
}

static inline float f8_e5m2_to_f32(uint8_t h) {
    return f16_to_f32((uint16_t)(h << 8));
}

#endif
