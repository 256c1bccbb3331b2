/* gr_mask.h - which tokens may follow.
 *
 * The tokens that a head allows without returning from its rule depend on its place and, near their
 * bounds, its counter, but not on the stack: they are found by one walk through the trie and kept
 * (a `local`). With them are kept the trie nodes at which the rule may end in the middle of a
 * token; from there the walk goes on with what the stack holds, for each mask anew. A place of the
 * common rules of JSON is the same in each grammar, so its locals are kept with the vocabulary. */
#ifndef JANG_GRAMMAR_GR_MASK_H
#define JANG_GRAMMAR_GR_MASK_H

#include "grammar/gr_vocab.h"

typedef struct gr_locals gr_locals;

JANG_MUST_CHECK jang_status gr_locals_new(gr_locals **out, ctx_t *ctx, int32_t n_vocab);
void gr_locals_free(gr_locals *l);

/* Sets the bits of what may follow the set of heads first .. first + n - 1 of a run, end tokens
 * aside. own keeps what belongs to this grammar. bits are cleared by the caller. */
JANG_MUST_CHECK jang_status gr_mask_heads(gr_run *run, size_t first, size_t n, grammar_vocab *v,
                                          gr_locals *own, uint64_t *bits);

#endif
