/* export_awq.c - a model of uniform 4 bits as AutoAWQ's checkpoints are (GEMM, version 1).
 *
 *     MODULE.qweight  I32 [n_in, n_out / 8]        codes, eight outputs a word
 *     MODULE.qzeros   I32 [n_in / group, n_out / 8]
 *     MODULE.scales   F16 [n_in / group, n_out]
 *
 * Matrices of layers are quantized so; embeddings, the output matrix, routers and all else are F16,
 * and what of these is a matrix is named in modules_to_not_convert. */
#include "base/file.h"
#include "base/half.h"
#include "base/pool.h"
#include "export/awq_fit.h"
#include "export/export.h"
#include "format/affine.h"
#include "format/safetensors.h"
#include "quant/hub_config.h"
#include "quant/kept_codes.h"
#include "quant/output.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define PACK 8 /* outputs in a word */

typedef struct awq_slots {
    int weight, zeros, scales; /* in the writer; of a plain tensor the first alone */
    bool packed;
} awq_slots;

typedef struct row_space {
    float *x;                         /* [PACK, columns] */
    uint8_t *codes;                   /* likewise */
    uint8_t *words, *scales, *biases; /* of one row, as stored */
    awq_group *groups;                /* [PACK, columns / group] */
    uint16_t *halves;                 /* [columns] of a plain row */
} row_space;

typedef struct awq_export {
    export_job *job;
    ctx_t *ctx;
    int group;
    awq_slots *slots; /* [n_kept] */
    st_writer *writer;
    output_dir output;
    json_t *plain_modules;
    row_space *spaces; /* of each thread */
    int n_threads;
    /* The tensor at hand. */
    const model_part *part;
    kept_form form;
    uint32_t *qweight, *qzeros;
    uint16_t *scales;
    double *errors, *weights; /* of each task */
    atomic_int status;
} awq_export;

/* ---- What is packed ---- */

static bool is_layer_matrix(const model_part *part) {
    quant_tier tier = role_get_info(part->role)->tier;
    return part->n_dim == 2 && (tier == TIER_MLP || tier == TIER_ATTENTION);
}

static jang_status refuse(const awq_export *e, const model_part *part, const char *why) {
    return ctx_fail(e->ctx, JANG_ERR_UNSUPPORTED, "%s: tensor %s: %s", e->job->source.path,
                    part->name, why);
}

/* Sees that all matrices of layers have 4 bits and one group size. */
static jang_status check_parts(awq_export *e) {
    const model_source *s = &e->job->source;
    for (size_t i = 0; i < s->n_kept; i++) {
        const model_part *part = s->kept[i];
        kept_form form;
        const char *why;
        if (part->n_dim == 3 && part->bits) {
            return refuse(e, part, "stacked matrices have no place in AWQ");
        }
        if (!is_layer_matrix(part)) {
            continue;
        }
        if (!kept_codes_form(&form, &why, part) || form.bits != 4) {
            char text[96];
            snprintf(text, sizeof text,
                     "has %s; AWQ needs codes of 4 bits in all matrices of layers",
                     part->bits ? "another width" : "no codes");
            return refuse(e, part, text);
        }
        if (e->group && form.group != e->group) {
            return refuse(e, part, "has groups of another size than the others; AWQ has one");
        }
        if (part->rows % PACK) {
            return refuse(e, part, "its rows are no multiple of 8");
        }
        e->group = form.group;
        e->slots[i].packed = true;
    }
    return e->group ? JANG_OK
                    : ctx_fail(e->ctx, JANG_ERR_UNSUPPORTED, "%s: no matrix has codes of 4 bits",
                               s->path);
}

/* ---- Declaring ---- */

