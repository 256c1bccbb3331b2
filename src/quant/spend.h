/* spend.h - the widths of a plan that has a budget. */
#ifndef JANG_QUANT_SPEND_H
#define JANG_QUANT_SPEND_H

#include "quant/plan.h"
#include "quant/quantizer.h"

typedef struct spending {
    ctx_t *ctx;
    const checkpoint *source;
    quant_plan *plan; /* widths of all items but fixed ones are chosen anew */
    quant_fn fn;
    double nominal;     /* budget: mean width of the codes; 0: size counts */
    uint64_t size;      /* budget: bytes of all weights */
    bool choose_groups; /* group sizes are chosen too, as bytes allow; with nominal, the bytes that
                           so many bits everywhere take in the groups of the plan */
    /* Of a model that ran (sensitivity.h); both NULL: only weights are known. */
    const double *divergence;
    const float *const *importance;
    jang_progress_fn on_progress;
    void *user;
} spending;

/* Sets the plan's budget. Measures what each allowed width does to each matrix, and takes those
 * whose errors have the least sum within the budget: divergences where there are any, otherwise
 * errors of the weights, those of some roles counting more. JANG_ERR_ARGUMENT: the least widths
 * allowed need more; says how much.
 */
JANG_MUST_CHECK jang_status spend_bits(const spending *s);

#endif
