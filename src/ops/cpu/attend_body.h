/* attend_body.h - attention over one page of the cache, written once over the vectors of
 * vec_<isa>.h. Part of floats_<isa>.c, after rows_body.h.
 *
 * Scores have the page's tokens in the lanes and run along the head's elements in order; values
 * have the head's elements in the lanes and run along the tokens in order. So nothing is summed
 * across lanes but the weights, always over the whole page, and the bits of a row do not depend on
 * the rows beside it. Rows go in tiles of up to 4 that share each load of keys and values. Pages do
 * not follow each other in memory, so the processor does not see the next one coming: it is asked
 * for while this one is worked on. */

#define ATTEND_ROWS 4
#define ATTEND_WIDTH (VEC_TILE * VEC_N) /* lanes of a tile */

static inline __attribute__((always_inline)) vf kv_load(const void *p, bool half, int64_t at) {
    return v_load_as(p, half ? DT_F16 : DT_F32, at);
}

/* Asks for n elements of the next page's keys or values, for the second-level cache: the first one
 * is full of this page. */
static inline __attribute__((always_inline)) void fetch_ahead(const void *next, bool half,
                                                              int64_t at, int n) {
    const int size = half ? 2 : 4;
    const char *p = (const char *)next + at * size;
    for (int i = 0; i < n * size; i += 64) {
        __builtin_prefetch(p + i, 0, 2);
    }
}

/* scores[r][.] = q[r] . k for the tokens of the page. */
static inline __attribute__((always_inline)) void
score_tile(float *scores, const float *q, const kv_page *page, int k_dim, int n_row, bool half) {
    for (int c = 0; c < OPS_PAGE_TOKENS; c += ATTEND_WIDTH) {
        vf acc[ATTEND_ROWS][VEC_TILE];
        for (int r = 0; r < n_row; r++) {
            for (int j = 0; j < VEC_TILE; j++) {
                acc[r][j] = v_set(0);
            }
        }
        for (int d = 0; d < k_dim; d++) {
            vf k[VEC_TILE];
            fetch_ahead(page->next_k, half, (int64_t)d * OPS_PAGE_TOKENS + c, ATTEND_WIDTH);
            for (int j = 0; j < VEC_TILE; j++) {
                k[j] = kv_load(page->k, half, (int64_t)d * OPS_PAGE_TOKENS + c + j * VEC_N);
            }
            for (int r = 0; r < n_row; r++) {
                vf qd = v_set(q[r * k_dim + d]);
                for (int j = 0; j < VEC_TILE; j++) {
                    acc[r][j] = v_fma(qd, k[j], acc[r][j]);
                }
            }
        }
        for (int r = 0; r < n_row; r++) {
            for (int j = 0; j < VEC_TILE; j++) {
                v_store(scores + r * OPS_PAGE_TOKENS + c + j * VEC_N, acc[r][j]);
            }
        }
    }
}

/* scores = cap * tanh(scores / cap) for a row. */
static void cap_row(float *s, float cap) {
    vf a = v_set(cap);
    for (int i = 0; i < OPS_PAGE_TOKENS; i += VEC_N) {
        v_store(s + i, a * v_tanh(v_load(s + i) / a));
    }
}

/* Turns a row's scores into weights exp(score - max), and scales what the row has so far to the
 * new maximum. */
static void soften_row(const attn_rows *a, int r) {
    float *s = a->scores + r * OPS_PAGE_TOKENS, *acc = a->acc + (int64_t)r * a->v_dim;
    for (int i = 0; i < a->from[r]; i++) {
        s[i] = -INFINITY;
    }
    for (int i = a->to[r]; i < OPS_PAGE_TOKENS; i++) {
        s[i] = -INFINITY;
    }
    vf top = v_load(s);
    for (int i = VEC_N; i < OPS_PAGE_TOKENS; i += VEC_N) {
        top = v_max(top, v_load(s + i));
    }
    float old = a->max[r], page_max = v_top(top), max = page_max > old ? page_max : old;
    vf sum = v_set(0), shift = v_set(max);
    for (int i = 0; i < OPS_PAGE_TOKENS; i += VEC_N) {
        vf p = v_exp(v_load(s + i) - shift);
        v_store(s + i, p);
        sum = sum + p;
    }
    float keep = old == max ? 1.0f : v_top(v_exp(v_set(old - max)));
    a->sum[r] = a->sum[r] * keep + v_sum(sum);
    a->max[r] = max;
    if (keep != 1.0f) {
        kern_scale(acc, acc, a->v_dim, keep);
    }
}

/* acc[r][d ..] += weights[r][t] * v[t][d ..] for tokens from .. to-1; n_vec vectors of VEC_N
 * elements, or, when tail is not 0, one of tail elements. */
