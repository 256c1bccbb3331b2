/* stand_in.c - a matrix quantized in memory, as a weight of the backend. */
#include "quant/stand_in.h"

#include "base/half.h"
#include "base/pool.h"
#include "format/affine.h"
#include "ops/hostbuf.h"

typedef struct quantize_job {
    const stand_in_job *of;
    stand_in *s;
    int64_t step;
    bool finite[POOL_MAX_THREADS];
    jang_status status[POOL_MAX_THREADS];
} quantize_job;

static uint16_t stored(float x, dtype type) {
    return type == DT_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
}

static jang_status quantize_rows(quantize_job *j, int64_t first, int64_t n, bool *finite) {
    ctx_t *ctx = j->of->ctx;
    const plan_item *item = j->of->item;
    const model_part *part = item->part;
    size_t count = (size_t)(n * part->columns), n_groups = count / (size_t)item->group;
    quant_block b = {.n_rows = n,
                     .n_cols = part->columns,
                     .bits = item->bits,
                     .group = item->group,
                     .type = DT_BF16, /* holds any scale */
                     .importance = j->of->importance};
    float *w = ctx_array(ctx, count, sizeof *w);
    b.w = w;
    b.codes = ctx_alloc(ctx, count);
    b.scales = ctx_array(ctx, n_groups, sizeof *b.scales);
    b.biases = ctx_array(ctx, n_groups, sizeof *b.biases);
    jang_status status =
        w && b.codes && b.scales && b.biases ? JANG_OK : ctx_fail_memory(ctx, count * 5);
    if (status == JANG_OK) {
        status = part_rows_f32(w, j->of->source, part, first, n);
    }
    if (status == JANG_OK) {
        *finite &= j->of->fn(&b);
    }
    if (status == JANG_OK && *finite) {
        size_t words = (size_t)(first * affine_row_words(part->columns, b.bits));
        affine_pack((uint32_t *)(void *)j->s->codes + words, b.codes, (int64_t)count, b.bits);
        size_t at = (size_t)(first * (part->columns / b.group));
        for (size_t i = 0; i < n_groups; i++) {
            j->s->scales[at + i] = stored(b.scales[i], b.type);
            j->s->biases[at + i] = stored(b.biases[i], b.type);
        }
    }
    ctx_free(ctx, w);
    ctx_free(ctx, b.codes);
    ctx_free(ctx, b.scales);
    ctx_free(ctx, b.biases);
    return status;
}

static void run_quantize(void *arg, int task, int thread) {
    quantize_job *j = arg;
    int64_t first = task * j->step, rows = j->of->item->part->rows;
    int64_t n = rows - first < j->step ? rows - first : j->step;
    if (j->status[thread] == JANG_OK) {
        j->status[thread] = quantize_rows(j, first, n, &j->finite[thread]);
    }
}

/* Makes the backend's weight of what was quantized, in the form of the original. */
static jang_status bind(stand_in *s, const stand_in_job *j) {
    const plan_item *item = j->item;
    weight_desc d = s->original->d;
    expert_data *experts = NULL;
    d.name = item->part->name;
    d.bits = item->bits;
    d.group = item->group;
    d.scale_type = DT_BF16;
    d.data = s->codes;
    d.scales = s->scales;
    d.biases = s->biases;
    if (d.n_expert) {
        experts = ctx_array(j->ctx, (size_t)d.n_expert, sizeof *experts);
        if (!experts) {
            return ctx_fail_memory(j->ctx, (size_t)d.n_expert * sizeof *experts);
        }
        size_t code_bytes = (size_t)(d.n_out * affine_row_words(d.n_in, d.bits)) * 4;
        size_t n_scales = (size_t)(d.n_out * (d.n_in / d.group));
        for (int i = 0; i < d.n_expert; i++) {
            size_t e = (size_t)i;
            experts[i] = (expert_data){s->codes + e * code_bytes, s->scales + e * n_scales,
                                       s->biases + e * n_scales, s->original->d.experts[i].bias};
        }
        d.experts = experts;
        d.data = d.scales = d.biases = d.bias = NULL;
    }
    jang_status status = j->table->weight_new(&s->weight, j->ops, &d);
    ctx_free(j->ctx, experts);
    return status;
}

jang_status stand_in_make(stand_in *s, const stand_in_job *of) {
    const plan_item *item = of->item;
    size_t n_scales = (size_t)(item->part->params / item->group);
    quantize_job *j = ctx_zero(of->ctx, 1, sizeof *j);
    s->codes = ctx_alloc(of->ctx, plan_item_weight_bytes(item));
    s->scales = ctx_array(of->ctx, n_scales, sizeof *s->scales);
    s->biases = ctx_array(of->ctx, n_scales, sizeof *s->biases);
    if (!j || !s->codes || !s->scales || !s->biases) {
        ctx_free(of->ctx, j);
        return ctx_fail_memory(of->ctx, plan_item_weight_bytes(item) + 4 * n_scales);
    }
    int64_t step = 65536 / item->part->columns;
    *j = (quantize_job){.of = of, .s = s, .step = step > 0 ? step : 1};
    pool *threads = ctx_pool(of->ctx);
    for (int i = 0; i < pool_threads(threads); i++) {
        j->finite[i] = true;
    }
    pool_run(threads, run_quantize, j, (int)((item->part->rows + j->step - 1) / j->step));
    jang_status status = JANG_OK;
    for (int i = 0; i < pool_threads(threads) && status == JANG_OK; i++) {
        status = j->status[i];
        if (status == JANG_OK && !j->finite[i]) {
            status = ctx_fail(of->ctx, JANG_ERR_FORMAT, "%s: tensor %s: NaN or infinite weights",
                              checkpoint_path(of->source), item->part->name);
        }
    }
    ctx_free(of->ctx, j);
    return status == JANG_OK ? bind(s, of) : status;
}

void stand_in_free(stand_in *s, ctx_t *ctx, const ops_table *table, ops *o) {
    if (s->weight) {
        table->weight_free(o, s->weight);
    }
    ctx_free(ctx, s->codes);
    ctx_free(ctx, s->scales);
    ctx_free(ctx, s->biases);
    *s = (stand_in){0};
}
