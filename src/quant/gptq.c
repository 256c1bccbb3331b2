/* gptq.c - quantizing matrices against the second moments of their inputs. */
#include "quant/gptq_impl.h"

#include "base/pool.h"
#include "quant/blas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_POLISH 2 /* passes over the row after the first, unless more are asked for */
#define MAX_DAMPING 10.0

static float *square_new(ctx_t *ctx, int64_t n) {
    return ctx_zero(ctx, (size_t)n, (size_t)n * sizeof(float));
}

jang_status gptq_site_new(gptq_site *out, ctx_t *ctx, int64_t n_in) {
    gptq_site s = {
        .n_in = n_in, .n_polish = N_POLISH, .h = square_new(ctx, n_in), .z = square_new(ctx, n_in)};
    s.factor = ctx_array(ctx, (size_t)n_in, (size_t)n_in * sizeof(float));
    s.order = ctx_array(ctx, (size_t)n_in / 32 + 1, sizeof *s.order);
    if (!s.h || !s.z || !s.factor || !s.order) {
        gptq_site_free(&s, ctx);
        return ctx_fail_memory(ctx, 3 * (size_t)(n_in * n_in) * sizeof(float));
    }
    *out = s;
    return JANG_OK;
}

void gptq_site_free(gptq_site *s, ctx_t *ctx) {
    ctx_free(ctx, s->h);
    ctx_free(ctx, s->z);
    ctx_free(ctx, s->h_held);
    ctx_free(ctx, s->z_held);
    ctx_free(ctx, s->factor);
    ctx_free(ctx, s->order);
    *s = (gptq_site){0};
}

jang_status gptq_site_hold(gptq_site *s, ctx_t *ctx) {
    s->h_held = square_new(ctx, s->n_in);
    s->z_held = square_new(ctx, s->n_in);
    return s->h_held && s->z_held
               ? JANG_OK
               : ctx_fail_memory(ctx, 2 * (size_t)(s->n_in * s->n_in) * sizeof(float));
}

void gptq_site_merge(gptq_site *s, ctx_t *ctx) {
    for (int64_t i = 0; s->h_held && i < s->n_in * s->n_in; i++) {
        s->h[i] += s->h_held[i];
    }
    s->n_tok += s->n_held;
    s->n_held = 0;
    ctx_free(ctx, s->h_held);
    ctx_free(ctx, s->z_held);
    s->h_held = s->z_held = NULL;
}

/* Sums of squares of n_in columns, or products of two such, over n_tok rows. */
static gemm_call moments(const gptq_site *s, const float *a, int64_t lda, const float *b,
                         int64_t ldb, int64_t n_tok) {
    return (gemm_call){.m = s->n_in,
                       .n = s->n_in,
                       .k = n_tok,
                       .trans_a = true,
                       .a = a,
                       .b = b,
                       .lda = lda,
                       .ldb = ldb,
                       .ldc = s->n_in,
                       .alpha = 1,
                       .beta = 1,
                       .coarse = true};
}

jang_status gptq_site_add(gptq_site *s, ctx_t *ctx, const float *xq, const float *xf,
                          int64_t stride, int64_t n_tok, bool held) {
    int64_t n = s->n_in;
    gemm_call g = moments(s, xq, stride, xq, stride, n_tok);
    g.c = held ? s->h_held : s->h;
    g.symmetric = true;
    blas_gemm_spread(ctx, &g);
    s->n_tok += held ? 0 : n_tok;
    s->n_held += held ? n_tok : 0;
    if (!xf) {
        return JANG_OK;
    }
    float *d = ctx_array(ctx, (size_t)n_tok, (size_t)n * sizeof *d);
    if (!d) {
        return ctx_fail_memory(ctx, (size_t)(n_tok * n) * sizeof *d);
    }
    for (int64_t t = 0; t < n_tok; t++) {
        for (int64_t i = 0; i < n; i++) {
            d[t * n + i] = xf[t * stride + i] - xq[t * stride + i];
        }
    }
    g = moments(s, d, n, xq, stride, n_tok);
    g.c = held ? s->z_held : s->z;
    blas_gemm_spread(ctx, &g);
    ctx_free(ctx, d);
    return JANG_OK;
}

