/* tape_walk.h - recurrences, gone through token by token and back, for each instruction set.
 *
 * Mamba's scans and the delta rule are of one form. A unit (a head, or a few channels) has rows of
 * state that do not see each other; those of a group of units share b and c. A token makes of a
 * row S of n_lane numbers, with decays D,
 *
 *     S <- D S + in b,   y = c'S [+ d x]
 *
 *     scan    in = step x, a step for each row; D = exp(step a)
 *     ssd     in = step x, a step and a decay for each unit
 *     delta   in = beta (v - b'D S); one decay for each unit, or for each number of a row
 *
 * The way back needs the state before each token, and goes through the tokens from the last to the
 * first. Not all states are kept, and none from the way forward: the recurrence is gone through
 * again, keeping the state before every few tokens, and then a third time, some tokens at a time
 * from the last ones on, with all states of these (Griewank, Walther: Evaluating Derivatives, 2008,
 * on checkpoints). */
#ifndef JANG_QUANT_TAPE_WALK_H
#define JANG_QUANT_TAPE_WALK_H

#include "base/cpu.h"

#include <stdint.h>

/* Rows of numbers, one a token. */
typedef struct tape_rows {
    float *first;
    int64_t stride;
} tape_rows;

static inline float *tape_row(tape_rows r, int64_t t) {
    return r.first + t * r.stride;
}

/* y += s x */
static inline void tape_add_scaled(float *restrict y, float s, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] += s * x[i];
    }
}

/* What was put in, and the gradient of it, which is added to. */
typedef struct walk_input {
    tape_rows value, grad;
} walk_input;

typedef enum walk_kind { WALK_SCAN, WALK_SSD, WALK_DELTA } walk_kind;

typedef struct tape_walk {
    walk_kind kind;
    int64_t n_tok, n_unit, n_group;
    int64_t n_row, n_lane; /* rows of a unit (the last one has what is left); numbers of a row */
    int64_t width;         /* of x and y: all rows */
    const int32_t *pos;    /* [n_tok] positions: a sequence begins at each 0 */
    walk_input x;          /* x or v, [n_tok, width] */
    walk_input step;       /* scan: [n_tok, width]; ssd, and betas: [n_tok, n_unit] */
    walk_input decay;      /* [n_tok, n_unit], or [n_tok, n_unit * n_lane] ... */
    bool by_lane;          /* ... where this is so; not of a scan */
    tape_rows b, c;        /* [n_tok, n_group * n_lane] */
    const float *a;        /* scan: [width, n_lane] */
    const float *d;        /* scan: [width]; ssd: [n_unit]; NULL */
    tape_rows dy;          /* [n_tok, width] */
} tape_walk;

/* Adds the gradients of a unit's own inputs, and those of b and c to db and dc [n_tok, n_lane].
 * scratch: tape_walk_scratch numbers, 0 at first; further units of the same w take them as they
 * were left. */
typedef void tape_walk_fn(const tape_walk *w, int64_t unit, float *db, float *dc, float *scratch);

int64_t tape_walk_scratch(const tape_walk *w);
tape_walk_fn *tape_walk_function(cpu_isa isa);

tape_walk_fn tape_walk__scalar, tape_walk__avx2, tape_walk__avx512;

#endif
