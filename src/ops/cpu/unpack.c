/* unpack.c - rows of weights to codes and to f32, in portable C: for embeddings, for exact products
 * and as the unpacking of the scalar kernels. */
#include "ops/cpu/cpu_kernels.h"

#include "base/half.h"
#include "ops/hostbuf.h"

#include <string.h>

/* Eight codes of b bits are b bytes; b is a constant where this is inlined. */
static inline __attribute__((always_inline)) void
unpack_by(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n, int bits) {
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        for (int b = 0; b < bits; b++) {
            word |= (uint64_t)packed[b] << 8 * b;
        }
        for (int j = 0; j < 8; j++) {
            codes[i + j] = (uint8_t)(word >> j * bits & ((1u << bits) - 1));
        }
        packed += bits;
    }
}

void unpack_codes(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n, int bits) {
    switch (bits) {
    case 2:
        unpack_by(codes, packed, n, 2);
        break;
    case 3:
        unpack_by(codes, packed, n, 3);
        break;
    case 4:
        unpack_by(codes, packed, n, 4);
        break;
    case 5:
        unpack_by(codes, packed, n, 5);
        break;
    case 6:
        unpack_by(codes, packed, n, 6);
        break;
    default:
        memcpy(codes, packed, (size_t)n);
    }
}

/* Row r of floats; a type at a time, so that each loop is a plain one. */
static void widen_row(float *restrict out, const weight_desc *w, int64_t r) {
    const uint8_t *row = (const uint8_t *)w->data + r * w->n_in * (w->type == DT_F32 ? 4 : 2);
    uint16_t h;
    if (w->type == DT_F32) {
        memcpy(out, row, (size_t)w->n_in * sizeof *out);
        return;
    }
    for (int64_t i = 0; w->type == DT_F16 && i < w->n_in; i++) {
        memcpy(&h, row + 2 * i, sizeof h);
        out[i] = f16_to_f32(h);
    }
    for (int64_t i = 0; w->type == DT_BF16 && i < w->n_in; i++) {
        memcpy(&h, row + 2 * i, sizeof h);
        out[i] = bf16_to_f32(h);
    }
}

void weight_row_f32(float *restrict out, const weight_desc *w, int64_t r) {
    if (!w->bits) {
        widen_row(out, w, r);
        return;
    }
    int group = w->group;
    int64_t n_groups = w->n_in / group;
    const uint8_t *packed = (const uint8_t *)w->data + r * (w->n_in * w->bits / 8);
    for (int64_t g = 0; g < n_groups; g++) {
        uint8_t codes[128];
        unpack_codes(codes, packed + g * (group * w->bits / 8), group, w->bits);
        float scale = host_element(w->scales, w->scale_type, r * n_groups + g);
        float bias = host_element(w->biases, w->scale_type, r * n_groups + g);
        for (int i = 0; i < group; i++) {
            out[g * group + i] = (float)codes[i] * scale + bias;
        }
    }
}
