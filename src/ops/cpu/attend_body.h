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

/* Bits of a key's number; of a value's, with the coding of values. */
static inline __attribute__((always_inline)) int coding_bits(kv_coding coding) {
    return coding == KV_AS_F32   ? 32
           : coding == KV_AS_F16 ? 16
           : coding == KV_AS_S8  ? 8
           : coding == KV_AS_U4  ? 4
                                 : 6;
}

/* Asks for n numbers of the next page from number at on, for the second-level cache: the first one
 * is full of this page. */
static inline __attribute__((always_inline)) void fetch_ahead(const void *next, kv_coding coding,
                                                              int64_t at, int n) {
    const char *p = (const char *)next + at * coding_bits(coding) / 8;
    for (int i = 0; i < n * coding_bits(coding) / 8; i += 64) {
        __builtin_prefetch(p + i, 0, 2);
    }
}

/* Numbers at .. of a row of n, which is codes where it is not floats. */
static inline __attribute__((always_inline)) vf load_row(const uint8_t *row, kv_coding coding,
                                                         int n, int at) {
    const int half = n / 2;
    switch (coding) {
    case KV_AS_F32:
        return v_load((const float *)(const void *)row + at);
    case KV_AS_F16:
        return v_f16(row + 2 * at);
    case KV_AS_S8:
        return v_s8(row + at);
    case KV_AS_U4:
        return v_bits(row + (at < half ? at : at - half), at < half ? 0 : 4, 15);
    default: {
        vf high = v_bits(row + at % half, at / half * 4, 15);
        vf low = v_bits(row + half + at % (half / 2), at / (half / 2) * 2, 3);
        return v_fma(high, v_set(4), low);
    }
    }
}

static inline __attribute__((always_inline)) vf load_row_n(const uint8_t *row, kv_coding coding,
                                                           int at, int n) {
    return v_load_as_n(row, coding == KV_AS_F16 ? DT_F16 : DT_F32, at, n);
}

