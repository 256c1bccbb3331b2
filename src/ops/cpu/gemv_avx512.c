/* gemv_avx512.c - affine weights by one or two rows of rounded activations, for decoding.
 *
 * Rows of the weight are read one after the other, in blocks of 16 groups. What a block holds is
 * unpacked, meets its activations in vpdpbusd, and leaves vectors in which each group has 8 lanes
 * or fewer of its own; a tree of shuffles adds these until one vector holds the 16 groups' dot
 * products, in order, to be multiplied with 16 scales at once, while the next block is under way.
 * Layouts and the order of sums are in affine_avx512.h. */
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

/* The sums of n vectors, each of 16 / n groups that have n lanes each, in order of the groups. Of 8
 * vectors these are v[0] and v[1], their quads added up. */
ALWAYS_INLINE __m512i add_groups(const __m512i *v, int n) {
    if (n == 8) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
        return _mm512_permutexvar_epi32(order, add_lanes(v[0], v[1]));
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

/* Sixteen groups of a row of the weight, or of rows that follow each other, and of a row of x. */
typedef struct gemv_block {
    const uint8_t *codes;
    int64_t row_bytes; /* from a row's codes to the next one's */
    int64_t group_at;  /* index of the first group among the weight's */
    int n_groups;      /* that are left at the end of a row, 0 .. 15 */
    const int8_t *low, *high;
    const uint8_t *picks; /* 64 bits, the i-th says whether high has something in 32 codes there */
    const float *x_scales, *x_sums;
} gemv_block;

/* What takes codes out of 64-bit lanes at whose heads 8 * planes of them begin. */
typedef struct unpacker {
    __m512i shifts[2], mask;
} unpacker;

ALWAYS_INLINE unpacker unpacker_for(int bits) {
    unpacker u;
    uint64_t shifts = 0;
    for (int i = 0; i < 8; i++) {
        shifts |= (uint64_t)(i * bits) << 8 * i;
    }
    u.shifts[0] = _mm512_set1_epi64((long long)shifts);
    u.shifts[1] = _mm512_add_epi8(u.shifts[0], _mm512_set1_epi8((char)(8 * bits)));
    u.mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    return u;
}

/* Where the bytes of 64-bit lane j are, from the first byte of a vector on, one after the other. */
ALWAYS_INLINE long long lane_bytes(int j, int bits, int group) {
    const int lanes = 8 / gemv_groups(bits, group), unit = gemv_planes(bits) * bits;
    const long long at = j / lanes * (group * bits / 8) + j % lanes * unit;
    return at * 0x0101010101010101 + 0x0706050403020100;
}

/* The same for all lanes of a vector that begins so many bytes after a line of 64. */
ALWAYS_INLINE __m512i bytes_of_vector(int begin, int bits, int group) {
#define LANE(j) lane_bytes(j, bits, group)
    __m512i at =
        _mm512_setr_epi64(LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7));
#undef LANE
    return _mm512_add_epi8(at, _mm512_set1_epi8((char)begin));
}

/* Vector i of a block's codes as gemv_parts vectors of bytes. Their codes lie within two lines of
 * 64 bytes, counted from the block's first byte, so nothing beyond the block is read. */
ALWAYS_INLINE void unpack_vector(__m512i *parts, const uint8_t *block, int i, int bits, int group,
                                 const unpacker *u) {
    const int planes = gemv_planes(bits), n = gemv_parts(bits, group);
    const int begin = i * 8 * n * bits, line = begin / 64 * 64;
    __m512i first = _mm512_loadu_si512(block + line);
    if (bits == 2 || bits == 4 || bits == 8) {
        const spread s = {.mask = u->mask};
        __asm__("" : "+v"(first)); /* loaded once, not by each of the instructions below */
#pragma GCC unroll 4
        for (int p = 0; p < n; p++) {
            parts[p] = plane_of(first, bits, p, &s);
        }
        return;
    }
    __m512i second = _mm512_loadu_si512(block + line + 64);
#pragma GCC unroll 4
    for (int p = 0; p < n; p += planes) {
        const int from = begin % 64 + p * 8 * bits / gemv_groups(bits, group);
        __m512i at = bytes_of_vector(from, bits, group);
        __m512i lanes = _mm512_permutex2var_epi8(first, at, second);
#pragma GCC unroll 2
        for (int j = 0; j < planes; j++) {
            __m512i codes = _mm512_multishift_epi64_epi8(u->shifts[j], lanes);
            parts[p + j] = _mm512_and_si512(codes, u->mask);
        }
    }
}

