/* gemv_avx512.c - affine weights by one or two rows of rounded activations, for decoding.
 *
 * Rows of the weight are read one after the other, in blocks of 16 groups. A chunk's planes meet
 * their activations in vpdpbusd; the 32-bit lanes of a group are then added by a tree of shuffles
 * that leaves the 16 groups' dot products in one vector, in order, to be multiplied with 16 scales
 * at once. Layouts and the order of sums are in affine_avx512.h. */
#include "ops/cpu/affine_avx512.h"
#include "ops/cpu/gemm_avx512.h"

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

/* The sums of n vectors, each of 16 / n groups that have n lanes each, in order of the groups. For
 * n of 4 and more v holds their add_quads, four vectors in each. */
ALWAYS_INLINE __m512i add_groups(const __m512i *v, int n) {
    if (n == 16) {
        return add_lanes(add_lanes(v[0], v[1]), add_lanes(v[2], v[3]));
    }
    if (n == 8) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
        return _mm512_permutexvar_epi32(order, add_lanes(v[0], v[1]));
    }
    if (n == 4) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        return _mm512_permutexvar_epi32(order, v[0]);
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
 * to the planes in turn (5 and 6 bits have one: two would not fit a load, and permuting two
 * registers costs more than it saves); a byte permutation puts the units of a plane at the heads of
 * the 64-bit lanes, a multishift takes the eight codes out of each. */
ALWAYS_INLINE int gemv_planes(int bits) {
    return bits == 2 ? 4 : bits == 3 || bits == 4 ? 2 : 1;
}

typedef struct unpacker {
    __m512i bytes[2], shifts, mask;
} unpacker;

ALWAYS_INLINE unpacker unpacker_for(int bits) {
    unpacker u;
    uint8_t at[2][64];
    uint64_t shifts = 0;
    for (int i = 0; i < 128; i++) {
        int p = i / 64, unit = i % 64 / 8 * gemv_planes(bits) + p;
        at[p][i % 64] = (uint8_t)((unit * bits + i % 8) & 63);
    }
    for (int i = 0; i < 8; i++) {
        shifts |= (uint64_t)(i * bits) << 8 * i;
    }
    u.bytes[0] = _mm512_loadu_si512(at[0]);
    u.bytes[1] = _mm512_loadu_si512(at[1]);
    u.shifts = _mm512_set1_epi64((long long)shifts);
    u.mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    return u;
}

/* The planes of a chunk of which n bytes are there (full: all can be read). Nothing beyond them is
 * read. */
ALWAYS_INLINE void unpack_chunk(__m512i *planes, const uint8_t *p, int bits, bool full, int64_t n,
                                const unpacker *u) {
    const int n_planes = gemv_planes(bits), size = 8 * n_planes * bits;
    __m512i packed;
    if (!full) {
        packed = _mm512_maskz_loadu_epi8(first_bytes(n < size ? n : size), p);
    } else if (size == 64) {
        packed = _mm512_loadu_si512(p);
    } else {
        packed = _mm512_maskz_loadu_epi64((__mmask8)((1 << size / 8) - 1), p);
    }
    __asm__("" : "+v"(packed)); /* loaded once, not by each of the instructions below */
    spread s = {.mask = u->mask};
#pragma GCC unroll 4
    for (int i = 0; i < n_planes; i++) {
        if (bits == 3 || bits == 5 || bits == 6) {
            __m512i units = _mm512_permutexvar_epi8(u->bytes[i], packed);
            units = _mm512_multishift_epi64_epi8(u->shifts, units);
            planes[i] = _mm512_and_si512(units, u->mask);
        } else {
            planes[i] = plane_of(packed, bits, i, &s);
        }
    }
}

/* ---- Blocks of 16 groups ----------------------------------------------------------------------
 */

#define GEMV_TOKENS 2 /* rows of x at once, at most */

/* How far ahead codes are fetched, in bytes. From 2048 to 4096 it makes no difference. */
#define GEMV_AHEAD 3072

/* Part of a row of the weight, and of rows of x. */
typedef struct gemv_block {
    const uint8_t *codes, *scales, *biases;
    dtype type;
    int64_t group_at, n_groups; /* index of its first group in scales; groups there, if not 16 */
    bool over;                  /* whole chunks can be read, even where the row ends before */
    const int8_t *low, *high;
    const float *x_scales, *x_sums;
    int64_t x_stride, x_group_stride; /* from one row of x to the next */
} gemv_block;

/* Vectors first .. first + n - 1 of dot products, each of the 16 / n_vectors groups that fill it,
 * for each row of x: v[t]. The products with low and high parts meet here, before any lanes are
 * added. */
