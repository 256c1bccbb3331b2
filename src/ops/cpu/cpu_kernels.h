/* cpu_kernels.h - what an instruction set offers to the cpu backend: two tables of kernels.
 *
 * The tables are constant; kernel_table.c lists them and is the only place that chooses. A kernel
 * works on plain memory and runs in whatever thread calls it; splitting work is the callers' part.
 *
 * All kernels of one instruction set keep one order of f32 additions for each result, whatever the
 * number of rows they are given, so that a token's results never depend on its batch. */
#ifndef JANG_OPS_CPU_KERNELS_H
#define JANG_OPS_CPU_KERNELS_H

#include "base/cpu.h"
#include "ops/ops.h"

/* ---- Affine products: 8-bit activations -------------------------------------------------------
 */

/* The two orders in which the codes of a row of activations are kept. */
typedef enum q8_order {
    Q8_FOR_GEMV, /* as the kernel's unpacking of packed weights delivers them */
    Q8_FOR_GEMM  /* as the panels of unpacked weights are laid out */
} q8_order;

/* Activations rounded to integers low + 256 * high (ops/rounding.h), with scale and scale * (sum of
 * integers) of each group. picks say where high is not zero; what they hold is the kernels' affair.
 */
typedef struct q8_rows {
    int8_t *low, *high;   /* [n_row][code_stride] */
    float *scales, *sums; /* [n_row][group_stride] */
    uint8_t *picks;       /* [n_row][group_stride][Q8_PICKS] */
    int64_t code_stride, group_stride;
    int64_t n_row;
} q8_rows;

#define Q8_PICKS 8

/* n_row rows of q from row `first` on. */
static inline q8_rows q8_part(const q8_rows *q, int64_t first, int64_t n_row) {
    q8_rows part = *q;
    part.low += first * q->code_stride;
    part.high += first * q->code_stride;
    part.scales += first * q->group_stride;
    part.sums += first * q->group_stride;
    part.picks += first * q->group_stride * Q8_PICKS;
    part.n_row = n_row;
    return part;
}

/* The rows that a thread multiplies after those of a call, from `from` on: w NULL says none. */
typedef struct rows_ahead {
    const weight_desc *w;
    int64_t from;
} rows_ahead;

typedef struct affine_kernels {
    /* Widths with equal numbers here share the order of activations. */
    uint8_t orders[9];
    /* Rounds x [n] into row `row` of out, for weights of these bits and this group size, with this
     * limit of scales. Writes what the order asks for, up to the padding of n to Q8_PAD. */
    void (*quantize)(const q8_rows *out, int64_t row, const float *x, int64_t n, int bits,
                     int group, float limit, q8_order order);
    /* y[t * y_stride + r - from] = row r of w times row t of x, for rows from .. to-1 and all rows
     * of x, for which it is the better choice up to gemv_max rows (0: never; then it may be NULL).
     * x in Q8_FOR_GEMV order. */
    void (*gemv)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,
                 int64_t y_stride);
    int gemv_max;
    /* The same for any number of rows of x in Q8_FOR_GEMM order. It takes gemm_rows rows of w as a
     * panel, and several panels if gemm_cached says so. panel: gemm_panel_bytes of scratch for
     * each, at a multiple of 64. Memory may be asked for the rows ahead. */
    void (*gemm)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, rows_ahead ahead,
                 float *y, int64_t y_stride, uint8_t *panel);
    int gemm_rows;
    int gemm_tile; /* rows of x that share memory in the Q8_FOR_GEMM order */
    size_t (*gemm_panel_bytes)(int64_t n_in);
    size_t gemm_cached; /* panels of one call are to fill so many bytes; 0: a call takes one */
} affine_kernels;

/* Codes of a row of activations are padded to a multiple of this, groups to a multiple of 16. */
#define Q8_PAD 256

/* f(2) f(3) .. f(8): what a kernel is made of for each width. */
#define FOR_EACH_WIDTH(f) f(2) f(3) f(4) f(5) f(6) f(8)

