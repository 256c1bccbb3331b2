/* tape.h - the gradient of a number that depends on a model's answers, with respect to its weights.
 *
 * A tape stands in for the table of a host backend. While it records, each operator is computed as
 * ever and leaves a note of its inputs; tape_back goes through the notes from the last to the
 * first and carries the gradient from what each operator wrote to what it read (reverse mode;
 * Griewank, Walther: Evaluating Derivatives, 2008). Buffers are written to again and again, so the
 * gradient of a place in a buffer is that of what lies there at that point of the way back: an
 * operator takes the gradient of what it wrote away before it adds to those of what it read.
 *
 * Sequences of a recorded step begin with it: what earlier steps left in a cache has no gradient.
 */
#ifndef JANG_QUANT_TAPE_H
#define JANG_QUANT_TAPE_H

#include "ops/ops.h"

typedef struct tape tape;

/* A matrix in the place of a weight, or of one of its experts. */
typedef struct tape_matrix {
    const float *value; /* [n_out, n_in]; NULL: the weight's own */
    float *grad;        /* its gradient is added here; NULL: none is wanted */
    float *moments;     /* products of its outputs' gradients are added here, the upper triangles of
                           squares along the diagonal: [n_out, block]; NULL: none */
    int64_t block;
    int64_t *n_tok; /* ... and how many tokens' here */
} tape_matrix;

/* Whether a weight (expert -1) or its expert gives way to a matrix, and to which. */
typedef bool (*tape_matrix_fn)(void *user, const ops_weight *w, int expert, tape_matrix *out);

/* Takes the place of the table of o, which computes in the host's memory, until it is closed; a
 * model is opened on o after that. coarse: products may round their factors to bf16 (blas.h). */
JANG_MUST_CHECK jang_status tape_open(tape **out, ops *o, tape_matrix_fn matrix, void *user,
                                      bool coarse);
void tape_close(tape *t);

/* Whether weights give way to matrices; at first they do not. */
void tape_use_matrices(tape *t, bool on);
/* Forgets what was recorded and records what follows. */
void tape_record(tape *t);
/* Adds to what was recorded that grad [n] is the gradient of the n numbers the host read last. */
void tape_seed(tape *t, const float *grad, int64_t n);
/* Adds the gradients to the matrices', and stops recording. JANG_ERR_UNSUPPORTED names an operator
 * whose gradient is not known, JANG_ERR_MEMORY. */
JANG_MUST_CHECK jang_status tape_back(tape *t);

#endif