/* Half of 64 * planes codes where a group is as many or more: halves of planes. */
ALWAYS_INLINE void unpack_half(__m256i *planes, const uint8_t *p, int bits, int group,
                               const unpacker *u) {
    typedef uint16_t words __attribute__((vector_size(32)));
    const int n_planes = gemv_planes(bits), size = 4 * n_planes * bits;
    __m256i mask = _mm512_castsi512_si256(u->mask);
    __m256i packed = size == 32 ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                                : _mm256_maskz_loadu_epi32((__mmask8)((1 << size / 4) - 1), p);
    __asm__("" : "+v"(packed));
    if (bits == 3 || bits == 5 || bits == 6) {
        __m512i bytes = bytes_of_vector(0, bits, group);
        packed = _mm256_permutexvar_epi8(_mm512_castsi512_si256(bytes), packed);
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

/* acc += the sums of four products each of codes w and the activations at x, vectors of one size.
 * As inline assembly since compilers would not take x from memory. */
#define ADD_DOTS(acc, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "m"(*(x)))

ALWAYS_INLINE uint64_t picks_of(const gemv_block *k) {
    uint64_t picks;
    memcpy(&picks, k->picks, sizeof picks);
    return picks;
}

/* Whether the products with high parts of n codes from `at` on are wanted. With 2 bits they always
 * are (ops/rounding.h), and asking costs more than it saves. */
ALWAYS_INLINE bool is_picked(uint64_t picks, int at, int n, int bits) {
    return bits == 2 || (picks & (n == 64 ? (uint64_t)3 : (uint64_t)1) << at / 32) != 0;
}

/* Adds the products of part p of n_rows rows' codes and the activations at x, which two rows share.
 */
ALWAYS_INLINE void add_parts(__m512i (*v)[8], __m512i (*w)[4][4], int vector, int i, int p,
                             const int8_t *x, int n_rows) {
    const __m512i *at = (const __m512i *)(const void *)x;
    if (n_rows == 1) {
        ADD_DOTS(v[0][vector], w[0][i][p], at);
        return;
    }
    __m512i shared = _mm512_loadu_si512(at);
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
        add_dots(&v[r][vector], w[r][i][p], shared);
    }
}

/* Vectors first .. first + n - 1 of dot products of n_rows rows. High parts come first, so that one
 * shift is all it takes to join them with the low ones, and the vectors take turns, since each
 * product has to wait for the one before it. */
ALWAYS_INLINE void dot_vectors(__m512i (*v)[8], const gemv_block *k, const unpacker *u, int first,
                               int n, int n_rows, int bits, int group) {
    const int parts = gemv_parts(bits, group);
    const uint64_t picks = picks_of(k);
    __m512i w[2][4][4];
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            v[r][first + i] = _mm512_setzero_si512();
            unpack_vector(w[r][i], k->codes + r * k->row_bytes, first + i, bits, group, u);
        }
    }
#pragma GCC unroll 2
    for (int low = 0; low < 2; low++) {
#pragma GCC unroll 4
        for (int p = 0; p < parts; p++) {
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const int at = ((first + i) * parts + p) * 64;
                if (low || is_picked(picks, at, 64, bits)) {
                    add_parts(v, w, first + i, i, p, (low ? k->low : k->high) + at, n_rows);
                }
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < n_rows * n; i++) {
            __m512i *sum = &v[i / n][first + i % n];
            *sum = low ? *sum : _mm512_slli_epi32(*sum, 8);
        }
    }
}

