/* gemm_few_avx512.c - affine weights by a few rows of rounded activations, for batches.
 *
 * With few rows of x, unpacking a weight takes as long as multiplying it, so here both go on at
 * once: a tile (gemm_tile_avx512.h) multiplies 128 codes of its 32 rows, which fill 4 KiB of the
 * first-level cache, while it unpacks the next 128 beside them, a *unit* of 8 rows after every few
 * steps. Unpacking needs loads, shuffles and stores, multiplying other ports of the processor. */
#include "ops/cpu/gemm_tile_avx512.h"

#include <string.h>

#define BLOCK_STEPS 32 /* four codes of each row, each */
#define UNIT_ROWS 8

/* How codes get out of 32 bytes of a row: as planes, one shift and one mask away (2 and 4 bits; of
 * 8 bits there is one), or of 3, 5 and 6 bits 32 codes, by a byte permutation and a multishift. */
typedef struct unpacking {
    const uint8_t *const *starts;
    int unit_bytes; /* of a row, which a unit uses up */
    __m512i bytes, shifts, mask;
} unpacking;

static unpacking unpacking_of(int bits) {
    unpacking u = {.unit_bytes = 8 % bits ? 4 * bits : 32};
    uint8_t at[64];
    uint64_t shifts = 0;
    for (int i = 0; i < 64; i++) {
        at[i] = (uint8_t)(i / 32 * 32 + i % 32 / 8 * bits + i % 8);
    }
    for (int i = 0; i < 8; i++) {
        shifts |= (uint64_t)(i * bits) << 8 * i;
    }
    u.bytes = _mm512_loadu_si512(at);
    u.shifts = _mm512_set1_epi64((long long)shifts);
    u.mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    return u;
}

/* A unit on its way: m[j] has words j and j + 4 of eight rows, each word four codes, or a plane
 * more of as many for each shift. */
typedef struct unit {
    __m512i m[4];
    uint8_t *to;
} unit;

/* Takes up unit number i of the block whose first byte of each row is `from`: rows 8 j .. 8 j + 7,
 * a part of the block each time. codes: the block's, unpacked. */
ALWAYS_INLINE void begin_unit(unit *k, uint8_t *codes, const unpacking *u, int i, int64_t from,
                              int planes, bool odd) {
    const int parts = 4 / planes;
    const uint8_t *const *rows = u->starts + i / parts * UNIT_ROWS;
    int64_t at = from + i % parts * u->unit_bytes;
    __m512i m[4], a[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(rows[j] + at));
        __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(rows[j + 4] + at));
        m[j] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        if (odd) {
            m[j] = _mm512_permutexvar_epi8(u->bytes, m[j]);
            m[j] = _mm512_and_si512(_mm512_multishift_epi64_epi8(u->shifts, m[j]), u->mask);
        }
    }
    a[0] = _mm512_unpacklo_epi32(m[0], m[1]);
    a[1] = _mm512_unpackhi_epi32(m[0], m[1]);
    a[2] = _mm512_unpacklo_epi32(m[2], m[3]);
    a[3] = _mm512_unpackhi_epi32(m[2], m[3]);
    /* 128-bit lanes: word j of rows 0 to 3, word j + 4 of them, the same of rows 4 to 7 */
    k->m[0] = _mm512_unpacklo_epi64(a[0], a[2]);
    k->m[1] = _mm512_unpackhi_epi64(a[0], a[2]);
    k->m[2] = _mm512_unpacklo_epi64(a[1], a[3]);
    k->m[3] = _mm512_unpackhi_epi64(a[1], a[3]);
    k->to = codes + i % parts * 8 * planes * STEP_BYTES + i / parts * 4 * UNIT_ROWS;
}

/* Stores words j and j + 4 of the unit's rows. */
ALWAYS_INLINE void store_words(const unit *k, const unpacking *u, int j, int planes) {
    typedef uint16_t words __attribute__((vector_size(64)));
    __m512i both = _mm512_shuffle_i32x4(k->m[j], k->m[j], 0xd8);
#pragma GCC unroll 4
    for (int p = 0; p < planes; p++) {
        __m512i codes = both;
        if (planes > 1) {
            codes = _mm512_and_si512((__m512i)((words)codes >> (p * 8 / planes)), u->mask);
        }
        uint8_t *to = k->to + (j * planes + p) * STEP_BYTES;
        _mm256_store_si256((__m256i *)(void *)to, _mm512_castsi512_si256(codes));
        _mm256_store_si256((__m256i *)(void *)(to + 4 * planes * STEP_BYTES),
                           _mm512_extracti64x4_epi64(codes, 1));
    }
}

/* The rows' last two blocks, in memory that may be read beyond its end, for where a block is there
 * in part only, or a unit, which reads 32 bytes, could reach behind the weight. */
typedef struct row_ends {
    const uint8_t *starts[GEMM_ROWS];
    uint8_t bytes[GEMM_ROWS][2 * 128 + 32];
} row_ends;

static void copy_ends(row_ends *ends, const gemm_packed *w, int64_t from) {
    for (int i = 0; i < GEMM_ROWS; i++) {
        memcpy(ends->bytes[i], w->starts[i] + from, (size_t)(w->row_bytes - from));
        ends->starts[i] = ends->bytes[i];
    }
}

