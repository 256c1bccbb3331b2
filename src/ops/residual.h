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
 * rounding, unless the weight asks for it (weight_desc.fine). Measured on SmolLM2 with fine
 * attention and output, mean KL in nats: JANG_4M 4.3e-4, JANG_3M 7.1e-4, 8-bit 2.4e-4; with 5 they
 * are about half as large again. A third of the remaining groups pass 4, a sixth pass 6. */
#define RESIDUAL_LIMIT 4.0f

/* Whether all groups of a weight's inputs get the second rounding. Of 2 bits all do: models of so
 * few bits stand on an edge (JANG_2S: mean KL 6.7e-2 with one row). */
static inline bool weight_is_fine(const weight_desc *d) {
    return d->fine || d->bits == 2;
}

/* out = x - sx qx by the rounding of ref_linear.c, or zeros in groups that are left out (all false)
 * or not finite. x, out [n], n a multiple of group. */
void residual_row(float *restrict out, const float *restrict x, int64_t n, int group, bool all);

#endif
