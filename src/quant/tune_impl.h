/* tune_impl.h - a tuning at work; seen by the tune files only. */
#ifndef JANG_QUANT_TUNE_IMPL_H
#define JANG_QUANT_TUNE_IMPL_H

#include "quant/tape_model.h"
#include "quant/tune.h"
#include "quant/tune_group.h"

/* A matrix before it is rounded (tune_group.h). */
typedef struct latent {
    ctx_t *ctx;
    const plan_item *item;
    tune_group_fn *step;
    bool filled;  /* with the original's weights */
    float *place; /* [rows, columns] among the codes */
    float *value; /* [rows, columns] what they are rounded to, as the model multiplies by it */
    float *grad;  /* [rows, columns] of value, added up */
    moments of_place;
    float *unit;           /* [rows, groups] size of a step of the codes at the start */
    float *scale, *centre; /* [rows, groups] */
    moments of_scale, of_centre;
} latent;

/* Makes room, and takes codes, scales and biases from the work directory. */
JANG_MUST_CHECK jang_status latent_make(latent **out, ctx_t *ctx, const work_dir *work,
                                        size_t item);
void latent_free(latent *l);
/* Puts the original's weights, f32 rows [first, first + n), in their places, as far as the codes at
 * the start allow: each within the half step around its code. */
void latent_fill(latent *l, const work_dir *work, size_t item, const float *original, int64_t first,
                 int64_t n);
/* Moves by the gradient, which becomes 0. */
void latent_step(latent *l, const latent_rates *rates);
/* Rounds scales and centres to the type they are stored in; after it value is what is stored. */
void latent_round(latent *l);
/* Writes what latent_round made into the work directory's new generation. */
JANG_MUST_CHECK jang_status latent_store(const latent *l, work_dir *work, size_t item);

/* Which matrix of the plan a weight is. */
typedef struct tuned_weight {
    const ops_weight *w;
    latent *latent; /* NULL: none that is tuned */
} tuned_weight;

typedef struct tuner {
    const tuning *t;
    ctx_t *ctx;
    tape_model tm;
    latent **latents; /* [n_items], NULL: not tuned */
    tuned_weight *weights;
    size_t n_weights;
    size_t n_own;    /* sequences of the text; then come those that the original wrote, */
    size_t n_learnt; /* of which those after so many sequences are held out */
    size_t n_seqs;
    int32_t *ids;  /* [n_seqs, n_seq] */
    float *wanted; /* [n_seq, n_vocab] the original's logits */
    double *kl;    /* [n_seq] */
    jang_status status;
    double start;
} tuner;

/* Whether the caller goes on; done of total is of the stage. */
JANG_MUST_CHECK jang_status tuner_report(const tuner *u, const char *what, size_t done,
                                         size_t total);

/* Quantizes the matrices that are to be and are not finished (tune_rest.c). */
JANG_MUST_CHECK jang_status tuner_finish_matrices(const tuning *t);

/* Lets the original write sequences after beginnings of the text's own (tune_text.c). */
JANG_MUST_CHECK jang_status tuner_write_text(tuner *u, int32_t *ids, size_t n_seqs);

#endif
