/* residual.h - the second 8-bit row of an input of quantized products.
 *
 * One code of 8 bits an activation is not enough where a group holds an outlier: with one row the
 * mean KL of SmolLM2 at 4 bits against f32 activations is 8.7e-3 nats, and no smaller group brings
 * it under 1e-3. So what rounding leaves of an input, x - sx qx, is rounded once more into a row
 * of its own, with scales of its own, and the products of both rows are added. Where that matters
 * little it is left out, group by group: the second row then has zeros there. That depends on the
 * input's own row alone, so results stay independent of the rows beside it. */
#ifndef JANG_OPS_RESIDUAL_H
#define JANG_OPS_RESIDUAL_H

#include "ops/ops.h"

/* Groups whose largest element is below this times the row's root mean square get no second
 * rounding, unless the weight asks for it (weight_desc.fine). Measured on SmolLM2 with fine q, k, v
 * and output: 4 leaves a mean KL of 5.3e-4 and 35 % of the groups, 6 leaves 9.9e-4 and 17 %. */
#define RESIDUAL_LIMIT 5.0f

/* Whether all groups of a weight's inputs get the second rounding. Of 2 bits all do: models of so
 * few bits stand on an edge (JANG_2S: mean KL 6.7e-2 with one row). */
static inline bool weight_is_fine(const weight_desc *d) {
    return d->fine || d->bits == 2;
}

/* out = x - sx qx by the rounding of ref_linear.c, or zeros in groups that are left out (all false)
 * or not finite. x, out [n], n a multiple of group. */
void residual_row(float *restrict out, const float *restrict x, int64_t n, int group, bool all);

#endif
