/* stored_rows.c - blocks of rows, and whole matrices block by block. */
#include "quant/stored_rows.h"

#include "base/half.h"
#include "base/pool.h"
#include "format/affine.h"
#include "quant/part_maps.h"

#define BLOCK_WEIGHTS 65536

bool stored_halves(uint16_t *out, const float *x, int64_t n, dtype type) {
    uint16_t top = type == DT_BF16 ? 0x7f80 : 0x7c00;
    bool fits = true;
    for (int64_t i = 0; i < n; i++) {
        out[i] = type == DT_BF16 ? f32_to_bf16(x[i]) : f32_to_f16(x[i]);
        fits &= (out[i] & top) != top;
    }
    return fits;
}

stored_result stored_put(const stored_rows *out, int64_t first, const quant_block *b, quant_fn fn) {
    int64_t row_groups = b->n_cols / b->group, n = b->n_rows * row_groups;
    if (!fn(b)) {
        return STORED_NOT_FINITE;
    }
    uint32_t *words =
        (uint32_t *)(void *)out->weights + first * affine_row_words(b->n_cols, b->bits);
    affine_pack(words, b->codes, b->n_rows * b->n_cols, b->bits);
    bool fits = stored_halves(out->scales + first * row_groups, b->scales, n, b->type);
    fits &= stored_halves(out->biases + first * row_groups, b->biases, n, b->type);
    return fits ? STORED_DONE : STORED_TOO_LARGE;
}

/* ---- Whole matrices ---- */

typedef struct matrix_job {
    const stored_job *of;
    stored_rows out;
    int64_t step; /* rows of a task */
    jang_status status[POOL_MAX_THREADS];
    bool results[POOL_MAX_THREADS][STORED_TOO_LARGE + 1]; /* those that a thread's blocks had */
} matrix_job;

static jang_status put_block(matrix_job *j, int64_t first, int64_t n, bool *results) {
    const stored_job *of = j->of;
    size_t count = (size_t)(n * of->part->columns), n_groups = count / (size_t)of->group;
    float *w = ctx_array(of->ctx, count, sizeof *w);
    quant_block b = {.w = w,
                     .n_rows = n,
                     .n_cols = of->part->columns,
                     .bits = of->bits,
                     .group = of->group,
                     .codes = ctx_alloc(of->ctx, count),
                     .scales = ctx_array(of->ctx, n_groups, sizeof *b.scales),
                     .biases = ctx_array(of->ctx, n_groups, sizeof *b.biases),
                     .type = j->out.type,
                     .importance = of->importance};
    jang_status status = w && b.codes && b.scales && b.biases
                             ? part_rows_f32(w, of->source, of->part, first, n)
                             : ctx_fail_memory(of->ctx, count * 5);
    if (status == JANG_OK) {
        results[stored_put(&j->out, first, &b, of->fn)] = true;
    }
    ctx_free(of->ctx, w);
    ctx_free(of->ctx, b.codes);
    ctx_free(of->ctx, b.scales);
    ctx_free(of->ctx, b.biases);
    return status;
}

static void run_block(void *arg, int task, int thread) {
    matrix_job *j = arg;
    int64_t first = task * j->step, left = j->of->part->rows - first;
    if (j->status[thread] == JANG_OK) {
        int64_t n = left < j->step ? left : j->step;
        j->status[thread] = put_block(j, first, n, j->results[thread]);
    }
}

/* Quantizes all rows with scales of a type; *fits: it holds them. */
static jang_status put_matrix(const stored_rows *out, const stored_job *of, bool *fits) {
    int64_t step = BLOCK_WEIGHTS / of->part->columns;
    int64_t least = of->part->map ? part_map_together(of->part) : 1;
    matrix_job *j = ctx_zero(of->ctx, 1, sizeof *j);
    if (!j) {
        return ctx_fail_memory(of->ctx, sizeof *j);
    }
    j->of = of;
    j->out = *out;
    j->step = step > least ? step : least;
    pool *threads = ctx_pool(of->ctx);
    pool_run(threads, run_block, j, (int)((of->part->rows + j->step - 1) / j->step));
    jang_status status = JANG_OK;
    *fits = true;
    for (int i = 0; i < pool_threads(threads) && status == JANG_OK; i++) {
        status = j->status[i];
        if (status == JANG_OK && j->results[i][STORED_NOT_FINITE]) {
            status = ctx_fail(of->ctx, JANG_ERR_FORMAT, "%s: tensor %s: NaN or infinite weights",
                              checkpoint_path(of->source), of->part->name);
        }
        *fits &= !j->results[i][STORED_TOO_LARGE];
    }
    ctx_free(of->ctx, j);
    return status;
}

jang_status stored_make(stored_rows *out, const stored_job *j) {
    size_t n_groups = (size_t)(j->part->params / j->group);
    size_t n_bytes = (size_t)(j->part->rows * affine_row_words(j->part->columns, j->bits)) * 4;
    stored_rows made = {.weights = ctx_alloc(j->ctx, n_bytes),
                        .scales = ctx_array(j->ctx, n_groups, sizeof *made.scales),
                        .biases = ctx_array(j->ctx, n_groups, sizeof *made.biases),
                        .type = j->type};
    bool fits = true;
    jang_status status = made.weights && made.scales && made.biases
                             ? put_matrix(&made, j, &fits)
                             : ctx_fail_memory(j->ctx, n_bytes + 4 * n_groups);
    if (status == JANG_OK && !fits && made.type == DT_F16) {
        made.type = DT_BF16;
        status = put_matrix(&made, j, &fits);
    }
    if (status == JANG_OK && !fits) {
        status = ctx_fail(j->ctx, JANG_ERR_FORMAT, "%s: tensor %s: weights too large for %s",
                          checkpoint_path(j->source), j->part->name, dtype_table[made.type].name);
    }
    if (status != JANG_OK) {
        stored_free(&made, j->ctx);
        return status;
    }
    *out = made;
    return JANG_OK;
}

void stored_free(stored_rows *rows, ctx_t *ctx) {
    ctx_free(ctx, rows->weights);
    ctx_free(ctx, rows->scales);
    ctx_free(ctx, rows->biases);
    *rows = (stored_rows){0};
}