/* The same for groups first .. first + n - 1 (n even, two groups a vector) where a group is a chunk
 * or more: halves of vectors are added up, which leaves each group 8 lanes instead of 16. */
ALWAYS_INLINE void dot_halves(__m512i *v, const gemv_block *k, const unpacker *u, int first, int n,
                              int bits, int group) {
    const int planes = gemv_planes(bits), half = 32 * planes, per_group = group / half;
    const uint64_t picks = picks_of(k);
    __m256i sums[8], w[8][4][2];
#pragma GCC unroll 8
    for (int g = 0; g < n; g++) {
        sums[g] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int i = 0; i < per_group; i++) {
            int at = ((first + g) * per_group + i) * half;
            unpack_half(w[g][i], k->codes + at * bits / 8, bits, group, u);
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
                } else if (is_picked(picks, at, 32, bits)) {
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

/* How many vectors of dot products a block leaves, and how many of these are computed together. */
ALWAYS_INLINE int n_vectors_of(int bits, int group) {
    const int groups = gemv_groups(bits, group);
    return groups > 1 ? 16 / groups : 8;
}

/* The sums of a block's groups, of n_rows rows, in two or four vectors that add_groups joins.
 * Groups that are not there (where the block is not full) mean nothing. */
ALWAYS_INLINE void dot_block(__m512i (*sums)[4], const gemv_block *k, const unpacker *u, int n_rows,
                             int bits, int group, bool full) {
    const int groups = gemv_groups(bits, group), n_vectors = n_vectors_of(bits, group);
    /* As many vectors together as the registers hold. */
    const int most = groups == 1 ? 256 / group : 8 / gemv_parts(bits, group) / n_rows;
    const int n = most < 4 ? most : 4;
    __m512i v[2][8];
#pragma GCC unroll 8
    for (int i = 0; i < n_vectors; i += n) {
        if (!full && i * 16 / n_vectors >= k->n_groups) {
#pragma GCC unroll 4
            for (int j = i; j < i + n; j++) {
                v[0][j] = v[1][j] = _mm512_setzero_si512();
            }
        } else if (groups == 1) {
            dot_halves(v[0] + i, k, u, 2 * i, 2 * n, bits, group);
        } else {
            dot_vectors(v, k, u, i, n, n_rows, bits, group);
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
        if (n_vectors == 8) {
            sums[r][0] = add_quads(v[r][0], v[r][1], v[r][2], v[r][3]);
            sums[r][1] = add_quads(v[r][4], v[r][5], v[r][6], v[r][7]);
            continue;
        }
#pragma GCC unroll 4
        for (int i = 0; i < n_vectors; i++) {
            sums[r][i] = v[r][i];
        }
    }
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

/* A block whose sums wait to be scaled, of n_rows rows that follow each other. */
typedef struct held_block {
    __m512i sums[2][4];
    int64_t group_at; /* as in gemv_block */
    const float *x_scales, *x_sums;
    float *y;     /* where the rows' results go */
    int n_groups; /* of the rows' last block, if it is that */
} held_block;

/* acc and the part that the held block of row r has in the product; there: its groups. type is a
 * constant where this is inlined. */
ALWAYS_INLINE __m256 add_scaled(__m256 acc, const held_block *h, const weight_desc *w, int r,
                                unsigned there, int bits, int group, dtype type) {
    __m512 dots = _mm512_cvtepi32_ps(add_groups(h->sums[r], n_vectors_of(bits, group)));
    const int64_t at = h->group_at + r * (w->n_in / group);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __mmask8 m = (__mmask8)(there >> 8 * i);
        __m256 dot = i ? _mm512_extractf32x8_ps(dots, 1) : _mm512_castps512_ps256(dots);
        __m256 scale = eight_scales(w->scales, type, at + 8 * i, m);
        __m256 bias = eight_scales(w->biases, type, at + 8 * i, m);
        __m256 factor = _mm256_mul_ps(scale, _mm256_loadu_ps(h->x_scales + 8 * i));
        acc = _mm256_mask3_fmadd_ps(factor, dot, acc, m);
        acc = _mm256_mask3_fmadd_ps(bias, _mm256_loadu_ps(h->x_sums + 8 * i), acc, m);
    }
    return acc;
}

ALWAYS_INLINE __m256 add_block(__m256 acc, const held_block *h, const weight_desc *w, int r,
                               unsigned there, int bits, int group) {
    if (w->scale_type == DT_F16) {
        return add_scaled(acc, h, w, r, there, bits, group, DT_F16);
    }
    if (w->scale_type == DT_BF16) {
        return add_scaled(acc, h, w, r, there, bits, group, DT_BF16);
    }
    return add_scaled(acc, h, w, r, there, bits, group, DT_F32);
}

ALWAYS_INLINE float sum_lanes(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* ---- Rows -------------------------------------------------------------------------------------
 */

/* A block is scaled and added up only when the products of the next one, of the same row or
 * another, are under way, since that is a long chain of instructions which wait for each other. */

/* The block is one within a row. */
ALWAYS_INLINE void settle(__m256 *acc, const held_block *h, const weight_desc *w, int n_rows,
                          int bits, int group) {
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
        acc[r] = add_block(acc[r], h, w, r, 0xffff, bits, group);
    }
}

/* The block is the last one of its rows, or none was held before. */
ALWAYS_INLINE void settle_last(__m256 *acc, const held_block *h, const weight_desc *w, int n_rows,
                               int bits, int group) {
    if (!h->y) {
        return;
    }
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
        if (h->n_groups == 16) {
            acc[r] = add_block(acc[r], h, w, r, 0xffff, bits, group);
        } else {
            acc[r] = add_block(acc[r], h, w, r, (1u << h->n_groups) - 1, bits, group);
        }
        h->y[r] = sum_lanes(acc[r]);
        acc[r] = _mm256_setzero_ps();
    }
}

ALWAYS_INLINE void hold(held_block *h, __m512i (*sums)[4], const gemv_block *k, int n_rows) {
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            h->sums[r][i] = sums[r][i];
        }
    }
    h->group_at = k->group_at;
    h->x_scales = k->x_scales;
    h->x_sums = k->x_sums;
}

