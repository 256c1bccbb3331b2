/* export_gguf.c - a model as one GGUF file.
 *
 * Codes of up to 4 bits become Q4_1 and of 5 bits Q5_1: the same codes, and scale and bias of their
 * group for each block of 32. That is exact where these are f16 numbers. Q8_0 has no bias, so codes
 * of 6 and 8 bits are rounded to its steps. Of type "small" a matrix gets the smallest type, K ones
 * among them, whose rounding is little beside that of the model's own codes. Plain numbers keep
 * their type. Norms, biases and routers are F32, as the readers want them. */
#include "base/half.h"
#include "base/pool.h"
#include "export/export.h"
#include "export/gguf_family.h"
#include "export/gguf_vocab.h"
#include "format/affine.h"
#include "format/gguf_blocks.h"
#include "format/gguf_encode.h"
#include "quant/kept_codes.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TASK_WEIGHTS (1 << 18)
#define SAMPLE_WEIGHTS (1 << 15) /* of a matrix, by which its type is chosen */
/* What a smaller type may add, squared: a share of what rounding to codes cost this matrix, or all
 * on average, whichever is more. Were it all of it in each, there would be 3% more error. */
#define ADDED_MAX (1.0 / 16)
#define BATCH_TASKS 4 /* for each thread */

typedef struct item {
    const model_part *part;
    gguf_tensor_form form;
    kept_form codes; /* bits 0: its numbers are written, not its codes */
    dtype type;
    int index; /* in the writer */
    size_t row_bytes;
} item;

typedef struct row_buffers {
    float *x, *back, *scales, *biases; /* [columns], [columns], [columns / 32] */
    uint8_t *codes;                    /* [columns] */
    uint8_t *words, *stored, *biases_stored;
    uint8_t *out;
} row_buffers;

/* Some rows of a tensor. */
typedef struct task {
    int64_t first, n;
    jang_status status;
    double error, weight;
    bool exact, finite;
} task;

typedef struct gguf_export {
    export_job *job;
    ctx_t *ctx;
    gguf_writer *writer;
    gguf_facts facts;
    item *items; /* [source.n_kept] */
    int extra_index[GGUF_MAX_EXTRAS];
    row_buffers *buffers; /* of each thread */
    int n_threads;
    bool small;      /* the type asked for, and then: */
    double own_mean; /* squared error of the codes, as a share of the numbers, of all matrices */
    const item *at;  /* the tensor at hand */
    task *tasks;     /* of a batch */
} gguf_export;

/* ---- The type of a tensor ---- */

/* Of numbers that have no codes: their own type, or the nearest of 16 bits. */
static dtype plain_type(const model_part *part) {
    dtype type = part->weight->type;
    if (part->packing == PACKING_NONE && (type == DT_F32 || type == DT_F16 || type == DT_BF16)) {
        return type;
    }
    return part->packing == PACKING_FP8 || part->packing == PACKING_MXFP4 ? DT_BF16 : DT_F16;
}

static void choose_exact(item *it) {
    const model_part *part = it->part;
    const char *why;
    bool coded = kept_codes_form(&it->codes, &why, part) && !it->form.exact && it->form.add == 0 &&
                 part->columns % 32 == 0;
    if (!coded) {
        it->codes = (kept_form){0};
        it->type = it->form.exact || part->n_dim < 2 ? DT_F32 : plain_type(part);
        return;
    }
    it->type = it->codes.bits <= 4 ? DT_Q4_1 : it->codes.bits == 5 ? DT_Q5_1 : DT_Q8_0;
}

/* ---- One row ---- */

static void load_scales(float *out, const uint8_t *from, int64_t n, dtype type) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        if (type == DT_F32) {
            memcpy(out + i, from + 4 * i, 4);
            continue;
        }
        memcpy(&h, from + 2 * i, 2);
        out[i] = type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    }
}

/* The row of the source that becomes row number row. */
static int64_t source_row(const item *it, int64_t row) {
    if (!it->form.row_heads) {
        return row;
    }
    int64_t width = it->part->rows / it->form.row_heads; /* of a bias the rows are its numbers */
    int64_t head = row / width, at = row % width;
    return head * width + at % 2 * (width / 2) + at / 2;
}

