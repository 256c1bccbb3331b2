/* calibrate.h - running a model on text to learn what each linear's inputs are like, and quantizing
 * it on the way.
 *
 * The unquantized source runs layer by layer over all tokens; only the residual stream is kept
 * between layers, so memory is a layer and the tokens' activations. With full Hessians there are
 * two streams: the original model's, and that of the model whose layers so far are quantized. */
#ifndef JANG_QUANT_CALIBRATE_H
#define JANG_QUANT_CALIBRATE_H

#include "quant/outputs.h"
#include "quant/quantizer.h"
#include "quant/scaling.h"
#include "quant/work.h"

typedef struct calibration {
    ctx_t *ctx;
    checkpoint *source; /* what is quantized */
    checkpoint *run;    /* the same model in a form that runs; may be source */
    quant_plan *plan;   /* types of scales are widened where f16 is too small */
    const int32_t *ids; /* [n_ids], cut into sequences of n_seq */
    size_t n_ids;
    int32_t n_seq;
    double damping;
    quant_fn fn;                   /* full: what finds codes where there is no feedback */
    bool feedback;                 /* full: errors are fed forward (gptq.h) */
    bool thorough;                 /* full: damping and targets by tokens held out, more sweeps */
    scalings *scalings;            /* full: inputs that may be scaled; NULL: none */
    work_dir *work;                /* full: where finished matrices go; NULL: diagonals only */
    const output_moments *outputs; /* [n_items] for feedback; NULL: nothing is known of outputs */
    float **importance; /* [n_items], each [columns] or NULL: mean squares of inputs; freed by the
                           caller */
    jang_progress_fn on_progress;
    void *user;
} calibration;

/* Inputs of a stage that are kept from one pass to the next, at most. */
#define CALIBRATE_KEPT_BYTES ((size_t)512 << 20)

/* How many of the tokens are run in the original model as well, for targets to aim at. */
size_t calibrate_paired(size_t n_tokens, bool thorough);

/* With work: quantizes all matrices of the plan that the model multiplies with whole inputs. Of the
 * others (experts), and of all without work, gives the importance of the columns. */
JANG_MUST_CHECK jang_status calibrate(calibration *c);

#endif