/* ---- Order ---- */

typedef struct ranked {
    double size;
    int64_t group;
} ranked;

static int compare_ranked(const void *a, const void *b) {
    const ranked *p = a, *q = b;
    if (p->size != q->size) {
        return p->size > q->size ? -1 : 1;
    }
    return p->group < q->group ? -1 : 1;
}

static jang_status order_groups(gptq_site *s, ctx_t *ctx) {
    int64_t n = s->n_in / s->group;
    ranked *r = ctx_array(ctx, (size_t)n, sizeof *r);
    if (!r) {
        return ctx_fail_memory(ctx, (size_t)n * sizeof *r);
    }
    for (int64_t i = 0; i < n; i++) {
        r[i] = (ranked){0, i};
        for (int64_t k = i * s->group; k < (i + 1) * s->group; k++) {
            r[i].size += (double)s->h[k * s->n_in + k];
        }
    }
    qsort(r, (size_t)n, sizeof *r, compare_ranked);
    for (int64_t i = 0; i < n; i++) {
        s->order[i] = r[i].group;
    }
    ctx_free(ctx, r);
    return JANG_OK;
}

/* Copies a row's groups into the order they are decided in, or back. */
static void permute_row(const gptq_site *s, float *to, const float *from, bool back) {
    size_t bytes = (size_t)s->group * sizeof *to;
    for (int64_t i = 0; i < s->n_in / s->group; i++) {
        int64_t here = i * s->group, there = s->order[i] * s->group;
        memcpy(to + (back ? there : here), from + (back ? here : there), bytes);
    }
}

/* Rows and columns of a square matrix into that order; factor is scratch. */
static void permute_square(gptq_site *s, float *a) {
    int64_t n = s->n_in;
    memcpy(s->factor, a, (size_t)(n * n) * sizeof *a);
    for (int64_t i = 0; i < n; i++) {
        int64_t from = s->order[i / s->group] * s->group + i % s->group;
        permute_row(s, a + i * n, s->factor + from * n, false);
    }
}

static double mean_diagonal(const gptq_site *s) {
    double sum = 0;
    for (int64_t i = 0; i < s->n_in; i++) {
        sum += (double)s->h[i * s->n_in + i];
    }
    return sum / (double)s->n_in;
}

static void add_diagonal(float *a, int64_t n, float x) {
    for (int64_t i = 0; i < n; i++) {
        a[i * n + i] += x;
    }
}

/* ---- Factors ---- */

/* Copies H with more on its diagonal, or that with rows and columns reversed, into factor. */
static void copy_damped(gptq_site *s, float add, bool reversed) {
    int64_t n = s->n_in;
    for (int64_t i = 0; i < n; i++) {
        const float *row = s->h + (reversed ? n - 1 - i : i) * n;
        float *to = s->factor + i * n;
        if (!reversed) {
            memcpy(to, row, (size_t)n * sizeof *to);
        }
        for (int64_t j = 0; reversed && j < n; j++) {
            to[j] = row[n - 1 - j];
        }
        to[i] += add;
    }
}

/* Factors the damped H, or its reversal; where it is not positive definite, damps more. */
static jang_status factor_h(gptq_site *s, ctx_t *ctx, double damping, bool reversed, float *add) {
    double mean = mean_diagonal(s);
    if (!isfinite(mean)) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "the calibration inputs are not finite");
    }
    for (;; damping = damping > 0 ? damping * 10 : 0.01) {
        *add = (float)(mean > 0 ? damping * mean : 1.0);
        copy_damped(s, *add, reversed);
        s->damping = damping;
        if (blas_cholesky(ctx, s->factor, s->n_in)) {
            return JANG_OK;
        }
        if (damping > MAX_DAMPING) {
            return ctx_fail(ctx, JANG_ERR_FORMAT,
                            "the second moments of the calibration inputs cannot be factored");
        }
    }
}

