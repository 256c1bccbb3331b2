/* tune.h - codes, scales and biases of all matrices tuned together, so that the quantized model
 * answers as the original does.
 *
 * The divergence KL(original || quantized) over a text is made smaller step by step, by its
 * gradient through the whole model (tape.h). What moves are the places of weights among their
 * groups' codes, with the gradient of the codes they are rounded to (the straight-through
 * estimator, arXiv:1308.3432), and the scale and centre of each group (tune_group.h); they begin
 * where the method left them. The text is that of calibration and what the original writes by
 * itself after beginnings taken from there (LLM-QAT, arXiv:2305.17888). Some of what it writes is
 * held out and tells whether the result is better, which is taken only then: of the calibration's
 * text none can be, since the method has seen it. */
#ifndef JANG_QUANT_TUNE_H
#define JANG_QUANT_TUNE_H

#include "quant/plan.h"
#include "quant/quantizer.h"
#include "quant/work.h"

#define TUNE_LEAST_SEQS 8 /* of the text */

typedef struct tuning {
    ctx_t *ctx;
    const checkpoint *source; /* what is quantized */
    checkpoint *run;          /* the same model in a form that runs; may be source */
    quant_plan *plan;
    work_dir *work;                 /* of finished matrices; all tuned ones are replaced */
    quant_fn fn;                    /* what finds codes of matrices that are not finished */
    const float *const *importance; /* [n_items] for fn; each may be NULL */
    const int32_t *ids;             /* [n_ids], cut into sequences of n_seq */
    size_t n_ids;
    int32_t n_seq;
    int32_t n_steps; /* each by one sequence */
    bool optional;   /* a model that cannot be tuned, writing no text, is left as it is */
    jang_progress_fn on_progress;
    void *user;
} tuning;

/* Steps of a method that tunes by itself, with n_seqs sequences of text: as many as make it take
 * about ten times as long as gptq, and none where the text is too short. */
int32_t tune_own_steps(size_t n_seqs);

/* Bytes that tuning takes: for weights, for a sequence's logits, and for its way through the
 * layers, which is an estimate. */
uint64_t tune_bytes(const quant_plan *plan, int32_t n_seq);

/* Tunes, and logs how far the answers of held out sequences diverged before and after. Errors:
 * JANG_ERR_CANCELLED; JANG_ERR_ARGUMENT for too little text; JANG_ERR_UNSUPPORTED for a model that
 * writes no text. The work directory is then as it was. */
JANG_MUST_CHECK jang_status tune(const tuning *t);

#endif
