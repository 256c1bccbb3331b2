/* tape_impl.h - what the tape's files share: notes, memory for them, and gradients of places. */
#ifndef JANG_QUANT_TAPE_IMPL_H
#define JANG_QUANT_TAPE_IMPL_H

#include "ops/hostbuf.h"
#include "quant/blas.h"
#include "quant/tape.h"

/* What an operator leaves behind; the first member of its own kind of note. */
typedef struct tape_note {
    void (*back)(tape *t, struct tape_note *note);
    struct tape_note *before; /* the one recorded before it */
} tape_note;

/* The gradients of a buffer's numbers. */
typedef struct tape_shadow {
    const ops_buf *buf;
    float *grad; /* [n] */
    size_t n;
} tape_shadow;

/* Memory is taken from chunks, in order, and given back all at once. */
typedef struct tape_chunk {
    uint8_t *data;
    size_t n_bytes;
} tape_chunk;

typedef struct tape_mark {
    size_t chunk, used;
} tape_mark;

struct tape {
    ops_table table; /* first: the backend's table pointer leads here */
    const ops_table *own;
    ops *o;
    ctx_t *ctx;
    tape_matrix_fn matrix;
    void *user;
    bool coarse, uses, records;
    jang_status status; /* the first failure since recording began */
    tape_note *last;
    tape_chunk *chunks;
    size_t n_chunks;
    tape_mark at; /* the next free byte */
    tape_shadow *shadows;
    size_t n_shadows;
    const ops_buf *read_buf; /* what the host read last ... */
    size_t read_at;          /* ... from this number on */
    float *wide;             /* a weight as f32 ... */
    const void *wide_of;     /* ... whose data are these */
    size_t n_wide;
};

static inline tape *tape_of(ops *o) {
    return (tape *)(void *)o->table;
}

static inline float tape_sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

/* ---- tape.c ---- */

/* A note of n_bytes; NULL: nothing is recorded, or there is no memory. */
void *tape_new_note(tape *t, size_t n_bytes, void (*back)(tape *, tape_note *));
/* Memory until the recording ends, or within a note's way back until that is done: cleared. NULL:
 * there is none, and t->status says so. */
void *tape_alloc(tape *t, size_t n, size_t size);
float *tape_floats(tape *t, int64_t n);
/* A copy of a matrix, [n_row, width]. */
float *tape_keep(tape *t, ops_mat m);

/* The gradient of a row of a matrix. */
float *tape_grad_row(tape *t, ops_mat m, int64_t row);
/* The gradient of what was written to y, [n_row, width]: from then on it is 0. NULL: no memory. */
float *tape_take(tape *t, ops_mat y);
/* The same, left as it is: y was added to. */
float *tape_look(tape *t, ops_mat y);
/* Adds g [n_row, width] to the gradient of x. */
void tape_add(tape *t, ops_mat x, const float *g);

/* Runs fn over rows 0 .. n-1, spread over the threads in blocks. */
typedef void (*tape_rows_fn)(void *arg, int64_t first, int64_t last);
void tape_spread(tape *t, int64_t n, tape_rows_fn fn, void *arg);

/* The matrix in a weight's place; false: there is none. */
bool tape_find_matrix(const tape *t, const ops_weight *w, int expert, tape_matrix *out);
/* A weight as f32 [n_out, n_in], until the next call; NULL: no memory. */
const float *tape_widen(tape *t, const weight_desc *d);

/* The product that adds n gradients of outputs, g [n, n_out], to the square of a matrix's moments
 * that begins at row at. */
gemm_call tape_moments(const tape *t, const tape_matrix *m, const float *g, int64_t n,
                       int64_t n_out, int64_t at);

/* ---- The entries of the table ---- */

void tape_set_linear(ops_table *table);    /* tape_linear.c */
void tape_set_rows(ops_table *table);      /* tape_rows.c */
void tape_set_attention(ops_table *table); /* tape_attention.c */
void tape_set_experts(ops_table *table);   /* tape_experts.c */
void tape_set_recurrent(ops_table *table); /* tape_recurrent.c */

#endif
