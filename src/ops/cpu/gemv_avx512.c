/* gemv_avx512.c - affine weights by one or two rows of rounded activations, for decoding.
 *
 * Rows of the weight are read one after the other, in blocks of 16 groups. What a block holds is
 * unpacked, meets its activations in vpdpbusd, and leaves vectors in which each group has 8 lanes
 * or fewer of its own; a tree of shuffles adds these until one vector holds the 16 groups' dot
 * products, in order, to be multiplied with 16 scales at once. Layouts and the order of sums are in
 * affine_avx512.h. */
#include "ops/cpu/affine_avx512.h"
#include "ops/cpu/gemm_avx512.h"

#include <string.h>

/* ---- Adding lanes -----------------------------------------------------------------------------
 */

/* Each 128-bit lane: the sums of that lane of a, b, c, d. */
ALWAYS_INLINE __m512i add_quads(__m512i a, __m512i b, __m512i c, __m512i d) {
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* [a0+a1, a2+a3, b0+b1, b2+b3] of the 128-bit lanes. */
ALWAYS_INLINE __m512i add_lanes(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* The sums of n vectors, each of 16 / n groups that have n lanes each, in order of the groups. */
ALWAYS_INLINE __m512i add_groups(const __m512i *v, int n) {
    if (n == 8) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
        __m512i first = add_quads(v[0], v[1], v[2], v[3]);
        __m512i second = add_quads(v[4], v[5], v[6], v[7]);
        return _mm512_permutexvar_epi32(order, add_lanes(first, second));
    }
    if (n == 4) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        return _mm512_permutexvar_epi32(order, add_quads(v[0], v[1], v[2], v[3]));
    }
    __m512 a = _mm512_castsi512_ps(v[0]), b = _mm512_castsi512_ps(v[1]);
    __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd));
    const __m512i order = _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    return _mm512_permutexvar_epi32(order, _mm512_add_epi32(even, odd));
}

/* ---- Unpacking --------------------------------------------------------------------------------
 */

/* A chunk is 64 * gemv_planes codes, lane i of whose planes holds codes of the chunk's i-th
 * sixteenth, so that adding up planes leaves each group in lanes of its own. 2 and 4 bits: plane p
 * is one shift away (affine_avx512.h). 3, 5, 6 bits: units of 8 codes, which are `bits` bytes, go
 * to the planes in turn; a byte permutation puts the units of all planes at the heads of the 64-bit
 * lanes, a multishift takes eight codes out of each. Two units fit for 3 bits, one for 5 and 6. */
ALWAYS_INLINE int gemv_planes(int bits) {
    return bits == 2 ? 4 : bits == 3 || bits == 4 ? 2 : 1;
}

typedef struct unpacker {
    __m512i bytes, shifts[2], mask;
} unpacker;

ALWAYS_INLINE unpacker unpacker_for(int bits) {
    unpacker u;
    uint8_t at[64];
    uint64_t shifts = 0;
    for (int i = 0; i < 64; i++) {
        at[i] = (uint8_t)((i / 8 * gemv_planes(bits) * bits + i % 8) & 63);
    }
    for (int i = 0; i < 8; i++) {
        shifts |= (uint64_t)(i * bits) << 8 * i;
    }
    u.bytes = _mm512_loadu_si512(at);
    u.shifts[0] = _mm512_set1_epi64((long long)shifts);
    u.shifts[1] = _mm512_add_epi8(u.shifts[0], _mm512_set1_epi8((char)(8 * bits)));
    u.mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    return u;
}

/* The planes of a chunk. Nothing beyond its bytes is read. */
ALWAYS_INLINE void unpack_chunk(__m512i *planes, const uint8_t *p, int bits, const unpacker *u) {
    const int n_planes = gemv_planes(bits), size = 8 * n_planes * bits;
    __m512i packed = size == 64 ? _mm512_loadu_si512(p)
                                : _mm512_maskz_loadu_epi64((__mmask8)((1 << size / 8) - 1), p);
    __asm__("" : "+v"(packed)); /* loaded once, not by each of the instructions below */
    if (bits == 3 || bits == 5 || bits == 6) {
        packed = _mm512_permutexvar_epi8(u->bytes, packed);
    }
    spread s = {.mask = u->mask};
#pragma GCC unroll 4
    for (int i = 0; i < n_planes; i++) {
        if (bits == 3 || bits == 5 || bits == 6) {
            __m512i codes = _mm512_multishift_epi64_epi8(u->shifts[i], packed);
            planes[i] = _mm512_and_si512(codes, u->mask);
        } else {
            planes[i] = plane_of(packed, bits, i, &s);
        }
    }
}

