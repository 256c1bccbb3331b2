/* export.h - what the formats of jang_export share; nobody else includes it. */
#ifndef JANG_EXPORT_EXPORT_H
#define JANG_EXPORT_EXPORT_H

#include "quant/source.h"

/* What became of one tensor. */
typedef struct export_result {
    const char *name; /* of the part */
    char from[32], to[32];
    uint64_t n_bytes; /* as written */
    int64_t params;
    double error, weight; /* squared, of all numbers */
    bool exact;           /* every number is the same */
} export_result;

typedef struct export_report {
    ctx_t *ctx;
    json_t *notes; /* array of strings */
    export_result *results;
    size_t n_results;
} export_report;

/* A job of a format. report is all zero at first but for ctx, notes and results, which has room for
 * every kept part. */
typedef struct export_job {
    ctx_t *ctx;
    const jang_export_options *options;
    model_source source;
    export_report report;
    double started; /* clock_seconds */
} export_job;

/* Writes the file options->output, whole or not at all. */
JANG_MUST_CHECK jang_status export_gguf(export_job *job);
/* Writes the directory options->output, likewise. Its source has the hub's names. */
JANG_MUST_CHECK jang_status export_awq(export_job *job);

/* Tells of progress, in bytes of the source; JANG_ERR_CANCELLED when the caller wants no more. */
JANG_MUST_CHECK jang_status export_progress(export_job *job, uint64_t done, uint64_t total);

/* A part's form for reports: "4 bits, groups of 64", "BF16". */
void export_form(char out[32], const model_part *part);

#endif
