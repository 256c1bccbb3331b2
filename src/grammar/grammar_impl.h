/* grammar_impl.h - what a grammar is inside. */
#ifndef JANG_GRAMMAR_IMPL_H
#define JANG_GRAMMAR_IMPL_H

#include "grammar/gr_mask.h"
#include "grammar/grammar.h"

struct jang_grammar {
    ctx_t *ctx;
    atomic_int n_owners;
    gr_auto a;            /* does not change any more */
    pthread_mutex_t lock; /* of all below */
    gr_places places;
    gr_run run; /* scratch: each call begins anew */
    gr_locals *locals;
    grammar_vocab *locals_of;
};

/* What each kind of text is compiled by: it writes rules and sets a->root. */
JANG_MUST_CHECK jang_status gr_compile_schema(gr_auto *a, const char *text, size_t n, bool loose);
JANG_MUST_CHECK jang_status gr_compile_gbnf(gr_auto *a, const char *text, size_t n);
/* The rules of a GBNF text beside others, unchecked. */
JANG_MUST_CHECK jang_status gr_gbnf_rules(gr_auto *a, gr_ref *out, const char *text, size_t n);
JANG_MUST_CHECK jang_status gr_compile_regex(gr_auto *a, const char *text, size_t n);
JANG_MUST_CHECK jang_status gr_compile_structure(gr_auto *a, const char *text, size_t n);

#endif
