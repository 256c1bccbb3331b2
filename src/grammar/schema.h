/* schema.h - compiling a JSON schema: its keywords gathered as facts, facts written as rules.
 *
 * A value must satisfy a list of schemas: one, or those that allOf, $ref and overlapping property
 * tables bring together. Their keywords are gathered into one set of facts; anyOf multiplies out.
 * Rules are kept by the list of schemas they were made for, which is what makes recursion end. */
#ifndef JANG_GRAMMAR_SCHEMA_H
#define JANG_GRAMMAR_SCHEMA_H

#include "base/json.h"
#include "grammar/gr_expr.h"

/* Types as bits; number is both integers and fractions. */
#define SC_NULL 1u
#define SC_BOOLEAN 2u
#define SC_INTEGER 4u
#define SC_FRACTION 8u
#define SC_STRING 16u
#define SC_ARRAY 32u
#define SC_OBJECT 64u
#define SC_ANY 127u

/* Lists of pointers in the compiler's arena. */
typedef struct sc_list {
    const void **items;
    uint32_t n, capacity;
} sc_list;

/* A decimal number: digits of the whole part without leading zeros (at least one), then those of
 * the fraction without zeros at the end. */
typedef struct sc_decimal {
    bool negative;
    uint32_t n_whole, n_fraction;
    char digits[];
} sc_decimal;

typedef struct sc_bound {
    const sc_decimal *at; /* NULL: none */
    bool open;            /* the bound itself is out */
} sc_bound;

typedef struct sc_pattern {
    const char *text, *path; /* path: for messages */
    size_t n;
    bool whole; /* of a format: the whole string; otherwise it is searched for */
} sc_pattern;

/* Keywords that work together within one schema. */
typedef struct sc_items {
    const json_t *prefix, *rest; /* each may be NULL */
} sc_items;

typedef struct sc_members {
    const json_t *properties, *patterns, *additional; /* each may be NULL */
} sc_members;

typedef struct sc_facts {
    unsigned types;
    bool has_values;
    sc_list values;   /* json_t: enum and const */
    sc_list branches; /* json_t arrays: anyOf, oneOf */
    sc_bound least, most;
    sc_list multiples; /* sc_decimal */
    uint32_t min_length, max_length;
    sc_list patterns; /* sc_pattern */
    uint32_t min_items, max_items;
    sc_list items; /* sc_items */
    uint32_t min_members, max_members;
    sc_list members;  /* sc_members */
    sc_list required; /* json_t strings */
} sc_facts;

typedef struct sc {
    gr_auto *a;
    const gr_json *json;
    const json_t *root;
    bool loose;
    gr_pool pool;     /* of the patterns */
    buf path;         /* where we are: "schema.properties.a" */
    int depth, refs;  /* nesting of values; of references within one value */
    uint32_t n_steps; /* schemas looked at: a bound on time */
    char why[320];    /* the first contradiction, for the case that all is contradictory */
    struct sc_chunk *chunks;
    struct sc_memo *memos;
    size_t n_memos, memos_capacity;
    uint32_t *slots; /* hash table of memos; 0: free */
    size_t n_slots;
} sc;

/* Compiles a parsed schema into rules in a given spelling of JSON. name begins the paths in
 * messages. The document must stay until the call returns. */
JANG_MUST_CHECK jang_status sc_compile(gr_ref *out, gr_auto *a, const gr_json *json,
                                       const json_t *schema, const char *name, bool loose);

/* ---- Within the compiler ---- */

void *sc_alloc(sc *s, size_t n_bytes); /* cleared; NULL with the message recorded */
JANG_MUST_CHECK jang_status sc_push(sc *s, sc_list *list, const void *item);

/* Adds ".name" or "[index]" to the path; returns the size to cut it back to. */
size_t sc_enter(sc *s, const char *name);
size_t sc_enter_index(sc *s, size_t index);
void sc_leave(sc *s, size_t size);

/* Fails with "path: text". */
JANG_MUST_CHECK __attribute__((format(printf, 3, 4))) jang_status sc_fail(sc *s, jang_status status,
                                                                          const char *format, ...);
/* Notes that nothing can satisfy what is at the path: the first note becomes the message if all is
 * lost. */
void sc_note(sc *s, const char *why);

void sc_facts_init(sc_facts *f);
/* A copy whose lists can grow by themselves. */
sc_facts sc_facts_copy(const sc_facts *f);
/* Adds the keywords of a schema. */
JANG_MUST_CHECK jang_status sc_gather(sc *s, sc_facts *f, const json_t *schema);

/* Rules for a value that satisfies all schemas of a list, or these facts. *out with rule 0: there
 * is none. */
JANG_MUST_CHECK jang_status sc_value(sc *s, gr_ref *out, const sc_list *schemas);
JANG_MUST_CHECK jang_status sc_value_of(sc *s, gr_ref *out, const sc_facts *f);
JANG_MUST_CHECK jang_status sc_string(sc *s, gr_ref *out, const sc_facts *f);
JANG_MUST_CHECK jang_status sc_number(sc *s, gr_ref *out, const sc_facts *f);
JANG_MUST_CHECK jang_status sc_array(sc *s, gr_ref *out, const sc_facts *f);
JANG_MUST_CHECK jang_status sc_object(sc *s, gr_ref *out, const sc_facts *f);

/* A set of patterns as one automaton over plain text. *any false: nothing matches all. */
struct gr_dfa;
JANG_MUST_CHECK jang_status sc_patterns(sc *s, struct gr_dfa *out, const sc_list *patterns,
                                        bool *any);
JANG_MUST_CHECK jang_status sc_pattern_expr(sc *s, uint32_t *out, const sc_pattern *p);
/* The regular expression of a format; NULL: not known. */
const char *sc_format(const char *name);

/* One value, exactly. */
uint32_t sc_emit_value(sc *s, const json_t *value, uint32_t next);
/* Whether a value satisfies facts, or a list of schemas. */
JANG_MUST_CHECK jang_status sc_fits(sc *s, bool *fits, const sc_facts *f, const json_t *value);
/* The schemas that the member of this name must satisfy; *allowed false: there may be none. *open:
 * only the default says so. */
JANG_MUST_CHECK jang_status sc_member_schemas(sc *s, sc_list *out, const sc_facts *f,
                                              const char *name, size_t n, bool *allowed);
/* The schemas of the item at an index, or, from n_prefix on, of all further ones. */
JANG_MUST_CHECK jang_status sc_item_schemas(sc *s, sc_list *out, const sc_facts *f, size_t index);
size_t sc_n_prefix(const sc_facts *f);

/* A number of JSON as a decimal; NULL: it has over 400 digits, or no memory. */
const sc_decimal *sc_decimal_of(sc *s, const json_t *number);
int sc_decimal_compare(const sc_decimal *x, const sc_decimal *y);
/* Whether value is a whole multiple of unit; both have few digits, or the answer is false. */
bool sc_is_multiple(const sc_decimal *value, const sc_decimal *unit);
/* unit times 10^*shift as a whole number; 0 if that has over 9 digits. */
uint32_t sc_decimal_scaled(const sc_decimal *unit, uint32_t *shift);

#endif
