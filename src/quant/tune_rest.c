/* tune_rest.c - matrices that calibration leaves to the end, quantized before a tuning. */
#include "quant/tune_impl.h"

#include "base/half.h"
#include "base/pool.h"
#include "quant/scaling.h"

#include <math.h>

#define BLOCK_WEIGHTS 65536

typedef struct rest_job {
    const tuning *t;
    const plan_item *item;
    const float *importance;
    int64_t step; /* rows of a task */
    uint8_t *codes;
    float *scales, *biases;
    bool infinite[POOL_MAX_THREADS]; /* weights */
    bool wide[POOL_MAX_THREADS];     /* scales or biases that f16 does not hold */
    jang_status status[POOL_MAX_THREADS];
} rest_job;

static bool fits_f16(float x) {
    return isfinite(f16_to_f32(f32_to_f16(x)));
}

static void quantize_rows(void *arg, int task, int thread) {
    rest_job *j = arg;
    ctx_t *ctx = j->t->ctx;
    int64_t columns = j->item->part->columns, first = task * j->step;
    int64_t left = j->item->part->rows - first, n = left < j->step ? left : j->step;
    int64_t n_groups = columns / j->item->group;
    float *w = ctx_array(ctx, (size_t)(n * columns), sizeof *w);
    quant_block b = {.w = w,
                     .n_rows = n,
                     .n_cols = columns,
                     .bits = j->item->bits,
                     .group = j->item->group,
                     .codes = j->codes + first * columns,
                     .scales = j->scales + first * n_groups,
                     .biases = j->biases + first * n_groups,
                     .type = j->item->type,
                     .importance = j->importance};
    jang_status status = w ? part_rows_f32(w, j->t->source, j->item->part, first, n)
                           : ctx_fail_memory(ctx, (size_t)(n * columns) * sizeof *w);
    if (status == JANG_OK) {
        j->infinite[thread] |= !j->t->fn(&b);
    }
    for (int64_t i = 0; i < n * n_groups && status == JANG_OK; i++) {
        j->wide[thread] |= !fits_f16(b.scales[i]) || !fits_f16(b.biases[i]);
    }
    ctx_free(ctx, w);
    j->status[thread] = j->status[thread] == JANG_OK ? status : j->status[thread];
}

/* Runs the job; *wide: the type of the scales is too narrow. */
static jang_status run_job(rest_job *j, bool *wide) {
    pool *threads = ctx_pool(j->t->ctx);
    pool_run(threads, quantize_rows, j, (int)((j->item->part->rows + j->step - 1) / j->step));
    *wide = false;
    for (int i = 0; i < pool_threads(threads); i++) {
        *wide |= j->wide[i] && j->item->type != DT_BF16;
        if (j->status[i] != JANG_OK) {
            return j->status[i];
        }
        if (j->infinite[i]) {
            return ctx_fail(j->t->ctx, JANG_ERR_FORMAT, "%s: tensor %s: NaN or infinite weights",
                            checkpoint_path(j->t->source), j->item->part->name);
        }
    }
    return JANG_OK;
}

static jang_status quantize(const tuning *t, size_t number) {
    plan_item *item = &t->plan->items[number];
    size_t n = (size_t)item->part->params, n_groups = n / (size_t)item->group;
    int64_t step = BLOCK_WEIGHTS / item->part->columns;
    rest_job *j = ctx_zero(t->ctx, 1, sizeof *j);
    if (!j) {
        return ctx_fail_memory(t->ctx, sizeof *j);
    }
    *j = (rest_job){.t = t,
                    .item = item,
                    .importance = t->importance ? t->importance[number] : NULL,
                    .step = step > 0 ? step : 1,
                    .codes = ctx_alloc(t->ctx, n),
                    .scales = ctx_array(t->ctx, n_groups, sizeof(float)),
                    .biases = ctx_array(t->ctx, n_groups, sizeof(float))};
    bool wide = false;
    jang_status status = j->codes && j->scales && j->biases
                             ? run_job(j, &wide)
                             : ctx_fail_memory(t->ctx, n + 2 * n_groups * sizeof(float));
    if (status == JANG_OK && wide) {
        plan_widen(item);
        status = run_job(j, &wide);
    }
    if (status == JANG_OK) {
        const work_matrix m = {j->codes, j->scales, j->biases, item->type};
        status = work_put(t->work, number, &m);
    }
    ctx_free(t->ctx, j->codes);
    ctx_free(t->ctx, j->scales);
    ctx_free(t->ctx, j->biases);
    ctx_free(t->ctx, j);
    return status;
}

jang_status tuner_finish_matrices(const tuning *t) {
    jang_status status = JANG_OK;
    for (size_t i = 0; i < t->plan->n_items && status == JANG_OK; i++) {
        plan_item *item = &t->plan->items[i];
        const part_scaling *scaling = item->part->scaling;
        work_view v;
        if (!item->bits || item->kept || (scaling && scaling->rows)) {
            continue;
        }
        if (work_get(&v, t->work, i)) {
            item->type = v.type;
        } else {
            status = quantize(t, i);
        }
    }
    return status;
}
