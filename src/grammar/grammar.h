/* grammar.h - what a generated text may look like, byte by byte, as masks over a vocabulary.
 *
 * A grammar is compiled from a JSON schema, GBNF, a regular expression or a structure that puts
 * these together (jang.h says how each is written). It is a set of rules, each a small automaton
 * over bytes that may call other rules; counters stand for repetition. docs/grammar.md explains it.
 *
 *     grammar_new(&g, ctx, JANG_GRAMMAR_SCHEMA, text, n)     once per request, or kept
 *     grammar_vocab_new(&v, ctx, &tokens)                    once per model
 *     grammar_state_new(&s, g, v)                            once per sequence
 *     each step: grammar_mask(s, bits), sampling, grammar_accept(s, id, &ok)
 *
 * Grammars and vocabularies are counted: a state keeps both alive. What is learnt of them while
 * they are in use (automaton states, masks) is kept inside them under a lock, so that one grammar
 * and one vocabulary may be used by any number of states on any number of threads at once; a state
 * is used by one thread at a time. A step allocates only when it meets something new.
 *
 * A limit met in the middle of a text (nesting, ambiguity, automaton states) forbids the way that
 * met it; a text is never less constrained than its grammar says. */
#ifndef JANG_GRAMMAR_H
#define JANG_GRAMMAR_H

#include "base/ctx.h"

typedef struct jang_grammar grammar;
typedef struct grammar_vocab grammar_vocab;
typedef struct grammar_state grammar_state;

/* ---- Grammars ---- */

/* Compiles; see jang_grammar_new for the kinds and errors. The context must outlive the grammar. */
JANG_MUST_CHECK jang_status grammar_new(grammar **out, ctx_t *ctx, jang_grammar_kind kind,
                                        const char *text, size_t n_bytes);
/* Adds an owner, and takes one away: the last one frees. Any thread; g may be NULL. */
grammar *grammar_ref(grammar *g);
void grammar_unref(grammar *g);

/* ---- Vocabularies ---- */

/* Tells the bytes that a token stands for, valid until the next call; NULL or none for an id that a
 * grammar may never choose. *special: the token is matched only where a grammar names it as a
 * marker (the bytes are its name). */
typedef const char *(*grammar_token_fn)(void *user, int32_t id, size_t *n_bytes, bool *special);

typedef struct grammar_tokens {
    int32_t n_vocab; /* ids are below this: the number of logits */
    grammar_token_fn token;
    void *user;
    const int32_t *end_ids; /* tokens that end a text: allowed where the grammar is complete */
    size_t n_end_ids;
} grammar_tokens;

/* Sorts the tokens into a trie: about 50 ms and 15 MB for 150,000 of them. tokens is not kept. */
JANG_MUST_CHECK jang_status grammar_vocab_new(grammar_vocab **out, ctx_t *ctx,
                                              const grammar_tokens *tokens);
grammar_vocab *grammar_vocab_ref(grammar_vocab *v);
void grammar_vocab_unref(grammar_vocab *v);

/* ---- States: where a text is in its grammar ---- */

/* At the start of the text. vocab may be NULL for a state that only takes bytes. */
JANG_MUST_CHECK jang_status grammar_state_new(grammar_state **out, grammar *g,
                                              grammar_vocab *vocab);
void grammar_state_free(grammar_state *s);
/* Copies: a few hundred bytes, as a rule. */
JANG_MUST_CHECK jang_status grammar_state_clone(grammar_state **out, const grammar_state *s);
/* Makes dst, a state of the same grammar, equal to src; allocates only if dst has to grow. */
JANG_MUST_CHECK jang_status grammar_state_copy(grammar_state *dst, const grammar_state *src);
/* Back to the start of the text. */
JANG_MUST_CHECK jang_status grammar_state_reset(grammar_state *s);

/* Number of 64-bit words of a mask over n_vocab ids. */
static inline size_t grammar_mask_words(int32_t n_vocab) {
    return ((size_t)n_vocab + 63) / 64;
}

/* Sets bit id % 64 of bits[id / 64] for each token that may come next and clears the others;
 * grammar_mask_words(n_vocab) words. End tokens are among them where the text is complete.
 * JANG_ERR_FORMAT if there is none at all: a limit has been met. */
JANG_MUST_CHECK jang_status grammar_mask(grammar_state *s, uint64_t *bits);

/* Appends a token to the text. *ok false: it may not come next, and the state is as before. An end
 * token is ok where the text is complete, and changes nothing. JANG_ERR_UNSUPPORTED, the state as
 * before: the mask allows it, but it leads to more ways of reading the text than are followed. */
JANG_MUST_CHECK jang_status grammar_accept(grammar_state *s, int32_t id, bool *ok);

/* Appends bytes, as many as the grammar allows; their number goes to *n_ok. */
JANG_MUST_CHECK jang_status grammar_accept_bytes(grammar_state *s, const char *bytes,
                                                 size_t n_bytes, size_t *n_ok);

/* Whether the text may end here, and whether it must: nothing can follow. */
bool grammar_is_complete(const grammar_state *s);
bool grammar_is_done(const grammar_state *s);

/* Tells the bytes that must come next whatever is chosen, at most max of them: written to bytes,
 * their number to *n_bytes. 0 where there is a choice, or where the text may end here. The state
 * does not change. Markers that are special tokens begin with byte 0xff, then their name. */
JANG_MUST_CHECK jang_status grammar_forced(const grammar_state *s, char *bytes, size_t max,
                                           size_t *n_bytes);

#endif
