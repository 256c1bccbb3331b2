/* gguf_encode_k.c - rows with codes to GGUF's blocks of 256 ("K"); the layouts are told in
 * gguf_blocks.c.
 *
 * Such a block has one or two f16 numbers, and for each group of 16 or 32 of its weights small
 * integers that multiply them; so scales and biases of a row are rounded, and codes may move:
 *     Q2_K, Q4_K, Q5_K  w = d s q - dmin m    s, m unsigned of 4 bits (Q2_K) or 6
 *     Q3_K, Q6_K        w = d s q             s signed of 6 and 8 bits, q too
 * d and dmin are searched among those that bring the largest scale to one of the upper third of
 * levels, by the squared error that rounding all scales costs; then s and m of each group one up or
 * down with codes rounded anew, and d and dmin by least squares, as long as the error of the
 * numbers themselves falls. */
#include "format/gguf_encode.h"

#include "base/half.h"

#include <assert.h>
#include <float.h>
#include <math.h>

#define BLOCK 256
#define GROUPS_MAX 16
#define ROUNDS 3 /* of refining */
#define LANES 8
#define ROUNDER 12582912.0f /* added and taken away, it rounds numbers below 2^22 to integers */

/* How a type divides a block. */
typedef struct k_shape {
    int group;         /* weights with one s */
    int q_low, q_high; /* codes */
    int s_low, s_high; /* scales; with minima, these too */
    bool has_min;
} k_shape;

static const k_shape shape_q2 = {16, 0, 3, 0, 15, true};
static const k_shape shape_q3 = {16, -4, 3, -32, 31, false};
static const k_shape shape_q4 = {32, 0, 15, 0, 63, true};
static const k_shape shape_q5 = {32, 0, 31, 0, 63, true};
static const k_shape shape_q6 = {16, -32, 31, -128, 127, false};

/* A block in its parts. */
typedef struct k_block {
    float d, dmin; /* numbers of f16 */
    int s[GROUPS_MAX], m[GROUPS_MAX];
    int8_t q[BLOCK];
    double error[GROUPS_MAX]; /* squared, of each group */
} k_block;

/* What the groups of a block should have. */
typedef struct k_target {
    float scale[GROUPS_MAX], min[GROUPS_MAX]; /* w = scale q - min */
    float weight[GROUPS_MAX];                 /* sums of q squared */
} k_target;

static float f16_of(float x) {
    return f16_to_f32(f32_to_f16(x));
}

static float clamped(float x, int low, int high) {
    return !(x > (float)low) ? (float)low : x > (float)high ? (float)high : x; /* NaN: low */
}

/* ---- One group ---- */

/* Rounds a group's numbers to codes on w = step q - min; returns the squared error. */
static double round_codes(int8_t *restrict q, const float *restrict x, const k_shape *k, float step,
                          float min) {
    float sums[LANES] = {0}, inverse = step != 0 ? 1 / step : 0;
    inverse = isfinite(inverse) ? inverse : 0;
    for (int first = 0; first < k->group; first += LANES) {
        for (int i = 0; i < LANES; i++) {
            float v = x[first + i], code = clamped((v + min) * inverse, k->q_low, k->q_high);
            code = code + ROUNDER - ROUNDER;
            v -= step * code - min;
            q[first + i] = (int8_t)code;
            sums[i] += v * v;
        }
    }
    double error = 0;
    for (int i = 0; i < LANES; i++) {
        error += (double)sums[i];
    }
    return error;
}

static double round_group(int8_t *q, const float *x, const k_shape *k, const k_block *b, int s,
                          int m) {
    return round_codes(q, x, k, b->d * (float)s, b->dmin * (float)m);
}

/* Takes a group's s and m, and codes for them, if they are better than what is there. */
static void try_group(k_block *b, const float *x, const k_shape *k, int g, int s, int m) {
    int8_t q[32];
    if (s < k->s_low || s > k->s_high || m < 0 || m > k->s_high) {
        return;
    }
    double error = round_group(q, x + g * k->group, k, b, s, m);
    if (error < b->error[g]) {
        memcpy(b->q + g * k->group, q, (size_t)k->group);
        b->error[g] = error;
        b->s[g] = s;
        b->m[g] = m;
    }
}