/* Fills x and, where the row has codes, these too. */
static jang_status read_row(const gguf_export *e, const item *it, row_buffers *b, gguf_row *row,
                            int64_t number) {
    const model_part *part = it->part;
    const kept_form *form = &it->codes;
    *row = (gguf_row){.x = b->x, .n = part->columns};
    jang_status status = part_rows_f32(b->x, e->job->source.checkpoint, part, number, 1);
    for (int64_t i = 0; it->form.add != 0 && i < part->columns; i++) {
        b->x[i] += it->form.add;
    }
    if (status != JANG_OK || !form->bits) {
        return status;
    }
    (void)kept_codes_rows(b->words, b->stored, b->biases_stored, form, part, number, 1);
    affine_unpack(b->codes, (const uint32_t *)(const void *)b->words, part->columns, form->bits);
    int64_t n_groups = part->columns / form->group;
    load_scales(b->scales, b->stored, n_groups, form->type);
    load_scales(b->biases, b->biases_stored, n_groups, form->type);
    row->codes = b->codes;
    row->scales = b->scales;
    row->biases = b->biases;
    row->bits = form->bits;
    row->group = form->group;
    return JANG_OK;
}

static void decode_row(float *out, dtype type, const uint8_t *in, int64_t n) {
    if (gguf_blocks_reader(type)) {
        gguf_blocks_reader(type)(out, in, n);
    } else {
        load_scales(out, in, n, type);
    }
}

/* Whether the row is one that can be encoded. */
static bool all_finite(const float *x, int64_t n) {
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        finite &= isfinite(x[i]) != 0;
    }
    return finite;
}

/* Compares what was written with what was meant. */
static void measure_row(task *t, const row_buffers *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double d = (double)b->back[i] - (double)b->x[i];
        t->error += d * d;
        t->weight += (double)b->x[i] * (double)b->x[i];
        t->exact &= b->back[i] == b->x[i];
        t->finite &= isfinite(b->back[i]) != 0;
    }
}

static void write_row(task *t, const row_buffers *b, const gguf_row *row, dtype type,
                      uint8_t *out) {
    t->finite &= all_finite(row->x, row->n);
    if (t->finite) {
        gguf_encode_row(out, type, row);
        decode_row(b->back, type, out, row->n);
        measure_row(t, b, row->n);
    }
}

/* Rows of llama.cpp's order lie apart in a bias, which is one row of the file. */
static void permute_vector(row_buffers *b, const item *it) {
    int64_t n = it->part->columns, width = n / it->form.row_heads;
    memcpy(b->back, b->x, (size_t)n * sizeof *b->x);
    for (int64_t i = 0; i < n; i++) {
        int64_t head = i / width, at = i % width;
        b->x[i] = b->back[head * width + at % 2 * (width / 2) + at / 2];
    }
}

static void run_task(void *arg, int number, int thread) {
    gguf_export *e = arg;
    const item *it = e->at;
    const model_part *part = it->part;
    task *t = &e->tasks[number];
    row_buffers *b = &e->buffers[thread];
    bool vector = part->n_dim < 2;
    for (int64_t i = 0; i < t->n && t->status == JANG_OK; i++) {
        gguf_row row;
        int64_t from = vector ? t->first + i : source_row(it, t->first + i);
        t->status = read_row(e, it, b, &row, from);
        if (vector && it->form.row_heads) {
            permute_vector(b, it);
        }
        if (t->status == JANG_OK) {
            write_row(t, b, &row, it->type, b->out + (size_t)i * it->row_bytes);
        }
    }
    if (t->status == JANG_OK) {
        t->status = gguf_writer_put(e->writer, it->index, (size_t)t->first * it->row_bytes, b->out,
                                    (size_t)t->n * it->row_bytes);
    }
}

/* ---- The smallest type ---- */

/* From the smallest on; the last takes all. */
static const struct {
    dtype type;
    int bits_max; /* of codes it takes over; 0: codes are rounded */
} small_types[] = {{DT_Q2_K, 0}, {DT_Q3_K, 0}, {DT_Q4_K, 0}, {DT_Q4_1, 4},
                   {DT_Q5_K, 0}, {DT_Q5_1, 5}, {DT_Q6_K, 0}, {DT_Q8_0, 0}};
#define N_SMALL (sizeof small_types / sizeof small_types[0])

/* Squared error that rounding to these codes made: a twelfth of a step's square each. */
static double own_error(const gguf_row *row) {
    double sum = 0;
    for (int64_t g = 0; g < row->n / row->group; g++) {
        sum += (double)row->scales[g] * (double)row->scales[g];
    }
    return sum * row->group / 12;
}

/* Writes rows all over a matrix in this type, to see what comes of it; *own takes the error of
 * their codes. */
