/* tmpl_value.h - the values of a rendering, which are those of Python's that a template can meet.
 *
 * A value is 16 bytes: a type and a number or a pointer into the arena. Strings, lists, tuples and
 * dictionaries never change once made, as the sandbox refuses every method that would change them;
 * copying a value is therefore always right. Only namespaces, loops, iterators, cyclers and joiners
 * have state, and those are shared by reference as in Python.
 *
 * What grows by repeated concatenation (text, lists) is extended in place when the left operand is
 * the last use of its storage, so that building a conversation piece by piece takes linear time. */
#ifndef JANG_TMPL_VALUE_H
#define JANG_TMPL_VALUE_H

#include "template/tmpl_core.h"

typedef enum tv_type {
    TV_MISSING,   /* no value: a variable before its assignment, an argument not given */
    TV_UNDEFINED, /* jinja2's Undefined; why is said by undefined, or nothing */
    TV_NONE,
    TV_BOOL,
    TV_INT,
    TV_BIG, /* an integer beyond 64 bits */
    TV_FLOAT,
    TV_STR,
    TV_LIST,
    TV_TUPLE,
    TV_DICT,
    TV_RANGE,
    TV_VIEW, /* keys(), values(), items() of a dictionary */
    TV_ITER, /* a generator or iterator: can be gone through once */
    TV_NAMESPACE,
    TV_MACRO,
    TV_FUNCTION, /* a global function */
    TV_METHOD,   /* a method of a value, or one of loop's */
    TV_LOOP,
    TV_CYCLER,
    TV_JOINER,
    TV_BLOCK, /* self, or self.name */
    TV_N_TYPES
} tv_type;

typedef struct tv_str tv_str;
typedef struct tv_seq tv_seq;
typedef struct tv_dict tv_dict;

typedef struct tval {
    tv_type type;
    union {
        bool boolean;
        int64_t integer;
        double real;
        tv_str *str;
        tv_seq *seq;
        tv_dict *dict;
        struct tv_undefined *undefined;
        struct tv_big *big;
        struct tv_range *range;
        struct tv_view *view;
        struct tv_iter *iter;
        struct tv_namespace *ns;
        struct tv_macro *macro;
        const struct tm_builtin *function;
        struct tv_method *method;
        struct tv_loop *loop;
        struct tv_cycler *cycler;
        struct tv_joiner *joiner;
        struct tv_block *block;
        void *any;
    };
} tval;

/* Storage whose end may still be free: whoever ends at used may grow into it. */
typedef struct tv_store {
    size_t used, capacity;
} tv_store;

struct tv_str {
    const char *data; /* UTF-8 */
    size_t n;         /* bytes */
    size_t n_chars;   /* code points, or TV_UNCOUNTED */
    tv_store *store;  /* what data lies in, or NULL */
    bool markup;      /* markupsafe's Markup: the result of |safe or |escape */
};
#define TV_UNCOUNTED SIZE_MAX

struct tv_seq {
    tval *items;
    size_t n;
    tv_store *store;
    bool group; /* a pair made by groupby, which has .grouper and .list */
};

typedef struct tv_entry {
    tval key, value;
    uint64_t hash;
} tv_entry;

/* Entries in order of insertion; the index maps hashes to entry numbers + 1 by open addressing, and
 * is made when there are more than a few. */
struct tv_dict {
    tv_entry *entries;
    size_t n, capacity;
    uint32_t *index;
    size_t mask;
};

/* Why a value is undefined, in jinja2's terms: a hint, or the name, or the object and its key. */
typedef struct tv_undefined {
    const char *hint; /* the message, if not NULL */
    tval object;      /* TV_MISSING: a variable */
    tval name;
} tv_undefined;

typedef struct tv_range {
    int64_t start, stop, step;
    size_t n;
} tv_range;

typedef enum tv_view_kind { TV_KEYS, TV_VALUES, TV_ITEMS } tv_view_kind;
typedef struct tv_view {
    tv_dict *dict;
    tv_view_kind kind;
} tv_view;

typedef struct tv_namespace {
    tv_dict *attrs;
} tv_namespace;

typedef struct tv_cycler {
    tv_seq *items;
    size_t at;
} tv_cycler;

typedef struct tv_joiner {
    tval separator;
    bool used;
} tv_joiner;

/* ---- Making values ---- */