/* ---- d and dmin ---- */

/* The number d of f16 whose multiples by integers from low to high come nearest to the n values,
 * each with its weight; infinite where f16 ends before that. */
static float best_unit(const float *values, const float *weights, int n, int low, int high) {
    float largest = 0, best = 0;
    double least = DBL_MAX;
    for (int i = 0; i < n; i++) {
        largest = fabsf(values[i]) > fabsf(largest) ? values[i] : largest;
    }
    for (int level = high; largest != 0 && level > high * 2 / 3; level--) {
        float d = f16_of(largest / (float)level);
        double cost = 0;
        if (level == high && !isfinite(d)) {
            return d;
        }
        for (int i = 0; i < n && d != 0; i++) {
            float off = values[i] - d * clamped(nearbyintf(values[i] / d), low, high);
            cost += (double)(weights[i] * off * off);
        }
        if (d != 0 && isfinite(d) && cost < least) {
            least = cost;
            best = d;
        }
    }
    return best;
}

/* d and dmin of least squared error for the codes, s and m that there are. */
static void refit_units(float *d, float *dmin, const k_block *b, const float *x, const k_shape *k) {
    double aa = 0, ac = 0, cc = 0, ax = 0, cx = 0;
    for (int i = 0; i < BLOCK; i++) {
        double a = b->s[i / k->group] * b->q[i], c = -b->m[i / k->group], v = (double)x[i];
        aa += a * a;
        ac += a * c;
        cc += c * c;
        ax += a * v;
        cx += c * v;
    }
    double det = aa * cc - ac * ac;
    if (k->has_min && det > 1e-9 * aa * cc) {
        *d = f16_of((float)((ax * cc - cx * ac) / det));
        *dmin = f16_of((float)((cx * aa - ax * ac) / det));
    } else if (aa > 0) {
        *d = f16_of((float)((ax + *dmin * ac) / aa));
    }
}

static double total_error(const k_block *b, int n) {
    double sum = 0;
    for (int g = 0; g < n; g++) {
        sum += b->error[g];
    }
    return sum;
}

/* Moves s and m of single groups, then d and dmin, while that helps. */
static void refine(k_block *b, const float *x, const k_shape *k) {
    int n = BLOCK / k->group;
    for (int round = 0; round < ROUNDS; round++) {
        for (int g = 0; g < n; g++) {
            int s = b->s[g], m = b->m[g];
            for (int i = 0; i < (k->has_min ? 9 : 3); i++) {
                try_group(b, x, k, g, s + i % 3 - 1, k->has_min ? m + i / 3 - 1 : 0);
            }
        }
        k_block other = *b;
        refit_units(&other.d, &other.dmin, b, x, k);
        if (!isfinite(other.d) || !isfinite(other.dmin)) {
            return;
        }
        for (int g = 0; g < n; g++) {
            other.error[g] = round_group(other.q + g * k->group, x + g * k->group, k, &other,
                                         other.s[g], other.m[g]);
        }
        if (total_error(&other, n) >= total_error(b, n)) {
            return;
        }
        *b = other;
    }
}

/* ---- What a group should have ---- */

/* The grid of the row's own codes, from its low end. Where that end is above 0 though most are
 * below, the numbers from 0 on. */
static void own_grids(k_target *t, const gguf_row *row, int64_t first, const k_shape *k) {
    for (int g = 0; g < BLOCK / k->group; g++) {
        int64_t at = first + g * k->group, source = at / row->group;
        float scale = row->scales[source], low = row->biases[source], sum = 0;
        int last = (1 << row->bits) - 1;
        bool turned = scale < 0;
        for (int i = 0; i < k->group; i++) {
            float q = (float)(turned ? last - row->codes[at + i] : row->codes[at + i]);
            sum += q * q;
        }
        t->scale[g] = fabsf(scale);
        t->min[g] = -(turned ? low + scale * (float)last : low);
        t->weight[g] = sum;
    }
}

