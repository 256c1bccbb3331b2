/* pipeline.c - the streaming part of a conversion.
 *
 * Items of the plan are cut into blocks of rows; a block is one task of the pool. A task reads its
 * rows as f32 in small steps that stay in the cache, checks them, quantizes and packs them into
 * the thread's buffers, and writes those to their place in the shard. Shards are written one after
 * another, tasks in batches of about a tenth of a second; progress is reported between batches. */
#include "quant/pipeline.h"

#include "base/pool.h"
#include "format/affine.h"
#include "format/safetensors.h"
#include "quant/kept_codes.h"
#include "quant/part_maps.h"
#include "quant/scaling.h"
#include "quant/stored_rows.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define STEP_WEIGHTS 32768 /* f32 rows and codes of a step fit the second-level cache */
#define TASK_WEIGHTS (1 << 20)
#define BATCH_SECONDS 0.1
#define REPORT_SECONDS 0.1

/* How a task ended. */
typedef enum task_result {
    TASK_DONE,
    TASK_NOT_FINITE, /* NaN or infinite weights */
    TASK_TOO_LARGE,  /* finite, but not in the type to store */
    TASK_FAILED,     /* the context has the message */
} task_result;

typedef struct task {
    size_t item;
    int64_t first, n; /* rows */
    task_result result;
    jang_status status;
} task;

typedef struct thread_buffers {
    float *rows, *scales, *biases; /* of a step */
    uint8_t *codes;                /* of a step */
    uint8_t *weights;              /* of a task, as stored */
    uint16_t *stored_scales, *stored_biases;
} thread_buffers;

typedef struct tensor_slots {
    int weight, scales, biases; /* numbers within the shard's writer */
} tensor_slots;

typedef struct pipeline {
    ctx_t *ctx;
    const pipeline_options *options;
    quant_plan *plan;
    int n_threads;
    thread_buffers *buffers;
    int64_t step_weights, task_weights;
    tensor_slots *slots;   /* of each item */
    int *shard_of;         /* of each item */
    atomic_bool *overflow; /* of each item: scales too large for f16 */
    int n_shards;
    st_writer *writer;
    task *tasks; /* of the shard at hand */
    size_t n_tasks, batch_at;
    uint64_t done_bytes, total_bytes;
    double started, reported;
} pipeline;

/* ---- One task ---- */

/* Whether all numbers are finite: none has an exponent of all ones. */
static bool all_finite(const float *x, int64_t n) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

/* Stores unquantized weights; false if one is not finite in that type. */
static bool store_floats(uint8_t *out, const float *x, int64_t n, dtype type) {
    if (type == DT_F32) {
        memcpy(out, x, (size_t)n * sizeof *x);
        return true;
    }
    return stored_halves((uint16_t *)(void *)out, x, n, type);
}

static task_result fail_task(task *t, jang_status status) {
    t->status = status;
    return TASK_FAILED;
}

static const float *importance_of(const pipeline *p, const plan_item *item) {
    return p->options->importance ? p->options->importance[item - p->plan->items] : NULL;
}

/* Multiplies finished rows by factors that became known later. */
static void scale_finished(const plan_item *item, const task *t, thread_buffers *b) {
    const part_scaling *s = item->part->scaling;
    int64_t n_groups = item->part->columns / item->group;
    for (int64_t r = 0; s && s->rows && r < t->n; r++) {
        float by = s->rows[t->first + r];
        scaling_stored(b->stored_scales + r * n_groups, n_groups, by, item->type);
        scaling_stored(b->stored_biases + r * n_groups, n_groups, by, item->type);
    }
}

