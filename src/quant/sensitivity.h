/* sensitivity.h - how much a model's answers suffer from the error of each of its matrices.
 *
 * The model runs on a little text, layer by layer. What one layer's rounding does to the answers is
 * measured whole: its matrices are all quantized, the disturbed stream goes through the layers
 * above as they are, and at the end the divergence KL(original || disturbed) of the next token's
 * distribution is taken. Each layer's divergence is shared out among its matrices by what each
 * alone, quantized, does to the layer's output: the squared change of the residual stream. An
 * embedding and an output matrix are measured by themselves (a tied one once, in both places).
 *
 * That divergences of small, independent errors add up, and each grows as the error's square, is
 * what makes a sum over matrices worth minimizing (arXiv:2411.17525 shows it for perplexity). */
#ifndef JANG_QUANT_SENSITIVITY_H
#define JANG_QUANT_SENSITIVITY_H

#include "quant/plan.h"
#include "quant/quantizer.h"

typedef struct sensitivity_job {
    ctx_t *ctx;
    checkpoint *source;     /* what is quantized */
    checkpoint *run;        /* the same model in a form that runs; may be source */
    const quant_plan *plan; /* each item's bits and group are what is tried */
    quant_fn fn;
    bool weighted;      /* fn weighs errors by the columns' inputs */
    const int32_t *ids; /* [n_ids] text, cut into sequences; only a few, taken evenly, are used */
    size_t n_ids;
    double *divergence; /* out [n_items]: nats a token of an item as quantized in the plan;
                           negative: not seen in the model's products */
    float **importance; /* out [n_items]: mean squares of inputs, or NULL; freed by the caller */
    jang_progress_fn on_progress;
    void *user;
} sensitivity_job;

JANG_MUST_CHECK jang_status sensitivity_measure(sensitivity_job *job);

#endif
