/* speculation.h - guesses at what an answer says next, which one step then checks at once.
 *
 * A guess is kept where the draw at its place gives the same token, with the same logits, seed and
 * position as without it; so guesses change nothing but the time an answer takes.
 *
 * Lookup finds the last place in the text where its latest tokens stood before, and guesses that
 * what followed there follows here. A row more makes a step longer for all answers in it, so tokens
 * are guessed as long as the gain that is to be expected of one exceeds that: how often lookup has
 * been right is seen in what it finds, guessed or not; what a row costs, in the times of steps.
 *
 * A draft model runs over the same tokens with keys and values in pages of the same numbers, and
 * draws from its own logits as the answer will. How many tokens it guesses grows with each guess
 * that was right throughout and shrinks otherwise; wrong from the start, it pauses for longer each
 * time. */
#ifndef JANG_ENGINE_SPECULATION_H
#define JANG_ENGINE_SPECULATION_H

#include "engine/serving.h"

/* Whether a draft model can guess for a model: the same tokens, no recurrent state. */
JANG_MUST_CHECK jang_status speculation_check(const jang_model *m, const jang_model *draft);

/* Fills in the guesses of the answers that generate, and takes the pages they need. */
void speculate(jang_engine *e);

/* Learns from how many were right; to be called when n_accepted is known. */
void speculation_learn(jang_engine *e, answer *a);

/* Learns from a step without prompts how its time depends on its rows. */
void speculation_learn_cost(step_costs *c, int32_t n_rows, double seconds);

/* How often a guess must be right to pay, in a step of n answers: what a row costs there in tokens.
 */
double speculation_price(const step_costs *c, int32_t n);

/* Finds the last place where the last tokens of ids, at least two of them, stood before, as many
 * as there are; writes n_most tokens that go on from there (round and round, where they reach the
 * end) and returns their number, or 0. */
int32_t lookup_find(int32_t *out, int32_t n_most, const int32_t *ids, int32_t n_ids);

#endif
