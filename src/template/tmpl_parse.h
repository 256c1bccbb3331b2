/* tmpl_parse.h - the parser's state, shared by statements (tmpl_parse.c) and expressions
 * (tmpl_parse_expr.c). */
#ifndef JANG_TMPL_PARSE_H
#define JANG_TMPL_PARSE_H

#include "template/tmpl_ast.h"
#include "template/tmpl_lex.h"

typedef struct parser {
    tm_core *t;
    const tk *token; /* the current one; TK_EOF is never passed */
    tm_tree *tree;
    unsigned n_loops; /* loops around the statement, within its unit */
} parser;

static inline bool ps_is(const parser *p, tk_type type) {
    return p->token->type == type;
}
bool ps_is_name(const parser *p, const char *name);
void ps_next(parser *p);
bool ps_skip(parser *p, tk_type type);
bool ps_skip_name(parser *p, const char *name);
/* Passes a token of this type or fails; returns it. */
const tk *ps_expect(parser *p, tk_type type);
void ps_expect_name(parser *p, const char *name);

/* with_else: whether "a if b else c" is allowed at the top. */
nd *ps_expression(parser *p, bool with_else);
/* One expression, or several parted by commas, which are a tuple. in_parentheses: may be
 * empty. */
typedef struct ps_tuple_rules {
    bool primary_only, with_else, with_namespace, in_parentheses;
} ps_tuple_rules;
nd *ps_tuple(parser *p, ps_tuple_rules rules);
/* What is assigned to: a name, with rules a tuple of them or ns.attr. */
nd *ps_target(parser *p, bool with_namespace);
nd *ps_target_name(parser *p);
void ps_set_use(nd *node, nd_use use);
/* "| name(args) | ..."; started: the first name comes without '|'. */
nd *ps_filters(parser *p, nd *value, bool started);
nd *ps_call(parser *p, nd *callee);

#endif