/* f(arguments, bits) with bits a constant, so that what is inlined is compiled for each width. */
#define CALL_BY_WIDTH(bits, f, ...)                                                                \
    switch (bits) {                                                                                \
    case 2:                                                                                        \
        f(__VA_ARGS__, 2);                                                                         \
        break;                                                                                     \
    case 3:                                                                                        \
        f(__VA_ARGS__, 3);                                                                         \
        break;                                                                                     \
    case 4:                                                                                        \
        f(__VA_ARGS__, 4);                                                                         \
        break;                                                                                     \
    case 5:                                                                                        \
        f(__VA_ARGS__, 5);                                                                         \
        break;                                                                                     \
    case 6:                                                                                        \
        f(__VA_ARGS__, 6);                                                                         \
        break;                                                                                     \
    default:                                                                                       \
        f(__VA_ARGS__, 8);                                                                         \
    }

/* ---- f32 kernels ------------------------------------------------------------------------------
 */

/* How the numbers of a page are written. U4: of each row's bytes the lower halves are its first
 * half, the upper ones its second; U6 (keys alone, values are U4 then): the upper four bits so, and
 * behind them the lower two, four in a byte, the quarters of the row. */
typedef enum kv_coding { KV_AS_F32, KV_AS_F16, KV_AS_S8, KV_AS_U4, KV_AS_U6 } kv_coding;

/* Keys and values of one page: K as [k_dim][OPS_PAGE_TOKENS], V as [OPS_PAGE_TOKENS][v_dim].
 *
 * What stands behind them is NULL where the numbers are the keys and values themselves; otherwise
 * they are codes (as floats, where the coding is F32), and a key is its codes times token_scale, by
 * token, or its codes times k_scale plus k_min, by element; a value its codes times v_scale plus
 * v_min (may be NULL), by token. The token own, where it is not negative, has own_k and own_v
 * instead. */
typedef struct kv_page {
    kv_coding coding;
    const void *k, *v;
    const void *next_k, *next_v; /* fetched into the cache meanwhile, as many bytes; may be k, v */
    const float *token_scale, *k_scale, *k_min, *v_scale, *v_min;
    int own;
    const float *own_k, *own_v; /* [k_dim], [v_dim] */
} kv_page;

/* Rows of queries that go through the cache together; the row's own state beside it. */
typedef struct attn_rows {
    int n_row, k_dim, v_dim;
    float softcap;            /* of scores; 0: none */
    const float *q;           /* [n_row][k_dim], scaled */
    float *acc;               /* [n_row][v_dim] sum of weight * value */
    float *max;               /* [n_row] */
    float *sum;               /* [n_row] sum of weights */
    float *scores;            /* [n_row][OPS_PAGE_TOKENS] scratch */
    const int32_t *from, *to; /* [n_row] tokens of the page that a row sees: from .. to-1 */
} attn_rows;

/* Columns of a head's state are worked on in blocks of so many, which lie together: state of
 * [n_row][n_column] is kept as [block][n_row][columns of the block]. */
#define STATE_BLOCK 32

/* n_tok tokens of one sequence through one block of one head's state [n_row][n_column]. Pointers
 * lead to the first token's numbers, strides (in numbers) to the next token's. */
typedef struct ssd_block {
    int64_t n_tok;
    int n_row, n_column;
    float *state;
    const float *x, *step, *decay, *b, *c; /* [n_column], 1, 1, [n_row], [n_row] */
    float *y;                              /* [n_column] */
    int64_t x_stride, step_stride, decay_stride, b_stride, c_stride, y_stride;
    float d;
} ssd_block;

typedef struct delta_block {
    int64_t n_tok;
    int n_row, n_column;
    float *state;
    const float *q, *k, *v, *decay, *beta; /* [n_row], [n_row], [n_column], see below, 1 */
    float *y;                              /* [n_column] */
    int64_t q_stride, k_stride, v_stride, decay_stride, beta_stride, y_stride;
    int decay_step; /* 1: decay [n_row]; 0: one number for all rows */
} delta_block;

