/* dense_body.h - products with dense weights, written once over the vectors of vec_<isa>.h. Part of
 * floats_<isa>.c, after rows_body.h.
 *
 * Lanes run along the columns: lane l of an accumulator takes columns l, l + VEC_N, ... in order,
 * and v_sum adds the lanes. A tile of 4 rows of the weight by up to DENSE_TOKENS rows of x keeps
 * that order for each of its results, so every tile gives the same bits. */

#define DENSE_ROWS 4
#define DENSE_TOKENS VEC_TILE

typedef struct dense_job {
    const uint8_t *w; /* first row of the tile */
    size_t row_bytes;
    const float *x;
    int64_t x_stride, n_in;
    float *y;
    int64_t y_stride;
} dense_job;

/* y[t * y_stride + r] for r < n_row, t < n_tok, which are constants where this is inlined. */
static inline __attribute__((always_inline)) void dense_tile(const dense_job *j, dtype type,
                                                             int n_row, int n_tok) {
    vf acc[DENSE_ROWS][DENSE_TOKENS], x[DENSE_TOKENS];
    for (int r = 0; r < n_row; r++) {
        for (int t = 0; t < n_tok; t++) {
            acc[r][t] = v_set(0);
        }
    }
    int64_t whole = j->n_in / VEC_N * VEC_N;
    int tail = (int)(j->n_in - whole);
    for (int64_t i = 0; i < whole; i += VEC_N) {
        for (int t = 0; t < n_tok; t++) {
            x[t] = v_load(j->x + t * j->x_stride + i);
        }
        for (int r = 0; r < n_row; r++) {
            vf w = v_load_as(j->w + (size_t)r * j->row_bytes, type, i);
            for (int t = 0; t < n_tok; t++) {
                acc[r][t] = v_fma(w, x[t], acc[r][t]);
            }
        }
    }
    for (int r = 0; r < n_row; r++) {
        for (int t = 0; t < n_tok; t++) {
            if (tail) {
                vf w = v_load_as_n(j->w + (size_t)r * j->row_bytes, type, whole, tail);
                vf last = v_load_n(j->x + t * j->x_stride + whole, tail);
                acc[r][t] = v_fma(w, last, acc[r][t]);
            }
            j->y[t * j->y_stride + r] = v_sum(acc[r][t]);
        }
    }
}

/* n_row rows of the weight by all of x. */
static inline __attribute__((always_inline)) void dense_strip(dense_job j, dtype type, int n_row,
                                                              int64_t n_tok) {
    while (n_tok > 0) {
        int n = n_tok >= DENSE_TOKENS ? DENSE_TOKENS : n_tok >= 2 ? 2 : 1;
        if (n == DENSE_TOKENS) {
            dense_tile(&j, type, n_row, DENSE_TOKENS);
        } else if (n == 2) {
            dense_tile(&j, type, n_row, 2);
        } else {
            dense_tile(&j, type, n_row, 1);
        }
        j.x += n * j.x_stride;
        j.y += n * j.y_stride;
        n_tok -= n;
    }
}

static inline __attribute__((always_inline)) void dense_of(dense_job j, dtype type, int64_t n_tok,
                                                           int64_t n_rows) {
    int64_t r = 0;
    for (; r + DENSE_ROWS <= n_rows; r += DENSE_ROWS) {
        dense_strip(j, type, DENSE_ROWS, n_tok);
        j.w += DENSE_ROWS * j.row_bytes;
        j.y += DENSE_ROWS;
    }
    for (; r < n_rows; r++) {
        dense_strip(j, type, 1, n_tok);
        j.w += j.row_bytes;
        j.y++;
    }
}

static void kern_dense(const weight_desc *w, const float *x, int64_t x_stride, int64_t n_tok,
                       int64_t from, int64_t to, float *y, int64_t y_stride) {
    size_t row_bytes = (size_t)w->n_in * (w->type == DT_F32 ? 4 : 2);
    dense_job j = {.w = (const uint8_t *)w->data + (size_t)from * row_bytes,
                   .row_bytes = row_bytes,
                   .x = x,
                   .x_stride = x_stride,
                   .n_in = w->n_in,
                   .y = y,
                   .y_stride = y_stride};
    if (w->type == DT_F32) {
        dense_of(j, DT_F32, n_tok, to - from);
    } else if (w->type == DT_F16) {
        dense_of(j, DT_F16, n_tok, to - from);
    } else {
        dense_of(j, DT_BF16, n_tok, to - from);
    }
}
