/* gptq.h - codes of a matrix that disturb its outputs least, given what its inputs are like.
 *
 * With H = X'X over calibration inputs, the error e of a row costs e H e'. With H = U U', U upper
 * triangular, the cost is a sum over columns in which column k's term depends on the errors of
 * columns up to k only; so columns are decided in order, each aimed at what makes up for the errors
 * before it (GPTQ, arXiv:2210.17323, in the form of QuIP's LDLQ, arXiv:2307.13304). Here a step is
 * a group: its codes, scale and bias are found together (lattice.h) in the group's metric
 * U_gg U_gg'. Groups go in the order of their inputs' size. Then, group by group, codes and grids
 * are improved against the whole row's error until the sweeps are done.
 *
 * The target: inputs of a quantized model differ from the original's. With X_f the inputs in the
 * original model and X_q those in the quantized one, Z = (X_f - X_q)'X_q moves the weights by
 * W Z H^-1, which gives the original's outputs from the quantized model's inputs in the least
 * squares sense (GPTAQ, arXiv:2504.02692); a share of that way
 * is gone. The original may be run on a
 * part of the tokens, which come first: new, add with both, aim, add without, prepare, quantize the
 * matrices.
 *
 * Outputs: with G the second moments of the gradients of the outputs, the cost of a matrix's errors
 * E is tr(G E H E') (outputs.h). With G = U U' as above, rows are decided in order, each aimed at
 * what makes up for the errors of those before it in the same way (YAQA, arXiv:2505.22988). */
#ifndef JANG_QUANT_GPTQ_H
#define JANG_QUANT_GPTQ_H

#include "base/cpu.h"
#include "base/tensor.h"

/* What is known of one input; owned arrays are freed by gptq_site_free. */
typedef struct gptq_site {
    int64_t n_in;
    float *h;      /* [n_in, n_in] sums over tokens: X_q'X_q */
    float *z;      /* ... (X_f - X_q)'X_q; once aimed, that times H^-1 */
    float *h_held; /* h and z of tokens held out, to measure by; NULL: none are */
    float *z_held;
    int n_polish;          /* sweeps over whole rows after the first pass; new: 2 */
    double stretch;        /* share of the way to the outputs' own variance; new: 0 */
    float share;           /* of the way to the targets that is gone; 0 until aimed */
    int64_t n_tok, n_held; /* tokens seen */
    float *factor;         /* [n_in, n_in], made by prepare */
    int64_t *order;        /* [n_in / group] groups in the order they are decided */
    int group;             /* set by prepare */
    double damping;        /* share of the mean diagonal that was added */
} gptq_site;

JANG_MUST_CHECK jang_status gptq_site_new(gptq_site *out, ctx_t *ctx, int64_t n_in);
void gptq_site_free(gptq_site *s, ctx_t *ctx);

/* Makes room for tokens that are held out. */
JANG_MUST_CHECK jang_status gptq_site_hold(gptq_site *s, ctx_t *ctx);
/* Adds those that were held out to the others, but for what the targets follow from. */
void gptq_site_merge(gptq_site *s, ctx_t *ctx);

/* Adds n_tok inputs, to those held out or to the others: the quantized model's xq and the
 * original's xf, [n_tok, n_in] with strides; xf NULL after gptq_aim, or where the two are the same.
 */
JANG_MUST_CHECK jang_status gptq_site_add(gptq_site *s, ctx_t *ctx, const float *xq,
                                          const float *xf, int64_t stride, int64_t n_tok,
                                          bool held);

/* A matrix that has this input: w [n_out, n_in]. */
typedef struct gptq_matrix {
    float *w; /* after gptq_quantize the weights as quantized */
    int64_t n_out;
    int bits;
    dtype type;
    uint8_t *codes;         /* [n_out, n_in] */
    float *scales, *biases; /* [n_out, n_in / group] */
    const float *outputs;   /* [n_out, block] second moments of the gradients of its outputs, upper
                               triangles of squares along the diagonal; NULL: each row by itself */
    int64_t block;          /* gptq_block of the rows of the whole matrix */
    int64_t n_gradients;    /* tokens they are of */
} gptq_matrix;

#define GPTQ_BLOCK 2048 /* rows whose outputs' moments are known together, at most */

/* The side of the squares along the diagonal that are known. */
static inline int64_t gptq_block(int64_t n_out) {
    return n_out < GPTQ_BLOCK ? n_out : GPTQ_BLOCK;
}

/* Finds how the targets follow from the weights, by what was added so far. */
JANG_MUST_CHECK jang_status gptq_aim(gptq_site *s, ctx_t *ctx, double damping, double share);

/* Adds a share of another site's moments; between aim and prepare, both of the same width. */
void gptq_site_blend(gptq_site *s, const gptq_site *other, double share);

/* What is known of the inputs divided by factors [n_in], which the matrices' columns are multiplied
 * by; before prepare. */
void gptq_site_scale(gptq_site *s, const float *factors);
/* Copies what prepare needs. */
JANG_MUST_CHECK jang_status gptq_site_copy(gptq_site *out, ctx_t *ctx, const gptq_site *s);

/* Orders the groups, damps and factors H. JANG_ERR_FORMAT: the inputs are not finite, or H cannot
 * be factored however damped. */
JANG_MUST_CHECK jang_status gptq_prepare(gptq_site *s, ctx_t *ctx, int group, double damping);

/* Rows of one matrix may come in several calls; with moments of its outputs, whole blocks. */
JANG_MUST_CHECK jang_status gptq_quantize(const gptq_site *s, ctx_t *ctx, gptq_matrix *matrix);

#endif