/* ---- Targets ---- */

/* W += share W Z H^-1 */
static jang_status move_matrix(const gptq_site *s, ctx_t *ctx, gptq_matrix *m) {
    int64_t n = s->n_in;
    float *from = ctx_array(ctx, (size_t)m->n_out, (size_t)n * sizeof *from);
    if (!from) {
        return ctx_fail_memory(ctx, (size_t)(m->n_out * n) * sizeof *from);
    }
    memcpy(from, m->w, (size_t)(m->n_out * n) * sizeof *from);
    gemm_call g = {.m = m->n_out,
                   .n = n,
                   .k = n,
                   .a = from,
                   .b = s->z,
                   .lda = n,
                   .ldb = n,
                   .c = m->w,
                   .ldc = n,
                   .alpha = s->share,
                   .beta = 1,
                   .coarse = true};
    blas_gemm_spread(ctx, &g);
    ctx_free(ctx, from);
    return JANG_OK;
}

static jang_status permute_matrix(const gptq_site *s, ctx_t *ctx, float *w, int64_t n_out,
                                  bool back) {
    float *row = ctx_array(ctx, (size_t)s->n_in, sizeof *row);
    if (!row) {
        return ctx_fail_memory(ctx, (size_t)s->n_in * sizeof *row);
    }
    for (int64_t i = 0; i < n_out; i++) {
        memcpy(row, w + i * s->n_in, (size_t)s->n_in * sizeof *row);
        permute_row(s, w + i * s->n_in, row, back);
    }
    ctx_free(ctx, row);
    return JANG_OK;
}

void gptq_make_feedback(float *u, int64_t n, int64_t step) {
    for (int64_t i = 0; i < n * n / 2; i++) { /* reversing both axes reverses the array */
        float x = u[i];
        u[i] = u[n * n - 1 - i];
        u[n * n - 1 - i] = x;
    }
    for (int64_t from = step; from < n; from += step) {
        const float *block = u + from * n + from;
        int64_t size = n - from < step ? n - from : step;
        for (int64_t r = 0; r < from; r++) {
            float *x = u + r * n + from;
            for (int64_t c = 0; c < size; c++) {
                x[c] /= block[c * n + c];
                for (int64_t k = c + 1; k < size; k++) {
                    x[k] -= x[c] * block[c * n + k];
                }
            }
        }
    }
}

jang_status gptq_aim(gptq_site *s, ctx_t *ctx, double damping, double share) {
    float add;
    blas_mirror(s->h, s->n_in);
    jang_status status = factor_h(s, ctx, damping, false, &add);
    if (status == JANG_OK) {
        blas_solve(ctx, s->z, s->n_in, s->factor, s->n_in);
        s->share = (float)share;
    }
    return status;
}

void gptq_site_blend(gptq_site *s, const gptq_site *other, double share) {
    for (int64_t i = 0; i < s->n_in * s->n_in; i++) {
        s->h[i] += (float)share * other->h[i];
    }
}

void gptq_site_scale(gptq_site *s, const float *factors) {
    int64_t n = s->n_in;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < n; k++) {
            s->h[i * n + k] /= factors[i] * factors[k];
            s->z[i * n + k] *= factors[k] / factors[i];
        }
    }
}

jang_status gptq_site_copy(gptq_site *out, ctx_t *ctx, const gptq_site *s) {
    jang_status status = gptq_site_new(out, ctx, s->n_in);
    if (status == JANG_OK) {
        size_t bytes = (size_t)(s->n_in * s->n_in) * sizeof(float);
        memcpy(out->h, s->h, bytes);
        memcpy(out->z, s->z, bytes);
        out->share = s->share;
        out->n_polish = s->n_polish;
        out->stretch = s->stretch;
        out->n_tok = s->n_tok;
    }
    return status;
}

