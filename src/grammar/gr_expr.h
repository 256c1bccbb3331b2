/* gr_expr.h - expressions over characters: what regular expressions and GBNF are read into. */
#ifndef JANG_GRAMMAR_GR_EXPR_H
#define JANG_GRAMMAR_GR_EXPR_H

#include "grammar/gr_chars.h"

typedef enum gr_expr_kind {
    GR_EXPR_NONE,  /* matches nothing at all */
    GR_EXPR_EMPTY, /* the empty text */
    GR_EXPR_CHARS, /* one character of a set: a, b: place and number of spans */
    GR_EXPR_CAT,   /* a, then b; long ones lean to the left */
    GR_EXPR_ALT,   /* a or b; long ones lean to the left */
    GR_EXPR_REPEAT,
    GR_EXPR_RULE,  /* a: a rule of the automaton */
    GR_EXPR_MARK,  /* a special token: a, b: place and length of its name */
    GR_EXPR_BEGIN, /* ^ */
    GR_EXPR_END    /* $ */
} gr_expr_kind;

typedef struct gr_expr {
    gr_expr_kind kind;
    uint32_t a, b;
    uint32_t min, max; /* of a repeat; max may be GR_INF */
} gr_expr;

/* Expressions are numbers in a pool; 0 is GR_EXPR_NONE, 1 GR_EXPR_EMPTY. */
typedef struct gr_pool {
    ctx_t *ctx;
    gr_expr *list;
    size_t n, capacity;
    gr_span *spans;
    size_t n_spans, spans_capacity;
    buf names;
    jang_status status;
} gr_pool;

JANG_MUST_CHECK jang_status gr_pool_init(gr_pool *p, ctx_t *ctx);
void gr_pool_free(gr_pool *p);

uint32_t gr_expr_new(gr_pool *p, gr_expr e);
uint32_t gr_expr_cat(gr_pool *p, uint32_t a, uint32_t b);
uint32_t gr_expr_alt(gr_pool *p, uint32_t a, uint32_t b);
uint32_t gr_expr_repeat(gr_pool *p, uint32_t a, uint32_t min, uint32_t max);
/* One character of a set, which is finished (and inverted) here and freed. */
uint32_t gr_expr_set(gr_pool *p, gr_set *set, bool inverted);
uint32_t gr_expr_char(gr_pool *p, uint32_t c);
uint32_t gr_expr_any(gr_pool *p); /* any character */

/* Reads a regular expression: ECMAScript's syntax, which the usual ones share, without look-around,
 * back references and word boundaries. Classes \d \w are ASCII, \s white space, . no line end;
 * lazy quantifiers mean the same as greedy ones. Errors begin with what. */
JANG_MUST_CHECK jang_status gr_regex(uint32_t *out, gr_pool *p, const char *what, const char *text,
                                     size_t n_bytes);

/* Turns anchors into what they mean: with search, whatever contains a match, as JSON schema has
 * it; otherwise the whole text is the match. */
JANG_MUST_CHECK jang_status gr_expr_anchor(uint32_t *out, gr_pool *p, const char *what, uint32_t e,
                                           bool search);

typedef enum gr_spelling {
    GR_SPELL_UTF8, /* characters as they are */
    GR_SPELL_JSON, /* as they stand in a JSON string */
    GR_SPELL_FLAT  /* as they are, and repetitions written out: no calls, for gr_dfa.h */
} gr_spelling;

/* Writes an expression without anchors. Large repetitions become rules with a counter. */
uint32_t gr_expr_emit(gr_auto *a, const gr_pool *p, uint32_t e, gr_spelling spelling,
                      uint32_t next);

#endif