/* How far ahead codes are fetched into the second-level cache, in bytes. At 8 bits the processor's
 * own prefetching does as well without help. */
#define GEMV_AHEAD 6144
#define GEMV_AHEAD_BITS 6

/* Asks for the weights that come some rows later. Sixteen groups have 2 * group * bits bytes of
 * codes for 32 of scales. */
ALWAYS_INLINE void fetch_ahead(const gemv_block *k, const weight_desc *w, int r, int bits,
                               int group) {
    if (bits > GEMV_AHEAD_BITS) {
        return;
    }
    const int per_scale = 2 * group * bits / 32; /* bytes of codes to one of scales */
    const char *codes = (const char *)k->codes + r * k->row_bytes + GEMV_AHEAD;
#pragma GCC unroll 32
    for (int i = 0; i < 2 * group * bits; i += 64) {
        _mm_prefetch(codes + i, _MM_HINT_T1);
    }
    int64_t at = 2 * (k->group_at + r * (w->n_in / group)) + GEMV_AHEAD / per_scale;
    _mm_prefetch((const char *)w->scales + at, _MM_HINT_T1);
    _mm_prefetch((const char *)w->biases + at, _MM_HINT_T1);
}

/* What is left at the end of n_rows rows, fewer than 16 groups each. They are read as if they were
 * 16, from a copy where the weight ends before (end: of its codes). */
ALWAYS_INLINE void dot_rest(__m512i (*sums)[4], gemv_block k, const uint8_t *end, const unpacker *u,
                            int n_rows, int bits, int group) {
    const int size = 2 * group * bits;
    uint8_t codes[2][2 * 128 * 8];
    if (end - (k.codes + (n_rows - 1) * k.row_bytes) < size) {
        memset(codes, 0, sizeof codes);
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *row = k.codes + r * k.row_bytes;
            memcpy(codes[r], row, (size_t)(k.n_groups * group * bits / 8));
        }
        k.codes = codes[0];
        k.row_bytes = sizeof codes[0];
    }
    dot_block(sums, &k, u, n_rows, bits, group, false);
}