/* Copies rows that calibration has finished; false if there are none. */
static bool copy_finished(pipeline *p, const plan_item *item, const task *t, thread_buffers *b) {
    work_view v;
    size_t number = (size_t)(item - p->plan->items);
    if (!p->options->work || !work_get(&v, p->options->work, number)) {
        return false;
    }
    size_t rows = (size_t)item->part->rows, first = (size_t)t->first, n = (size_t)t->n;
    size_t width = plan_item_weight_bytes(item) / rows;
    size_t scales = plan_item_scale_bytes(item) / rows;
    memcpy(b->weights, v.weights + first * width, n * width);
    memcpy(b->stored_scales, v.scales + first * scales, n * scales);
    memcpy(b->stored_biases, v.biases + first * scales, n * scales);
    scale_finished(item, t, b);
    return true;
}

static task_result quantize_step(pipeline *p, const plan_item *item, thread_buffers *b,
                                 int64_t n_rows, int64_t at_row) {
    int64_t columns = item->part->columns;
    quant_block block = {.w = b->rows,
                         .n_rows = n_rows,
                         .n_cols = columns,
                         .bits = item->bits,
                         .group = item->group,
                         .codes = b->codes,
                         .scales = b->scales,
                         .biases = b->biases,
                         .type = item->type,
                         .importance = importance_of(p, item)};
    const stored_rows out = {b->weights, b->stored_scales, b->stored_biases, item->type};
    stored_result result = stored_put(&out, at_row, &block, p->options->quantize);
    if (result == STORED_TOO_LARGE && item->type == DT_F16) {
        atomic_store(&p->overflow[item - p->plan->items], true);
        return TASK_DONE;
    }
    return result == STORED_DONE         ? TASK_DONE
           : result == STORED_NOT_FINITE ? TASK_NOT_FINITE
                                         : TASK_TOO_LARGE;
}

/* Takes over the source's codes. */
static task_result keep_rows(const plan_item *item, const task *t, thread_buffers *b) {
    const kept_form form = {item->bits, item->group, item->type};
    return kept_codes_rows(b->weights, b->stored_scales, b->stored_biases, &form, item->part,
                           t->first, t->n)
               ? TASK_DONE
               : TASK_NOT_FINITE;
}

/* Reads and converts the task's rows into the thread's buffers. */
static task_result convert_rows(pipeline *p, const plan_item *item, task *t, thread_buffers *b) {
    const model_part *part = item->part;
    if (item->kept) {
        return keep_rows(item, t, b);
    }
    if (copy_finished(p, item, t, b)) {
        return TASK_DONE;
    }
    int64_t step = p->step_weights / (part->columns ? part->columns : 1);
    for (int64_t done = 0; done < t->n;) {
        int64_t n = t->n - done < step ? t->n - done : step;
        jang_status status = part_rows_f32(b->rows, p->options->source, part, t->first + done, n);
        if (status != JANG_OK) {
            return fail_task(t, status);
        }
        if (item->bits) {
            task_result result = quantize_step(p, item, b, n, done);
            if (result != TASK_DONE) {
                return result;
            }
        } else if (!all_finite(b->rows, n * part->columns)) {
            return TASK_NOT_FINITE;
        } else {
            size_t at =
                (size_t)(done * part->columns) * (size_t)dtype_table[item->type].block_bytes;
            if (!store_floats(b->weights + at, b->rows, n * part->columns, item->type)) {
                return TASK_TOO_LARGE;
            }
        }
        done += n;
    }
    return TASK_DONE;
}

/* Writes the task's rows of one tensor that has row_bytes a row. */
static jang_status put_rows(pipeline *p, int slot, const task *t, const void *data,
                            size_t row_bytes) {
    return st_writer_put(p->writer, slot, (size_t)t->first * row_bytes, data,
                         (size_t)t->n * row_bytes);
}

static task_result write_rows(pipeline *p, const plan_item *item, task *t,
                              const thread_buffers *b) {
    const tensor_slots *slots = &p->slots[t->item];
    size_t rows = (size_t)item->part->rows;
    jang_status status =
        put_rows(p, slots->weight, t, b->weights, plan_item_weight_bytes(item) / rows);
    if (item->bits) {
        size_t scale_bytes = plan_item_scale_bytes(item) / rows;
        if (status == JANG_OK) {
            status = put_rows(p, slots->scales, t, b->stored_scales, scale_bytes);
        }
        if (status == JANG_OK) {
            status = put_rows(p, slots->biases, t, b->stored_biases, scale_bytes);
        }
    }
    return status == JANG_OK ? TASK_DONE : fail_task(t, status);
}

