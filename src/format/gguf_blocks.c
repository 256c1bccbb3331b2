/* gguf_blocks.c - dequantization of GGUF's block types.
 *
 * Blocks of 32 (d, m: f16; codes of 4 bits: byte i holds element i low, element i + 16 high; the
 * fifth bits of Q5 are one uint32, bit i for element i):
 *     Q4_0  d, 16 bytes               w = d (q - 8)
 *     Q4_1  d, m, 16 bytes            w = d q + m
 *     Q5_0  d, u32, 16 bytes          w = d (q - 16)
 *     Q5_1  d, m, u32, 16 bytes       w = d q + m
 *     Q8_0  d, 32 int8                w = d q
 *
 * Blocks of 256 ("K"), made of groups of 16 or 32 with small integer scales s (and minima m):
 *     Q2_K  16 bytes (s low, m high nibble; groups of 16), 64 bytes of 2-bit codes, d, dmin
 *     Q3_K  32 bytes of third bits, 64 bytes of 2-bit codes, 12 bytes of 6-bit scales, d
 *     Q4_K  d, dmin, 12 bytes of 6-bit s and m (groups of 32), 128 bytes of 4-bit codes
 *     Q5_K  as Q4_K, with 32 bytes of fifth bits before the codes
 *     Q6_K  128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 int8 scales, d
 *
 * Source: the layouts in ggml-common.h, the values of ggml's dequantize_row functions. */
#include "format/gguf_blocks.h"

#include "base/half.h"

#include <string.h>

static float load_f16(const uint8_t *at) {
    uint16_t h;
    memcpy(&h, at, 2);
    return f16_to_f32(h);
}

/* ---- Blocks of 32 ---- */

static void read_q4_0(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, in += 18, out += 32) {
        float d = load_f16(in);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((in[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((in[2 + i] >> 4) - 8);
        }
    }
}

static void read_q4_1(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, in += 20, out += 32) {
        float d = load_f16(in), m = load_f16(in + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(in[4 + i] & 15) + m;
            out[i + 16] = d * (float)(in[4 + i] >> 4) + m;
        }
    }
}

/* The codes of a Q5 block: four bits from codes, the fifth from the uint32 at high. */
static void join_q5(int *restrict q, const uint8_t *restrict high, const uint8_t *restrict codes) {
    uint32_t bits;
    memcpy(&bits, high, 4);
    for (int i = 0; i < 16; i++) {
        q[i] = (codes[i] & 15) | (int)(bits >> i & 1) << 4;
        q[i + 16] = codes[i] >> 4 | (int)(bits >> (i + 16) & 1) << 4;
    }
}

static void read_q5_0(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, in += 22, out += 32) {
        float d = load_f16(in);
        int q[32];
        join_q5(q, in + 2, in + 6);
        for (int i = 0; i < 32; i++) {
            out[i] = d * (float)(q[i] - 16);
        }
    }
}

static void read_q5_1(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, in += 24, out += 32) {
        float d = load_f16(in), m = load_f16(in + 2);
        int q[32];
        join_q5(q, in + 4, in + 8);
        for (int i = 0; i < 32; i++) {
            out[i] = d * (float)q[i] + m;
        }
    }
}

static void read_q8_0(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, in += 34, out += 32) {
        float d = load_f16(in);
        for (int i = 0; i < 32; i++) {
            out[i] = d * (float)(int8_t)in[2 + i];
        }
    }
}

/* ---- Blocks of 256 ---- */

/* Element e of a block lies in 32 bytes of each 128 elements, two bits at a time: byte e % 32 of
 * half e / 128, at shift 2 * (e / 32 % 4). */
static int two_bits(const uint8_t *codes, int e) {
    return codes[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3;
}

static void read_q2_k(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, in += 84, out += 256) {
        const uint8_t *codes = in + 16;
        float d = load_f16(in + 80), dmin = load_f16(in + 82);
        for (int group = 0; group < 16; group++) {
            float scale = d * (float)(in[group] & 15), min = dmin * (float)(in[group] >> 4);
            for (int e = group * 16; e < group * 16 + 16; e++) {
                out[e] = scale * (float)two_bits(codes, e) - min;
            }
        }
    }
}