static task try_type(double *own, gguf_export *e, const item *it, dtype type) {
    const model_part *part = it->part;
    row_buffers *b = &e->buffers[0];
    task t = {.exact = true, .finite = true};
    int64_t n = SAMPLE_WEIGHTS / part->columns + 1;
    n = n < part->rows ? n : part->rows;
    *own = 0;
    for (int64_t i = 0; i < n && t.status == JANG_OK; i++) {
        gguf_row row;
        t.status = read_row(e, it, b, &row, i * part->rows / n);
        if (t.status == JANG_OK) {
            write_row(&t, b, &row, type, b->out);
            *own += own_error(&row);
        }
    }
    return t;
}

/* What the codes cost on average, over all matrices. */
static jang_status find_own_mean(gguf_export *e) {
    double sum = 0, params = 0, own;
    for (size_t i = 0; i < e->job->source.n_kept; i++) {
        const item *it = &e->items[i];
        if (!it->codes.bits) {
            continue;
        }
        task t = try_type(&own, e, it, it->type);
        if (t.status != JANG_OK) {
            return t.status;
        }
        sum += t.weight > 0 ? own / t.weight * (double)it->part->params : 0;
        params += (double)it->part->params;
    }
    e->own_mean = params > 0 ? sum / params : 0;
    return JANG_OK;
}

static bool good_enough(const gguf_export *e, const task *t, double own) {
    double mean = e->own_mean * t->weight;
    return t->finite && (t->exact || t->error <= ADDED_MAX * (own > mean ? own : mean));
}

static jang_status choose_small(gguf_export *e, item *it) {
    for (size_t i = 0; i < N_SMALL; i++) {
        dtype type = small_types[i].type;
        double own;
        if (it->part->columns % dtype_table[type].block != 0 ||
            (small_types[i].bits_max && small_types[i].bits_max < it->codes.bits)) {
            continue;
        }
        task t = try_type(&own, e, it, type);
        if (t.status != JANG_OK || i == N_SMALL - 1 || good_enough(e, &t, own)) {
            it->type = type;
            return t.status;
        }
    }
    return JANG_OK;
}

/* ---- Tensors ---- */

static jang_status not_finite(const gguf_export *e, const item *it) {
    return ctx_fail(e->ctx, JANG_ERR_FORMAT,
                    "%s: tensor %s: a number is NaN, infinite, or too large for %s",
                    e->job->source.path, it->part->name, dtype_table[it->type].name);
}

/* Writes a tensor in batches of tasks, whose sums are added in their order. */
static jang_status write_tensor(gguf_export *e, const item *it, export_result *result) {
    int64_t columns = it->part->columns, rows = it->part->rows;
    int64_t step = columns >= TASK_WEIGHTS ? 1 : TASK_WEIGHTS / (columns ? columns : 1);
    int n_max = e->n_threads * BATCH_TASKS;
    e->at = it;
    result->exact = true;
    for (int64_t first = 0; first < rows;) {
        int64_t begin = first;
        int n = 0;
        for (; n < n_max && first < rows; n++, first += step) {
            e->tasks[n] = (task){.first = first,
                                 .n = rows - first < step ? rows - first : step,
                                 .exact = true,
                                 .finite = true};
        }
        pool_run(ctx_pool(e->ctx), run_task, e, n);
        for (int i = 0; i < n; i++) {
            const task *t = &e->tasks[i];
            if (t->status != JANG_OK || !t->finite) {
                return t->status != JANG_OK ? t->status : not_finite(e, it);
            }
            result->error += t->error;
            result->weight += t->weight;
            result->exact &= t->exact;
        }
        part_drop_rows(e->job->source.checkpoint, it->part, begin,
                       (first < rows ? first : rows) - begin);
    }
    return JANG_OK;
}

static void describe(export_result *r, const item *it) {
    *r = (export_result){.name = it->part->name,
                         .n_bytes = it->row_bytes * (uint64_t)it->part->rows,
                         .params = it->part->params};
    export_form(r->from, it->part);
    snprintf(r->to, sizeof r->to, "%s", dtype_table[it->type].name);
}