static void run_task(void *arg, int number, int thread) {
    pipeline *p = arg;
    task *t = &p->tasks[p->batch_at + (size_t)number];
    thread_buffers *b = &p->buffers[thread];
    const plan_item *item = &p->plan->items[t->item];
    t->result = convert_rows(p, item, t, b);
    if (t->result == TASK_DONE) {
        t->result = write_rows(p, item, t, b);
    }
    part_drop_rows(p->options->source, item->part, t->first, t->n);
}

/* ---- Buffers ---- */

static void free_buffers(pipeline *p) {
    for (int i = 0; p->buffers && i < p->n_threads; i++) {
        thread_buffers *b = &p->buffers[i];
        void *all[] = {b->rows,    b->scales,        b->biases,       b->codes,
                       b->weights, b->stored_scales, b->stored_biases};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            ctx_free_aligned(p->ctx, all[k]);
        }
    }
    ctx_free(p->ctx, p->buffers);
    p->buffers = NULL;
}

/* Bytes of weights, as stored, that a task may hold. */
static size_t largest_output(const pipeline *p) {
    size_t most = 0;
    for (size_t i = 0; i < p->plan->n_items; i++) {
        const plan_item *item = &p->plan->items[i];
        size_t bits =
            item->bits ? (size_t)item->bits : 8 * (size_t)dtype_table[item->type].block_bytes;
        most = bits > most ? bits : most;
    }
    return (size_t)p->task_weights * most / 8;
}

static jang_status allocate_buffers(pipeline *p) {
    size_t step = (size_t)p->step_weights, groups = (size_t)p->task_weights / 32 + 1;
    size_t sizes[] = {step * sizeof(float),
                      (step / 32 + 1) * sizeof(float),
                      (step / 32 + 1) * sizeof(float),
                      step,
                      largest_output(p),
                      groups * sizeof(float),
                      groups * sizeof(float)};
    p->buffers = ctx_zero(p->ctx, (size_t)p->n_threads, sizeof *p->buffers);
    if (!p->buffers) {
        return ctx_fail_memory(p->ctx, (size_t)p->n_threads * sizeof *p->buffers);
    }
    for (int i = 0; i < p->n_threads; i++) {
        thread_buffers *b = &p->buffers[i];
        void *made[sizeof sizes / sizeof *sizes];
        bool failed = false;
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            made[k] = ctx_alloc_aligned(p->ctx, sizes[k] ? sizes[k] : 1, 64);
            failed |= !made[k];
        }
        *b = (thread_buffers){made[0], made[1], made[2], made[3], made[4], made[5], made[6]};
        if (failed) {
            return ctx_fail_memory(p->ctx, largest_output(p) + step * 5);
        }
    }
    return JANG_OK;
}

static void choose_sizes(pipeline *p) {
    p->step_weights = STEP_WEIGHTS;
    p->task_weights = TASK_WEIGHTS;
    for (size_t i = 0; i < p->plan->n_items; i++) {
        const model_part *part = p->plan->items[i].part;
        int64_t columns = part->columns;
        int64_t step = columns * (part->map ? part_map_together(part) : 1);
        p->step_weights = step > p->step_weights ? step : p->step_weights;
        p->task_weights = columns > p->task_weights ? columns : p->task_weights;
    }
}

/* ---- Shards ---- */

static uint64_t item_bytes(const plan_item *item) {
    return plan_item_weight_bytes(item) + 2 * plan_item_scale_bytes(item);
}

