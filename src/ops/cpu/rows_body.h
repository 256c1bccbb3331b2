/* rows_body.h - operators on single rows of f32, written once over the vectors of vec_<isa>.h,
 * which is included before. Part of floats_<isa>.c. */

#include "ops/cpu/cpu_kernels.h"

#include <math.h>
#include <string.h>

/* exp to about 1 ulp: x = n ln2 + r, exp(r) = 1 + r + r^2 P(r) on |r| <= ln2 / 2, where P is the
 * Chebyshev fit of degree 4 (relative error 8e-9). Beyond the range of f32 the result is 0 or
 * infinity; a NaN stays one. */
static inline vf v_exp(vf x) {
    x = v_min(v_set(89), v_max(v_set(-105), x));
    vf n = v_round(x * v_set(0x1.715476p+0f));
    vf r = v_fma(n, v_set(-0x1.62e4p-1f), x); /* ln2 in two parts, the first of 15 bits */
    r = v_fma(n, v_set(-0x1.7f7d1cp-20f), r);
    vf p = v_fma(v_set(0x1.6d113cp-10f), r, v_set(0x1.120ba2p-7f));
    p = v_fma(p, r, v_set(0x1.55551ap-5f));
    p = v_fma(p, r, v_set(0x1.5554dcp-3f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r * r, r) + v_set(1);
    return v_scale2(p, n);
}

/* Vector i * VEC_N of an array of this type. type is a constant where this is inlined. */
static inline __attribute__((always_inline)) vf v_load_as(const void *p, dtype type, int64_t at) {
    const uint8_t *bytes = p;
    if (type == DT_F16) {
        return v_f16(bytes + 2 * at);
    }
    return type == DT_BF16 ? v_bf16(bytes + 2 * at)
                           : v_load((const float *)(const void *)(bytes + 4 * at));
}

static inline __attribute__((always_inline)) vf v_load_as_n(const void *p, dtype type, int64_t at,
                                                            int n) {
    const uint8_t *bytes = p;
    if (type == DT_F16) {
        return v_f16_n(bytes + 2 * at, n);
    }
    return type == DT_BF16 ? v_bf16_n(bytes + 2 * at, n)
                           : v_load_n((const float *)(const void *)(bytes + 4 * at), n);
}

/* Sum of (x - mean)^2. */
static float square_sum(const float *x, int64_t n, float mean) {
    vf sum = v_set(0), sum2 = v_set(0), middle = v_set(mean);
    int64_t whole = n / VEC_N * VEC_N, i = 0;
    for (; i + 2 * VEC_N <= whole; i += 2 * VEC_N) {
        vf a = v_load(x + i) - middle, b = v_load(x + i + VEC_N) - middle;
        sum = v_fma(a, a, sum);
        sum2 = v_fma(b, b, sum2);
    }
    for (; i < whole; i += VEC_N) {
        vf a = v_load(x + i) - middle;
        sum = v_fma(a, a, sum);
    }
    if (n > whole) {
        float last[VEC_N] = {0};
        for (int64_t k = whole; k < n; k++) {
            last[k - whole] = x[k] - mean;
        }
        vf a = v_load(last);
        sum2 = v_fma(a, a, sum2);
    }
    return v_sum(sum + sum2);
}

static float plain_sum(const float *x, int64_t n) {
    vf sum = v_set(0);
    int64_t i = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        sum = sum + v_load(x + i);
    }
    if (i < n) {
        sum = sum + v_load_n(x + i, (int)(n - i));
    }
    return v_sum(sum);
}

static inline __attribute__((always_inline)) vf
norm_vec(const norm_args *a, vf x, int64_t i, int tail, vf factor, dtype type, dtype bias_type) {
    vf y = x * factor;
    if (a->w) {
        vf w = tail ? v_load_as_n(a->w, type, i, tail) : v_load_as(a->w, type, i);
        y = y * (w + v_set(a->offset));
    }
    if (a->bias) {
        vf b = tail ? v_load_as_n(a->bias, bias_type, i, tail) : v_load_as(a->bias, bias_type, i);
        y = y + b;
    }
    return y;
}

static void kern_norm(float *y, const float *x, const norm_args *a) {
    int64_t n = a->n, whole = n / VEC_N * VEC_N, i = 0;
    float mean = a->kind == NORM_LAYER ? plain_sum(x, n) / (float)n : 0, factor = 1;
    if (a->kind != NORM_NONE) {
        float squares = square_sum(x, n, mean);
        factor = 1.0f / sqrtf((a->kind == NORM_L2 ? squares : squares / (float)n) + a->eps);
    }
    vf middle = v_set(mean), by = v_set(factor);
    for (; i < whole; i += VEC_N) {
        v_store(y + i, norm_vec(a, v_load(x + i) - middle, i, 0, by, a->w_type, a->bias_type));
    }
    if (i < n) {
        int tail = (int)(n - i);
        vf last = v_load_n(x + i, tail) - middle;
        v_store_n(y + i, norm_vec(a, last, i, tail, by, a->w_type, a->bias_type), tail);
    }
}