static jang_status declare_packed(awq_export *e, awq_slots *slots, const model_part *part,
                                  buf *name) {
    const struct {
        const char *suffix;
        dtype type;
        int64_t shape[2];
        int *slot;
    } tensors[] = {
        {"qweight", DT_I32, {part->columns, part->rows / PACK}, &slots->weight},
        {"qzeros", DT_I32, {part->columns / e->group, part->rows / PACK}, &slots->zeros},
        {"scales", DT_F16, {part->columns / e->group, part->rows}, &slots->scales},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; i < 3 && status == JANG_OK; i++) {
        buf_clear(name);
        buf_put(name, part->name, strlen(part->name) - strlen("weight"));
        buf_puts(name, tensors[i].suffix);
        status = buf_status(name);
        if (status == JANG_OK) {
            status = st_writer_add(e->writer, name->data, tensors[i].type, 2, tensors[i].shape,
                                   tensors[i].slot);
        }
    }
    return status;
}

/* Names a matrix that stays as it is by what AWQ's readers look for: a piece of the module's name.
 */
static jang_status note_plain(awq_export *e, const model_part *part) {
    int layer;
    const char *below = role_below_layer(part->name, &layer);
    bool matrix = part->n_dim == 2 && path_has_suffix(part->name, ".weight");
    if (!below || !matrix) {
        return JANG_OK;
    }
    json_t *name = json_stringn(below, strlen(below) - strlen(".weight"));
    for (size_t i = 0; i < json_array_size(e->plain_modules); i++) {
        if (json_equal(json_array_get(e->plain_modules, i), name)) {
            json_decref(name);
            return JANG_OK;
        }
    }
    return json_array_append_new(e->plain_modules, name) ? ctx_fail_memory(e->ctx, 64) : JANG_OK;
}

static jang_status declare_all(awq_export *e) {
    const model_source *s = &e->job->source;
    buf name;
    buf_init(&name, e->ctx, 1 << 16);
    jang_status status = JANG_OK;
    for (size_t i = 0; i < s->n_kept && status == JANG_OK; i++) {
        const model_part *part = s->kept[i];
        if (e->slots[i].packed) {
            status = declare_packed(e, &e->slots[i], part, &name);
            continue;
        }
        status = note_plain(e, part);
        if (status == JANG_OK) {
            status = st_writer_add(e->writer, part->name, DT_F16, part->n_dim, part->shape,
                                   &e->slots[i].weight);
        }
    }
    buf_free(&name);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    if (status == JANG_OK) {
        status = metadata ? st_writer_begin(e->writer, metadata) : ctx_fail_memory(e->ctx, 64);
    }
    json_decref(metadata);
    return status;
}

/* ---- Packed matrices ---- */

