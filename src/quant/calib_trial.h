/* calib_trial.h - quantizing some rows of a matrix under study to see what its outputs lose. */
#ifndef JANG_QUANT_CALIB_TRIAL_H
#define JANG_QUANT_CALIB_TRIAL_H

#include "quant/calib_runner.h"

/* How a trial is to be quantized: the damping of gptq_prepare, and the share of the way to the
 * targets. */
typedef struct trial_way {
    double damping, share;
} trial_way;

/* Rows of one matrix, and room for what becomes of them. */
typedef struct trial {
    runner *r;
    const gptq_site *site;
    const plan_item *item;
    int64_t n_rows;
    float *rows, *work, *product; /* [n_rows, n_in]: as they are, quantized, errors times H */
    float *cross;                 /* ... W Z of the tokens held out; NULL: none are */
    uint8_t *codes;
    float *scales, *biases;
} trial;

/* Takes rows evenly from [first, first + n) of an item. The site's moments are mirrored. */
JANG_MUST_CHECK jang_status trial_make(trial *t, runner *r, const gptq_site *site,
                                       const plan_item *item, int64_t first, int64_t n);
void trial_free(trial *t);

/* Quantizes the rows with their inputs divided by factors [n_in] and adds the squared error of the
 * outputs to *loss: on the tokens held out, against the original's outputs but for a constant; or,
 * where none are, on all. */
JANG_MUST_CHECK jang_status trial_run(double *loss, trial *t, const float *factors,
                                      const trial_way *way);

#endif