jang_status gptq_prepare(gptq_site *s, ctx_t *ctx, int group, double damping) {
    s->group = group;
    blas_mirror(s->h, s->n_in);
    jang_status status = order_groups(s, ctx);
    if (status != JANG_OK) {
        return status;
    }
    permute_square(s, s->h);
    float add;
    status = factor_h(s, ctx, damping, true, &add);
    if (status == JANG_OK) {
        add_diagonal(s->h, s->n_in, add); /* for the sweeps */
        gptq_make_feedback(s->factor, s->n_in, group);
    }
    return status;
}

/* ---- Codes ---- */

static void make_metrics(gptq_job *j) {
    const gptq_site *s = j->s;
    int64_t n = s->n_in, g = s->group;
    for (int64_t at = 0; at < n; at += g) {
        const float *u = s->factor + at * n + at;
        float *m = j->metrics + at * g, *h = j->blocks + at * g;
        for (int64_t a = 0; a < g; a++) {
            for (int64_t b = 0; b <= a; b++) {
                double sum = 0;
                for (int64_t k = a; k < g; k++) {
                    sum += (double)u[a * n + k] * (double)u[b * n + k];
                }
                m[a * g + b] = m[b * g + a] = (float)sum;
                h[a * g + b] = h[b * g + a] = s->h[(at + a) * n + at + b];
            }
        }
    }
}

/* Rows of a task at work. */
typedef struct row_block {
    const gptq_job *job;
    int64_t first, n_rows;
    float *errors, *target; /* [n_rows, n_in], [n_rows, group] */
    lattice *l;
} row_block;

/* Writes a lattice's outcome for rows [r, r + n): codes, grids, and the errors of these columns. */
static void take_result(const row_block *b, int64_t r, int64_t n, int64_t at) {
    const gptq_site *s = b->job->s;
    gptq_matrix *m = b->job->m;
    int64_t group = s->group, to = s->order[at / group], n_groups = s->n_in / group;
    for (int64_t k = 0; k < n; k++) {
        int64_t row = b->first + r + k;
        float scale = b->l->scale[k], bias = b->l->bias[k];
        m->scales[row * n_groups + to] = scale;
        m->biases[row * n_groups + to] = bias;
        for (int64_t i = 0; i < group; i++) {
            float q = b->l->q[i][k];
            m->codes[row * s->n_in + to * group + i] = (uint8_t)q;
            b->errors[(r + k) * s->n_in + at + i] =
                m->w[row * s->n_in + at + i] - (q * scale + bias);
        }
    }
}

/* Lanes beyond the last row repeat it. */
static int64_t lane_row(int64_t r, int64_t n_rows, int64_t lane) {
    return r + lane < n_rows ? r + lane : n_rows - 1;
}

static void solve_group(const row_block *b, int64_t at) {
    const gptq_job *job = b->job;
    const gptq_site *s = job->s;
    int64_t n = s->n_in, group = s->group;
    for (int64_t r = 0; r < b->n_rows; r++) {
        memcpy(b->target + r * group, job->m->w + (b->first + r) * n + at,
               (size_t)group * sizeof(float));
    }
    gemm_call g = {.m = b->n_rows,
                   .n = group,
                   .k = at,
                   .a = b->errors,
                   .lda = n,
                   .b = s->factor + at,
                   .ldb = n,
                   .c = b->target,
                   .ldc = group,
                   .alpha = 1,
                   .beta = 1};
    if (at > 0) {
        blas_gemm(&g);
    }
    b->l->m = job->metrics + at * group;
    for (int64_t r = 0; r < b->n_rows; r += LATTICE_ROWS) {
        for (int64_t i = 0; i < group; i++) {
            for (int k = 0; k < LATTICE_ROWS; k++) {
                b->l->t[i][k] = b->target[lane_row(r, b->n_rows, k) * group + i];
            }
        }
        job->fns->solve(b->l);
        take_result(b, r, b->n_rows - r < LATTICE_ROWS ? b->n_rows - r : LATTICE_ROWS, at);
    }
}