ALWAYS_INLINE void dot_vectors(__m512i (*v)[4], const gemv_block *k, const unpacker *u, int first,
                               int n, int bits, int group, int n_tok, bool full) {
    const int planes = gemv_planes(bits), chunk = 64 * planes, chunk_bytes = chunk * bits / 8;
    const int per_vector = group > chunk ? group / chunk : 1; /* chunks */
    int64_t bytes = k->n_groups * group * bits / 8;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        __m512i low[GEMV_TOKENS], high[GEMV_TOKENS];
        for (int t = 0; t < n_tok; t++) {
            low[t] = high[t] = _mm512_setzero_si512();
        }
#pragma GCC unroll 2
        for (int c = (first + i) * per_vector; c < (first + i + 1) * per_vector; c++) {
            if (!full && c * chunk_bytes >= bytes) {
                break;
            }
            __m512i w[4];
            unpack_chunk(w, k->codes + c * chunk_bytes, bits, full || k->over,
                         bytes - c * chunk_bytes, u);
#pragma GCC unroll 4
            for (int p = 0; p < planes; p++) {
#pragma GCC unroll 4
                for (int t = 0; t < n_tok; t++) {
                    int64_t at = t * k->x_stride + c * chunk + 64 * p;
                    add_dots(&low[t], w[p], _mm512_loadu_si512(k->low + at));
                    add_dots(&high[t], w[p], _mm512_loadu_si512(k->high + at));
                }
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < n_tok; t++) {
            v[t][i] = _mm512_add_epi32(low[t], _mm512_slli_epi32(high[t], 8));
        }
    }
}

/* dots[t]: the dot products of 16 groups in order. */
ALWAYS_INLINE void dot_block(__m512i *dots, const gemv_block *k, const unpacker *u, int bits,
                             int group, int n_tok, bool full) {
    const int chunk = 64 * gemv_planes(bits);
    const int n_vectors = group > chunk ? 16 : 16 * group / chunk;
    __m512i v[GEMV_TOKENS][4], quads[GEMV_TOKENS][4];
    if (n_vectors == 2) {
        dot_vectors(v, k, u, 0, 2, bits, group, n_tok, full);
    }
#pragma GCC unroll 4
    for (int q = 0; q < n_vectors / 4; q++) {
        dot_vectors(v, k, u, 4 * q, 4, bits, group, n_tok, full);
#pragma GCC unroll 4
        for (int t = 0; t < n_tok; t++) {
            quads[t][q] = add_quads(v[t][0], v[t][1], v[t][2], v[t][3]);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < n_tok; t++) {
        dots[t] = add_groups(n_vectors == 2 ? v[t] : quads[t], n_vectors);
    }
}

/* The lower (h 0) or upper 8 lanes. */
ALWAYS_INLINE __m256 half_of(__m512 a, int h) {
    return h ? _mm512_extractf32x8_ps(a, 1) : _mm512_castps512_ps256(a);
}

/* Adds the block's part of the products to acc[t]. bits, group, n_tok, full are constants where
 * this is inlined. */
ALWAYS_INLINE void add_block(__m256 *acc, const gemv_block *k, const unpacker *u, int bits,
                             int group, int n_tok, bool full) {
    __m512i dots[GEMV_TOKENS];
    dot_block(dots, k, u, bits, group, n_tok, full);
    int64_t n = full ? 16 : k->n_groups;
    __mmask16 there = (__mmask16)(full ? 0xffffu : (1u << n) - 1);
    __m512 scale = load_scales(k->scales, k->type, k->group_at, n);
    __m512 bias = load_scales(k->biases, k->type, k->group_at, n);
#pragma GCC unroll 4
    for (int t = 0; t < n_tok; t++) {
        __m512 dot = _mm512_cvtepi32_ps(dots[t]);
        __m512 x_scale = _mm512_loadu_ps(k->x_scales + t * k->x_group_stride);
        __m512 x_sum = _mm512_loadu_ps(k->x_sums + t * k->x_group_stride);
        __m512 factor = _mm512_mul_ps(scale, x_scale);
        __m256 sum = acc[t];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __mmask8 m = (__mmask8)(there >> 8 * h);
            sum = _mm256_mask3_fmadd_ps(half_of(factor, h), half_of(dot, h), sum, m);
            sum = _mm256_mask3_fmadd_ps(half_of(bias, h), half_of(x_sum, h), sum, m);
        }
        acc[t] = sum;
    }
}