/* Items go into shards in order; a module's three tensors stay together. */
static void assign_shards(pipeline *p) {
    uint64_t n_bytes = 0;
    p->n_shards = 1;
    for (size_t i = 0; i < p->plan->n_items; i++) {
        uint64_t size = item_bytes(&p->plan->items[i]);
        if (n_bytes && n_bytes + size > p->options->shard_bytes) {
            p->n_shards++;
            n_bytes = 0;
        }
        n_bytes += size;
        p->shard_of[i] = p->n_shards - 1;
    }
}

#define SHARD_NAME_BYTES 64

static void shard_name(char *out, const pipeline *p, int shard) {
    if (p->n_shards == 1) {
        snprintf(out, SHARD_NAME_BYTES, "model.safetensors");
    } else {
        snprintf(out, SHARD_NAME_BYTES, "model-%05d-of-%05d.safetensors", shard + 1, p->n_shards);
    }
}

/* The name of a module's tensor: the weight's with its last component replaced. */
static void sibling_name(buf *out, const char *weight_name, const char *suffix) {
    buf_clear(out);
    buf_put(out, weight_name, strlen(weight_name) - strlen("weight"));
    buf_puts(out, suffix);
}

static jang_status declare_item(pipeline *p, size_t i, buf *name) {
    const plan_item *item = &p->plan->items[i];
    const model_part *part = item->part;
    tensor_slots *slots = &p->slots[i];
    if (!item->bits) {
        return st_writer_add(p->writer, part->name, item->type, part->n_dim, part->shape,
                             &slots->weight);
    }
    int64_t shape[TENSOR_MAX_DIMS];
    memcpy(shape, part->shape, sizeof shape);
    shape[part->n_dim - 1] = affine_row_words(part->columns, item->bits);
    jang_status status =
        st_writer_add(p->writer, part->name, DT_U32, part->n_dim, shape, &slots->weight);
    shape[part->n_dim - 1] = part->columns / item->group;
    if (status == JANG_OK) {
        sibling_name(name, part->name, "scales");
        status =
            st_writer_add(p->writer, name->data, item->type, part->n_dim, shape, &slots->scales);
    }
    if (status == JANG_OK) {
        sibling_name(name, part->name, "biases");
        status =
            st_writer_add(p->writer, name->data, item->type, part->n_dim, shape, &slots->biases);
    }
    return status == JANG_OK ? buf_status(name) : status;
}

/* Opens the shard's file and writes its header. */
static jang_status begin_shard(pipeline *p, int shard) {
    char file[SHARD_NAME_BYTES];
    shard_name(file, p, shard);
    char *path = path_join(p->ctx, p->options->directory, file);
    json_t *metadata = json_pack("{s:s}", "format", "mlx");
    buf name;
    buf_init(&name, p->ctx, 1 << 20);
    jang_status status = path && metadata ? JANG_OK : ctx_fail_memory(p->ctx, sizeof file);
    if (status == JANG_OK) {
        status = st_writer_new(&p->writer, p->ctx, path);
    }
    for (size_t i = 0; i < p->plan->n_items && status == JANG_OK; i++) {
        if (p->shard_of[i] == shard) {
            status = declare_item(p, i, &name);
        }
    }
    if (status == JANG_OK) {
        status = st_writer_begin(p->writer, metadata);
    }
    buf_free(&name);
    json_decref(metadata);
    ctx_free(p->ctx, path);
    return status;
}

/* Cuts the shard's items into tasks. */
static jang_status make_tasks(pipeline *p, int shard) {
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            ctx_free(p->ctx, p->tasks);
            p->tasks = ctx_zero(p->ctx, n + 1, sizeof *p->tasks);
            if (!p->tasks) {
                return ctx_fail_memory(p->ctx, n * sizeof *p->tasks);
            }
            n = 0;
        }
        for (size_t i = 0; i < p->plan->n_items; i++) {
            const model_part *part = p->plan->items[i].part;
            if (p->shard_of[i] != shard || part->params == 0) {
                continue;
            }
            int64_t step = p->task_weights / part->columns;
            for (int64_t first = 0; first < part->rows; first += step, n++) {
                int64_t rows = part->rows - first < step ? part->rows - first : step;
                if (pass == 1) {
                    p->tasks[n] = (task){.item = i, .first = first, .n = rows};
                }
            }
        }
    }
    p->n_tasks = n;
    return JANG_OK;
}

