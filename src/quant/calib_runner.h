/* calib_runner.h - a calibration at work; seen by the calib files only.
 *
 * calibrate.c moves the tokens through the layers, calib_linear.c stands in for the backend's
 * products, calib_site.c quantizes what was studied. */
#ifndef JANG_QUANT_CALIB_RUNNER_H
#define JANG_QUANT_CALIB_RUNNER_H

#include "model/model.h"
#include "quant/calibrate.h"
#include "quant/gptq.h"

#define MAX_ITEMS 8 /* weights that share an input */
#define NO_ITEM SIZE_MAX

/* A matrix of the plan as it is quantized piece by piece. */
typedef struct item_codes {
    uint8_t *codes;
    float *scales, *biases;
} item_codes;

/* The inputs of one product in the first steps of a pass over a stage. */
typedef struct kept_input {
    uint8_t *data; /* [room, row_bytes]; NULL: none */
    size_t row_bytes;
    int64_t room, n_rows; /* n_rows are there */
    int call;             /* the product's number in the stage */
    bool half;            /* in bf16, not f32 */
} kept_input;

/* Keys and values of a layer that later ones attend to as well. */
typedef struct shared_keys {
    bool wanted;
    ops_kv *kv;
    int64_t width, k_width; /* keys come first */
    float *rows;            /* [rows of a pass, width]; NULL: none yet */
} shared_keys;

typedef struct runner {
    ops_table table;      /* first: the backend's table pointer leads here */
    const ops_table *own; /* the backend's */
    void (*experts)(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                    int n_items);
    calibration *c;
    ops *o;
    model *m;
    model_cache cache;
    float **quantized; /* [n_items] f32 of this layer's finished matrices but experts', or NULL */
    bool *done;        /* [n_items] */
    int *seen;         /* [n_items] the pass that importance was last added in */
    float *weight;     /* scratch for one weight as f32 */
    size_t n_weight;
    /* The pass at hand */
    int pass;           /* its number */
    int call, target;   /* number of a product in its stage; the first that may be studied */
    bool skip;          /* the input was reached: the rest of the stage is not wanted */
    bool reached;       /* ... in some step of the pass */
    bool head;          /* the output matrix's inputs are collected */
    bool begins;        /* a step is begun: products before the first layer */
    bool looks_first;   /* ... one of which is studied */
    bool reached_first; /* ... and was in this step */
    bool again;         /* the step starts at the product whose input is kept */
    bool trying;        /* nothing is studied: the step only shows what it comes to */
    int64_t step_row;   /* number of the step's first row in the pass */
    kept_input kept;
    shared_keys *shared;   /* [n_layer] */
    int stored;            /* the layer whose keys the stage at hand has stored; -1: none */
    ops_mat stored_values; /* ... with these values */
    double damping;        /* of the matrices under study */
    size_t step_first;     /* number of the step's first sequence */
    int64_t n_orig;        /* first rows of the step that are the original model's */
    jang_status status;
    /* What is studied: one input, or that of each of a layer's experts from expert_first on */
    gptq_site *sites;                    /* [n_sites]; NULL: nothing yet */
    int n_sites, expert_first, n_expert; /* n_expert 0: no experts */
    size_t items[MAX_ITEMS];             /* the matrices that have this input ... */
    item_codes codes[MAX_ITEMS];         /* ... and what is known of them */
    int n_items, site_call;
    float *head_rows; /* [rows of a step, n_embd] */
    int64_t n_head_rows;
    /* Streams */
    int32_t n_step_seq, n_pages; /* sequences of a step; pages of a sequence */
    size_t n_seqs, n_paired;     /* sequences; the first so many are run in the original too */
    int32_t *order;              /* [n_seqs] which of the calibration's each one is */
    float *streams[2];           /* original [n_paired sequences, n_embd], quantized [n_seqs ...] */
    int32_t *ids, *pages, *out;
    batch_seq *seqs;
} runner;

/* ---- calib_linear.c ---- */

/* The plan's number of a weight that is to be quantized, or NO_ITEM. */
size_t runner_item(const runner *r, const ops_weight *w);
/* Takes over what an earlier, killed run finished. */
void runner_load_finished(runner *r, size_t number);
/* Whether some of the tokens are held out of what codes are found by. */
bool runner_holds(const runner *r);
/* Adds a step's rows, the original's first, to what is known of an input. */
void runner_study(runner *r, const float *rows, int64_t stride, int64_t n_row, int64_t width);

/* The table's entries. */
void runner_linear(ops *o, ops_mat x, const linear_item *items, int n_items);
void runner_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                    int n_items);

/* ---- calib_kept.c ---- */

/* Keeps a step's inputs of a product, if there is room and something was computed for them. */
void runner_keep(runner *r, int call, ops_mat x);
/* Whether all of a step's n_row inputs are kept. */
bool runner_has_kept(const runner *r, int64_t n_row);
/* Puts them back, where the product reads them. */
void runner_put_back(runner *r, ops_mat x);
void runner_forget_kept(runner *r);

/* ---- calib_shared.c ---- */

/* The table's entries. A layer whose keys are attended to where they were not stored is wanted. */
void runner_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v);
void runner_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                      const ops_batch *batch, ops_mat q, ops_mat out);
void runner_free_shared(runner *r);

/* ---- calib_site.c ---- */

/* Finds the targets, once the paired sequences were seen. */
JANG_MUST_CHECK jang_status runner_aim(runner *r, double damping);
/* Quantizes what was studied. Of many experts those of the sites; *all: no more are left. */
JANG_MUST_CHECK jang_status runner_quantize(bool *all, runner *r, double damping);
void runner_free_sites(runner *r);
void runner_free_codes(runner *r);

/* ---- calib_scale.c ---- */

/* Decides the factors of the inputs that were studied, where they can have some. Moments are
 * mirrored. Between aim and quantize. */
JANG_MUST_CHECK jang_status runner_choose_factors(runner *r);
/* Scales what is known of the inputs by them. */
void runner_apply_factors(runner *r);
/* Takes over the factors that an earlier, killed run has decided. */
JANG_MUST_CHECK jang_status runner_load_factors(runner *r);

/* ---- calib_trial.c, calib_tune.c ---- */

/* Without feedback: codes, scales and biases of m by the method's function, errors weighted by the
 * sizes of the inputs. */
JANG_MUST_CHECK jang_status runner_fit(runner *r, const gptq_site *s, const gptq_matrix *m,
                                       int group);
/* Chooses damping and targets by the tokens held out. Moments are mirrored. */
JANG_MUST_CHECK jang_status runner_tune(runner *r);

#endif
