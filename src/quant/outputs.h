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

/* Matrices [n_items] of second moments of gradients, each in blocks along its diagonal: of an item
 * with n rows, [n, outputs_block(n)]. NULL for those that have none: experts, embeddings, and what
 * the model does not multiply by as it is stored. Freed by the caller, also where it fails. A model
 * that writes no text has none at all. */
JANG_MUST_CHECK jang_status outputs_study(float **moments, const output_study *s);

#endif