static void kern_rope(float *x, const float *cosines, const float *sines, int n_rot,
                      bool interleaved) {
    int half = n_rot / 2, i = 0;
    for (; !interleaved && i + VEC_N <= half; i += VEC_N) {
        vf c = v_load(cosines + i), s = v_load(sines + i);
        vf a = v_load(x + i), b = v_load(x + half + i);
        v_store(x + i, v_fma(a, c, v_set(0) - b * s));
        v_store(x + half + i, v_fma(b, c, a * s));
    }
    for (; i < half; i++) {
        float *first = interleaved ? &x[2 * i] : &x[i];
        float *second = interleaved ? &x[2 * i + 1] : &x[half + i];
        float a = *first, b = *second;
        *first = a * cosines[i] - b * sines[i];
        *second = b * cosines[i] + a * sines[i];
    }
}

static inline vf v_silu(vf x) {
    return x / (v_set(1) + v_exp(v_set(0) - x));
}

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline vf v_gelu_tanh(vf x) {
    vf cubic = v_fma(x * x * x, v_set(0.044715f), x);
    return x / (v_set(1) + v_exp(cubic * v_set(-1.5957691216057308f)));
}

static inline vf v_gelu(vf x) {
    float a[VEC_N];
    v_store(a, x);
    for (int i = 0; i < VEC_N; i++) {
        a[i] = 0.5f * a[i] * erfcf(-0.70710678f * a[i]);
    }
    return v_load(a);
}

static inline vf v_sigmoid(vf x) {
    return v_set(1) / (v_set(1) + v_exp(v_set(0) - x));
}

static inline vf v_tanh(vf x) {
    return v_set(1) - v_set(2) / (v_set(1) + v_exp(x + x));
}

/* For steep slopes near 0 the difference of exponentials would lose all digits. */
static inline vf v_expm1(vf x) {
    vf small = v_fma(v_fma(v_fma(v_set(1 / 24.0f), x, v_set(1 / 6.0f)), x, v_set(0.5f)), x * x, x);
    return v_if_below(v_abs(x), v_set(0.03125f), small, v_exp(x) - v_set(1));
}

static inline vf act_linear(vf x, vf a, vf b) {
    (void)b;
    return a * x;
}
static inline vf act_silu(vf x, vf a, vf b) {
    (void)a, (void)b;
    return v_silu(x);
}
static inline vf act_gelu(vf x, vf a, vf b) {
    (void)a, (void)b;
    return v_gelu(x);
}
static inline vf act_gelu_tanh(vf x, vf a, vf b) {
    (void)a, (void)b;
    return v_gelu_tanh(x);
}
static inline vf act_relu(vf x, vf a, vf b) {
    (void)a, (void)b;
    return v_max(v_set(0), x);
}
static inline vf act_relu2(vf x, vf a, vf b) {
    x = act_relu(x, a, b);
    return x * x;
}
static inline vf act_sigmoid(vf x, vf a, vf b) {
    (void)a, (void)b;
    return v_sigmoid(x);
}
static inline vf act_softcap(vf x, vf a, vf b) {
    (void)b;
    return a * v_tanh(x / a);
}

static inline vf act_clamp(vf x, vf a, vf b) {
    (void)b;
    return v_min(a, v_max(v_set(0) - a, x));
}
static inline vf act_xielu(vf x, vf a, vf b) {
    vf above = v_fma(a * x, x, v_set(0.5f) * x);
    vf below = v_fma(b, v_expm1(v_min(x, v_set(-1e-6f))) - x, v_set(0.5f) * x);
    return v_if_below(v_set(0), x, above, below);
}

static inline __attribute__((always_inline)) void gated_by(float *y, const float *gate,
                                                           const float *up, int64_t n,
                                                           const act_desc *d,
                                                           vf (*act)(vf x, vf a, vf b)) {
    vf a = v_set(d->a), b = v_set(d->b);
    int64_t i = 0;
    for (; up && i + VEC_N <= n; i += VEC_N) {
        v_store(y + i, act(v_load(gate + i), a, b) * v_load(up + i));
    }
    for (; i + VEC_N <= n; i += VEC_N) {
        v_store(y + i, act(v_load(gate + i), a, b));
    }
    if (i < n) {
        int tail = (int)(n - i);
        vf last = act(v_load_n(gate + i, tail), a, b);
        if (up) {
            last = last * v_load_n(up + i, tail);
        }
        v_store_n(y + i, last, tail);
    }
}

