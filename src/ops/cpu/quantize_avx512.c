/* quantize_avx512.c - activations to 8 bits, in the orders that the AVX-512 kernels read. */
#include "ops/cpu/affine_avx512.h"
#include "ops/cpu/gemm_avx512.h"

#include <math.h>
#include <string.h>

/* Rounds one group; see ref_linear.c for what happens to groups that are not finite or tiny. */
ALWAYS_INLINE void quantize_group(int8_t *codes, float *scale, float *sum, const float *x, int n) {
    __m512i top = _mm512_setzero_si512(), magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int i = 0; i < n; i += 16) {
        top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    }
    int bits = _mm512_reduce_max_epi32(top);
    float max;
    memcpy(&max, &bits, sizeof max);
    bool usable = max >= 0x1p-100f && max < INFINITY;
    if (!usable) {
        memset(codes, 0, (size_t)n);
        *scale = *sum = max < 1 ? 0 : NAN;
        return;
    }
    __m512 inverse = _mm512_set1_ps(127.0f / max);
    __m512i total = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
        total = _mm512_add_epi32(total, q);
        _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm512_cvtsepi32_epi8(q));
    }
    *scale = max / 127.0f;
    *sum = *scale * (float)_mm512_reduce_add_epi32(total);
}

/* Two planes of units of `unit` codes, which go to them in turn. */
ALWAYS_INLINE void store_two_planes(int8_t *out, const __m512i *v, int unit) {
    uint8_t at[2][64];
    for (int i = 0; i < 128; i++) {
        int p = i / 64, j = i % 64;
        at[p][j] = (uint8_t)((j / unit * 2 + p) * unit + j % unit);
    }
    for (int i = 0; i < 4; i += 2) {
        for (int p = 0; p < 2; p++) {
            __m512i plane = _mm512_permutex2var_epi8(v[i], _mm512_loadu_si512(at[p]), v[i + 1]);
            _mm512_storeu_si512(out + 64 * (i + p), plane);
        }
    }
}

/* Puts Q8_PAD codes into the order of the planes of gemv_avx512.c. */
static void store_planes(int8_t *out, const int8_t *codes, int bits) {
    __m512i v[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_loadu_si512(codes + 64 * i);
    }
    if (bits == 8 || bits == 5 || bits == 6) {
        memcpy(out, codes, Q8_PAD);
    } else if (bits == 4) {
        store_two_planes(out, v, 1);
    } else if (bits == 3) {
        store_two_planes(out, v, 8);
    } else {
        uint8_t at[64];
        for (int i = 0; i < 64; i++) {
            at[i] = (uint8_t)(i % 16 * 4 + i / 16);
        }
        __m512i by_plane = _mm512_loadu_si512(at);
        for (int i = 0; i < 4; i++) { /* a quarter of each plane in each 128-bit lane */
            int8_t lanes[64];
            _mm512_storeu_si512(lanes, _mm512_permutexvar_epi8(by_plane, v[i]));
            for (int p = 0; p < 4; p++) {
                memcpy(out + 64 * p + 16 * i, lanes + 16 * p, 16);
            }
        }
    }
}

/* Puts Q8_PAD codes into the order of a panel's steps: of each 4 * planes codes, those of plane 0,
 * then of plane 1, ...; 4 bytes of it go to every width-th place of out. */
static void store_steps(uint32_t *out, const int8_t *codes, int planes, int width) {
    uint8_t at[16];
    for (int i = 0; i < 16; i++) {
        int block = 4 * planes, j = i % block;
        at[i] = (uint8_t)(i / block * block + j % 4 * planes + j / 4);
    }
    __m512i order = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)at));
    uint32_t steps[Q8_PAD / 4];
    for (int i = 0; i < 4; i++) {
        __m512i v = _mm512_loadu_si512(codes + 64 * i);
        _mm512_storeu_si512(steps + 16 * i, _mm512_shuffle_epi8(v, order));
    }
    for (int i = 0; i < Q8_PAD / 4; i++) {
        out[i * width] = steps[i];
    }
}

void kern_quantize_q8__avx512(const q8_rows *out, int64_t row, const float *x, int64_t n, int bits,
                              int group, q8_order order) {
    bool for_gemm = order == Q8_FOR_GEMM;
    int64_t tile = for_gemm ? row / GEMM_TOKENS * GEMM_TOKENS : row, column = row - tile;
    int64_t left = out->n_row - tile, n_groups = n / group;
    int width = for_gemm ? (int)(left < GEMM_TOKENS ? left : GEMM_TOKENS) : 1;
    int8_t *codes = out->codes + tile * out->code_stride;
    float *scales = out->scales + tile * out->group_stride + column;
    float *sums = out->sums + tile * out->group_stride + column;
    for (int64_t i = 0, g = 0; i < n; i += Q8_PAD) {
        int8_t natural[Q8_PAD] = {0};
        for (int j = 0; j < Q8_PAD && g < n_groups; j += group, g++) {
            quantize_group(natural + j, &scales[g * width], &sums[g * width], x + i + j, group);
        }
        if (for_gemm) {
            store_steps((uint32_t *)(void *)codes + i / 4 * width + column, natural,
                        planes_of(bits), width);
        } else {
            store_planes(codes + i, natural, bits);
        }
    }
}
