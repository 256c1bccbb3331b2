/* nucleus.h - drawing from a whole vocabulary, or from the likeliest tokens that hold top_p of it
 * (arXiv:1904.09751), without sorting it.
 *
 * A nucleus is scratch for one thread. It starts no others: engines draw for many sequences at
 * once. */
#ifndef JANG_ENGINE_NUCLEUS_H
#define JANG_ENGINE_NUCLEUS_H

#include "base/ctx.h"

typedef struct nucleus nucleus;

JANG_MUST_CHECK jang_status nucleus_new(nucleus **out, ctx_t *ctx, int32_t n_vocab);
void nucleus_free(nucleus *n);

/* Draws with u, uniform in [0, 1), from logits [n_vocab], of which max, finite, is the largest:
 * with top_p of 1 walking through the ids, else through the tokens from the likeliest down, lower
 * ids first among equals. Tokens of logit -infinity or NaN are never drawn. */
int32_t nucleus_pick(nucleus *n, const float *logits, float max, double top_p, double temperature,
                     double u);

#endif