/* The same for half of a chunk, the lower or upper halves of its planes. */
ALWAYS_INLINE void unpack_half(__m256i *planes, const uint8_t *p, int bits, const unpacker *u) {
    typedef uint16_t words __attribute__((vector_size(32)));
    const int n_planes = gemv_planes(bits), size = 4 * n_planes * bits;
    __m256i mask = _mm512_castsi512_si256(u->mask);
    __m256i packed = size == 32 ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                                : _mm256_maskz_loadu_epi32((__mmask8)((1 << size / 4) - 1), p);
    __asm__("" : "+v"(packed));
    if (bits == 3 || bits == 5 || bits == 6) {
        packed = _mm256_permutexvar_epi8(_mm512_castsi512_si256(u->bytes), packed);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n_planes; i++) {
        if (bits == 8) {
            planes[i] = packed;
        } else if (bits == 2 || bits == 4) {
            planes[i] = _mm256_and_si256((__m256i)((words)packed >> (i * bits)), mask);
        } else {
            __m256i shifts = _mm512_castsi512_si256(u->shifts[i]);
            planes[i] = _mm256_and_si256(_mm256_multishift_epi64_epi8(shifts, packed), mask);
        }
    }
}

/* ---- Blocks of 16 groups ----------------------------------------------------------------------
 */

/* Part of a row of the weight, and of a row of x. */
typedef struct gemv_block {
    const uint8_t *codes, *scales, *biases;
    dtype type;
    int64_t group_at, n_groups; /* index of its first group in scales; groups there, if not 16 */
    const int8_t *low, *high;
    uint64_t picks; /* bit i: high has something in its i-th 32 codes */
    const float *x_scales, *x_sums;
} gemv_block;

/* acc += the sums of four products each of codes w and the activations at x, vectors of one size.
 * As inline assembly since compilers would not take x from memory. */
#define ADD_DOTS(acc, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "m"(*(x)))

/* Whether the products with high parts of n codes from `at` on are wanted. With 2 bits they always
 * are (ops/rounding.h), and asking costs more than it saves. */
ALWAYS_INLINE bool is_picked(const gemv_block *k, int at, int n, int bits) {
    return bits == 2 || (k->picks & (n == 64 ? (uint64_t)3 : (uint64_t)1) << at / 32) != 0;
}

/* Vectors first .. first + n - 1 of dot products, of a chunk each. High parts come first, so that
 * one shift is all it takes to join them with the low ones, and the n chunks take turns, since each
 * product has to wait for the one before it. */
ALWAYS_INLINE void dot_chunks(__m512i *v, const gemv_block *k, const unpacker *u, int first, int n,
                              int bits) {
    const int planes = gemv_planes(bits), chunk = 64 * planes;
    __m512i w[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        v[i] = _mm512_setzero_si512();
        unpack_chunk(w[i], k->codes + (first + i) * chunk * bits / 8, bits, u);
    }
#pragma GCC unroll 4
    for (int p = 0; p < planes; p++) {
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            int at = (first + i) * chunk + 64 * p;
            if (is_picked(k, at, 64, bits)) {
                ADD_DOTS(v[i], w[i][p], (const __m512i *)(const void *)(k->high + at));
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        v[i] = _mm512_slli_epi32(v[i], 8);
    }
#pragma GCC unroll 4
    for (int p = 0; p < planes; p++) {
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            int at = (first + i) * chunk + 64 * p;
            ADD_DOTS(v[i], w[i][p], (const __m512i *)(const void *)(k->low + at));
        }
    }
}

/* The same for groups first .. first + n - 1 (n even, two groups a vector) where a group is a chunk
 * or more: halves of vectors are added up, which leaves each group 8 lanes instead of 16. */
