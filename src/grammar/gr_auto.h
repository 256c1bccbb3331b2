/* gr_auto.h - a compiled grammar: rules, each a small automaton over bytes.
 *
 * Nodes are numbered; node 0 is dead. An automaton is written from its end to its beginning: each
 * gr_ function makes a node in front of one that is there already and returns its number. Where
 * memory or a limit runs out it returns 0 and remembers the status, so that a compiler checks once,
 * at the end.
 *
 *     range   one byte of lo..hi, then next          split   next or other, for nothing
 *     call    a text of a rule, then next            final   the rule ends
 *     count   one more of the rule's counter         check   go on if the counter's minimum is met
 *
 * A rule has at most one counter. A call says between which bounds; while the rule runs, `need`
 * counts down what is missing of the least and `room` what is left of the most, so that automata of
 * rules do not depend on their bounds and are shared. A count node blocks where there is no room.
 */
#ifndef JANG_GRAMMAR_GR_AUTO_H
#define JANG_GRAMMAR_GR_AUTO_H

#include "base/buf.h"

#define GR_INF UINT32_MAX

/* The byte before the name of a special token; no UTF-8 text holds it. */
#define GR_MARK 0xff

/* Limits of what is compiled. */
#define GR_MAX_NODES ((uint32_t)1 << 21)
#define GR_MAX_RULES ((uint32_t)1 << 19)
#define GR_MAX_TEXT ((size_t)8 << 20)

typedef enum gr_kind { GR_DEAD, GR_RANGE, GR_SPLIT, GR_CALL, GR_COUNT, GR_CHECK, GR_FINAL } gr_kind;

#define GR_PLAIN 1u /* begins a character of a JSON string, and comes back after it */
#define GR_LOST 2u  /* no end can be reached from here */

typedef struct gr_node {
    uint32_t next;
    uint32_t arg; /* split: the other; call, count: place in calls, guards */
    uint8_t kind, lo, hi, flags;
} gr_node;

/* A rule with the bounds of its counter; 0 and GR_INF where it has none. rule 0: no text at all. */
typedef struct gr_ref {
    uint32_t rule, min, max;
} gr_ref;

/* What a count node asks of the counter afterwards: room >= least, need <= most. */
typedef struct gr_guard {
    uint32_t least, most;
    bool counts; /* false: only asks */
} gr_guard;

/* The rules of JSON, in one spelling. */
typedef struct gr_json {
    uint32_t space;   /* nothing, one space, or a new line and an indentation */
    uint32_t string;  /* with its quotes */
    uint32_t counted; /* the same with a counter of characters */
    uint32_t number, integer, boolean, null;
    uint32_t value, object, array;
    bool python; /* None, True, False */
} gr_json;

typedef struct gr_auto {
    ctx_t *ctx;
    gr_node *nodes;
    size_t n_nodes, nodes_capacity;
    gr_ref *calls;
    size_t n_calls, calls_capacity;
    gr_guard *guards;
    size_t n_guards, guards_capacity;
    uint32_t *rules; /* entry of each; rule 0 is none */
    size_t n_rules, rules_capacity;
    gr_ref root;
    gr_json json;          /* written first, so that its numbers are the same in each grammar */
    uint32_t n_common;     /* nodes below are those of json */
    uint32_t widest_guard; /* largest finite bound in guards */
    jang_status status;
} gr_auto;

/* Prepares an automaton that holds the rules of JSON. Freed with gr_auto_free, also on failure. */
JANG_MUST_CHECK jang_status gr_auto_init(gr_auto *a, ctx_t *ctx);
void gr_auto_free(gr_auto *a);

/* Makes room for one more of n elements in a growing array; records the failure. */
JANG_MUST_CHECK jang_status gr_grow(ctx_t *ctx, void *array, size_t *capacity, size_t n,
                                    size_t size);

/* Remembers the first failure. */
void gr_fail(gr_auto *a, jang_status status);

uint32_t gr_rule_new(gr_auto *a);
void gr_rule_set(gr_auto *a, uint32_t rule, uint32_t entry);

uint32_t gr_range(gr_auto *a, unsigned lo, unsigned hi, uint32_t next);
uint32_t gr_text(gr_auto *a, const char *text, size_t n_bytes, uint32_t next);
uint32_t gr_split(gr_auto *a, uint32_t one, uint32_t other);
uint32_t gr_call(gr_auto *a, gr_ref ref, uint32_t next);
uint32_t gr_call_rule(gr_auto *a, uint32_t rule, uint32_t next);
uint32_t gr_count(gr_auto *a, uint32_t next);
uint32_t gr_count_guarded(gr_auto *a, gr_guard guard, uint32_t next);
uint32_t gr_check(gr_auto *a, uint32_t next);
uint32_t gr_final(gr_auto *a);
/* The special token of this name, or its text. */
uint32_t gr_marker(gr_auto *a, const char *name, size_t n_bytes, uint32_t next);
/* A place to be filled in later, for loops: what leads to it may be written before it is known. */
uint32_t gr_place(gr_auto *a);
void gr_fill(gr_auto *a, uint32_t place, uint32_t one, uint32_t other);

/* Writes the rules of JSON (json_rules.c). */
void gr_json_rules(gr_auto *a, gr_json *json, bool python);
/* One character of a JSON string: any, in every spelling JSON has for it. */
uint32_t gr_json_char(gr_auto *a, uint32_t next);
/* The space after a colon, which may be missing. */
uint32_t gr_json_gap(gr_auto *a, uint32_t next);
/* A JSON string that says exactly this, in its usual spelling. */
uint32_t gr_json_text(gr_auto *a, const char *text, size_t n_bytes, uint32_t next);

/* Checks what a compiler has written (gr_check.c): marks nodes from which no end can be reached,
 * refuses a rule that can call itself before any byte. name tells the name of a rule for messages,
 * or NULL; it may be NULL itself. JANG_ERR_FORMAT if the root cannot end. */
typedef const char *(*gr_name_fn)(const void *user, uint32_t rule, size_t *n_bytes);
JANG_MUST_CHECK jang_status gr_check_rules(gr_auto *a, gr_name_fn name, const void *user,
                                           const char *what);

#endif
