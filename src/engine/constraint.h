/* constraint.h - an answer's grammar, which waits while reasoning is open. */
#ifndef JANG_ENGINE_CONSTRAINT_H
#define JANG_ENGINE_CONSTRAINT_H

#include "engine/engine.h"
#include "grammar/grammar.h"

typedef struct constraint {
    grammar_state *state; /* NULL: none */
} constraint;

/* The vocabulary of a model's tokenizer for grammars; JANG_ERR_UNSUPPORTED without a tokenizer. */
JANG_MUST_CHECK jang_status constraint_vocab_new(grammar_vocab **out, const jang_model *m);

/* g NULL: no constraint. */
JANG_MUST_CHECK jang_status constraint_init(constraint *c, grammar *g, grammar_vocab *vocab);
void constraint_free(constraint *c);

/* Bits of the tokens that may come. */
JANG_MUST_CHECK jang_status constraint_mask(constraint *c, uint64_t *bits);
/* Takes in a token that came; *ok false: it does not belong there, and nothing changed. */
JANG_MUST_CHECK jang_status constraint_accept(bool *ok, constraint *c, int32_t id);
/* Whether nothing can follow. */
bool constraint_is_done(const constraint *c);

#endif
