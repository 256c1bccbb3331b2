/* tune_latent.c - a matrix before it is rounded: its steps along the gradient, and what it
 * becomes. */
#include "quant/tune_impl.h"

#include "base/half.h"
#include "base/pool.h"
#include "format/affine.h"
#include "quant/scaling.h"

#include <math.h>
#include <string.h>

#define INSIDE 0.45f /* of a step: how far from its code a weight may begin */
#define ROWS 8       /* of a task */

static int64_t row_groups(const latent *l) {
    return l->item->part->columns / l->item->group;
}

static float top_code(const latent *l) {
    return (float)((1 << l->item->bits) - 1);
}

/* ---- Making ---- */

static jang_status make_arrays(latent *l) {
    size_t n = (size_t)l->item->part->params, n_groups = n / (size_t)l->item->group;
    float **of_weights[] = {&l->place, &l->value, &l->grad, &l->of_place.mean, &l->of_place.square};
    float **of_groups[] = {
        &l->unit,           &l->scale,           &l->centre, &l->of_scale.mean, &l->of_scale.square,
        &l->of_centre.mean, &l->of_centre.square};
    bool made = true;
    for (size_t i = 0; i < sizeof of_weights / sizeof *of_weights; i++) {
        made &= (*of_weights[i] = ctx_zero(l->ctx, n, sizeof(float))) != NULL;
    }
    for (size_t i = 0; i < sizeof of_groups / sizeof *of_groups; i++) {
        made &= (*of_groups[i] = ctx_zero(l->ctx, n_groups, sizeof(float))) != NULL;
    }
    return made ? JANG_OK : ctx_fail_memory(l->ctx, 5 * n * sizeof(float));
}

static float stored(const uint8_t *data, dtype type, int64_t i) {
    uint16_t h;
    memcpy(&h, data + 2 * i, sizeof h);
    return type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

jang_status latent_make(latent **out, ctx_t *ctx, const work_dir *work, size_t item) {
    latent *l = ctx_zero(ctx, 1, sizeof *l);
    if (!l) {
        return ctx_fail_memory(ctx, sizeof *l);
    }
    l->ctx = ctx;
    l->item = &work->plan->items[item];
    cpu_isa isa;
    jang_status status = cpu_choose(&isa, ctx);
    if (status == JANG_OK) {
        l->step = tune_group_function(isa);
        status = make_arrays(l);
    }
    work_view v;
    if (status != JANG_OK || !work_get(&v, work, item)) {
        latent_free(l);
        return status;
    }
    float middle = top_code(l) / 2;
    for (int64_t i = 0; i < l->item->part->params / l->item->group; i++) {
        l->scale[i] = stored(v.scales, v.type, i);
        l->centre[i] = stored(v.biases, v.type, i) + l->scale[i] * middle;
        l->unit[i] = fabsf(l->scale[i]);
    }
    *out = l;
    return JANG_OK;
}

void latent_free(latent *l) {
    if (!l) {
        return;
    }
    float *all[] = {l->place,           l->value,           l->grad,
                    l->of_place.mean,   l->of_place.square, l->unit,
                    l->scale,           l->centre,          l->of_scale.mean,
                    l->of_scale.square, l->of_centre.mean,  l->of_centre.square};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(l->ctx, all[i]);
    }
    ctx_free(l->ctx, l);
}

/* The place of a weight of group g in the half step around its code. */
static float place_of(const latent *l, int64_t g, float value, float original) {
    float inverse = isnormal(l->scale[g]) ? 1 / l->scale[g] : 0;
    float off = (original - value) * inverse;
    float code = rintf((value - l->centre[g]) * inverse + top_code(l) / 2);
    return code + (off > INSIDE ? INSIDE : off < -INSIDE ? -INSIDE : off);
}

void latent_fill(latent *l, const work_dir *work, size_t item, const float *original, int64_t first,
                 int64_t n) {
    work_view v;
    if (!work_get(&v, work, item)) {
        return;
    }
    int64_t columns = l->item->part->columns, group = l->item->group;
    for (int64_t r = first; r < first + n; r++) {
        const float *from = original + (r - first) * columns;
        const float *factors = scaling_columns(l->item->part, r);
        float *place = l->place + r * columns, *value = l->value + r * columns;
        work_rows_f32(value, work, item, r, 1);
        for (int64_t i = 0; i < columns; i++) {
            int64_t g = r * row_groups(l) + i / group;
            float by = factors ? factors[i] : 1;
            place[i] = place_of(l, g, value[i], from[i] * by);
            value[i] /= by;
        }
    }
    l->filled = true;
}

