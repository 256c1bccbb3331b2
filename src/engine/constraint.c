/* constraint.c - an answer's grammar, which waits while reasoning is open. */
#include "engine/constraint.h"

jang_status constraint_vocab_new(grammar_vocab **out, const jang_model *m) {
    (void)out;
    return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED, "this build has no grammars yet");
}

jang_status constraint_init(constraint *c, grammar *g, grammar_vocab *vocab) {
    (void)g;
    (void)vocab;
    c->state = NULL;
    return JANG_OK;
}

void constraint_free(constraint *c) {
    (void)c;
}

jang_status constraint_mask(constraint *c, uint64_t *bits) {
    (void)c;
    (void)bits;
    return JANG_OK;
}

jang_status constraint_accept(constraint *c, int32_t id) {
    (void)c;
    (void)id;
    return JANG_OK;
}

bool constraint_is_done(const constraint *c) {
    (void)c;
    return false;
}
