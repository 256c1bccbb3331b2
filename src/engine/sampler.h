/* sampler.h - from logits to a token.
 *
 * Order: biases, penalties, mask, top-k, typical, top-p, min-p, temperature, draw. Each works on
 * what the one before left. The draw at a position is a hash of seed and position, so it does not
 * depend on what was drawn before or beside it.
 *
 * A sampler is scratch for one thread; it remembers nothing of a sequence. */
#ifndef JANG_ENGINE_SAMPLER_H
#define JANG_ENGINE_SAMPLER_H

#include "base/ctx.h"

typedef struct sampler sampler;

/* What a token is drawn from, and for. */
typedef struct sample_task {
    const jang_sampling *options; /* checked */
    uint64_t seed;                /* in place of the options' */
    float *logits;                /* [n_vocab], the model's; changed by biases and penalties */
    const int32_t *ids;           /* [n_ids] the sequence so far; the token will be number n_ids */
    size_t n_ids, n_prompt;       /* of these, n_prompt were given */
    const uint64_t *mask;         /* bits of the ids that may be drawn; NULL: all */
    const int32_t *banned;        /* [n_banned] ids that may not */
    size_t n_banned;
} sample_task;

/* Whether the options are in range for ids below n_vocab; else a line about it goes to text. */
bool sampling_is_valid(const jang_sampling *options, int32_t n_vocab, char *text, size_t n_text);

/* n_vocab: ids below it may be drawn. */
JANG_MUST_CHECK jang_status sampler_new(sampler **out, ctx_t *ctx, int32_t n_vocab);
void sampler_free(sampler *s);

/* Draws a token; -1 when none may be drawn. */
int32_t sampler_pick(sampler *s, const sample_task *task);

#endif