/* Asks for n lines of memory. As many belong to a unit's steps, of 3, 5 and 6 bits at most. */
ALWAYS_INLINE void fetch_lines(const uint8_t *at, int n) {
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        _mm_prefetch((const char *)at + 64 * i, _MM_HINT_T1);
    }
}

/* n_tok, planes and odd are constants where this is inlined. */
ALWAYS_INLINE void run_few(const gemm_tile *k, const gemm_packed *w, uint8_t *codes, int n_tok,
                           int planes, bool odd) {
    const int between = 2 * planes; /* steps from unit to unit */
    unpacking u = unpacking_of(w->bits);
    const int64_t block_bytes = 4 / planes * u.unit_bytes;
    lane_sums acc[8];
    row_ends ends;
    uint8_t *next = codes + BLOCK_STEPS * STEP_BYTES;
    const uint8_t *ahead = k->ahead ? k->ahead : codes; /* which are there */
    const bool apart = w->row_bytes % block_bytes != 0 || (odd && w->last);
    int64_t n_blocks = (w->row_bytes + block_bytes - 1) / block_bytes, n_inner = n_blocks, from = 0;
    if (apart) {
        n_inner = n_blocks > 2 ? n_blocks - 2 : 0;
        copy_ends(&ends, w, n_inner * block_bytes);
    }
    u.starts = n_inner > 0 ? w->starts : ends.starts;
    clear_lanes(k, acc, n_tok);
    for (int i = 0; i < BLOCK_STEPS / between; i++) {
        unit first;
        begin_unit(&first, codes, &u, i, 0, planes, odd);
        for (int j = 0; j < 4; j++) {
            store_words(&first, &u, j, planes);
        }
    }
    for (int64_t block = 0, g = 0; block < n_blocks; block++) {
        from += block_bytes;
        if (block + 1 == n_blocks) {
            from = 0; /* none is left: one again, to no effect */
        } else if (block + 1 == n_inner) {
            u.starts = ends.starts;
            from = 0;
        }
        for (int step = 0, i_unit = 0; step < BLOCK_STEPS && g < k->n_groups; g++) {
            int64_t at = g * k->steps * n_tok;
            tile_dots dot;
            fetch_scales(k, g);
            dot_high(dot, codes + step * STEP_BYTES, k->high + at, k->picks + g * Q8_PICKS * n_tok,
                     k, n_tok, false);
            for (int s = 0; s < k->steps; s += between) {
                unit beside;
                fetch_lines(ahead, odd ? 3 : 4);
                ahead += between * k->ahead_bytes;
                begin_unit(&beside, next, &u, i_unit++, from, planes, odd);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    const int at_step = j * between / 4, n = (j + 1) * between / 4 - at_step;
                    dot_steps(dot, codes + (step + at_step) * STEP_BYTES,
                              k->low + at + (s + at_step) * n_tok, n, n_tok, false);
                    store_words(&beside, &u, j, planes);
                }
                step += between;
            }
            add_group(k, acc, dot, g, n_tok);
        }
        uint8_t *done = codes;
        codes = next;
        next = done;
    }
    store_tile(k, acc, n_tok);
}

/* ---- Each width -------------------------------------------------------------------------------
 */

typedef void (*few_fn)(const gemm_tile *k, const gemm_packed *w, uint8_t *codes);

#define FEW(n, name, planes, odd)                                                                  \
    static void kern_few_q8_##name##_32x##n##__avx512(const gemm_tile *k, const gemm_packed *w,    \
                                                      uint8_t *codes) {                            \
        run_few(k, w, codes, n, planes, odd);                                                      \
    }
#define FEW_OF(n)                                                                                  \
    FEW(n, q2, 4, false) FEW(n, q4, 2, false) FEW(n, q8, 1, false) FEW(n, odd, 1, true)
FEW_OF(1)
FEW_OF(2)
FEW_OF(3)
FEW_OF(4)
FEW_OF(5)
FEW_OF(6)
FEW_OF(7)
FEW_OF(8)
FEW_OF(9)
FEW_OF(10)
FEW_OF(11)
FEW_OF(12)

#define NAMES(n)                                                                                   \
    {                                                                                              \
        kern_few_q8_odd_32x##n##__avx512, kern_few_q8_q2_32x##n##__avx512,                         \
            kern_few_q8_q4_32x##n##__avx512, kern_few_q8_q8_32x##n##__avx512                       \
    }

static const few_fn few_table[GEMM_TOKENS][4] = {NAMES(1), NAMES(2),  NAMES(3),  NAMES(4),
                                                 NAMES(5), NAMES(6),  NAMES(7),  NAMES(8),
                                                 NAMES(9), NAMES(10), NAMES(11), NAMES(12)};

void gemm_few__avx512(const gemm_tile *k, int n_tok, const gemm_packed *w, uint8_t *codes) {
    static const uint8_t forms[9] = {[2] = 1, [4] = 2, [8] = 3};
    few_table[n_tok - 1][forms[w->bits]](k, w, codes);
}
