/* tape_recurrent.h - what the tape's files for recurrent layers share. */
#ifndef JANG_QUANT_TAPE_RECURRENT_H
#define JANG_QUANT_TAPE_RECURRENT_H

#include "quant/tape_impl.h"
#include "quant/tape_walk.h"

/* An input: what it was, and on the way back where its gradient is. */
typedef struct tape_input {
    ops_mat m;
    tape_rows value, grad;
} tape_input;

static inline tape_rows tape_keep_rows(tape *t, ops_mat m) {
    return (tape_rows){tape_keep(t, m), m.width};
}

static inline tape_input tape_keep_input(tape *t, ops_mat m) {
    return (tape_input){.m = m, .value = tape_keep_rows(t, m)};
}

static inline tape_rows tape_grad_rows(tape *t, ops_mat m) {
    return (tape_rows){tape_grad_row(t, m, 0), m.stride};
}

/* A recurrent layer's dense F32 vector or matrix. */
static inline const float *tape_f32(const ops_weight *w) {
    return w->d.data;
}

/* The tokens' positions in their sequences, [n_tok]: a sequence begins at each 0. NULL: t->status
 * says why; JANG_ERR_UNSUPPORTED where a sequence began before the step. */
int32_t *tape_keep_positions(tape *t, const ops_batch *batch);

void tape_set_conv(ops_table *table); /* tape_conv.c; called by tape_set_recurrent */

#endif
