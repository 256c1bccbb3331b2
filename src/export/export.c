/* export.c - jang_export: the source, the format, the report. */
#include "export/export.h"

#include "base/file.h"
#include "quant/convert.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct export_format {
    const char *name;
    jang_status (*run)(export_job *job); /* NULL: a conversion to a floating type */
    unsigned flags;                      /* of model_source_open */
    const char *types[4];                /* the first is meant by NULL */
} export_format;

static const export_format formats[] = {
    {"hf", NULL, 0, {"f16", "bf16", "f32"}},
    {"gguf", export_gguf, 0, {"exact", "small"}},
    {"awq", export_awq, SOURCE_HUB_NAMES, {NULL}},
};

void export_form(char out[32], const model_part *part) {
    if (part->bits) {
        snprintf(out, 32, "%d bits, groups of %d", part->bits, part->group);
    } else if (part->packing == PACKING_MXFP4) {
        snprintf(out, 32, "MXFP4");
    } else {
        snprintf(out, 32, "%s", dtype_table[part->weight->type].name);
    }
}

jang_status export_progress(export_job *job, uint64_t done, uint64_t total) {
    const jang_export_options *o = job->options;
    const export_report *r = &job->report;
    jang_progress p = {.what = r->n_results ? r->results[r->n_results - 1].name : "",
                       .done = done,
                       .total = total,
                       .seconds = clock_seconds() - job->started};
    return !o->on_progress || o->on_progress(o->user, &p)
               ? JANG_OK
               : ctx_fail(job->ctx, JANG_ERR_CANCELLED, "cancelled");
}

/* ---- The report ---- */

static json_t *result_json(const export_result *r, int64_t n_tensors, int64_t n_exact) {
    double error = r->weight > 0 ? sqrt(r->error / r->weight) : 0;
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:f}", "from", r->from, "to", r->to, "tensors",
                     (json_int_t)n_tensors, "exact", (json_int_t)n_exact, "params",
                     (json_int_t)r->params, "bytes", (json_int_t)r->n_bytes, "error", error);
}

/* Appends a row for each pair of forms before and after, in the order in which they appear. */
static int add_rows(json_t *rows, const export_report *report) {
    int failed = 0;
    for (size_t i = 0; i < report->n_results; i++) {
        export_result sum = report->results[i];
        int64_t n = 0, n_exact = 0;
        bool first = true;
        sum.params = 0;
        sum.n_bytes = 0;
        sum.error = sum.weight = 0;
        for (size_t k = 0; k < report->n_results; k++) {
            const export_result *r = &report->results[k];
            if (strcmp(r->from, sum.from) != 0 || strcmp(r->to, sum.to) != 0) {
                continue;
            }
            first = first && k >= i;
            n++;
            n_exact += r->exact;
            sum.params += r->params;
            sum.n_bytes += r->n_bytes;
            sum.error += r->error;
            sum.weight += r->weight;
        }
        if (first) {
            failed |= json_array_append_new(rows, result_json(&sum, n, n_exact));
        }
    }
    return failed;
}

static jang_status report_text(char **out, const export_job *job) {
    const export_report *report = &job->report;
    json_t *rows = json_array(), *tensors = json_array();
    uint64_t n_bytes = 0;
    int64_t params = 0;
    int failed = !rows || !tensors || add_rows(rows, report);
    for (size_t i = 0; i < report->n_results; i++) {
        const export_result *r = &report->results[i];
        json_t *row = result_json(r, 1, r->exact);
        failed |= json_object_set_new(row, "name", json_string(r->name));
        failed |= json_array_append_new(tensors, row);
        n_bytes += r->n_bytes;
        params += r->params;
    }
    json_t *json = json_pack("{s:s, s:I, s:I, s:f, s:o, s:o, s:O}", "format", job->options->format,
                             "params", (json_int_t)params, "weight_bytes", (json_int_t)n_bytes,
                             "true_bits", params ? 8.0 * (double)n_bytes / (double)params : 0,
                             "rows", rows, "tensors", tensors, "notes", report->notes);
    buf text;
    buf_init(&text, job->ctx, BUF_NO_LIMIT);
    jang_status status = json && !failed ? JANG_OK : ctx_fail_memory(job->ctx, 1024);
    if (status == JANG_OK) {
        size_t n;
        json_write(&text, json, 0);
        status = buf_take(&text, out, &n);
    }
    buf_free(&text);
    json_decref(json);
    return status;
}

/* ---- The whole ---- */

static jang_status check_type(ctx_t *ctx, const export_format *format, const char *type) {
    const char *const *t = format->types;
    for (int i = 0; type && i < 4 && t[i]; i++) {
        if (strcmp(t[i], type) == 0) {
            return JANG_OK;
        }
    }
    if (!type) {
        return JANG_OK;
    }
    return t[0] ? ctx_fail(ctx, JANG_ERR_ARGUMENT, "type %.40s is none of format %s: %s, %s%s%s",
                           type, format->name, t[0], t[1], t[2] ? ", " : "", t[2] ? t[2] : "")
                : ctx_fail(ctx, JANG_ERR_ARGUMENT, "type %.40s: format %s has no types", type,
                           format->name);
}

static jang_status check_options(const export_format **out, ctx_t *ctx,
                                 const jang_export_options *o) {
    if (!o || !o->source || !o->output || !o->format) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "an export needs a source, a format and an output");
    }
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcmp(formats[i].name, o->format) == 0) {
            *out = &formats[i];
            return check_type(ctx, &formats[i], o->type);
        }
    }
    return ctx_fail(ctx, JANG_ERR_ARGUMENT, "format \"%.40s\" is not known; hf, gguf and awq are",
                    o->format);
}

static jang_status export_hf(char **report_json, ctx_t *ctx, const jang_export_options *o) {
    jang_convert_options convert = jang_convert_options_default();
    convert.source = o->source;
    convert.output = o->output;
    convert.force = o->force;
    convert.profile = o->type ? o->type : "f16";
    convert.on_progress = o->on_progress;
    convert.user = o->user;
    return convert_run(report_json, ctx, &convert,
                       (convert_form){.shard_bytes = PIPELINE_SHARD_BYTES, .hub_names = true});
}

static jang_status run_format(char **report_json, export_job *job, const export_format *format) {
    ctx_t *ctx = job->ctx;
    jang_status status = model_source_open(&job->source, ctx, job->options->source, format->flags);
    if (status != JANG_OK) {
        return status;
    }
    job->report.notes = json_array();
    job->report.results = ctx_zero(ctx, job->source.n_kept + 1, sizeof *job->report.results);
    if (!job->report.notes || !job->report.results) {
        status = ctx_fail_memory(ctx, job->source.n_kept * sizeof *job->report.results);
    }
    if (status == JANG_OK) {
        status = format->run(job);
    }
    if (status == JANG_OK && report_json) {
        status = report_text(report_json, job);
    }
    json_decref(job->report.notes);
    ctx_free(ctx, job->report.results);
    model_source_close(&job->source);
    return status;
}

jang_status jang_export(char **report_json, jang_context *ctx, const jang_export_options *options) {
    const export_format *format = NULL;
    jang_status status = check_options(&format, ctx, options);
    if (status != JANG_OK) {
        return status;
    }
    if (!format->run) {
        return export_hf(report_json, ctx, options);
    }
    export_job job = {.ctx = ctx, .options = options, .started = clock_seconds()};
    return run_format(report_json, &job, format);
}
