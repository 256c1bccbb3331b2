/* gptq_impl.h - rows at work; seen by the gptq files only. */
#ifndef JANG_QUANT_GPTQ_IMPL_H
#define JANG_QUANT_GPTQ_IMPL_H

#include "quant/gptq.h"
#include "quant/lattice.h"

#define GPTQ_TASK_ROWS 64 /* of a task, at most: four blocks of lanes */

/* Rows of matrices with one input, each row by itself. */
typedef struct gptq_job {
    const gptq_site *s; /* prepared */
    ctx_t *ctx;
    int64_t task_rows;
    gptq_matrix *m; /* the one at hand */
    const lattice_fns *fns;
    float *metrics; /* [n_groups][group, group]: U_gg U_gg' */
    float *blocks;  /* ... H_gg */
    float *scratch; /* of each thread: errors and targets */
    lattice *lattices;
} gptq_job;

JANG_MUST_CHECK jang_status gptq_job_open(gptq_job *out, const gptq_site *s, ctx_t *ctx,
                                          int64_t task_rows);
void gptq_job_close(gptq_job *j);
/* Quantizes a matrix whose weights are the targets. */
JANG_MUST_CHECK jang_status gptq_job_run(gptq_job *j, gptq_matrix *m);

/* Turns u [n, n], L of a reversed matrix U U', into U in the upper triangle, and the columns of
 * each step (the last may be smaller) above its block into U_prev,g U_gg^-1: what errors before it
 * add to its target. */
void gptq_make_feedback(float *u, int64_t n, int64_t step);

/* ---- gptq_outputs.c ---- */

/* Quantizes a matrix with moments of its outputs; its weights are the targets. */
JANG_MUST_CHECK jang_status gptq_quantize_coupled(const gptq_site *s, ctx_t *ctx, gptq_matrix *m);

#endif