/* The minima's sign is that of dmin, one for the block. */
static void one_sign(k_target *t, const float *x, const k_shape *k) {
    int n = BLOCK / k->group;
    float sum = 0;
    for (int g = 0; g < n; g++) {
        sum += t->min[g];
    }
    for (int g = 0; g < n; g++) {
        if (t->min[g] != 0 && (t->min[g] > 0) != (sum > 0)) {
            float far = 0;
            for (int i = 0; i < k->group; i++) {
                float v = x[g * k->group + i];
                far = fabsf(v) > fabsf(far) ? v : far;
            }
            t->min[g] = 0;
            t->scale[g] = far > 0 ? far / (float)k->q_high : 0;
        }
    }
}

/* A step for codes around 0, tried from the largest number and from the row's own scale. */
static void try_step(float *best, double *least, const float *x, const k_shape *k, float step) {
    int8_t q[32];
    (void)round_codes(q, x, k, step, 0);
    double qx = 0, qq = 0;
    for (int i = 0; i < k->group; i++) {
        qx += (double)(x[i] * (float)q[i]);
        qq += (double)(q[i] * q[i]);
    }
    float fitted = qq > 0 ? (float)(qx / qq) : 0;
    for (int i = 0; i < 2; i++) {
        float candidate = i ? fitted : step;
        double error = round_codes(q, x, k, candidate, 0);
        if (isfinite(candidate) && error < *least) {
            *least = error;
            *best = candidate;
        }
    }
}

static void signed_steps(k_target *t, const float *x, const gguf_row *row, int64_t first,
                         const k_shape *k) {
    for (int g = 0; g < BLOCK / k->group; g++, x += k->group) {
        float far = 0, best = 0, own = row->scales[(first + g * k->group) / row->group];
        double least = DBL_MAX;
        int8_t q[32];
        for (int i = 0; i < k->group; i++) {
            far = fabsf(x[i]) > fabsf(far) ? x[i] : far;
        }
        for (int i = 0; i < 12 && far != 0; i++) { /* the far end at the last code or beyond it */
            float end = (float)k->q_low * (1.2f - 0.04f * (float)i);
            try_step(&best, &least, x, k, far / end);
        }
        try_step(&best, &least, x, k, own);
        try_step(&best, &least, x, k, -own);
        t->scale[g] = best;
        t->min[g] = t->weight[g] = 0;
        (void)round_codes(q, x, k, best, 0);
        for (int i = 0; i < k->group; i++) {
            t->weight[g] += (float)(q[i] * q[i]);
        }
    }
}

static void fit_block(k_block *b, const gguf_row *row, int64_t first, const k_shape *k) {
    const float *x = row->x + first;
    int n = BLOCK / k->group;
    k_target t;
    float ones[GROUPS_MAX];
    *b = (k_block){0};
    if (k->has_min) {
        own_grids(&t, row, first, k);
        one_sign(&t, x, k);
        for (int g = 0; g < n; g++) {
            ones[g] = 1;
        }
        b->dmin = best_unit(t.min, ones, n, 0, k->s_high);
    } else {
        signed_steps(&t, x, row, first, k);
    }
    b->d = best_unit(t.scale, t.weight, n, k->s_low, k->s_high);
    for (int g = 0; g < n; g++) {
        float s = b->d != 0 ? nearbyintf(t.scale[g] / b->d) : 0;
        float m = b->dmin != 0 ? nearbyintf(t.min[g] / b->dmin) : 0;
        b->error[g] = DBL_MAX;
        try_group(b, x, k, g, (int)clamped(s, k->s_low, k->s_high), (int)clamped(m, 0, k->s_high));
    }
    refine(b, x, k);
}

/* ---- Writing ---- */

static void store_f16(uint8_t *at, float x) {
    uint16_t h = f32_to_f16(x);
    memcpy(at, &h, sizeof h);
}

/* The low two bits of codes, as two_bits of gguf_blocks.c finds them. */
static void put_two_bits(uint8_t *out, int e, int code) {
    out[e / 128 * 32 + e % 32] |= (uint8_t)((code & 3) << (e / 32 % 4 * 2));
}