static void load_result(const row_block *b, int64_t r, int64_t at) {
    const gptq_site *s = b->job->s;
    const gptq_matrix *m = b->job->m;
    int64_t group = s->group, from = s->order[at / group], n_groups = s->n_in / group;
    for (int k = 0; k < LATTICE_ROWS; k++) {
        int64_t lane = lane_row(r, b->n_rows, k), row = b->first + lane;
        b->l->scale[k] = m->scales[row * n_groups + from];
        b->l->bias[k] = m->biases[row * n_groups + from];
        for (int64_t i = 0; i < group; i++) {
            b->l->q[i][k] = (float)m->codes[row * s->n_in + from * group + i];
            b->l->h[i][k] = b->target[lane * group + i];
        }
    }
}

/* target = x H for rows x [n_rows, n_in], in the group of columns that begins at at. */
static void multiply_h(const row_block *b, const float *x, int64_t at) {
    const gptq_site *s = b->job->s;
    gemm_call g = {.m = b->n_rows,
                   .n = s->group,
                   .k = s->n_in,
                   .a = x,
                   .lda = s->n_in,
                   .b = s->h + at,
                   .ldb = s->n_in,
                   .c = b->target,
                   .ldc = s->group,
                   .alpha = 1};
    blas_gemm(&g);
}

/* Improves a group against the errors of the whole row. */
static void polish_group(const row_block *b, int64_t at) {
    const gptq_job *job = b->job;
    int64_t group = job->s->group;
    multiply_h(b, b->errors, at);
    b->l->m = job->blocks + at * group;
    for (int64_t r = 0; r < b->n_rows; r += LATTICE_ROWS) {
        load_result(b, r, at);
        job->fns->polish(b->l, 1);
        take_result(b, r, b->n_rows - r < LATTICE_ROWS ? b->n_rows - r : LATTICE_ROWS, at);
    }
}

/* Adds to sums x H w' of each row, for rows x [n_rows, n_in] with w the row's weights. */
static void add_forms(double *sums, const row_block *b, const float *x) {
    const gptq_site *s = b->job->s;
    int64_t n = s->n_in, group = s->group;
    for (int64_t at = 0; at < n; at += group) {
        multiply_h(b, x, at);
        for (int64_t r = 0; r < b->n_rows; r++) {
            const float *w = b->job->m->w + (b->first + r) * n + at;
            for (int64_t i = 0; i < group; i++) {
                sums[r] += (double)b->target[r * group + i] * (double)w[i];
            }
        }
    }
}

/* Multiplies a row's scales and biases, rounded as stored; the errors follow. */
static void scale_row(const row_block *b, int64_t r, float by) {
    const gptq_site *s = b->job->s;
    gptq_matrix *m = b->job->m;
    int64_t n = s->n_in, group = s->group, row = b->first + r;
    for (int64_t at = 0; at < n; at += group) {
        int64_t to = s->order[at / group];
        float *scale = &m->scales[row * (n / group) + to],
              *bias = &m->biases[row * (n / group) + to];
        float stored[2] = {lattice_stored(*scale * by, m->type),
                           lattice_stored(*bias * by, m->type)};
        if (!isfinite(stored[0]) || !isfinite(stored[1])) {
            continue;
        }
        *scale = stored[0];
        *bias = stored[1];
        const uint8_t *codes = m->codes + row * n + to * group;
        for (int64_t i = 0; i < group; i++) {
            float q = (float)codes[i] * *scale + *bias;
            b->errors[r * n + at + i] = m->w[row * n + at + i] - q;
        }
    }
}

/* Fitted rows give outputs of less variance than theirs, by what the errors have. Stretched by
 * w H w' / w H v' they would covary with the true outputs as those do with themselves; a share of
 * that way is gone, which costs little error and keeps the layers' outputs from fading. */
static void stretch_rows(const row_block *b) {
    const gptq_site *s = b->job->s;
    double whole[GPTQ_TASK_ROWS] = {0}, lost[GPTQ_TASK_ROWS] = {0};
    add_forms(whole, b, b->job->m->w + b->first * s->n_in);
    add_forms(lost, b, b->errors);
    for (int64_t r = 0; r < b->n_rows; r++) {
        double by = whole[r] / (whole[r] - lost[r]);
        if (by > 0.5 && by < 2) {
            scale_row(b, r, (float)pow(by, s->stretch));
        }
    }
}