static float half_at(const uint8_t *from, int64_t i, dtype type) {
    uint16_t h;
    float x;
    if (type == DT_F32) {
        memcpy(&x, from + 4 * i, 4);
        return x;
    }
    memcpy(&h, from + 2 * i, 2);
    return type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

/* Reads and fits output number row, the k-th of its word; adds to the error and the weight. */
static jang_status fit_row(awq_export *e, row_space *b, int64_t row, int k, double *error,
                           double *weight) {
    const model_part *part = e->part;
    int64_t columns = part->columns, n_group = columns / e->group;
    float *x = b->x + k * columns;
    uint8_t *codes = b->codes + k * columns;
    jang_status status = part_rows_f32(x, e->job->source.checkpoint, part, row, 1);
    if (status != JANG_OK) {
        return status;
    }
    if (!kept_codes_rows(b->words, b->scales, b->biases, &e->form, part, row, 1)) {
        return ctx_fail(e->ctx, JANG_ERR_FORMAT, "%s: tensor %s: a scale or bias is not finite",
                        e->job->source.path, part->name);
    }
    for (int64_t g = 0; g < n_group; g++) {
        const float *w = x + g * e->group;
        awq_group *fit = &b->groups[k * n_group + g];
        *fit = awq_fit(codes + g * e->group, w, e->group, half_at(b->scales, g, e->form.type),
                       half_at(b->biases, g, e->form.type));
        *error += fit->error;
        for (int i = 0; i < e->group; i++) {
            *weight += (double)w[i] * (double)w[i];
        }
    }
    return JANG_OK;
}

/* A task: the eight outputs of a column of words. */
static void pack_outputs(void *arg, int number, int thread) {
    awq_export *e = arg;
    row_space *b = &e->spaces[thread];
    int64_t columns = e->part->columns, rows = e->part->rows, n_group = columns / e->group;
    int64_t n_words = rows / PACK;
    double error = 0, weight = 0;
    for (int k = 0; k < PACK; k++) {
        jang_status status = fit_row(e, b, (int64_t)number * PACK + k, k, &error, &weight);
        if (status != JANG_OK) {
            atomic_store(&e->status, status);
            return;
        }
    }
    uint8_t eight[PACK];
    for (int64_t i = 0; i < columns; i++) {
        for (int k = 0; k < PACK; k++) {
            eight[k] = b->codes[k * columns + i];
        }
        e->qweight[i * n_words + number] = awq_word(eight);
    }
    for (int64_t g = 0; g < n_group; g++) {
        for (int k = 0; k < PACK; k++) {
            const awq_group *fit = &b->groups[k * n_group + g];
            eight[k] = (uint8_t)fit->zero;
            e->scales[g * rows + (int64_t)number * PACK + k] = f32_to_f16(fit->scale);
        }
        e->qzeros[g * n_words + number] = awq_word(eight);
    }
    e->errors[number] = error;
    e->weights[number] = weight;
}

static jang_status put_packed(awq_export *e, const awq_slots *slots, size_t n_words,
                              size_t n_zeros) {
    jang_status status = st_writer_put(e->writer, slots->weight, 0, e->qweight, n_words * 4);
    if (status == JANG_OK) {
        status = st_writer_put(e->writer, slots->zeros, 0, e->qzeros, n_zeros * 4);
    }
    return status == JANG_OK
               ? st_writer_put(e->writer, slots->scales, 0, e->scales, n_zeros * PACK * 2)
               : status;
}

static jang_status write_packed(awq_export *e, const awq_slots *slots, const model_part *part,
                                export_result *r) {
    size_t n_tasks = (size_t)(part->rows / PACK);
    size_t n_words = (size_t)part->columns * n_tasks;
    size_t n_zeros = (size_t)(part->columns / e->group) * n_tasks;
    const char *why;
    e->part = part;
    (void)kept_codes_form(&e->form, &why, part);
    atomic_store(&e->status, JANG_OK);
    e->qweight = ctx_array(e->ctx, n_words, sizeof *e->qweight);
    e->qzeros = ctx_array(e->ctx, n_zeros, sizeof *e->qzeros);
    e->scales = ctx_array(e->ctx, n_zeros * PACK, sizeof *e->scales);
    e->errors = ctx_zero(e->ctx, n_tasks, sizeof *e->errors);
    e->weights = ctx_zero(e->ctx, n_tasks, sizeof *e->weights);
    jang_status status = JANG_OK;
    if (!e->qweight || !e->qzeros || !e->scales || !e->errors || !e->weights) {
        status = ctx_fail_memory(e->ctx, n_words * 4);
    }
    if (status == JANG_OK) {
        pool_run(ctx_pool(e->ctx), pack_outputs, e, (int)n_tasks);
        status = (jang_status)atomic_load(&e->status);
    }
    if (status == JANG_OK) {
        status = put_packed(e, slots, n_words, n_zeros);
        for (size_t i = 0; i < n_tasks; i++) {
            r->error += e->errors[i];
            r->weight += e->weights[i];
        }
        r->exact = r->error == 0;
        r->n_bytes = n_words * 4 + n_zeros * (4 + PACK * 2);
    }
    ctx_free(e->ctx, e->qweight);
    ctx_free(e->ctx, e->qzeros);
    ctx_free(e->ctx, e->scales);
    ctx_free(e->ctx, e->errors);
    ctx_free(e->ctx, e->weights);
    return status;
}

/* ---- Plain tensors ---- */

static jang_status write_plain(awq_export *e, const awq_slots *slots, const model_part *part,
                               export_result *r) {
    row_space *b = &e->spaces[0];
    r->exact = true;
    r->n_bytes = (uint64_t)part->params * 2;
    for (int64_t row = 0; row < part->rows; row++) {
        jang_status status = part_rows_f32(b->x, e->job->source.checkpoint, part, row, 1);
        if (status != JANG_OK) {
            return status;
        }
        for (int64_t i = 0; i < part->columns; i++) {
            b->halves[i] = f32_to_f16(b->x[i]);
            double d = (double)f16_to_f32(b->halves[i]) - (double)b->x[i];
            r->error += d * d;
            r->weight += (double)b->x[i] * (double)b->x[i];
        }
        if (!isfinite(r->error)) {
            return refuse(e, part, "a number is NaN, infinite, or too large for F16");
        }
        size_t n = (size_t)part->columns * 2;
        status = st_writer_put(e->writer, slots->weight, (size_t)row * n, b->halves, n);
        if (status != JANG_OK) {
            return status;
        }
    }
    r->exact = r->error == 0;
    return JANG_OK;
}

/* ---- All weights ---- */

static void free_spaces(awq_export *e) {
    for (int i = 0; e->spaces && i < e->n_threads; i++) {
        row_space *b = &e->spaces[i];
        void *all[] = {b->x, b->codes, b->words, b->scales, b->biases, b->groups, b->halves};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            ctx_free(e->ctx, all[k]);
        }
    }
    ctx_free(e->ctx, e->spaces);
}