/* ---- Running ---- */

/* Bytes of the source that a task reads. */
static uint64_t task_bytes(const pipeline *p, const task *t) {
    const model_part *part = p->plan->items[t->item].part;
    double share = (double)t->n / (double)part->rows;
    return t->n == part->rows ? part->n_bytes : (uint64_t)((double)part->n_bytes * share);
}

static jang_status fail_weights(const pipeline *p, const task *t) {
    const plan_item *item = &p->plan->items[t->item];
    const char *path = checkpoint_path(p->options->source), *name = item->part->name;
    if (t->result == TASK_NOT_FINITE) {
        return ctx_fail(p->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: NaN or infinite weights in rows %lld to %lld", path, name,
                        (long long)t->first, (long long)(t->first + t->n - 1));
    }
    return ctx_fail(p->ctx, JANG_ERR_FORMAT, "%s: tensor %s: weights too large for %s", path, name,
                    dtype_table[item->type].name);
}

/* Looks for the first task of a batch that failed, so that the message does not depend on which
 * thread was faster. */
static jang_status check_batch(const pipeline *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const task *t = &p->tasks[p->batch_at + i];
        if (t->result == TASK_FAILED) {
            return t->status;
        }
        if (t->result != TASK_DONE) {
            return fail_weights(p, t);
        }
    }
    return JANG_OK;
}