static jang_status write_tensors(gguf_export *e) {
    const model_source *s = &e->job->source;
    uint64_t done = 0, total = 0;
    for (size_t i = 0; i < s->n_kept; i++) {
        total += s->kept[i]->n_bytes;
    }
    for (size_t i = 0; i < s->n_kept; i++) {
        export_result *r = &e->job->report.results[e->job->report.n_results++];
        describe(r, &e->items[i]);
        jang_status status = export_progress(e->job, done, total);
        if (status == JANG_OK) {
            status = write_tensor(e, &e->items[i], r);
        }
        if (status != JANG_OK) {
            return status;
        }
        done += s->kept[i]->n_bytes;
    }
    for (int i = 0; i < e->facts.n_extras; i++) {
        const gguf_extra *x = &e->facts.extras[i];
        jang_status status = gguf_writer_put(e->writer, e->extra_index[i], 0, x->values,
                                             (size_t)x->n * sizeof *x->values);
        if (status != JANG_OK) {
            return status;
        }
    }
    return export_progress(e->job, total, total);
}

/* ---- The header ---- */

static jang_status name_item(buf *name, gguf_export *e, item *it) {
    buf_clear(name);
    jang_status status = gguf_tensor_of(name, &it->form, &e->facts, it->part);
    return status == JANG_OK ? JANG_OK : ctx_prefix(e->ctx, status, "%s", e->job->source.path);
}

/* Axes of length 1 before the last go: a gate of one row is a vector there. */
static jang_status declare(gguf_export *e, item *it, const char *name) {
    const model_part *part = it->part;
    if (e->small && it->codes.bits) {
        jang_status status = choose_small(e, it);
        if (status != JANG_OK) {
            return status;
        }
    }
    bool flat = part->n_dim == 2 && part->shape[0] == 1;
    it->row_bytes = (size_t)(part->columns / dtype_table[it->type].block) *
                    (size_t)dtype_table[it->type].block_bytes;
    return gguf_writer_add(e->writer, name, it->type, part->n_dim - flat,
                           part->shape + (flat ? 1 : 0), &it->index);
}

static jang_status declare_all(gguf_export *e) {
    const model_source *s = &e->job->source;
    buf name;
    buf_init(&name, e->ctx, 1 << 16);
    jang_status status = JANG_OK;
    for (size_t i = 0; i < s->n_kept && status == JANG_OK; i++) {
        e->items[i].part = s->kept[i];
        status = name_item(&name, e, &e->items[i]);
        if (status == JANG_OK) {
            choose_exact(&e->items[i]);
        }
    }
    if (status == JANG_OK && e->small) {
        status = find_own_mean(e);
    }
    for (size_t i = 0; i < s->n_kept && status == JANG_OK; i++) {
        status = name_item(&name, e, &e->items[i]);
        if (status == JANG_OK) {
            status = declare(e, &e->items[i], name.data);
        }
    }
    buf_free(&name);
    for (int i = 0; i < e->facts.n_extras && status == JANG_OK; i++) {
        const gguf_extra *x = &e->facts.extras[i];
        status = gguf_writer_add(e->writer, x->name, DT_F32, 1, &x->n, &e->extra_index[i]);
    }
    return status;
}

/* general.file_type: what most numbers are, as llama.cpp numbers its mixtures. */
static uint32_t file_type(const gguf_export *e) {
    static const uint8_t numbers[DT_COUNT] = {
        [DT_F16] = 1,   [DT_Q4_1] = 3,  [DT_Q8_0] = 7,  [DT_Q5_1] = 9,  [DT_Q2_K] = 10,
        [DT_Q3_K] = 12, [DT_Q4_K] = 15, [DT_Q5_K] = 17, [DT_Q6_K] = 18, [DT_BF16] = 32};
    int64_t params[DT_COUNT] = {0};
    dtype most = DT_F32;
    for (size_t i = 0; i < e->job->source.n_kept; i++) {
        dtype type = e->items[i].type;
        params[type] += e->items[i].part->params;
        most = params[type] > params[most] ? type : most;
    }
    return numbers[most];
}

static jang_status put_header(gguf_export *e) {
    const model_source *s = &e->job->source;
    jang_status status = gguf_facts_put(e->writer, &e->facts);
    char *name = status == JANG_OK ? path_base(e->ctx, s->path) : NULL;
    if (status == JANG_OK && !name) {
        status = ctx_fail_memory(e->ctx, strlen(s->path));
    }
    if (status != JANG_OK) {
        return status;
    }
    gguf_meta_text(e->writer, "general.type", "model", 5);
    gguf_meta_text(e->writer, "general.name", name, strlen(name));
    gguf_meta_u32(e->writer, "general.quantization_version", 2);
    gguf_meta_u32(e->writer, "general.file_type", file_type(e));
    ctx_free(e->ctx, name);
    status = gguf_vocab_put(e->writer, e->ctx, s->checkpoint, e->facts.sizes.n_vocab);
    return status == JANG_OK ? gguf_writer_begin(e->writer)
                             : ctx_prefix(e->ctx, status, "%s", s->path);
}

