/* fixture.h - the tiny models of tests/golden/models, with the logits that transformers gives. */
#ifndef TEST_FIXTURE_H
#define TEST_FIXTURE_H

#include "support.h"

#include "base/json.h"
#include "format/checkpoint.h"
#include "model/model.h"

/* One fixture's prompt and expected logits. */
typedef struct fixture {
    char *path;
    int32_t *ids; /* [n_tok] */
    int32_t n_tok;
    float *expected; /* [n_tok, n_vocab] */
    int64_t n_vocab;
    double deviation; /* of the expected logits */
} fixture;

/* Names of all fixtures, sorted, ended by NULL; freed with fixture_names_free. */
char **fixture_names(ctx_t *ctx, size_t *n);
void fixture_read(fixture *f, ctx_t *ctx, const char *name);
/* The same of another directory than TEST_MODELS. */
void fixture_read_in(fixture *f, ctx_t *ctx, const char *directory, const char *name);
void fixture_free(fixture *f, ctx_t *ctx);

/* max |a - b| over the expected logits' standard deviation. */
double fixture_error(const fixture *f, const float *logits);
/* Mean over rows of KL(softmax(a) || softmax(b)) in nats, rows of n. */
double mean_kl(const float *a, const float *b, int32_t n_row, int64_t n);

/* A model on a backend. */
typedef struct rig {
    ctx_t *ctx;
    ops *o;
    checkpoint *c;
    model *m;
    model_cache cache; /* f32, n_pages pages and slots; a sequence has the slot of its first page */
} rig;

/* backend: "ref", "cpu", or "guard:ref", "guard:cpu" (see guard_ops.h). */
void rig_open(rig *r, ctx_t *ctx, const char *path, const char *backend, bool exact,
              int32_t n_pages);
void rig_close(rig *r);

/* Runs a batch of which all rows are wanted; logits [n_tok, n_vocab]. */
void rig_run(rig *r, const batch_desc *batch, float *logits);
/* One sequence from its start in steps of at most step tokens, on pages first_page and up. */
void rig_run_ids(rig *r, const int32_t *ids, int32_t n, int32_t step, int32_t first_page,
                 float *logits);

#endif
