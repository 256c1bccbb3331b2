/* gr_dfa.h - deterministic automata over the bytes of UTF-8, for what needs more than one pattern:
 * both this and that, this but not that, so many characters, a multiple of a number. */
#ifndef JANG_GRAMMAR_GR_DFA_H
#define JANG_GRAMMAR_GR_DFA_H

#include "grammar/gr_expr.h"

#define GR_DFA_MAX 12000u

/* State 0 is dead, 1 the first. */
typedef struct gr_dfa {
    ctx_t *ctx;
    uint16_t (*next)[256];
    uint8_t *ends; /* [n] the text may end here */
    size_t n, capacity;
} gr_dfa;

void gr_dfa_init(gr_dfa *d, ctx_t *ctx);
void gr_dfa_free(gr_dfa *d);

/* Appends a state from which nothing goes on. JANG_ERR_UNSUPPORTED over GR_DFA_MAX. */
JANG_MUST_CHECK jang_status gr_dfa_state(gr_dfa *d, uint16_t *state);

/* Each makes an empty *out. */
/* Of nodes without calls and counters, up to the node end, which is a final one. */
JANG_MUST_CHECK jang_status gr_dfa_of_nodes(gr_dfa *out, const gr_auto *a, uint32_t entry);
JANG_MUST_CHECK jang_status gr_dfa_of_expr(gr_dfa *out, gr_auto *a, const gr_pool *p, uint32_t e);
/* Any text, or any of min to max characters (max may be GR_INF). */
JANG_MUST_CHECK jang_status gr_dfa_of_length(gr_dfa *out, ctx_t *ctx, uint32_t min, uint32_t max);
/* Both; the texts of x that y does not match with without. */
JANG_MUST_CHECK jang_status gr_dfa_meet(gr_dfa *out, const gr_dfa *x, const gr_dfa *y,
                                        bool without);

/* Replaces *d by the texts of it that match (with without: do not match) other. */
JANG_MUST_CHECK jang_status gr_dfa_narrow(gr_dfa *d, const gr_dfa *other, bool without);

/* Takes out states that lead to no end; false if no text at all is left. */
JANG_MUST_CHECK jang_status gr_dfa_trim(gr_dfa *d, bool *any);

bool gr_dfa_matches(const gr_dfa *d, const char *text, size_t n_bytes);

/* Writes it; json: as the inside of a JSON string in the usual spelling. */
uint32_t gr_dfa_emit(gr_auto *a, const gr_dfa *d, bool json, uint32_t next);

/* The least and the most characters of a text; most GR_INF: any number. */
typedef struct gr_dfa_reach {
    uint32_t least, most;
} gr_dfa_reach;

/* Writes a rule, quotes included, whose counter counts the characters of a JSON string. Works where
 * there are few states and from each the lengths that reach an end have no gaps; *possible tells
 * whether that is so, *lengths which lengths there are. d is trimmed and not empty. */
JANG_MUST_CHECK jang_status gr_dfa_emit_counted(gr_auto *a, const gr_dfa *d, uint32_t *rule,
                                                gr_dfa_reach *lengths, bool *possible);

#endif