static void quantize_rows(void *arg, int task, int thread) {
    const gptq_job *job = arg;
    const gptq_site *s = job->s;
    int64_t n = s->n_in, at_once = job->task_rows, left = job->m->n_out - task * at_once;
    float *scratch = job->scratch + (int64_t)thread * GPTQ_TASK_ROWS * (n + s->group);
    row_block b = {job,
                   task * at_once,
                   left < at_once ? left : at_once,
                   scratch,
                   scratch + GPTQ_TASK_ROWS * n,
                   &job->lattices[thread]};
    b.l->group = s->group;
    b.l->bits = job->m->bits;
    b.l->type = job->m->type;
    for (int64_t at = 0; at < n; at += s->group) {
        solve_group(&b, at);
    }
    for (int i = 0; i < s->n_polish; i++) {
        for (int64_t at = 0; at < n; at += s->group) {
            polish_group(&b, at);
        }
    }
    if (s->stretch > 0) {
        stretch_rows(&b);
    }
    for (int64_t r = 0; r < b.n_rows; r++) { /* w becomes what the codes say */
        float *w = job->m->w + (b.first + r) * n, *row = b.errors + r * n;
        for (int64_t i = 0; i < n; i++) {
            row[i] = w[i] - row[i];
        }
        permute_row(s, w, row, true);
    }
}

jang_status gptq_job_open(gptq_job *out, const gptq_site *s, ctx_t *ctx, int64_t task_rows) {
    cpu_isa isa;
    jang_status status = cpu_choose(&isa, ctx);
    if (status != JANG_OK) {
        return status;
    }
    size_t n_threads = (size_t)pool_threads(ctx_pool(ctx));
    size_t square = (size_t)(s->n_in * s->group) * sizeof(float);
    size_t rows = (size_t)(GPTQ_TASK_ROWS * (s->n_in + s->group)) * sizeof(float);
    *out = (gptq_job){.s = s,
                      .ctx = ctx,
                      .task_rows = task_rows,
                      .fns = lattice_functions(isa),
                      .metrics = ctx_alloc(ctx, square),
                      .blocks = ctx_alloc(ctx, square),
                      .scratch = ctx_array(ctx, n_threads, rows),
                      .lattices = ctx_alloc_aligned(ctx, n_threads * sizeof(lattice), 64)};
    if (!out->metrics || !out->blocks || !out->scratch || !out->lattices) {
        gptq_job_close(out);
        return ctx_fail_memory(ctx, square + n_threads * rows);
    }
    make_metrics(out);
    return JANG_OK;
}

void gptq_job_close(gptq_job *j) {
    ctx_free(j->ctx, j->metrics);
    ctx_free(j->ctx, j->blocks);
    ctx_free(j->ctx, j->scratch);
    ctx_free_aligned(j->ctx, j->lattices);
    *j = (gptq_job){0};
}

jang_status gptq_job_run(gptq_job *j, gptq_matrix *m) {
    j->m = m;
    jang_status status = permute_matrix(j->s, j->ctx, m->w, m->n_out, false);
    if (status == JANG_OK) {
        pool_run(ctx_pool(j->ctx), quantize_rows, j,
                 (int)((m->n_out + j->task_rows - 1) / j->task_rows));
    }
    return status;
}

jang_status gptq_quantize(const gptq_site *s, ctx_t *ctx, gptq_matrix *m) {
    jang_status status = s->share != 0.0f ? move_matrix(s, ctx, m) : JANG_OK;
    if (status != JANG_OK || m->outputs) {
        return status == JANG_OK ? gptq_quantize_coupled(s, ctx, m) : status;
    }
    gptq_job j;
    status = gptq_job_open(&j, s, ctx, GPTQ_TASK_ROWS);
    if (status == JANG_OK) {
        status = gptq_job_run(&j, m);
        gptq_job_close(&j);
    }
    return status;
}
