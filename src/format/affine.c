/* affine.c - packing of codes, dequantization of rows, shapes of modules.
 *
 * Eight codes of b bits are b bytes, whatever b is. So packing works on eight codes at a time, held
 * in the bytes of one uint64: neighbours are joined to pairs of 2b bits, pairs to fours of 4b bits,
 * fours to one stream of 8b bits. Unpacking goes the same way back. The layout is little-endian,
 * and so are the machines this is built for. */
#include "format/affine.h"

#include "base/half.h"

#include <assert.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights are used where they lie in the file: this needs a little-endian machine"
#endif

#define INLINE static inline __attribute__((always_inline))

static const int all_bits[] = {2, 3, 4, 5, 6, 8};
static const int all_groups[] = {64, 32, 128}; /* in the order in which a tie is decided */

#define N_BITS ((int)(sizeof all_bits / sizeof all_bits[0]))
#define N_GROUPS ((int)(sizeof all_groups / sizeof all_groups[0]))

bool affine_bits_ok(int bits) {
    return bits >= 2 && bits <= 8 && bits != 7;
}

bool affine_group_ok(int group) {
    return group == 32 || group == 64 || group == 128;
}

/* ---- Packing ---- */

/* The lowest n bits of each lane of a uint64. */
INLINE uint64_t lanes(int lane_bits, int n) {
    uint64_t mask = ((uint64_t)1 << n) - 1;
    for (int width = lane_bits; width < 64; width *= 2) {
        mask |= mask << width;
    }
    return mask;
}

/* Moves the upper half of each lane, of which m bits count, down to the lower half's m bits. */
INLINE uint64_t join(uint64_t x, int lane_bits, int m) {
    uint64_t low = lanes(lane_bits, m);
    return (x & low) | (x >> (lane_bits / 2 - m) & low << m);
}

INLINE uint64_t split(uint64_t x, int lane_bits, int m) {
    uint64_t low = lanes(lane_bits, m);
    return (x & low) | (x & low << m) << (lane_bits / 2 - m);
}

INLINE uint64_t join_codes(uint64_t x, int b) {
    return join(join(join(x, 16, b), 32, 2 * b), 64, 4 * b);
}

INLINE uint64_t split_codes(uint64_t x, int b) {
    return split(split(split(x, 64, 4 * b), 32, 2 * b), 16, b);
}

#define PACK_BLOCK 16 /* times eight codes */

/* Stores eight bytes where b count: the rest is overwritten by the next eight codes. The last ones
 * of a row are stored exactly. */
INLINE void pack_row(uint8_t *restrict out, const uint8_t *restrict codes, int64_t n, int b) {
    int64_t n_bytes = n / 8 * b, at = 0;
    for (; at + PACK_BLOCK * b + 8 <= n_bytes; at += PACK_BLOCK * b, codes += PACK_BLOCK * 8) {
        uint64_t x[PACK_BLOCK]; /* joined in one loop and stored in another: vectors do the first */
        memcpy(x, codes, sizeof x);
        for (int i = 0; i < PACK_BLOCK; i++) {
            x[i] = join_codes(x[i], b);
        }
        for (int i = 0; i < PACK_BLOCK; i++) {
            memcpy(out + at + i * b, &x[i], b == 2 || b == 4 ? (size_t)b : 8);
        }
    }
    for (; at < n_bytes; at += b, codes += 8) {
        uint64_t x;
        memcpy(&x, codes, 8);
        x = join_codes(x, b);
        memcpy(out + at, &x, (size_t)b);
    }
}

INLINE void unpack_row(uint8_t *restrict codes, const uint8_t *restrict in, int64_t n, int b) {
    int64_t n_bytes = n / 8 * b, at = 0;
    for (; at + 8 <= n_bytes; at += b, codes += 8) {
        uint64_t x;
        memcpy(&x, in + at, 8);
        x = split_codes(x, b);
        memcpy(codes, &x, 8);
    }
    for (; at < n_bytes; at += b, codes += 8) {
        uint64_t x = 0;
        memcpy(&x, in + at, (size_t)b);
        x = split_codes(x, b);
        memcpy(codes, &x, 8);
    }
}

void affine_pack(uint32_t *restrict words, const uint8_t *restrict codes, int64_t n, int bits) {
    assert(affine_bits_ok(bits) && n % 32 == 0);
    uint8_t *out = (uint8_t *)words;
    switch (bits) {
    case 2:
        pack_row(out, codes, n, 2);
        break;
    case 3:
        pack_row(out, codes, n, 3);
        break;
    case 4:
        pack_row(out, codes, n, 4);
        break;
    case 5:
        pack_row(out, codes, n, 5);
        break;
    case 6:
        pack_row(out, codes, n, 6);
        break;
    default:
        memcpy(out, codes, (size_t)n);
    }
}

