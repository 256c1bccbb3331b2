/* tape_linear.c - embeddings and products, and their gradients. */
#include "quant/tape_impl.h"

#include <string.h>

#define WIDE_ROWS 16 /* rows from which on a frozen weight is widened for the BLAS */

/* ---- Embedding ---- */

typedef struct embed_note {
    tape_note note;
    const ops_weight *w;
    int32_t *rows; /* [y.n_row] of the weight */
    float scale;
    ops_mat y;
} embed_note;

static void back_embed(tape *t, tape_note *note) {
    const embed_note *e = (const embed_note *)note;
    tape_matrix m;
    float *g = tape_take(t, e->y);
    if (!g || !tape_find_matrix(t, e->w, -1, &m) || !m.grad) {
        return;
    }
    for (int64_t i = 0; i < e->y.n_row; i++) {
        float *row = m.grad + e->rows[i] * e->y.width;
        for (int64_t k = 0; k < e->y.width; k++) {
            row[k] += e->scale * g[i * e->y.width + k];
        }
    }
}

static void run_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
                      ops_mat y) {
    tape *t = tape_of(o);
    const int32_t *rows = host_batch_rows(batch, by);
    tape_matrix m;
    if (tape_find_matrix(t, w, -1, &m)) {
        for (int64_t i = 0; i < y.n_row; i++) {
            for (int64_t k = 0; k < y.width; k++) {
                host_row(y, i)[k] = scale * m.value[rows[i] * y.width + k];
            }
        }
    } else {
        t->own->embed(o, w, by, batch, scale, y);
    }
    embed_note *e = tape_new_note(t, sizeof *e, back_embed);
    if (e) {
        e->w = w;
        e->scale = scale;
        e->rows = tape_alloc(t, (size_t)y.n_row, sizeof *e->rows);
        e->y = y;
        if (e->rows) {
            memcpy(e->rows, rows, (size_t)y.n_row * sizeof *rows);
        }
    }
}

/* ---- Products ---- */

typedef struct linear_note {
    tape_note note;
    const ops_weight *w;
    const float *inputs; /* [x.n_row, x.width] */
    ops_mat x, y;
    bool accumulate;
} linear_note;

/* y = W x, or += it, without a bias. */
static void multiply(tape *t, const float *w, ops_mat x, ops_mat y, bool accumulate) {
    gemm_call g = {.m = x.n_row,
                   .n = y.width,
                   .k = x.width,
                   .trans_b = true,
                   .a = host_row(x, 0),
                   .lda = x.stride,
                   .b = w,
                   .ldb = x.width,
                   .c = host_row(y, 0),
                   .ldc = y.stride,
                   .alpha = 1,
                   .beta = accumulate ? 1.0f : 0.0f,
                   .coarse = t->coarse};
    blas_gemm_spread(t->ctx, &g);
}

static void add_bias(const weight_desc *d, ops_mat y) {
    for (int64_t i = 0; d->bias && i < y.n_row; i++) {
        for (int64_t k = 0; k < d->n_out; k++) {
            host_row(y, i)[k] += host_element(d->bias, d->bias_type, k);
        }
    }
}

static void add_moments(tape *t, const tape_matrix *m, const float *g, int64_t n, int64_t n_out) {
    for (int64_t at = 0; m->moments && at < n_out; at += m->block) {
        gemm_call c = tape_moments(t, m, g, n, n_out, at);
        c.symmetric = true;
        blas_gemm_spread(t->ctx, &c);
    }
    if (m->moments) {
        *m->n_tok += n;
    }
}

static void back_linear(tape *t, tape_note *note) {
    const linear_note *l = (const linear_note *)note;
    int64_t n = l->x.n_row, n_in = l->x.width, n_out = l->y.width;
    tape_matrix m = {0};
    if (!tape_find_matrix(t, l->w, -1, &m) || !m.value) {
        m.value = tape_widen(t, &l->w->d);
    }
    float *g = l->accumulate ? tape_look(t, l->y) : tape_take(t, l->y);
    float *dx = tape_floats(t, n * n_in);
    if (!m.value || !g || !dx) {
        return;
    }
    gemm_call in = {.m = n,
                    .n = n_in,
                    .k = n_out,
                    .a = g,
                    .lda = n_out,
                    .b = m.value,
                    .ldb = n_in,
                    .c = dx,
                    .ldc = n_in,
                    .alpha = 1,
                    .coarse = t->coarse};
    blas_gemm_spread(t->ctx, &in);
    tape_add(t, l->x, dx);
    add_moments(t, &m, g, n, n_out);
    if (m.grad) {
        gemm_call w = {.m = n_out,
                       .n = n_in,
                       .k = n,
                       .trans_a = true,
                       .a = g,
                       .lda = n_out,
                       .b = l->inputs,
                       .ldb = n_in,
                       .c = m.grad,
                       .ldc = n_in,
                       .alpha = 1,
                       .beta = 1,
                       .coarse = t->coarse};
        blas_gemm_spread(t->ctx, &w);
    }
}

static void compute(tape *t, ops_mat x, const linear_item *item) {
    tape_matrix m = {0};
    bool given = tape_find_matrix(t, item->weight, -1, &m) && m.value;
    if (!given && x.n_row < WIDE_ROWS) {
        t->own->linear(t->o, x, item, 1);
        return;
    }
    const float *w = given ? m.value : tape_widen(t, &item->weight->d);
    if (w) {
        multiply(t, w, x, item->y, item->accumulate);
        add_bias(&item->weight->d, item->y);
    }
}

static void run_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    tape *t = tape_of(o);
    const float *inputs = t->records ? tape_keep(t, x) : NULL;
    for (int i = 0; i < n_items; i++) {
        compute(t, x, &items[i]);
        linear_note *l = tape_new_note(t, sizeof *l, back_linear);
        if (l) {
            l->w = items[i].weight;
            l->inputs = inputs;
            l->x = x;
            l->y = items[i].y;
            l->accumulate = items[i].accumulate;
        }
    }
}

void tape_set_linear(ops_table *table) {
    table->embed = run_embed;
    table->linear = run_linear;
}