static jang_status make_spaces(awq_export *e) {
    size_t columns = 32;
    for (size_t i = 0; i < e->job->source.n_kept; i++) {
        size_t n = (size_t)e->job->source.kept[i]->columns;
        columns = n > columns ? n : columns;
    }
    e->spaces = ctx_zero(e->ctx, (size_t)e->n_threads, sizeof *e->spaces);
    bool failed = !e->spaces;
    for (int i = 0; i < e->n_threads && !failed; i++) {
        row_space *b = &e->spaces[i];
        b->x = ctx_array(e->ctx, columns * PACK, sizeof *b->x);
        b->codes = ctx_alloc(e->ctx, columns * PACK);
        b->words = ctx_alloc(e->ctx, columns);
        b->scales = ctx_array(e->ctx, columns / 32 + 1, sizeof(float));
        b->biases = ctx_array(e->ctx, columns / 32 + 1, sizeof(float));
        b->groups = ctx_array(e->ctx, (columns / 32 + 1) * PACK, sizeof *b->groups);
        b->halves = ctx_array(e->ctx, columns, sizeof *b->halves);
        failed =
            !b->x || !b->codes || !b->words || !b->scales || !b->biases || !b->groups || !b->halves;
    }
    return failed ? ctx_fail_memory(e->ctx, columns * 64) : JANG_OK;
}

static jang_status write_weights(awq_export *e) {
    const model_source *s = &e->job->source;
    uint64_t done = 0, total = 0;
    for (size_t i = 0; i < s->n_kept; i++) {
        total += s->kept[i]->n_bytes;
    }
    for (size_t i = 0; i < s->n_kept; i++) {
        const model_part *part = s->kept[i];
        export_result *r = &e->job->report.results[e->job->report.n_results++];
        *r = (export_result){.name = part->name, .params = part->params};
        export_form(r->from, part);
        snprintf(r->to, sizeof r->to, "%s", e->slots[i].packed ? "AWQ" : "F16");
        jang_status status = export_progress(e->job, done, total);
        if (status == JANG_OK) {
            status = e->slots[i].packed ? write_packed(e, &e->slots[i], part, r)
                                        : write_plain(e, &e->slots[i], part, r);
        }
        if (status != JANG_OK) {
            return status;
        }
        part_drop_rows(s->checkpoint, part, 0, part->rows);
        done += part->n_bytes;
    }
    return export_progress(e->job, total, total);
}

