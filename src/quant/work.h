/* work.h - finished matrices of a conversion that calibrates, one file each, until they are written
 * into the shards.
 *
 * Calibration goes through the model layer by layer, the output is written in another order; and a
 * conversion that was killed goes on from the files that are there (--resume). A file appears whole
 * or not at all. The directory lies beside the output: OUTPUT.work. */
#ifndef JANG_QUANT_WORK_H
#define JANG_QUANT_WORK_H

#include "quant/plan.h"
#include "quant/stored_rows.h"

typedef struct work_dir {
    ctx_t *ctx;
    char *path;
    const quant_plan *plan;
    struct work_file *files; /* [plan->n_items] */
    bool took_next;
} work_dir;

/* Opens OUTPUT.work, made if it is not there. key is everything the results depend on; where the
 * directory holds another key's results they are removed, or, with resume, JANG_ERR_ARGUMENT. */
JANG_MUST_CHECK jang_status work_open(work_dir *out, ctx_t *ctx, const char *output,
                                      const quant_plan *plan, const char *key, bool resume);
/* remove: deletes the directory. */
void work_close(work_dir *w, bool remove);

/* A matrix as it will be stored. codes [rows, columns], scales and biases [rows, columns / group],
 * representable in type. */
typedef struct work_matrix {
    const uint8_t *codes;
    const float *scales, *biases;
    dtype type;
} work_matrix;

JANG_MUST_CHECK jang_status work_put(work_dir *w, size_t item, const work_matrix *m);
/* The same of rows that are in the form of the shards already. */
JANG_MUST_CHECK jang_status work_put_stored(work_dir *w, size_t item, const stored_rows *rows);

/* Another matrix in the place of one that is there, with others at once: work_take_next makes all
 * that were put so far count, or, where it fails, none. It does so once. */
JANG_MUST_CHECK jang_status work_put_next(work_dir *w, size_t item, const work_matrix *m);
JANG_MUST_CHECK jang_status work_take_next(work_dir *w);
/* Whether it has, now or in an earlier run. */
bool work_took_next(const work_dir *w);

/* What is stored of an item: weights, scales, biases as in the shards; false if it is not there. */
typedef struct work_view {
    const uint8_t *weights, *scales, *biases;
    dtype type;
} work_view;
bool work_get(work_view *out, const work_dir *w, size_t item);

/* Gives back the pages of all that was read; what is read again comes from the files. */
void work_drop(const work_dir *w);
/* Rows [first, first + n) of an item that is there, as f32 [n, columns]. */
void work_rows_f32(float *out, const work_dir *w, size_t item, int64_t first, int64_t n);

#endif