ALWAYS_INLINE void dot_halves(__m512i *v, const gemv_block *k, const unpacker *u, int first, int n,
                              int bits, int group) {
    const int planes = gemv_planes(bits), half = 32 * planes, per_group = group / half;
    __m256i sums[8], w[8][4][2];
#pragma GCC unroll 8
    for (int g = 0; g < n; g++) {
        sums[g] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int i = 0; i < per_group; i++) {
            int at = ((first + g) * per_group + i) * half;
            unpack_half(w[g][i], k->codes + at * bits / 8, bits, u);
        }
    }
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) {
#pragma GCC unroll 8
        for (int ip = 0; ip < per_group * planes; ip++) {
#pragma GCC unroll 8
            for (int g = 0; g < n; g++) {
                int i = ip / planes, p = ip % planes, h = (first + g) * per_group + i;
                int at = h / 2 * 64 * planes + h % 2 * 32 + 64 * p;
                if (part) {
                    ADD_DOTS(sums[g], w[g][i][p], (const __m256i *)(const void *)(k->low + at));
                } else if (is_picked(k, at, 32, bits)) {
                    ADD_DOTS(sums[g], w[g][i][p], (const __m256i *)(const void *)(k->high + at));
                }
            }
        }
#pragma GCC unroll 8
        for (int g = 0; g < n; g++) {
            sums[g] = part ? sums[g] : _mm256_slli_epi32(sums[g], 8);
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < n; g += 2) {
        v[g / 2] = _mm512_inserti64x4(_mm512_castsi256_si512(sums[g]), sums[g + 1], 1);
    }
}

/* The dot products of the block's groups in order; of a block that is not full, those of the groups
 * that are not there mean nothing. */
ALWAYS_INLINE __m512i dot_block(const gemv_block *k, const unpacker *u, int bits, int group,
                                bool full) {
    const int chunk = 64 * gemv_planes(bits);
    __m512i v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_setzero_si512();
    }
    if (group >= chunk) {
        const int n = group > 64 ? 4 : 8; /* what the registers hold */
#pragma GCC unroll 4
        for (int g = 0; g < 16; g += n) {
            if (full || g < k->n_groups) {
                dot_halves(v + g / 2, k, u, g, n, bits, group);
            }
        }
        return add_groups(v, 8);
    }
    const int n_vectors = 16 * group / chunk, n = n_vectors < 4 ? n_vectors : 4;
#pragma GCC unroll 2
    for (int i = 0; i < n_vectors; i += n) {
        if (full || i * chunk / group < k->n_groups) {
            dot_chunks(v + i, k, u, i, n, bits);
        }
    }
    return add_groups(v, n_vectors);
}