static jang_status write_file(awq_export *e) {
    char *path = path_join(e->ctx, e->output.temp_path, "model.safetensors");
    if (!path) {
        return ctx_fail_memory(e->ctx, 64);
    }
    jang_status status = st_writer_new(&e->writer, e->ctx, path);
    ctx_free(e->ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    status = declare_all(e);
    if (status == JANG_OK) {
        status = make_spaces(e);
    }
    if (status == JANG_OK) {
        status = write_weights(e);
    }
    if (status == JANG_OK) {
        return st_writer_finish(e->writer);
    }
    st_writer_discard(e->writer);
    return status;
}

/* ---- config.json ---- */

static jang_status write_config(const awq_export *e) {
    json_t *config = json_deep_copy(e->job->source.config);
    json_t *section = json_pack("{s:s, s:i, s:i, s:b, s:s, s:O}", "quant_method", "awq", "bits", 4,
                                "group_size", e->group, "zero_point", 1, "version", "gemm",
                                "modules_to_not_convert", e->plain_modules);
    int failed = !config || !section;
    jang_status status = failed ? JANG_OK : hub_config(&config, &e->job->source);
    if (status != JANG_OK) {
        json_decref(config);
        json_decref(section);
        return status;
    }
    json_object_del(config, "quantization");
    const char *key = json_has(config, "dtype") ? "dtype" : "torch_dtype";
    failed |= json_object_set_new(config, "quantization_config", section);
    failed |= json_object_set_new(config, key, json_string("float16"));
    failed |=
        json_object_set_new(config, "tie_word_embeddings", json_boolean(e->job->source.model.tied));
    buf text;
    buf_init(&text, e->ctx, BUF_NO_LIMIT);
    if (!failed) {
        json_write_python(&text, config, 2);
        buf_putc(&text, '\n');
    }
    json_decref(config);
    char *path = path_join(e->ctx, e->output.temp_path, "config.json");
    status = failed || !path ? ctx_fail_memory(e->ctx, 1024) : buf_status(&text);
    if (status == JANG_OK) {
        status = file_write(e->ctx, path, text.data, text.size);
    }
    ctx_free(e->ctx, path);
    buf_free(&text);
    return status;
}

/* ---- The whole ---- */

static jang_status write_directory(awq_export *e) {
    jang_status status = write_file(e);
    if (status == JANG_OK) {
        status = checkpoint_copy_texts(e->job->source.checkpoint, e->output.temp_path);
    }
    if (status == JANG_OK) {
        status = write_config(e);
    }
    return status == JANG_OK ? output_commit(&e->output) : status;
}

jang_status export_awq(export_job *job) {
    const jang_export_options *o = job->options;
    awq_export e = {.job = job, .ctx = job->ctx, .n_threads = pool_threads(ctx_pool(job->ctx))};
    e.slots = ctx_zero(job->ctx, job->source.n_kept + 1, sizeof *e.slots);
    e.plain_modules = json_pack("[s]", "lm_head");
    jang_status status =
        e.slots && e.plain_modules ? check_parts(&e) : ctx_fail_memory(job->ctx, 1024);
    uint64_t n_bytes = 1 << 20;
    for (size_t i = 0; i < job->source.n_kept; i++) {
        n_bytes += (uint64_t)job->source.kept[i]->params * 2;
    }
    if (status == JANG_OK) {
        status = output_begin(&e.output, job->ctx, o->output, o->force, o->source, n_bytes);
        if (status == JANG_OK) {
            status = write_directory(&e);
        }
        output_end(&e.output);
    }
    free_spaces(&e);
    ctx_free(job->ctx, e.slots);
    json_decref(e.plain_modules);
    return status;
}
