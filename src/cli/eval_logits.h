/* eval_logits.h - logits window by window, from a model or from a file of stored ones, and what two
 * rows of them tell about each other.
 *
 * File of stored logits, little-endian: the bytes "JANGLOG1", uint32 n_vocab, uint32 n_windows,
 * uint64 hash of all ids; then for each window uint32 n, and for each of its n tokens f32 lowest,
 * f32 step and uint16 codes [n_vocab]: logit = lowest + code * step. A step of a 65,535th of the
 * row's range moves a KL divergence by less than 1e-7. */
#ifndef JANG_CLI_EVAL_LOGITS_H
#define JANG_CLI_EVAL_LOGITS_H

#include "eval_text.h"

#include <stdio.h>

/* Tokens computed in a pass, and rows of logits held. */
#define EVAL_CHUNK 128

typedef struct logit_source {
    jang_context *ctx;
    jang_session *session; /* of a model; NULL: stored ones */
    FILE *file;
    const char *path;
    size_t n_vocab, n_left; /* n_left: rows of the window at hand, of a file */
    float *rows;            /* [EVAL_CHUNK, n_vocab] */
    uint16_t *codes;        /* [n_vocab], of a file */
} logit_source;

/* Each prints why it failed. The model must have the same vocabulary as those it is compared with,
 * which measuring checks. */
bool source_open_model(logit_source *s, jang_context *ctx, jang_model *model, size_t context,
                       jang_kv_type kv_type);
bool source_open_file(logit_source *s, const char *path, const eval_texts *texts);
void source_close(logit_source *s);

/* Starts a window, then gives its logits, n <= EVAL_CHUNK ids at a time, in s->rows. */
bool source_begin(logit_source *s, const eval_window *window);
bool source_next(logit_source *s, const int32_t *ids, size_t n);

/* Writing such a file; it appears whole or not at all. */
typedef struct logit_store {
    FILE *file;
    char *path, *beside;
    size_t n_vocab;
    uint16_t *codes;
} logit_store;

bool store_open(logit_store *s, const char *path, const eval_texts *texts, size_t n_vocab);
bool store_begin(logit_store *s, const eval_window *window);
bool store_rows(logit_store *s, const float *rows, size_t n);
bool store_finish(logit_store *s);
void store_close(logit_store *s);

/* ---- Rows ---- */

/* log of the sum of exp of a row, and where its largest element is. */
double row_log_sum(const float *row, size_t n, size_t *top);

typedef struct row_difference {
    double kl;  /* KL(softmax(reference) || softmax(row)), nats */
    double mse; /* mean squared difference of the logits */
    bool same_top;
    double log_sum_reference, log_sum;
} row_difference;

row_difference compare_rows(const float *reference, const float *row, size_t n);

#endif
