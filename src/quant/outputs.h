/* outputs.h - what errors of a matrix's outputs do to the answers.
 *
 * An error of a row of a weight matrix is an error of one output. To second order the divergence of
 * the answers is a form in the errors of all outputs, and its matrix is E[g g'], with g the
 * gradient, by the outputs, of the log-probability of an answer that the model itself gives (the
 * Fisher information; for one matrix the factor of K-FAC that stands with X'X, arXiv:1503.05671).
 * It is found by going back through the whole model, once for each token of a text
 * (YAQA, arXiv:2505.22988). */
#ifndef JANG_QUANT_OUTPUTS_H
#define JANG_QUANT_OUTPUTS_H

#include "quant/plan.h"

#define OUTPUTS_OWN_TURNS 4 /* through the text, of a method that does it by itself */

typedef struct output_study {
    ctx_t *ctx;
    checkpoint *run; /* the original in a form that runs */
    const quant_plan *plan;
    const int32_t *ids; /* [n_seqs, n_seq] */
    size_t n_seqs;
    int32_t n_seq;
    int64_t n_tok; /* to go back from; more than there are: with other answers each time */
    jang_progress_fn on_progress;
    void *user;
} output_study;

/* Bytes that it takes, with what a sequence leaves on its way through the layers, an estimate. */
uint64_t outputs_bytes(const quant_plan *plan, int32_t n_seq);

/* What is known of an item's outputs. */
typedef struct output_moments {
    float *squares; /* [rows, block] second moments of their gradients, the upper triangles of
                       squares along the diagonal, of each expert by itself; NULL: they have none */
    int64_t block;  /* gptq_block of an expert's rows */
    int64_t *n_tok; /* [experts, at least 1] tokens they are of */
} output_moments;

/* Fills moments [n_items], all 0 before. Embeddings and output matrices have none, nor what the
 * model does not multiply by as it is stored, nor anything of a model that writes no text. Freed by
 * the caller, also where it fails. */
JANG_MUST_CHECK jang_status outputs_study(output_moments *moments, const output_study *s);
void outputs_free(output_moments *moments, ctx_t *ctx, size_t n_items);

#endif
