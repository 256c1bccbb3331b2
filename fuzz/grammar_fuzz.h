/* grammar_fuzz.h - what the grammar targets do with one input: compile it, then walk along.
 *
 * Along the walk the mask over single bytes must say what accepting them says, and no place may be
 * reached from which nothing goes on. */
#ifndef FUZZ_GRAMMAR_FUZZ_H
#define FUZZ_GRAMMAR_FUZZ_H

#include "grammar/grammar.h"

#define WALK 60

static inline const char *fuzz_byte(void *user, int32_t id, size_t *n, bool *special) {
    char *byte = user;
    *byte = (char)id;
    *n = 1;
    *special = false;
    return byte;
}

/* Takes the next allowed byte after a number made from the place in the text. */
static inline bool fuzz_step(grammar_state *s, uint32_t at) {
    uint64_t bits[5];
    if (grammar_mask(s, bits) != JANG_OK) {
        return false; /* a limit was met */
    }
    int from = (int)(at * 2654435761u >> 24), byte = -1;
    for (int i = 0; i < 256 && byte < 0; i++) {
        int b = (from + i) & 255;
        byte = bits[b >> 6] >> (b & 63) & 1 ? b : -1;
    }
    bool ok = true;
    if (byte >= 0 && grammar_accept(s, byte, &ok) == JANG_OK && !ok) {
        __builtin_trap();
    }
    return byte >= 0;
}

static inline int fuzz_grammar(jang_grammar_kind kind, const uint8_t *data, size_t size) {
    jang_context *ctx = NULL;
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    if (jang_context_new(&ctx, &options) != JANG_OK) {
        return 0;
    }
    grammar *g;
    grammar_vocab *v;
    grammar_state *s;
    char byte[2] = "";
    int32_t end = 256;
    grammar_tokens tokens = {257, fuzz_byte, byte, &end, 1};
    if (grammar_new(&g, ctx, kind, (const char *)data, size) == JANG_OK) {
        if (grammar_vocab_new(&v, ctx, &tokens) == JANG_OK) {
            if (grammar_state_new(&s, g, v) == JANG_OK) {
                for (uint32_t i = 0; i < WALK && fuzz_step(s, i); i++) {
                }
                grammar_state_free(s);
            }
            grammar_vocab_unref(v);
        }
        grammar_unref(g);
    }
    jang_context_free(ctx);
    return 0;
}

#endif