static inline __attribute__((always_inline)) void value_tile(float *acc, const float *weights,
                                                             const kv_page *page, int v_dim, int d,
                                                             int from, int to, int n_row, int n_vec,
                                                             int tail, bool half) {
    vf sum[ATTEND_ROWS][VEC_TILE];
    for (int r = 0; r < n_row; r++) {
        for (int j = 0; j < n_vec; j++) {
            const float *at = acc + r * v_dim + d + j * VEC_N;
            sum[r][j] = tail ? v_load_n(at, tail) : v_load(at);
        }
    }
    dtype type = half ? DT_F16 : DT_F32;
    for (int t = from; t < to; t++) {
        vf v[VEC_TILE];
        int64_t at = (int64_t)t * v_dim + d;
        fetch_ahead(page->next_v, half, at, tail ? tail : n_vec * VEC_N);
        for (int j = 0; j < n_vec; j++) {
            v[j] = tail ? v_load_as_n(page->v, type, at, tail)
                        : v_load_as(page->v, type, at + j * VEC_N);
        }
        for (int r = 0; r < n_row; r++) {
            vf p = v_set(weights[r * OPS_PAGE_TOKENS + t]);
            for (int j = 0; j < n_vec; j++) {
                sum[r][j] = v_fma(p, v[j], sum[r][j]);
            }
        }
    }
    for (int r = 0; r < n_row; r++) {
        for (int j = 0; j < n_vec; j++) {
            float *at = acc + r * v_dim + d + j * VEC_N;
            if (tail) {
                v_store_n(at, sum[r][j], tail);
            } else {
                v_store(at, sum[r][j]);
            }
        }
    }
}

static inline __attribute__((always_inline)) void add_values(float *acc, const float *weights,
                                                             const kv_page *page, int v_dim,
                                                             int from, int to, int n_row,
                                                             bool half) {
    int d = 0;
    for (; d + ATTEND_WIDTH <= v_dim; d += ATTEND_WIDTH) {
        value_tile(acc, weights, page, v_dim, d, from, to, n_row, VEC_TILE, 0, half);
    }
    for (; d + VEC_N <= v_dim; d += VEC_N) {
        value_tile(acc, weights, page, v_dim, d, from, to, n_row, 1, 0, half);
    }
    if (d < v_dim) {
        value_tile(acc, weights, page, v_dim, d, from, to, n_row, 1, v_dim - d, half);
    }
}

/* The n_row rows from r on. What only some of them see is added row by row, before and after what
 * all see, so that each row takes its tokens in order. */
static inline __attribute__((always_inline)) void attend_tile(const attn_rows *a, int r, int n_row,
                                                              const kv_page *page, bool half) {
    float *weights = a->scores + r * OPS_PAGE_TOKENS, *acc = a->acc + (int64_t)r * a->v_dim;
    score_tile(weights, a->q + (int64_t)r * a->k_dim, page, a->k_dim, n_row, half);
    for (int i = 0; a->softcap > 0 && i < n_row; i++) {
        cap_row(weights + i * OPS_PAGE_TOKENS, a->softcap);
    }
    int from = 0, to = OPS_PAGE_TOKENS;
    for (int i = 0; i < n_row; i++) {
        from = a->from[r + i] > from ? a->from[r + i] : from;
        to = a->to[r + i] < to ? a->to[r + i] : to;
        if (a->from[r + i] < a->to[r + i]) {
            soften_row(a, r + i);
        }
    }
    bool shared = n_row > 1 && from < to;
    for (int i = 0; i < n_row; i++) {
        add_values(acc + i * a->v_dim, weights + i * OPS_PAGE_TOKENS, page, a->v_dim,
                   a->from[r + i], shared ? from : a->to[r + i], 1, half);
    }
    if (shared) {
        add_values(acc, weights, page, a->v_dim, from, to, n_row, half);
    }
    for (int i = 0; shared && i < n_row; i++) {
        add_values(acc + i * a->v_dim, weights + i * OPS_PAGE_TOKENS, page, a->v_dim, to,
                   a->to[r + i], 1, half);
    }
}

static inline __attribute__((always_inline)) void attend_all(const attn_rows *a,
                                                             const kv_page *page, bool half) {
    int r = 0;
    for (; r + ATTEND_ROWS <= a->n_row; r += ATTEND_ROWS) {
        attend_tile(a, r, ATTEND_ROWS, page, half);
    }
    if (a->n_row - r == 3) {
        attend_tile(a, r, 3, page, half);
    } else if (a->n_row - r == 2) {
        attend_tile(a, r, 2, page, half);
    } else if (a->n_row - r == 1) {
        attend_tile(a, r, 1, page, half);
    }
}

static void kern_attend_page(const attn_rows *a, const kv_page *page) {
    if (page->half) {
        attend_all(a, page, true);
    } else {
        attend_all(a, page, false);
    }
}

static void kern_attend_merge(float *acc, float *max, float *sum, const float *acc2, float max2,
                              float sum2, int v_dim) {
    float top = *max > max2 ? *max : max2;
    float keep = v_top(v_exp(v_set(*max - top))), take = v_top(v_exp(v_set(max2 - top)));
    for (int d = 0; d < v_dim; d++) {
        acc[d] = acc[d] * keep + acc2[d] * take;
    }
    *max = top;
    *sum = *sum * keep + sum2 * take;
}