static void kern_gated(float *y, const float *gate, const float *up, int64_t n, const act_desc *d) {
    switch (d->kind) {
    case ACT_LINEAR:
        gated_by(y, gate, up, n, d, act_linear);
        break;
    case ACT_SILU:
        gated_by(y, gate, up, n, d, act_silu);
        break;
    case ACT_GELU:
        gated_by(y, gate, up, n, d, act_gelu);
        break;
    case ACT_GELU_TANH:
        gated_by(y, gate, up, n, d, act_gelu_tanh);
        break;
    case ACT_RELU:
        gated_by(y, gate, up, n, d, act_relu);
        break;
    case ACT_RELU2:
        gated_by(y, gate, up, n, d, act_relu2);
        break;
    case ACT_SIGMOID:
        gated_by(y, gate, up, n, d, act_sigmoid);
        break;
    case ACT_SOFTCAP:
        gated_by(y, gate, up, n, d, act_softcap);
        break;
    case ACT_CLAMP:
        gated_by(y, gate, up, n, d, act_clamp);
        break;
    case ACT_XIELU:
        gated_by(y, gate, up, n, d, act_xielu);
        break;
    }
}

static inline vf v_gated_clamped(vf gate, vf up, vf alpha, vf limit) {
    vf g = v_min(limit, gate), u = v_min(limit, v_max(v_set(0) - limit, up));
    return (u + v_set(1)) * g / (v_set(1) + v_exp(v_set(0) - alpha * g));
}

static void kern_gated_clamped(float *y, const float *gate, const float *up, int64_t n, float alpha,
                               float limit) {
    vf a = v_set(alpha), top = v_set(limit);
    int64_t i = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        v_store(y + i, v_gated_clamped(v_load(gate + i), v_load(up + i), a, top));
    }
    if (i < n) {
        int tail = (int)(n - i);
        vf last = v_gated_clamped(v_load_n(gate + i, tail), v_load_n(up + i, tail), a, top);
        v_store_n(y + i, last, tail);
    }
}

static void kern_add_scaled(float *y, const float *x, int64_t n, float scale) {
    vf s = v_set(scale);
    int64_t i = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        v_store(y + i, v_fma(v_load(x + i), s, v_load(y + i)));
    }
    if (i < n) {
        int tail = (int)(n - i);
        v_store_n(y + i, v_fma(v_load_n(x + i, tail), s, v_load_n(y + i, tail)), tail);
    }
}

static void kern_scale(float *y, const float *x, int64_t n, float scale) {
    vf s = v_set(scale);
    int64_t i = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        v_store(y + i, v_load(x + i) * s);
    }
    if (i < n) {
        v_store_n(y + i, v_load_n(x + i, (int)(n - i)) * s, (int)(n - i));
    }
}

static void kern_to_f16(uint16_t *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        v_put_f16(y + i, v_load(x + i));
    }
    if (i < n) {
        uint16_t last[VEC_N];
        v_put_f16(last, v_load_n(x + i, (int)(n - i)));
        memcpy(y + i, last, (size_t)(n - i) * sizeof *y);
    }
}

static void kern_from_f16(float *y, const uint16_t *x, int64_t n) {
    int64_t i = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        v_store(y + i, v_f16(x + i));
    }
    if (i < n) {
        v_store_n(y + i, v_f16_n(x + i, (int)(n - i)), (int)(n - i));
    }
}

static void unpack_row4(float *restrict y, const uint8_t *restrict codes, int n) {
    for (int i = 0; i < n / 2; i++) {
        y[i] = (float)(codes[i] & 15);
        y[n / 2 + i] = (float)(codes[i] >> 4);
    }
}

static void unpack_keys6(float *restrict y, const uint8_t *restrict codes) {
    enum { HALF = OPS_PAGE_TOKENS / 2, QUARTER = OPS_PAGE_TOKENS / 4 };
    const uint8_t *low = codes + HALF;
    for (int part = 0; part < 4; part++) {
        const uint8_t *high = codes + part % 2 * QUARTER;
        for (int i = 0; i < QUARTER; i++) {
            int code = (high[i] >> part / 2 * 4 & 15) << 2 | (low[i] >> part * 2 & 3);
            y[part * QUARTER + i] = (float)code;
        }
    }
}

static void unpack_bytes(float *restrict y, const uint8_t *restrict codes, int n) {
    for (int i = 0; i < n; i++) {
        y[i] = (float)(int8_t)codes[i];
    }
}

static void kern_unpack_kv(float *k, float *v, const kv_page *page, int k_dim, int v_dim) {
    const uint8_t *keys = page->k, *values = page->v;
    if (page->coding == KV_AS_S8) {
        unpack_bytes(k, keys, k_dim * OPS_PAGE_TOKENS);
        unpack_bytes(v, values, v_dim * OPS_PAGE_TOKENS);
        return;
    }
    for (int d = 0; d < k_dim; d++) {
        float *row = k + d * OPS_PAGE_TOKENS;
        if (page->coding == KV_AS_U6) {
            unpack_keys6(row, keys + d * (OPS_PAGE_TOKENS * 6 / 8));
        } else {
            unpack_row4(row, keys + d * (OPS_PAGE_TOKENS / 2), OPS_PAGE_TOKENS);
        }
    }
    for (int t = 0; t < OPS_PAGE_TOKENS; t++) {
        unpack_row4(v + t * v_dim, values + t * (v_dim / 2), v_dim);
    }
}