ALWAYS_INLINE float sum_lanes(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* Asks for the weights that come some rows later: the processor's own prefetching stops at each end
 * of a page. Sixteen groups have 2 * group * bits bytes of codes for 32 of scales. */
ALWAYS_INLINE void fetch_ahead(const gemv_block *k, int bits, int group) {
    const int per_line = 2 * group * bits / 32; /* bytes of codes to one of scales */
#pragma GCC unroll 32
    for (int i = 0; i < 2 * group * bits; i += 64) {
        _mm_prefetch((const char *)k->codes + GEMV_AHEAD + i, _MM_HINT_T0);
    }
    _mm_prefetch((const char *)k->scales + 2 * k->group_at + GEMV_AHEAD / per_line, _MM_HINT_T0);
    _mm_prefetch((const char *)k->biases + 2 * k->group_at + GEMV_AHEAD / per_line, _MM_HINT_T0);
}

/* Row r of the weight by n_tok rows of x from row t0 on. */
ALWAYS_INLINE void gemv_row(const weight_desc *w, const q8_rows *x, int64_t t0, int64_t r, float *y,
                            int64_t y_stride, const unpacker *u, int bits, int group, int n_tok) {
    __m256 acc[GEMV_TOKENS];
    for (int t = 0; t < n_tok; t++) {
        acc[t] = _mm256_setzero_ps();
    }
    int64_t n_groups = w->n_in / group, row_bytes = w->n_in * bits / 8;
    gemv_block k = {.codes = (const uint8_t *)w->data + r * row_bytes,
                    .scales = w->scales,
                    .biases = w->biases,
                    .type = w->scale_type,
                    .group_at = r * n_groups,
                    .over = r + 1 < w->n_out && row_bytes >= 64,
                    .low = x->low + t0 * x->code_stride,
                    .high = x->high + t0 * x->code_stride,
                    .x_scales = x->scales + t0 * x->group_stride,
                    .x_sums = x->sums + t0 * x->group_stride,
                    .x_stride = x->code_stride,
                    .x_group_stride = x->group_stride};
    for (; n_groups >= 16; n_groups -= 16) {
        fetch_ahead(&k, bits, group);
        add_block(acc, &k, u, bits, group, n_tok, true);
        k.codes += 2 * group * bits;
        k.group_at += 16;
        k.low += 16 * group;
        k.high += 16 * group;
        k.x_scales += 16;
        k.x_sums += 16;
    }
    if (n_groups > 0) {
        k.n_groups = n_groups;
        add_block(acc, &k, u, bits, group, n_tok, false);
    }
    for (int t = 0; t < n_tok; t++) {
        y[(t0 + t) * y_stride] = sum_lanes(acc[t]);
    }
}

/* Rows from .. to-1 one after the other: two at once would share the loads of x, but memory gives
 * two streams less than one. */
ALWAYS_INLINE void gemv_all(const weight_desc *w, const q8_rows *x, int64_t t0, int64_t from,
                            int64_t to, float *y, int64_t y_stride, int bits, int group,
                            int n_tok) {
    unpacker u = unpacker_for(bits);
    for (int64_t r = from; r < to; r++, y++) {
        gemv_row(w, x, t0, r, y, y_stride, &u, bits, group, n_tok);
    }
}

typedef void (*gemv_fn)(const weight_desc *w, const q8_rows *x, int64_t t0, int64_t from,
                        int64_t to, float *y, int64_t y_stride);

#define GEMV(bits, group, n_tok)                                                                   \
    static void kern_gemv_q8_q##bits##_g##group##_x##n_tok##__avx512(                              \
        const weight_desc *w, const q8_rows *x, int64_t t0, int64_t from, int64_t to, float *y,    \
        int64_t y_stride) {                                                                        \
        gemv_all(w, x, t0, from, to, y, y_stride, bits, group, n_tok);                             \
    }
#define GEMV_OF_GROUP(bits, group) GEMV(bits, group, 1) GEMV(bits, group, 2)
#define GEMV_OF_BITS(bits) GEMV_OF_GROUP(bits, 32) GEMV_OF_GROUP(bits, 64) GEMV_OF_GROUP(bits, 128)
GEMV_OF_BITS(2)
GEMV_OF_BITS(3)
GEMV_OF_BITS(4)
GEMV_OF_BITS(5)
GEMV_OF_BITS(6)
GEMV_OF_BITS(8)

#define NAMES_OF_GROUP(bits, group)                                                                \
    { kern_gemv_q8_q##bits##_g##group##_x1__avx512, kern_gemv_q8_q##bits##_g##group##_x2__avx512 }
#define NAMES(bits)                                                                                \
    { NAMES_OF_GROUP(bits, 32), NAMES_OF_GROUP(bits, 64), NAMES_OF_GROUP(bits, 128) }

/* [bits][group 32, 64, 128][1, 2 rows of x] */
static const gemv_fn gemv_table[9][3][2] = {
    [2] = NAMES(2), [3] = NAMES(3), [4] = NAMES(4), [5] = NAMES(5), [6] = NAMES(6), [8] = NAMES(8)};

void kern_gemv_q8__avx512(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          float *y, int64_t y_stride) {
    const gemv_fn *fn = gemv_table[w->bits][w->group / 64];
    for (int64_t t = 0; t < x->n_row;) {
        int size = x->n_row - t >= 2 ? 2 : 1;
        fn[size - 1](w, x, t, from, to, y, y_stride);
        t += size;
    }
}
