/* logprobs.h - log-probabilities of a model's own distribution. */
#ifndef JANG_ENGINE_LOGPROBS_H
#define JANG_ENGINE_LOGPROBS_H

#include "base/ctx.h"

typedef struct logprob_entry {
    int32_t id;
    float logprob;
} logprob_entry;

/* Writes the k likeliest of n_vocab tokens, falling, lower ids first among equals, and returns the
 * logarithm of the sum of exp(logit): logprob = logit - sum. */
double logprobs_top(logprob_entry *top, int32_t k, const float *logits, int32_t n_vocab);

#endif
