/* tmpl_ast.h - the tree of a compiled template.
 *
 * One node type for all; the table beside the kinds says which fields each uses. Variables are
 * resolved when compiling (tmpl_scope.c): a name is a slot of the activation `up` units out. A unit
 * is what jinja2 compiles to a Python function (the template, a macro, a block, a recursive loop,
 * a loop's filter); within it, scopes say which slots are loaded when they are entered. */
#ifndef JANG_TMPL_AST_H
#define JANG_TMPL_AST_H

#include "template/tmpl_value.h"

typedef struct nd nd;

typedef enum nd_kind {
    /* Expressions.       Fields. */
    ND_CONST, /* value */
    ND_NAME,  /* value: the name; ref; use */
    ND_NSREF, /* value: the name; attr; ref; an assignment to name.attr */
    ND_TUPLE,
    ND_LIST, /* items */
    ND_DICT, /* items: key, value, key, value ... */
    ND_COND, /* a: condition, b: then, c: else or NULL */
    ND_AND,
    ND_OR, /* a, b */
    ND_NOT,
    ND_NEG,
    ND_POS, /* a */
    ND_ADD,
    ND_SUB,
    ND_MUL,
    ND_DIV,
    ND_FLOORDIV,
    ND_MOD,
    ND_POW,     /* a, b */
    ND_CONCAT,  /* items */
    ND_COMPARE, /* a: first operand; items: ND_OPERAND */
    ND_OPERAND, /* a, op */
    ND_GETATTR, /* a, value: the name */
    ND_GETITEM, /* a, b */
    ND_SLICE,   /* a: object or NULL, b: start, c: stop, d: step, each may be NULL */
    ND_CALL,    /* a: callee, args */
    ND_FILTER,  /* a: value (NULL: a block's text), value: the name, args, builtin */
    ND_TEST,    /* a, value: the name, args, builtin */
    /* Statements. */
    ND_OUTPUT,       /* items: expressions; text is an ND_CONST */
    ND_FOR,          /* loop */
    ND_IF,           /* items: condition, condition ...; branches; the else is the last branch */
    ND_SET,          /* a: target, b: value; exported */
    ND_SET_BLOCK,    /* a: target, b: filter or NULL, body, scope; exported */
    ND_MACRO,        /* macro, ref; exported */
    ND_CALL_BLOCK,   /* macro: the caller, a: the call */
    ND_GENERATION,   /* macro: the body */
    ND_FILTER_BLOCK, /* a: filter, body, scope */
    ND_WITH,         /* items: target, value ...; body, scope */
    ND_SCOPE,        /* a: whether autoescape is on, body, scope */
    ND_BLOCK,        /* block */
    ND_BREAK,
    ND_CONTINUE
} nd_kind;

typedef enum nd_use { USE_LOAD, USE_STORE, USE_PARAM } nd_use;
typedef enum nd_op { OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN } nd_op;

typedef struct nd_list {
    nd **items;
    size_t n, capacity;
} nd_list;

typedef struct nd_keyword {
    tval name;
    nd *value;
} nd_keyword;

typedef struct nd_args {
    nd_list positional;
    nd_keyword *named;
    size_t n_named;
    nd *star, *star_star; /* *args, **kwargs, or NULL */
} nd_args;

/* A variable: slot of the activation that lies up units out. */
typedef struct tm_ref {
    uint32_t up, slot;
} tm_ref;

/* What happens to a slot when its scope is entered. */
typedef enum tm_load_kind { LOAD_PARAM, LOAD_RESOLVE, LOAD_ALIAS, LOAD_MISSING } tm_load_kind;
typedef struct tm_load {
    tm_load_kind kind;
    uint32_t slot;
    tm_ref from; /* LOAD_ALIAS */
    tval name;   /* LOAD_RESOLVE: looked up in the context */
} tm_load;
typedef struct tm_scope {
    tm_load *loads;
    size_t n;
} tm_scope;

typedef struct tm_unit {
    uint32_t n_slots;
} tm_unit;

typedef struct nd_for {
    nd *target, *iter, *test;
    nd_list body, otherwise;
    bool recursive, has_else;
    tm_scope scope, else_scope;
    tm_unit *unit; /* of the loop's body when it is recursive */
    bool has_loop; /* whether the body sees the variable loop */
    tm_ref loop;
    nd *test_target; /* the target once more, resolved in the filter's own unit */
    tm_unit *test_unit;
    tm_scope test_scope;
} nd_for;

typedef struct nd_macro {
    tval name; /* or TV_NONE */
    nd_list params, defaults, body;
    bool uses_caller, uses_kwargs, uses_varargs, explicit_caller;
    tm_ref caller, kwargs, varargs;
    tm_unit *unit;
    tm_scope scope;
} nd_macro;

typedef struct tm_exported {
    tval name;
    tm_ref ref;
} tm_exported;

typedef struct nd_block {
    tval name;
    bool scoped, required;
    nd_list body;
    tm_exported *seen; /* the variables a scoped block sees */
    size_t n_seen;
    bool has_self, has_super;
    tm_ref self, super;
    tm_unit *unit;
    tm_scope scope;
    struct nd_block *next;
} nd_block;

struct nd {
    nd_kind kind;
    uint8_t op, use;
    bool exported;  /* assigns variables that blocks can see */
    uint16_t depth; /* of the tree below */
    uint32_t at;    /* byte in the source */
    nd *a, *b, *c, *d;
    nd_list items, body;
    nd_list *branches; /* ND_IF */
    tval value, attr;
    tm_ref ref;
    nd_args *args;
    const struct tm_builtin *builtin;
    tm_scope scope;
    union {
        nd_for *loop;
        nd_macro *macro;
        nd_block *block;
    };
};

/* A parsed template. */
typedef struct tm_tree {
    nd_list body;
    tm_unit *unit;
    tm_scope scope;
    bool has_self;
    tm_ref self;
    nd_block *blocks;
} tm_tree;

/* Text -> tree, with names not yet resolved. */
void tm_parse(tm_core *t, tm_tree *tree);
/* Gives every variable its slot and checks the names of filters and tests. */
void tm_resolve(tm_core *t, tm_tree *tree);

nd *nd_new(tm_core *t, nd_kind kind, uint32_t at);
void nd_push(tm_core *t, nd_list *list, nd *node);

#endif