static jang_status report(pipeline *p, const char *what, bool always) {
    double now = clock_seconds();
    if (!p->options->on_progress || (!always && now - p->reported < REPORT_SECONDS)) {
        return JANG_OK;
    }
    p->reported = now;
    jang_progress progress = {what, p->done_bytes, p->total_bytes, now - p->started};
    if (!p->options->on_progress(p->options->user, &progress)) {
        return ctx_fail(p->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
    }
    return JANG_OK;
}

static jang_status run_tasks(pipeline *p) {
    size_t batch = (size_t)p->n_threads * 2;
    for (p->batch_at = 0; p->batch_at < p->n_tasks;) {
        size_t left = p->n_tasks - p->batch_at, n = left < batch ? left : batch;
        double start = clock_seconds();
        pool_run(ctx_pool(p->ctx), run_task, p, (int)n);
        double seconds = clock_seconds() - start;
        jang_status status = check_batch(p, n);
        if (status != JANG_OK) {
            return status;
        }
        for (size_t i = 0; i < n; i++) {
            p->done_bytes += task_bytes(p, &p->tasks[p->batch_at + i]);
        }
        const task *last = &p->tasks[p->batch_at + n - 1];
        p->batch_at += n;
        status = report(p, p->plan->items[last->item].part->name, false);
        if (status != JANG_OK) {
            return status;
        }
        if (seconds < BATCH_SECONDS / 2 && batch < 4096) {
            batch *= 2;
        } else if (seconds > BATCH_SECONDS * 2 && batch > (size_t)p->n_threads) {
            batch /= 2;
        }
    }
    return JANG_OK;
}

static jang_status write_shard(pipeline *p, int shard) {
    jang_status status = begin_shard(p, shard);
    if (status == JANG_OK) {
        status = make_tasks(p, shard);
    }
    if (status == JANG_OK) {
        status = run_tasks(p);
    }
    if (status != JANG_OK) {
        st_writer_discard(p->writer);
    } else {
        status = st_writer_finish(p->writer);
    }
    p->writer = NULL;
    return status;
}

static int add_to_index(json_t *map, const plan_item *item, const char *file, buf *name) {
    int failed = json_object_set_new(map, item->part->name, json_string(file));
    static const char *const more[] = {"scales", "biases"};
    for (size_t k = 0; item->bits && k < sizeof more / sizeof *more; k++) {
        sibling_name(name, item->part->name, more[k]);
        failed |= json_object_set_new(map, name->data, json_string(file));
    }
    return failed;
}

static jang_status write_index(const pipeline *p) {
    json_t *map = json_object();
    buf text, name;
    buf_init(&text, p->ctx, BUF_NO_LIMIT);
    buf_init(&name, p->ctx, 1 << 20);
    int failed = !map;
    for (size_t i = 0; i < p->plan->n_items && !failed; i++) {
        char file[SHARD_NAME_BYTES];
        shard_name(file, p, p->shard_of[i]);
        failed = add_to_index(map, &p->plan->items[i], file, &name);
    }
    json_t *index = failed ? NULL
                           : json_pack("{s:{s:I, s:I}, s:O}", "metadata", "total_size",
                                       (json_int_t)p->plan->totals.bytes, "total_parameters",
                                       (json_int_t)p->plan->totals.params, "weight_map", map);
    jang_status status = index ? buf_status(&name) : ctx_fail_memory(p->ctx, p->plan->n_items);
    char *path = path_join(p->ctx, p->options->directory, "model.safetensors.index.json");
    if (status == JANG_OK) {
        json_write(&text, index, 4);
        buf_putc(&text, '\n');
        status = path ? buf_status(&text) : ctx_fail_memory(p->ctx, 64);
    }
    if (status == JANG_OK) {
        status = file_write(p->ctx, path, text.data, text.size);
    }
    ctx_free(p->ctx, path);
    json_decref(index);
    json_decref(map);
    buf_free(&text);
    buf_free(&name);
    return status;
}

/* Gives the tensors whose scales did not fit f16 bf16 ones; false if there are none. */
static bool widen_scales(pipeline *p) {
    bool any = false;
    for (size_t i = 0; i < p->plan->n_items; i++) {
        if (atomic_load(&p->overflow[i])) {
            atomic_store(&p->overflow[i], false);
            plan_widen(&p->plan->items[i]);
            any = true;
        }
    }
    return any;
}

/* A header names the type of the scales before they are known. When f16 turns out too small, which
 * takes weights beyond 65504, everything is written once more. */
static jang_status write_all(pipeline *p) {
    do {
        p->done_bytes = 0;
        for (int i = 0; i < p->n_shards; i++) {
            jang_status status = write_shard(p, i);
            if (status != JANG_OK) {
                return status;
            }
        }
    } while (widen_scales(p));
    p->done_bytes = p->total_bytes;
    return report(p, "weights", true);
}

jang_status pipeline_run(ctx_t *ctx, const pipeline_options *options) {
    size_t n = options->plan->n_items;
    pipeline p = {.ctx = ctx,
                  .options = options,
                  .plan = options->plan,
                  .n_threads = pool_threads(ctx_pool(ctx)),
                  .slots = ctx_zero(ctx, n + 1, sizeof *p.slots),
                  .shard_of = ctx_zero(ctx, n + 1, sizeof *p.shard_of),
                  .overflow = ctx_zero(ctx, n + 1, sizeof *p.overflow),
                  .started = clock_seconds()};
    jang_status status =
        p.slots && p.shard_of && p.overflow ? JANG_OK : ctx_fail_memory(ctx, n * sizeof(int));
    if (status == JANG_OK) {
        for (size_t i = 0; i < n; i++) {
            p.total_bytes += p.plan->items[i].part->n_bytes;
        }
        choose_sizes(&p);
        assign_shards(&p);
        status = allocate_buffers(&p);
    }
    if (status == JANG_OK) {
        status = write_all(&p);
    }
    if (status == JANG_OK) {
        status = write_index(&p);
    }
    free_buffers(&p);
    ctx_free(ctx, p.tasks);
    ctx_free(ctx, p.slots);
    ctx_free(ctx, p.shard_of);
    ctx_free(ctx, p.overflow);
    return status;
}