static void unpack_bytes(uint8_t *restrict codes, const uint8_t *restrict in, int64_t n, int bits) {
    switch (bits) {
    case 2:
        unpack_row(codes, in, n, 2);
        break;
    case 3:
        unpack_row(codes, in, n, 3);
        break;
    case 4:
        unpack_row(codes, in, n, 4);
        break;
    case 5:
        unpack_row(codes, in, n, 5);
        break;
    case 6:
        unpack_row(codes, in, n, 6);
        break;
    default:
        memcpy(codes, in, (size_t)n);
    }
}

void affine_unpack(uint8_t *restrict codes, const uint32_t *restrict words, int64_t n, int bits) {
    assert(affine_bits_ok(bits) && n % 32 == 0);
    unpack_bytes(codes, (const uint8_t *)words, n, bits);
}

/* ---- Dequantization ---- */

/* Element i of an array of F16, BF16 or F32 at any address. */
INLINE float load_scale(const uint8_t *at, dtype type, int64_t i) {
    if (type == DT_F32) {
        float f;
        memcpy(&f, at + 4 * i, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, at + 2 * i, 2);
    return type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

void affine_row_f32(float *restrict out, const void *words, const void *scales, const void *biases,
                    dtype type, int64_t n, int bits, int group) {
    assert(affine_bits_ok(bits) && affine_group_ok(group) && n % group == 0);
    assert(type == DT_F16 || type == DT_BF16 || type == DT_F32);
    const uint8_t *in = words;
    const int64_t group_bytes = group / 8 * bits;
    uint8_t codes[128];
    for (int64_t g = 0; g < n / group; g++) {
        float scale = load_scale(scales, type, g), bias = load_scale(biases, type, g);
        unpack_bytes(codes, in + g * group_bytes, group, bits);
        float *to = out + g * group;
        for (int i = 0; i < group; i++) {
            to[i] = (float)codes[i] * scale + bias;
        }
    }
}

/* ---- Shapes ---- */

/* Whether rows of n_words words and n_groups groups are codes of these bits in such groups. */
static bool fits(int64_t n_words, int64_t n_groups, int bits, int group) {
    return n_words > 0 && n_words <= INT64_MAX / 32 && n_words * 32 % bits == 0 &&
           n_words * 32 / bits % group == 0 && n_words * 32 / bits / group == n_groups;
}

static bool same_leading_axes(const tensor_view *a, const tensor_view *b) {
    if (a->n_dim != b->n_dim) {
        return false;
    }
    for (int i = 0; i + 1 < a->n_dim; i++) {
        if (a->shape[i] != b->shape[i]) {
            return false;
        }
    }
    return true;
}

static jang_status check_parts(ctx_t *ctx, const tensor_view *weight, const tensor_view *scales,
                               const tensor_view *biases) {
    if (weight->type != DT_U32) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "tensor %s: type %s, quantized weights are U32",
                        weight->name, dtype_table[weight->type].name);
    }
    if ((scales->type != DT_F16 && scales->type != DT_BF16 && scales->type != DT_F32) ||
        biases->type != scales->type) {
        return ctx_fail(ctx, JANG_ERR_FORMAT,
                        "tensor %s: scales of type %s and biases of type %s, both must be F16, "
                        "BF16 or F32",
                        weight->name, dtype_table[scales->type].name,
                        dtype_table[biases->type].name);
    }
    if (weight->n_dim < 2 || !same_leading_axes(weight, scales) ||
        !same_leading_axes(weight, biases) || tensor_columns(scales) != tensor_columns(biases)) {
        return ctx_fail(ctx, JANG_ERR_FORMAT,
                        "tensor %s: weight, scales and biases have different shapes", weight->name);
    }
    return JANG_OK;
}

jang_status affine_infer(int *bits, int *group, ctx_t *ctx, const tensor_view *weight,
                         const tensor_view *scales, const tensor_view *biases, int hint_bits,
                         int hint_group) {
    jang_status status = check_parts(ctx, weight, scales, biases);
    if (status != JANG_OK) {
        return status;
    }
    int64_t n_words = tensor_columns(weight), n_groups = tensor_columns(scales);
    int best = -1, best_bits = 0, best_group = 0;
    for (int i = 0; i < N_GROUPS; i++) {
        for (int j = 0; j < N_BITS; j++) {
            int g = all_groups[i], b = all_bits[j];
            int score = 2 * (g == hint_group) + (b == hint_bits);
            if (score > best && fits(n_words, n_groups, b, g)) {
                best = score;
                best_bits = b;
                best_group = g;
            }
        }
    }
    if (best < 0) {
        return ctx_fail(ctx, JANG_ERR_FORMAT,
                        "tensor %s: %lld words and %lld groups a row fit no width (2, 3, 4, 5, 6, "
                        "8) and group size (32, 64, 128)",
                        weight->name, (long long)n_words, (long long)n_groups);
    }
    *bits = best_bits;
    *group = best_group;
    return JANG_OK;
}