/* ---- Buffers ---- */

static void free_buffers(gguf_export *e) {
    for (int i = 0; e->buffers && i < e->n_threads; i++) {
        row_buffers *b = &e->buffers[i];
        void *all[] = {b->x,     b->back,   b->scales,        b->biases, b->codes,
                       b->words, b->stored, b->biases_stored, b->out};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            ctx_free(e->ctx, all[k]);
        }
    }
    ctx_free(e->ctx, e->buffers);
    ctx_free(e->ctx, e->tasks);
    ctx_free(e->ctx, e->items);
}

static jang_status make_buffers(gguf_export *e) {
    size_t columns = 1;
    for (size_t i = 0; i < e->job->source.n_kept; i++) {
        size_t n = (size_t)e->job->source.kept[i]->columns;
        columns = n > columns ? n : columns;
    }
    size_t out = columns > TASK_WEIGHTS ? columns : TASK_WEIGHTS;
    e->buffers = ctx_zero(e->ctx, (size_t)e->n_threads, sizeof *e->buffers);
    e->tasks = ctx_array(e->ctx, (size_t)(e->n_threads * BATCH_TASKS), sizeof *e->tasks);
    bool failed = !e->buffers || !e->tasks;
    for (int i = 0; i < e->n_threads && !failed; i++) {
        row_buffers *b = &e->buffers[i];
        b->x = ctx_array(e->ctx, columns, sizeof *b->x);
        b->back = ctx_array(e->ctx, columns, sizeof *b->back);
        b->scales = ctx_array(e->ctx, columns / 32 + 1, sizeof *b->scales);
        b->biases = ctx_array(e->ctx, columns / 32 + 1, sizeof *b->biases);
        b->codes = ctx_alloc(e->ctx, columns);
        b->words = ctx_alloc(e->ctx, columns + 4);
        b->stored = ctx_array(e->ctx, columns / 32 + 1, sizeof(float));
        b->biases_stored = ctx_array(e->ctx, columns / 32 + 1, sizeof(float));
        b->out = ctx_array(e->ctx, out, sizeof(float));
        failed = !b->x || !b->back || !b->scales || !b->biases || !b->codes || !b->words ||
                 !b->stored || !b->biases_stored || !b->out;
    }
    return failed ? ctx_fail_memory(e->ctx, (columns * 4 + out) * sizeof(float)) : JANG_OK;
}

/* ---- The whole ---- */

static jang_status write_file(gguf_export *e, const char *path) {
    jang_status status = gguf_writer_new(&e->writer, e->ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    status = make_buffers(e);
    if (status == JANG_OK) {
        status = declare_all(e);
    }
    if (status == JANG_OK) {
        status = put_header(e);
    }
    if (status == JANG_OK) {
        status = write_tensors(e);
    }
    if (status == JANG_OK) {
        return gguf_writer_finish(e->writer);
    }
    gguf_writer_discard(e->writer);
    return status;
}

jang_status export_gguf(export_job *job) {
    gguf_export e = {.job = job, .ctx = job->ctx, .n_threads = pool_threads(ctx_pool(job->ctx))};
    const char *output = job->options->output, *type = job->options->type;
    e.small = type && strcmp(type, "small") == 0;
    if (file_is_directory(output) || (file_exists(output) && !job->options->force)) {
        return ctx_fail(job->ctx, JANG_ERR_EXISTS, "%s exists%s", output,
                        file_is_directory(output) ? " and is a directory; a GGUF is one file" : "");
    }
    jang_status status = gguf_facts_make(&e.facts, &job->source, job->report.notes);
    if (status != JANG_OK) {
        return status;
    }
    buf temp;
    buf_init(&temp, job->ctx, 1 << 16);
    buf_printf(&temp, "%s.tmp-%ld", output, (long)getpid());
    status = buf_status(&temp);
    e.items = ctx_zero(job->ctx, job->source.n_kept + 1, sizeof *e.items);
    if (status == JANG_OK && !e.items) {
        status = ctx_fail_memory(job->ctx, job->source.n_kept * sizeof *e.items);
    }
    if (status == JANG_OK) {
        status = write_file(&e, temp.data);
    }
    if (status == JANG_OK) {
        status = file_rename(job->ctx, temp.data, output);
    }
    free_buffers(&e);
    gguf_facts_free(&e.facts);
    buf_free(&temp);
    return status;
}