/* ---- Steps ---- */

typedef struct step_job {
    latent *l;
    const latent_rates *rates;
} step_job;

/* The group number g, whose first weight is in column `column` of row r. */
static tune_group group_of(latent *l, int64_t r, int64_t g, int64_t column) {
    const float *factors = scaling_columns(l->item->part, r);
    int64_t at = r * l->item->part->columns + column;
    return (tune_group){.n = l->item->group,
                        .factors = factors ? factors + column : NULL,
                        .top = top_code(l),
                        .unit = l->unit[g],
                        .place = l->place + at,
                        .value = l->value + at,
                        .grad = l->grad + at,
                        .of_place = {l->of_place.mean + at, l->of_place.square + at},
                        .scale = l->scale + g,
                        .centre = l->centre + g,
                        .of_scale = {l->of_scale.mean + g, l->of_scale.square + g},
                        .of_centre = {l->of_centre.mean + g, l->of_centre.square + g}};
}

static void step_rows(void *arg, int task, int thread) {
    (void)thread;
    const step_job *j = arg;
    latent *l = j->l;
    int64_t rows = l->item->part->rows;
    int64_t first = (int64_t)task * ROWS, last = first + ROWS < rows ? first + ROWS : rows;
    for (int64_t r = first; r < last; r++) {
        for (int64_t g = 0; g < row_groups(l); g++) {
            const tune_group group = group_of(l, r, r * row_groups(l) + g, g * l->item->group);
            l->step(&group, j->rates);
        }
    }
}

void latent_step(latent *l, const latent_rates *rates) {
    step_job j = {l, rates};
    pool_run(ctx_pool(l->ctx), step_rows, &j, (int)((l->item->part->rows + ROWS - 1) / ROWS));
}

/* ---- Ends ---- */

static float round_to(float x, dtype type) {
    return type == DT_BF16 ? bf16_to_f32(f32_to_bf16(x)) : f16_to_f32(f32_to_f16(x));
}

static float bias_of(const latent *l, int64_t g) {
    return l->centre[g] - l->scale[g] * (top_code(l) / 2);
}

static void round_rows(void *arg, int task, int thread) {
    (void)thread;
    latent *l = arg;
    float middle = top_code(l) / 2, code;
    int64_t columns = l->item->part->columns, group = l->item->group, rows = l->item->part->rows;
    int64_t first = (int64_t)task * ROWS, last = first + ROWS < rows ? first + ROWS : rows;
    for (int64_t r = first; r < last; r++) {
        const float *factors = scaling_columns(l->item->part, r);
        for (int64_t i = 0; i < columns; i++) {
            int64_t g = r * row_groups(l) + i / group, at = r * columns + i;
            if (i % group == 0) {
                float bias = round_to(bias_of(l, g), l->item->type);
                l->scale[g] = round_to(l->scale[g], l->item->type);
                l->centre[g] = bias + l->scale[g] * middle;
            }
            float value = tune_value(l->place[at], l->scale[g], l->centre[g], top_code(l), &code);
            l->value[at] = factors ? value / factors[i] : value;
        }
    }
}

void latent_round(latent *l) {
    pool_run(ctx_pool(l->ctx), round_rows, l, (int)((l->item->part->rows + ROWS - 1) / ROWS));
}

jang_status latent_store(const latent *l, work_dir *work, size_t item) {
    size_t n = (size_t)l->item->part->params, n_groups = n / (size_t)l->item->group;
    uint8_t *codes = ctx_alloc(l->ctx, n);
    float *biases = ctx_array(l->ctx, n_groups, sizeof *biases);
    jang_status status = codes && biases ? JANG_OK : ctx_fail_memory(l->ctx, n + 4 * n_groups);
    for (size_t g = 0; g < n_groups && status == JANG_OK; g++) {
        biases[g] = bias_of(l, (int64_t)g);
    }
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        size_t g = i / (size_t)l->item->group;
        float code;
        (void)tune_value(l->place[i], l->scale[g], l->centre[g], top_code(l), &code);
        codes[i] = (uint8_t)code;
    }
    if (status == JANG_OK) {
        const work_matrix m = {codes, l->scale, biases, l->item->type};
        status = work_put_next(work, item, &m);
    }
    ctx_free(l->ctx, codes);
    ctx_free(l->ctx, biases);
    return status;
}