/* scores[r][.] = base[r] + q[r] . numbers of k, for the tokens of the page. */
static inline __attribute__((always_inline)) void score_tile(float *scores, const float *q,
                                                             const float *base, const kv_page *page,
                                                             int k_dim, int n_row,
                                                             kv_coding coding) {
    const int row_bytes = OPS_PAGE_TOKENS * coding_bits(coding) / 8;
    for (int c = 0; c < OPS_PAGE_TOKENS; c += ATTEND_WIDTH) {
        vf acc[ATTEND_ROWS][VEC_TILE];
        for (int r = 0; r < n_row; r++) {
            for (int j = 0; j < VEC_TILE; j++) {
                acc[r][j] = v_set(base[r]);
            }
        }
        for (int d = 0; d < k_dim; d++) {
            vf k[VEC_TILE];
            const uint8_t *row = (const uint8_t *)page->k + (int64_t)d * row_bytes;
            fetch_ahead(page->next_k, coding, (int64_t)d * OPS_PAGE_TOKENS + c, ATTEND_WIDTH);
            for (int j = 0; j < VEC_TILE; j++) {
                k[j] = load_row(row, coding, OPS_PAGE_TOKENS, c + j * VEC_N);
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

/* a . b, and y = a * by if y is not NULL. */
static float dot_row(float *y, const float *by, const float *a, const float *b, int n) {
    vf sum = v_set(0);
    for (int i = 0; i < n; i += VEC_N) {
        int left = n - i < VEC_N ? n - i : VEC_N;
        vf x = v_load_n(a + i, left);
        sum = v_fma(x, v_load_n(b + i, left), sum);
        if (y) {
            v_store_n(y + i, x * v_load_n(by + i, left), left);
        }
    }
    return v_sum(sum);
}

/* A row's scores from those of the codes, and that of the token that has none. */
static void scale_scores(const attn_rows *a, int r, const kv_page *page) {
    float *s = a->scores + r * OPS_PAGE_TOKENS;
    for (int i = 0; page->token_scale && i < OPS_PAGE_TOKENS; i += VEC_N) {
        v_store(s + i, v_load(s + i) * v_load(page->token_scale + i));
    }
    if (page->own >= 0) {
        s[page->own] = dot_row(NULL, NULL, a->q + (int64_t)r * a->k_dim, page->own_k, a->k_dim);
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

/* Makes a row's weights those of the codes, and adds what else there is to its sum of values: the
 * minima, which are the same for all elements, and the value of the token that has no codes. */
static void scale_weights(const attn_rows *a, int r, const kv_page *page) {
    float *s = a->scores + r * OPS_PAGE_TOKENS, *acc = a->acc + (int64_t)r * a->v_dim, own = 0;
    if (page->own >= 0) {
        own = s[page->own];
        s[page->own] = 0;
    }
    vf least = v_set(0);
    for (int i = 0; i < OPS_PAGE_TOKENS; i += VEC_N) {
        vf p = v_load(s + i);
        least = page->v_min ? v_fma(p, v_load(page->v_min + i), least) : least;
        v_store(s + i, p * v_load(page->v_scale + i));
    }
    vf common = v_set(v_sum(least)), weight = v_set(own);
    for (int d = 0; (page->v_min || own != 0) && d < a->v_dim; d += VEC_N) {
        int n = a->v_dim - d < VEC_N ? a->v_dim - d : VEC_N;
        vf sum = v_load_n(acc + d, n) + common;
        if (own != 0) {
            sum = v_fma(weight, v_load_n(page->own_v + d, n), sum);
        }
        v_store_n(acc + d, sum, n);
    }
}

/* acc[r][d ..] += weights[r][t] * v[t][d ..] for tokens from .. to-1; n_vec vectors of VEC_N
 * elements, or, when tail is not 0, one of tail elements, of floats. */
static inline __attribute__((always_inline)) void value_tile(float *acc, const float *weights,
                                                             const kv_page *page, int v_dim, int d,
                                                             int from, int to, int n_row, int n_vec,
                                                             int tail, kv_coding coding) {
    const int64_t row_bytes = (int64_t)v_dim * coding_bits(coding) / 8;
    vf sum[ATTEND_ROWS][VEC_TILE];
    for (int r = 0; r < n_row; r++) {
        for (int j = 0; j < n_vec; j++) {
            const float *at = acc + r * v_dim + d + j * VEC_N;
            sum[r][j] = tail ? v_load_n(at, tail) : v_load(at);
        }
    }
    for (int t = from; t < to; t++) {
        vf v[VEC_TILE];
        const uint8_t *row = (const uint8_t *)page->v + t * row_bytes;
        fetch_ahead(page->next_v, coding, (int64_t)t * v_dim + d, tail ? tail : n_vec * VEC_N);
        for (int j = 0; j < n_vec; j++) {
            v[j] = tail ? load_row_n(row, coding, d, tail)
                        : load_row(row, coding, v_dim, d + j * VEC_N);
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
                                                             kv_coding coding) {
    int d = 0;
    for (; d + ATTEND_WIDTH <= v_dim; d += ATTEND_WIDTH) {
        value_tile(acc, weights, page, v_dim, d, from, to, n_row, VEC_TILE, 0, coding);
    }
    for (; d + VEC_N <= v_dim; d += VEC_N) {
        value_tile(acc, weights, page, v_dim, d, from, to, n_row, 1, 0, coding);
    }
    if (d < v_dim && (coding == KV_AS_F32 || coding == KV_AS_F16)) {
        value_tile(acc, weights, page, v_dim, d, from, to, n_row, 1, v_dim - d, coding);
    }
}

/* Queries of a tile and where their scores begin, for a page whose keys have a scale for each
 * element: it is taken into the query, and the minima's part of the score is the same everywhere.
 */
static const float *scale_queries(float *scaled, float *base, const attn_rows *a, int r, int n_row,
                                  const kv_page *page) {
    const float *q = a->q + (int64_t)r * a->k_dim;
    for (int i = 0; i < n_row; i++) {
        int64_t at = (int64_t)i * a->k_dim;
        base[i] =
            page->k_scale ? dot_row(scaled + at, page->k_scale, q + at, page->k_min, a->k_dim) : 0;
    }
    return page->k_scale ? scaled : q;
}

/* The n_row rows from r on. What only some of them see is added row by row, before and after what
 * all see, so that each row takes its tokens in order. */
static inline __attribute__((always_inline)) void
attend_tile(const attn_rows *a, int r, int n_row, const kv_page *page, kv_coding coding) {
    const kv_coding of_values = coding == KV_AS_U6 ? KV_AS_U4 : coding;
    float *weights = a->scores + r * OPS_PAGE_TOKENS, *acc = a->acc + (int64_t)r * a->v_dim;
    float scaled[ATTEND_ROWS * OPS_HEAD_MAX], base[ATTEND_ROWS];
    const float *q = scale_queries(scaled, base, a, r, n_row, page);
    score_tile(weights, q, base, page, a->k_dim, n_row, coding);
    int from = 0, to = OPS_PAGE_TOKENS;
    for (int i = r; i < r + n_row; i++) {
        from = a->from[i] > from ? a->from[i] : from;
        to = a->to[i] < to ? a->to[i] : to;
        if (a->from[i] < a->to[i]) {
            scale_scores(a, i, page);
            if (a->softcap > 0) {
                cap_row(a->scores + i * OPS_PAGE_TOKENS, a->softcap);
            }
            soften_row(a, i);
            if (page->v_scale) {
                scale_weights(a, i, page);
            }
        }
    }
    bool shared = n_row > 1 && from < to;
    for (int i = 0; i < n_row; i++) {
        add_values(acc + i * a->v_dim, weights + i * OPS_PAGE_TOKENS, page, a->v_dim,
                   a->from[r + i], shared ? from : a->to[r + i], 1, of_values);
    }
    if (shared) {
        add_values(acc, weights, page, a->v_dim, from, to, n_row, of_values);
    }
    for (int i = 0; shared && i < n_row; i++) {
        add_values(acc + i * a->v_dim, weights + i * OPS_PAGE_TOKENS, page, a->v_dim, to,
                   a->to[r + i], 1, of_values);
    }
}

static inline __attribute__((always_inline)) void
attend_all(const attn_rows *a, const kv_page *page, kv_coding coding) {
    int r = 0;
    for (; r + ATTEND_ROWS <= a->n_row; r += ATTEND_ROWS) {
        attend_tile(a, r, ATTEND_ROWS, page, coding);
    }
    if (a->n_row - r == 3) {
        attend_tile(a, r, 3, page, coding);
    } else if (a->n_row - r == 2) {
        attend_tile(a, r, 2, page, coding);
    } else if (a->n_row - r == 1) {
        attend_tile(a, r, 1, page, coding);
    }
}

static void attend_f32(const attn_rows *a, const kv_page *page) {
    attend_all(a, page, KV_AS_F32);
}
static void attend_f16(const attn_rows *a, const kv_page *page) {
    attend_all(a, page, KV_AS_F16);
}
static void attend_s8(const attn_rows *a, const kv_page *page) {
    attend_all(a, page, KV_AS_S8);
}
static void attend_u4(const attn_rows *a, const kv_page *page) {
    attend_all(a, page, KV_AS_U4);
}
static void attend_u6(const attn_rows *a, const kv_page *page) {
    attend_all(a, page, KV_AS_U6);
}

static void kern_attend_page(const attn_rows *a, const kv_page *page) {
    static void (*const by_coding[])(const attn_rows *, const kv_page *) = {
        attend_f32, attend_f16, attend_s8, attend_u4, attend_u6};
    by_coding[page->coding](a, page);
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