static void put_q2(uint8_t *restrict out, const k_block *b) {
    for (int g = 0; g < 16; g++) {
        out[g] = (uint8_t)(b->s[g] | b->m[g] << 4);
    }
    for (int e = 0; e < BLOCK; e++) {
        put_two_bits(out + 16, e, b->q[e]);
    }
    store_f16(out + 80, b->d);
    store_f16(out + 82, b->dmin);
}

static void put_q3(uint8_t *restrict out, const k_block *b) {
    for (int e = 0; e < BLOCK; e++) {
        int code = b->q[e] + 4;
        out[e % 32] |= (uint8_t)(code >> 2 << (e / 32));
        put_two_bits(out + 32, e, code);
    }
    for (int g = 0; g < 16; g++) {
        int s = b->s[g] + 32;
        out[96 + g % 8] |= (uint8_t)((s & 15) << (g / 8 * 4));
        out[104 + g % 4] |= (uint8_t)(s >> 4 << (g / 4 * 2));
    }
    store_f16(out + 108, b->d);
}

static void put_q45(uint8_t *restrict out, const k_block *b, bool five) {
    uint8_t *packed = out + 4, *high = out + 16, *codes = out + (five ? 48 : 16);
    store_f16(out, b->d);
    store_f16(out + 2, b->dmin);
    for (int g = 0; g < 8; g++) {
        if (g < 4) {
            packed[g] |= (uint8_t)b->s[g];
            packed[g + 4] |= (uint8_t)b->m[g];
        } else {
            packed[g + 4] |= (uint8_t)((b->s[g] & 15) | (b->m[g] & 15) << 4);
            packed[g - 4] |= (uint8_t)(b->s[g] >> 4 << 6);
            packed[g] |= (uint8_t)(b->m[g] >> 4 << 6);
        }
        for (int i = 0; i < 32; i++) {
            int q = b->q[g * 32 + i];
            codes[g / 2 * 32 + i] |= (uint8_t)((q & 15) << (g % 2 * 4));
            if (five) {
                high[i] |= (uint8_t)(q >> 4 << g);
            }
        }
    }
}

static void put_q4(uint8_t *restrict out, const k_block *b) {
    put_q45(out, b, false);
}

static void put_q5(uint8_t *restrict out, const k_block *b) {
    put_q45(out, b, true);
}

static void put_q6(uint8_t *restrict out, const k_block *b) {
    for (int e = 0; e < BLOCK; e++) {
        int code = b->q[e] + 32;
        out[e / 128 * 64 + e % 64] |= (uint8_t)((code & 15) << (e / 64 % 2 * 4));
        put_two_bits(out + 128, e, code >> 4);
    }
    for (int g = 0; g < 16; g++) {
        out[192 + g] = (uint8_t)b->s[g];
    }
    store_f16(out + 208, b->d);
}

typedef struct k_writer {
    const k_shape *shape;
    void (*put)(uint8_t *restrict out, const k_block *b); /* into zeros */
} k_writer;

static const k_writer *writer_of(dtype type) {
    static const k_writer writers[DT_COUNT] = {[DT_Q2_K] = {&shape_q2, put_q2},
                                               [DT_Q3_K] = {&shape_q3, put_q3},
                                               [DT_Q4_K] = {&shape_q4, put_q4},
                                               [DT_Q5_K] = {&shape_q5, put_q5},
                                               [DT_Q6_K] = {&shape_q6, put_q6}};
    return &writers[type];
}

void gguf_encode_k(uint8_t *restrict out, dtype type, const gguf_row *row) {
    const k_writer *w = writer_of(type);
    size_t n_bytes = (size_t)dtype_table[type].block_bytes;
    assert(w->put && row->codes && row->n % BLOCK == 0);
    for (int64_t first = 0; first < row->n; first += BLOCK, out += n_bytes) {
        k_block b;
        fit_block(&b, row, first, w->shape);
        memset(out, 0, n_bytes);
        w->put(out, &b);
    }
}