/* The block after k. */
ALWAYS_INLINE void advance(gemv_block *k, int bits, int group) {
    k->codes += 2 * group * bits;
    k->group_at += 16;
    k->low += 16 * group;
    k->high += 16 * group;
    k->picks += Q8_PICKS;
    k->x_scales += 16;
    k->x_sums += 16;
}

/* n_rows rows of the weight by a row of x, block by block from k on, of which n_full are full; end:
 * of the weight's codes. y: the rows' results. */
ALWAYS_INLINE void gemv_rows(held_block *h, __m256 *acc, const weight_desc *w, gemv_block k,
                             int64_t n_full, const uint8_t *end, float *y, const unpacker *u,
                             int n_rows, int bits, int group) {
    __m512i sums[2][4];
    for (int64_t i = 0; i < n_full; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < n_rows; j++) {
            fetch_ahead(&k, w, j, bits, group);
        }
        dot_block(sums, &k, u, n_rows, bits, group, true);
        if (i > 0) {
            settle(acc, h, w, n_rows, bits, group);
        } else {
            settle_last(acc, h, w, n_rows, bits, group);
        }
        hold(h, sums, &k, n_rows);
        advance(&k, bits, group);
    }
    if (k.n_groups) {
        dot_rest(sums, k, end, u, n_rows, bits, group);
        if (n_full > 0) {
            settle(acc, h, w, n_rows, bits, group);
        } else {
            settle_last(acc, h, w, n_rows, bits, group);
        }
        hold(h, sums, &k, n_rows);
    }
    h->n_groups = k.n_groups ? k.n_groups : 16;
    h->y = y;
}

/* Rows from .. to-1, n_rows at once and a multiple of them, each by all rows of x. */
ALWAYS_INLINE void gemv_some(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                             float *y, int64_t y_stride, int n_rows, int bits, int group) {
    const unpacker u = unpacker_for(bits);
    const int64_t n_groups = w->n_in / group, row_bytes = w->n_in * bits / 8;
    const uint8_t *codes = w->data;
    held_block h = {.y = NULL};
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    gemv_block first = {.codes = codes + from * row_bytes,
                        .row_bytes = row_bytes,
                        .group_at = from * n_groups,
                        .n_groups = (int)(n_groups % 16),
                        .low = x->low,
                        .high = x->high,
                        .picks = x->picks,
                        .x_scales = x->scales,
                        .x_sums = x->sums};
    for (int64_t r = from; r < to; r += n_rows) {
        gemv_block k = first;
        for (int64_t t = 0; t < x->n_row; t++) {
            gemv_rows(&h, acc, w, k, n_groups / 16, codes + w->n_out * row_bytes,
                      y + t * y_stride + r - from, &u, n_rows, bits, group);
            k.low += x->code_stride;
            k.high += x->code_stride;
            k.picks += x->group_stride * Q8_PICKS;
            k.x_scales += x->group_stride;
            k.x_sums += x->group_stride;
        }
        first.codes += n_rows * row_bytes;
        first.group_at += n_rows * n_groups;
    }
    settle_last(acc, &h, w, n_rows, bits, group);
}

/* Two rows at once share the loads of x, which decides at 2 bits; memory prefers one after the
 * other. */
ALWAYS_INLINE void gemv_all(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                            float *y, int64_t y_stride, int bits, int group) {
    const int n_rows = bits == 2 ? 2 : 1;
    int64_t even = from + (to - from) / n_rows * n_rows;
    gemv_some(w, x, from, even, y, y_stride, n_rows, bits, group);
    if (even < to) {
        gemv_some(w, x, even, to, y + even - from, y_stride, 1, bits, group);
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
FOR_EACH_WIDTH(GEMV_OF_BITS)

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
