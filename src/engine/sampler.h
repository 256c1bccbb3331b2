/* sampler.h - from logits to a token.
 *
 * Order: top-k, top-p, min-p on the model's own distribution, then temperature, then the draw. The
 * draw at a position is a hash of seed and position, so it does not depend on what was drawn
 * before or beside it. */
#ifndef JANG_ENGINE_SAMPLER_H
#define JANG_ENGINE_SAMPLER_H

#include "base/ctx.h"

typedef struct sampler sampler;

/* options are checked: temperature >= 0, 0 < top_p <= 1, top_k >= 0, 0 <= min_p <= 1. */
JANG_MUST_CHECK jang_status sampler_new(sampler **out, ctx_t *ctx, const jang_sampling *options,
                                        int32_t n_vocab);
void sampler_free(sampler *s);

/* logits f32 [n_vocab]; position is the index that the token will have in its sequence. */
int32_t sampler_pick(sampler *s, const float *logits, uint64_t position);

#endif