/* n_tok tokens through n channels of Mamba's scan, state and a [n][n_state]. */
typedef struct scan_block {
    int64_t n_tok, n;
    int n_state;
    float *state;
    const float *a, *d;            /* [n][n_state], [n] */
    const float *x, *step, *b, *c; /* [n], [n], [n_state], [n_state] */
    float *y;                      /* [n] */
    int64_t x_stride, step_stride, b_stride, c_stride, y_stride;
} scan_block;

#define CONV_MAX_TAPS 16
/* A norm over n numbers. */
typedef struct norm_args {
    norm_kind kind;
    int64_t n;
    const void *w, *bias; /* [n] of their types, or NULL */
    dtype w_type, bias_type;
    float eps, offset;
} norm_args;

typedef struct float_kernels {
    int lanes; /* floats in a vector: attend_page reads S8 if v_dim is a multiple, U4 if v_dim / 2
                  is */
    /* y = bias + sum over j of w[j * w_stride + i] * taps[j][i], through silu if asked; bias may be
     * NULL. */
    void (*conv)(float *y, const float *const *taps, int n_tap, const float *w, int64_t w_stride,
                 const float *bias, int64_t n, bool silu);
    /* u = x + bias; step = softplus(u) within [min, max]; decay = exp(a * step). bias, step, and
     * decay with a may be NULL. */
    void (*time_step)(float *step, float *decay, const float *x, const float *bias, const float *a,
                      int64_t n, float min, float max);
    void (*scan)(const scan_block *block);
    void (*ssd)(const ssd_block *block);
    void (*delta)(const delta_block *block);
    /* y[t * y_stride + r - from] = rows from .. to-1 of a dense weight times n_tok rows of x. */
    void (*dense)(const weight_desc *w, const float *x, int64_t x_stride, int64_t n_tok,
                  int64_t from, int64_t to, float *y, int64_t y_stride);
    /* One block of a norm (ops.h): y = (x - mean) * factor * (w + offset) + bias */
    void (*norm)(float *y, const float *x, const norm_args *a);
    /* Turns one head by cos and sin [n_rot / 2]. */
    void (*rope)(float *x, const float *cosines, const float *sines, int n_rot, bool interleaved);
    /* y = (clamp(up, -limit, limit) + 1) g sigmoid(alpha g), g = min(gate, limit) */
    void (*gated_clamped)(float *y, const float *gate, const float *up, int64_t n, float alpha,
                          float limit);
    /* y = y + scale x */
    void (*add_scaled)(float *y, const float *x, int64_t n, float scale);
    /* y = act(gate) * up; up may be NULL */
    void (*gated)(float *y, const float *gate, const float *up, int64_t n, const act_desc *act);
    /* y = x * scale; y may be x */
    void (*scale)(float *y, const float *x, int64_t n, float scale);
    void (*to_f16)(uint16_t *y, const float *x, int64_t n);
    void (*from_f16)(float *y, const uint16_t *x, int64_t n);
    /* The codes of a page as floats. */
    void (*unpack_kv)(float *k, float *v, const kv_page *page, int k_dim, int v_dim);
    /* One page of online softmax attention: updates acc, max and sum of every row that sees some
     * of it. A row starts with acc 0, max -infinity, sum 0. */
    void (*attend_page)(const attn_rows *rows, const kv_page *page);
    /* Adds the state (acc, max, sum) of later pages to that of earlier ones. */
    void (*attend_merge)(float *acc, float *max, float *sum, const float *acc2, float max2,
                         float sum2, int v_dim);
} float_kernels;

typedef struct cpu_kernels {
    cpu_isa isa;
    const char *name; /* of the backend with it: "cpu avx512" */
    const affine_kernels *affine;
    const float_kernels *floats;
} cpu_kernels;

/* The row of the table for an instruction set: its own, or the next simpler one of this build. */
const cpu_kernels *cpu_kernels_for(cpu_isa isa);

/* Unpacks n codes of b bits, from an LSB-first bit stream; n is a multiple of 32. */
void unpack_codes(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n, int bits);

/* Row r of a weight as f32 [n_in]: converted, or code * scale + bias, both rounded. */
void weight_row_f32(float *restrict out, const weight_desc *w, int64_t r);

#endif