/* Scale i of 16: low four bits in the nibbles of bytes 0..7, high two in bytes 8..11; minus 32. */
static int q3_scale(const uint8_t *packed, int i) {
    int low = packed[i % 8] >> (i / 8 * 4) & 15;
    int high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

static void read_q3_k(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, in += 110, out += 256) {
        const uint8_t *codes = in + 32, *packed = in + 96;
        float d = load_f16(in + 108);
        for (int group = 0; group < 16; group++) {
            float scale = d * (float)q3_scale(packed, group);
            for (int e = group * 16; e < group * 16 + 16; e++) {
                int third = in[e % 32] >> (e / 32) & 1;
                out[e] = scale * (float)(two_bits(codes, e) - (third ? 0 : 4));
            }
        }
    }
}

/* Scale and minimum of group i of 8, six bits each: of the first four they are the low six bits of
 * bytes 0..3 and 4..7; of the last four the low bits are nibbles of bytes 8..11 and the high two
 * the top bits of bytes 0..3 and 4..7. */
static void q4_scale(int *scale, int *min, const uint8_t *packed, int i) {
    if (i < 4) {
        *scale = packed[i] & 63;
        *min = packed[i + 4] & 63;
    } else {
        *scale = (packed[i + 4] & 15) | packed[i - 4] >> 6 << 4;
        *min = packed[i + 4] >> 4 | packed[i] >> 6 << 4;
    }
}

/* Q4_K, and with high bits Q5_K: 32 bytes of codes hold two groups, low and high nibbles. */
static void read_k45(float *restrict out, const uint8_t *restrict in, int64_t n, bool five) {
    for (int64_t b = 0; b < n / 256; b++, in += five ? 176 : 144, out += 256) {
        const uint8_t *high = in + 16, *codes = in + (five ? 48 : 16);
        float d = load_f16(in), dmin = load_f16(in + 2);
        for (int group = 0; group < 8; group++) {
            int s, m;
            q4_scale(&s, &m, in + 4, group);
            float scale = d * (float)s, min = dmin * (float)m;
            for (int i = 0; i < 32; i++) {
                int q = codes[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
                q |= five ? (high[i] >> group & 1) << 4 : 0;
                out[group * 32 + i] = scale * (float)q - min;
            }
        }
    }
}

static void read_q4_k(float *restrict out, const uint8_t *restrict in, int64_t n) {
    read_k45(out, in, n, false);
}

static void read_q5_k(float *restrict out, const uint8_t *restrict in, int64_t n) {
    read_k45(out, in, n, true);
}

/* Of each half of 128: 64 bytes of low nibbles (elements 0..63, then 64..127 in the high ones) and
 * 32 bytes of high pairs. */
static void read_q6_k(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, in += 210, out += 256) {
        const uint8_t *high = in + 128;
        float d = load_f16(in + 208);
        for (int group = 0; group < 16; group++) {
            float scale = d * (float)(int8_t)in[192 + group];
            for (int e = group * 16; e < group * 16 + 16; e++) {
                int q = in[e / 128 * 64 + e % 64] >> (e / 64 % 2 * 4) & 15;
                q |= two_bits(high, e) << 4;
                out[e] = scale * (float)(q - 32);
            }
        }
    }
}

gguf_blocks_fn gguf_blocks_reader(dtype type) {
    static const gguf_blocks_fn readers[DT_COUNT] = {
        [DT_Q4_0] = read_q4_0, [DT_Q4_1] = read_q4_1, [DT_Q5_0] = read_q5_0, [DT_Q5_1] = read_q5_1,
        [DT_Q8_0] = read_q8_0, [DT_Q2_K] = read_q2_k, [DT_Q3_K] = read_q3_k, [DT_Q4_K] = read_q4_k,
        [DT_Q5_K] = read_q5_k, [DT_Q6_K] = read_q6_k,
    };
    return readers[type];
}