static inline tval tv_none(void) {
    return (tval){.type = TV_NONE};
}
static inline tval tv_bool(bool b) {
    return (tval){.type = TV_BOOL, .boolean = b};
}
static inline tval tv_int(int64_t n) {
    return (tval){.type = TV_INT, .integer = n};
}
static inline tval tv_float(double x) {
    return (tval){.type = TV_FLOAT, .real = x};
}
static inline tval tv_missing(void) {
    return (tval){.type = TV_MISSING};
}
static inline bool tv_is(tval v, tv_type type) {
    return v.type == type;
}
/* Whether it is an int, float or bool. */
static inline bool tv_is_number(tval v) {
    return v.type == TV_BOOL || v.type == TV_INT || v.type == TV_BIG || v.type == TV_FLOAT;
}
/* ... an int or bool. */
static inline bool tv_is_integral(tval v) {
    return v.type == TV_BOOL || v.type == TV_INT || v.type == TV_BIG;
}

/* Undefined: by a hint (borrowed, lives as long as the arena), a variable's name, an attribute. */
tval tv_undefined_hint(tm_core *t, const char *hint);
tval tv_undefined_name(tm_core *t, tval name);
tval tv_undefined_attr(tm_core *t, tval object, tval name);
/* Fails with the message of an undefined value. */
_Noreturn void tv_fail_undefined(tm_core *t, tval v);

/* Text. The first copies; tv_str_take uses memory of the arena; the literal lives forever. */
tval tv_text(tm_core *t, const char *data, size_t n);
tval tv_text_take(tm_core *t, const char *data, size_t n);
tval tv_literal(tm_core *t, const char *text);
__attribute__((format(printf, 2, 3))) tval tv_printf(tm_core *t, const char *format, ...);
/* The same text, marked safe or not. */
tval tv_as_markup(tm_core *t, tval s, bool markup);
tval tv_concat(tm_core *t, tval a, tval b);

/* Code points. */
size_t tv_n_chars(tv_str *s);
/* The byte at which code point i starts; i <= n_chars. */
size_t tv_char_at(tv_str *s, size_t i);
/* Code points [from, to) as a string of their own, sharing the memory. */
tval tv_substr(tm_core *t, tv_str *s, size_t from, size_t to);
bool tv_str_equal(const tv_str *a, const tv_str *b);
bool tv_str_is(tval v, const char *text);

/* Lists and tuples. tv_seq_new leaves the items to be filled in. */
tval tv_seq_new(tm_core *t, tv_type type, size_t n);
tval tv_pair(tm_core *t, tval a, tval b);
tval tv_seq_concat(tm_core *t, tval a, tval b);

/* A list that is being made: the only kind that changes. */
typedef struct tv_list_builder {
    tval *items;
    size_t n, capacity;
} tv_list_builder;
void tv_push(tm_core *t, tv_list_builder *list, tval v);
tval tv_built(tm_core *t, tv_list_builder *list, tv_type type);

/* Dictionaries. tv_dict_put fails for a key that cannot be hashed. */
tv_dict *tv_dict_new(tm_core *t, size_t n_expected);
void tv_dict_put(tm_core *t, tv_dict *d, tval key, tval value);
/* The value, or NULL. */
const tval *tv_dict_get(tm_core *t, const tv_dict *d, tval key);
const tval *tv_dict_get_text(tm_core *t, const tv_dict *d, const char *key);
static inline tval tv_from_dict(tv_dict *d) {
    return (tval){.type = TV_DICT, .dict = d};
}

/* ---- What every value has ---- */

/* Python's name of the type: "str", "NoneType". */
const char *tv_type_name(tval v);
bool tv_truth(tm_core *t, tval v);
bool tv_equal(tm_core *t, tval a, tval b);
/* Whether it is the same object (Python's is). */
bool tv_same(tval a, tval b);
bool tv_hashable(tm_core *t, tval v);
uint64_t tv_hash(tm_core *t, tval v);
/* a < b, for numbers, text, lists and tuples; anything else fails with Python's message, in which
 * op stands ("<", ">="). */
typedef enum tv_order { TV_LT, TV_LE, TV_GT, TV_GE } tv_order;
bool tv_compare(tm_core *t, tv_order op, tval a, tval b);
/* The length, or false when there is none. */
bool tv_length(tm_core *t, tval v, size_t *n);

/* The number as a double; for TV_BOOL, TV_INT, TV_BIG, TV_FLOAT. */
double tv_to_double(tm_core *t, tval v);
/* The integer of a bool or int (an index, a count, a width); fails for anything else, naming what
 * wanted it. Integers beyond 64 bits become the nearest 64-bit one when clamp is set. */
int64_t tv_to_index(tm_core *t, tval v, bool clamp);
/* The text of a str; fails, naming what wanted it, for anything else. */
tv_str *tv_want_str(tm_core *t, tval v, const char *what);

#endif