/* Eight scales or biases from `at` on, those in the mask. */
ALWAYS_INLINE __m256 eight_scales(const uint8_t *p, dtype type, int64_t at, __mmask8 there) {
    if (type == DT_F32) {
        return _mm256_maskz_loadu_ps(there, p + 4 * at);
    }
    __m128i half = _mm_maskz_loadu_epi16(there, p + 2 * at);
    if (type == DT_F16) {
        return _mm256_cvtph_ps(half);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* acc and the block's part of the product. bits, group, full are constants where this is
 * inlined. */
ALWAYS_INLINE __m256 add_block(__m256 acc, const gemv_block *k, const unpacker *u, int bits,
                               int group, bool full) {
    __m512 dots = _mm512_cvtepi32_ps(dot_block(k, u, bits, group, full));
    unsigned there = full ? 0xffffu : (1u << k->n_groups) - 1;
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __mmask8 m = (__mmask8)(there >> 8 * h);
        __m256 dot = h ? _mm512_extractf32x8_ps(dots, 1) : _mm512_castps512_ps256(dots);
        __m256 scale = eight_scales(k->scales, k->type, k->group_at + 8 * h, m);
        __m256 bias = eight_scales(k->biases, k->type, k->group_at + 8 * h, m);
        __m256 factor = _mm256_mul_ps(scale, _mm256_loadu_ps(k->x_scales + 8 * h));
        acc = _mm256_mask3_fmadd_ps(factor, dot, acc, m);
        acc = _mm256_mask3_fmadd_ps(bias, _mm256_loadu_ps(k->x_sums + 8 * h), acc, m);
    }
    return acc;
}

ALWAYS_INLINE float sum_lanes(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* ---- Rows -------------------------------------------------------------------------------------
 */

/* How far ahead codes are fetched into the second-level cache, in bytes. At 8 bits the processor's
 * own prefetching does as well without help. */
#define GEMV_AHEAD 6144
#define GEMV_AHEAD_BITS 6

/* Asks for the weights that come some rows later. Sixteen groups have 2 * group * bits bytes of
 * codes for 32 of scales. */
ALWAYS_INLINE void fetch_ahead(const gemv_block *k, int bits, int group) {
    if (bits > GEMV_AHEAD_BITS) {
        return;
    }
    const int per_scale = 2 * group * bits / 32; /* bytes of codes to one of scales */
#pragma GCC unroll 32
    for (int i = 0; i < 2 * group * bits; i += 64) {
        _mm_prefetch((const char *)k->codes + GEMV_AHEAD + i, _MM_HINT_T1);
    }
    int64_t at = 2 * k->group_at + GEMV_AHEAD / per_scale;
    _mm_prefetch((const char *)k->scales + at, _MM_HINT_T1);
    _mm_prefetch((const char *)k->biases + at, _MM_HINT_T1);
}

/* acc and the part of the product that is left at the end of a row, fewer than 16 groups. They are
 * read as if they were 16, from a copy where the weight ends before (left: bytes of codes from k
 * on). */
ALWAYS_INLINE __m256 add_rest(__m256 acc, gemv_block k, int64_t left, const unpacker *u, int bits,
                              int group) {
    uint8_t codes[2 * 128 * 8];
    if (left < 2 * group * bits) {
        memset(codes, 0, sizeof codes);
        memcpy(codes, k.codes, (size_t)(k.n_groups * group * bits / 8));
        k.codes = codes;
    }
    return add_block(acc, &k, u, bits, group, false);
}

/* Row r of the weight by row t of x. */
ALWAYS_INLINE float gemv_row(const weight_desc *w, const q8_rows *x, int64_t t, int64_t r,
                             const unpacker *u, int bits, int group) {
    __m256 acc = _mm256_setzero_ps();
    int64_t n_groups = w->n_in / group, row_bytes = w->n_in * bits / 8;
    const uint8_t *codes = w->data;
    const uint8_t *picks = x->picks + t * x->group_stride * Q8_PICKS;
    gemv_block k = {.codes = codes + r * row_bytes,
                    .scales = w->scales,
                    .biases = w->biases,
                    .type = w->scale_type,
                    .group_at = r * n_groups,
                    .low = x->low + t * x->code_stride,
                    .high = x->high + t * x->code_stride,
                    .x_scales = x->scales + t * x->group_stride,
                    .x_sums = x->sums + t * x->group_stride};
    for (; n_groups > 0; n_groups -= 16) {
        memcpy(&k.picks, picks, sizeof k.picks);
        if (n_groups < 16) {
            k.n_groups = n_groups;
            acc = add_rest(acc, k, codes + w->n_out * row_bytes - k.codes, u, bits, group);
            break;
        }
        fetch_ahead(&k, bits, group);
        acc = add_block(acc, &k, u, bits, group, true);
        k.codes += 2 * group * bits;
        k.group_at += 16;
        k.low += 16 * group;
        k.high += 16 * group;
        k.x_scales += 16;
        k.x_sums += 16;
        picks += sizeof k.picks;
    }
    return sum_lanes(acc);
}

/* Rows from .. to-1 one after the other, each by all rows of x. Two at once would share the loads
 * of x, but memory gives two streams less than one. */
ALWAYS_INLINE void gemv_all(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                            float *y, int64_t y_stride, int bits, int group) {
    unpacker u = unpacker_for(bits);
    for (int64_t r = from; r < to; r++) {
        for (int64_t t = 0; t < x->n_row; t++) {
            y[t * y_stride + r - from] = gemv_row(w, x, t, r, &u, bits, group);
        }
    }
}

typedef void (*gemv_fn)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,
                        int64_t y_stride);

#define GEMV(bits, group)                                                                          \
    static void kern_gemv_q8_q##bits##_g##group##__avx512(const weight_desc *w, const q8_rows *x,  \
                                                          int64_t from, int64_t to, float *y,      \
                                                          int64_t y_stride) {                      \
        gemv_all(w, x, from, to, y, y_stride, bits, group);                                        \
    }
#define GEMV_OF_BITS(bits) GEMV(bits, 32) GEMV(bits, 64) GEMV(bits, 128)
GEMV_OF_BITS(2)
GEMV_OF_BITS(3)
GEMV_OF_BITS(4)
GEMV_OF_BITS(5)
GEMV_OF_BITS(6)
GEMV_OF_BITS(8)

#define NAMES(bits)                                                                                \
    {                                                                                              \
        kern_gemv_q8_q##bits##_g32__avx512, kern_gemv_q8_q##bits##_g64__avx512,                    \
            kern_gemv_q8_q##bits##_g128__avx512                                                    \
    }

/* [bits][group 32, 64, 128] */
static const gemv_fn gemv_table[9][3] = {
    [2] = NAMES(2), [3] = NAMES(3), [4] = NAMES(4), [5] = NAMES(5), [6] = NAMES(6), [8] = NAMES(8)};

void kern_gemv_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          float *y, int64_t y_stride) {
    gemv_table[w->bits][w->group / 64](w, x, from, to, y, y_stride);
}
