/* tmpl_parse_expr.c - expressions, by recursive descent with Jinja's precedences:
 * if-else, or, and, not, comparison, + -, ~, * / // %, **, unary - +, then . [] () | is. */
#include "template/tmpl_parse.h"

#include <string.h>

/* ---- Nodes ---- */

nd *nd_new(tm_core *t, nd_kind kind, uint32_t at) {
    nd *node = tm_zero(t, sizeof *node);
    node->kind = kind;
    node->at = at;
    node->depth = 1;
    tm_step(t, 1);
    return node;
}

void nd_push(tm_core *t, nd_list *list, nd *node) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        nd **items = tm_array(t, capacity, sizeof *items);
        if (list->n) {
            memcpy(items, list->items, list->n * sizeof *items);
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = node;
}

/* Makes node at least one level deeper than part. Trees are walked recursively when rendering. */
static void contains(parser *p, nd *node, const nd *part) {
    if (part && part->depth >= node->depth) {
        node->depth = (uint16_t)(part->depth + 1);
        if (node->depth > TM_MAX_AST_DEPTH) {
            p->t->at = node->at;
            tm_fail(p->t, "the expression is nested too deeply: %u levels are allowed",
                    TM_MAX_AST_DEPTH);
        }
    }
}

static nd *unary(parser *p, nd_kind kind, uint32_t at, nd *a) {
    nd *node = nd_new(p->t, kind, at);
    node->a = a;
    contains(p, node, a);
    return node;
}

static nd *binary(parser *p, nd_kind kind, uint32_t at, nd *a, nd *b) {
    nd *node = unary(p, kind, at, a);
    node->b = b;
    contains(p, node, b);
    return node;
}

static void push_part(parser *p, nd *node, nd *part) {
    nd_push(p->t, &node->items, part);
    contains(p, node, part);
}

static nd *constant(parser *p, uint32_t at, tval value) {
    nd *node = nd_new(p->t, ND_CONST, at);
    node->value = value;
    return node;
}

/* ---- Literals and names ---- */

static const struct word_row {
    const char *text;
    tval value;
} constants[] = {
    {"true", {.type = TV_BOOL, .boolean = true}},
    {"True", {.type = TV_BOOL, .boolean = true}},
    {"false", {.type = TV_BOOL, .boolean = false}},
    {"False", {.type = TV_BOOL, .boolean = false}},
    {"none", {.type = TV_NONE}},
    {"None", {.type = TV_NONE}},
};

static const struct word_row *find_constant(tval name) {
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (tv_str_is(name, constants[i].text)) {
            return &constants[i];
        }
    }
    return NULL;
}

static nd *name_or_constant(parser *p, bool with_namespace) {
    const tk *token = p->token;
    ps_next(p);
    const struct word_row *word = find_constant(token->value);
    if (word) {
        return constant(p, token->at, word->value);
    }
    if (with_namespace && ps_skip(p, TK_DOT)) {
        nd *node = nd_new(p->t, ND_NSREF, token->at);
        node->value = token->value;
        node->attr = ps_expect(p, TK_NAME)->value;
        return node;
    }
    nd *node = nd_new(p->t, ND_NAME, token->at);
    node->value = token->value;
    return node;
}

/* Neighbouring string literals are one. */
static nd *string_literal(parser *p) {
    uint32_t at = p->token->at;
    tval text = p->token->value;
    for (ps_next(p); ps_is(p, TK_STRING); ps_next(p)) {
        text = tv_concat(p->t, text, p->token->value);
        text.str->store = NULL; /* constants never grow */
    }
    tv_n_chars(text.str);
    return constant(p, at, text);
}

static nd *list_literal(parser *p) {
    nd *node = nd_new(p->t, ND_LIST, p->token->at);
    ps_expect(p, TK_LBRACKET);
    while (!ps_is(p, TK_RBRACKET)) {
        if (node->items.n) {
            ps_expect(p, TK_COMMA);
            if (ps_is(p, TK_RBRACKET)) {
                break;
            }
        }
        push_part(p, node, ps_expression(p, true));
    }
    ps_expect(p, TK_RBRACKET);
    return node;
}

static nd *dict_literal(parser *p) {
    nd *node = nd_new(p->t, ND_DICT, p->token->at);
    ps_expect(p, TK_LBRACE);
    while (!ps_is(p, TK_RBRACE)) {
        if (node->items.n) {
            ps_expect(p, TK_COMMA);
            if (ps_is(p, TK_RBRACE)) {
                break;
            }
        }
        push_part(p, node, ps_expression(p, true));
        ps_expect(p, TK_COLON);
        push_part(p, node, ps_expression(p, true));
    }
    ps_expect(p, TK_RBRACE);
    return node;
}

static nd *primary(parser *p, bool with_namespace) {
    const tk *token = p->token;
    nd *node = NULL;
    tm_enter(p->t);
    switch (token->type) {
    case TK_NAME:
        node = name_or_constant(p, with_namespace);
        break;
    case TK_STRING:
        node = string_literal(p);
        break;
    case TK_INTEGER:
    case TK_FLOAT:
        ps_next(p);
        node = constant(p, token->at, token->value);
        break;
    case TK_LPAREN:
        ps_next(p);
        node = ps_tuple(p, (ps_tuple_rules){.with_else = true, .in_parentheses = true});
        ps_expect(p, TK_RPAREN);
        break;
    case TK_LBRACKET:
        node = list_literal(p);
        break;
    case TK_LBRACE:
        node = dict_literal(p);
        break;
    default:
        p->t->at = token->at;
        tm_fail(p->t, "unexpected '%s'", tk_describe(p->t, token));
    }
    tm_leave(p->t);
    return node;
}

/* ---- Postfix: subscripts, calls, filters, tests ---- */

static bool at_slice_end(const parser *p) {
    return ps_is(p, TK_RBRACKET) || ps_is(p, TK_COMMA);
}

/* What stands in brackets; a slice has no object yet. */
static nd *subscript_part(parser *p) {
    uint32_t at = p->token->at;
    nd *start = ps_is(p, TK_COLON) ? NULL : ps_expression(p, true);
    if (!ps_skip(p, TK_COLON)) {
        return start;
    }
    nd *node = nd_new(p->t, ND_SLICE, at);
    node->b = start;
    if (!ps_is(p, TK_COLON) && !at_slice_end(p)) {
        node->c = ps_expression(p, true);
    }
    if (ps_skip(p, TK_COLON) && !at_slice_end(p)) {
        node->d = ps_expression(p, true);
    }
    contains(p, node, node->b);
    contains(p, node, node->c);
    contains(p, node, node->d);
    return node;
}

static nd *bracket_subscript(parser *p, nd *object) {
    uint32_t at = p->token->at;
    ps_expect(p, TK_LBRACKET);
    nd *parts = nd_new(p->t, ND_TUPLE, at);
    bool has_slice = false;
    while (!ps_is(p, TK_RBRACKET)) {
        if (parts->items.n) {
            ps_expect(p, TK_COMMA);
        }
        nd *part = subscript_part(p);
        has_slice |= part->kind == ND_SLICE;
        push_part(p, parts, part);
    }
    ps_expect(p, TK_RBRACKET);
    if (has_slice && parts->items.n > 1) {
        p->t->at = at;
        tm_fail(p->t, "a slice must be the only subscript");
    }
    nd *key = parts->items.n == 1 ? parts->items.items[0] : parts;
    if (key->kind == ND_SLICE) {
        key->a = object;
        contains(p, key, object);
        return key;
    }
    return binary(p, ND_GETITEM, at, object, key);
}

static nd *dot_subscript(parser *p, nd *object) {
    uint32_t at = p->token->at;
    ps_expect(p, TK_DOT);
    const tk *attr = p->token;
    ps_next(p);
    if (attr->type == TK_INTEGER) {
        return binary(p, ND_GETITEM, at, object, constant(p, attr->at, attr->value));
    }
    if (attr->type != TK_NAME) {
        p->t->at = attr->at;
        tm_fail(p->t, "expected name or number");
    }
    nd *node = unary(p, ND_GETATTR, at, object);
    node->value = attr->value;
    return node;
}

static nd *postfix(parser *p, nd *node) {
    for (;;) {
        if (ps_is(p, TK_DOT)) {
            node = dot_subscript(p, node);
        } else if (ps_is(p, TK_LBRACKET)) {
            node = bracket_subscript(p, node);
        } else if (ps_is(p, TK_LPAREN)) {
            node = ps_call(p, node);
        } else {
            return node;
        }
    }
}

static void push_keyword(parser *p, nd_args *args, tval name, nd *value) {
    for (size_t i = 0; i < args->n_named; i++) {
        if (tv_str_equal(args->named[i].name.str, name.str)) {
            tm_fail(p->t, "keyword argument repeated: %.*s", (int)name.str->n, name.str->data);
        }
    }
    if ((args->n_named & (args->n_named - 1)) == 0) { /* full at each power of two */
        size_t capacity = args->n_named ? args->n_named * 2 : 1;
        nd_keyword *named = tm_array(p->t, capacity, sizeof *named);
        if (args->n_named) {
            memcpy(named, args->named, args->n_named * sizeof *named);
        }
        args->named = named;
    }
    args->named[args->n_named++] = (nd_keyword){.name = name, .value = value};
}

/* One argument; returns whether it stands where such a one may stand. */
static bool call_argument(parser *p, nd *node) {
    nd_args *args = node->args;
    nd *value;
    if (ps_skip(p, TK_MUL)) {
        if (args->star || args->star_star) {
            return false;
        }
        value = args->star = ps_expression(p, true);
    } else if (ps_skip(p, TK_POW)) {
        if (args->star_star) {
            return false;
        }
        value = args->star_star = ps_expression(p, true);
    } else if (ps_is(p, TK_NAME) && p->token[1].type == TK_ASSIGN) {
        if (args->star_star) {
            return false;
        }
        tval name = p->token->value;
        ps_next(p);
        ps_next(p);
        value = ps_expression(p, true);
        push_keyword(p, args, name, value);
    } else {
        if (args->star || args->star_star || args->n_named) {
            return false;
        }
        value = ps_expression(p, true);
        nd_push(p->t, &args->positional, value);
    }
    contains(p, node, value);
    return true;
}

static void call_arguments(parser *p, nd *node) {
    uint32_t at = p->token->at;
    node->args = tm_zero(p->t, sizeof *node->args);
    ps_expect(p, TK_LPAREN);
    for (bool first = true; !ps_is(p, TK_RPAREN); first = false) {
        if (!first) {
            ps_expect(p, TK_COMMA);
            if (ps_is(p, TK_RPAREN)) {
                break;
            }
        }
        if (!call_argument(p, node)) {
            p->t->at = at;
            tm_fail(p->t, "invalid syntax for function call expression");
        }
    }
    ps_expect(p, TK_RPAREN);
}

nd *ps_call(parser *p, nd *callee) {
    nd *node = unary(p, ND_CALL, p->token->at, callee);
    call_arguments(p, node);
    return node;
}

/* "name" or "name.name", as filters and tests are called. */
static tval dotted_name(parser *p) {
    tval name = ps_expect(p, TK_NAME)->value;
    while (ps_skip(p, TK_DOT)) {
        tval part = ps_expect(p, TK_NAME)->value;
        name = tv_printf(p->t, "%.*s.%.*s", (int)name.str->n, name.str->data, (int)part.str->n,
                         part.str->data);
    }
    tv_n_chars(name.str);
    return name;
}

nd *ps_filters(parser *p, nd *value, bool started) {
    while (started || ps_skip(p, TK_PIPE)) {
        nd *node = unary(p, ND_FILTER, p->token->at, value);
        node->value = dotted_name(p);
        if (ps_is(p, TK_LPAREN)) {
            call_arguments(p, node);
        } else {
            node->args = tm_zero(p->t, sizeof *node->args);
        }
        value = node;
        started = false;
    }
    return value;
}

static bool starts_test_argument(const parser *p) {
    switch (p->token->type) {
    case TK_NAME:
        return !ps_is_name(p, "else") && !ps_is_name(p, "or") && !ps_is_name(p, "and");
    case TK_STRING:
    case TK_INTEGER:
    case TK_FLOAT:
    case TK_LBRACKET:
    case TK_LBRACE:
        return true;
    default:
        return false;
    }
}

static nd *test(parser *p, nd *value) {
    uint32_t at = p->token->at;
    ps_expect_name(p, "is");
    bool negated = ps_skip_name(p, "not");
    nd *node = unary(p, ND_TEST, at, value);
    node->value = dotted_name(p);
    node->args = tm_zero(p->t, sizeof *node->args);
    if (ps_is(p, TK_LPAREN)) {
        call_arguments(p, node);
    } else if (starts_test_argument(p)) {
        if (ps_is_name(p, "is")) {
            p->t->at = p->token->at;
            tm_fail(p->t, "You cannot chain multiple tests with is");
        }
        nd *argument = postfix(p, primary(p, false));
        nd_push(p->t, &node->args->positional, argument);
        contains(p, node, argument);
    }
    return negated ? unary(p, ND_NOT, at, node) : node;
}

static nd *filters_and_tests(parser *p, nd *node) {
    for (;;) {
        if (ps_is(p, TK_PIPE)) {
            node = ps_filters(p, node, false);
        } else if (ps_is_name(p, "is")) {
            node = test(p, node);
        } else if (ps_is(p, TK_LPAREN)) {
            node = ps_call(p, node);
        } else {
            return node;
        }
    }
}

/* ---- Operators ---- */

static nd *unary_expression(parser *p, bool with_filter) {
    uint32_t at = p->token->at;
    nd *node;
    tm_enter(p->t);
    if (ps_skip(p, TK_SUB)) {
        node = unary(p, ND_NEG, at, unary_expression(p, false));
    } else if (ps_skip(p, TK_ADD)) {
        node = unary(p, ND_POS, at, unary_expression(p, false));
    } else {
        node = primary(p, false);
    }
    node = postfix(p, node);
    tm_leave(p->t);
    return with_filter ? filters_and_tests(p, node) : node;
}

static nd *power(parser *p) {
    nd *left = unary_expression(p, true);
    while (ps_is(p, TK_POW)) {
        uint32_t at = p->token->at;
        ps_next(p);
        left = binary(p, ND_POW, at, left, unary_expression(p, true));
    }
    return left;
}

static nd_kind product_kind(tk_type type) {
    switch (type) {
    case TK_MUL:
        return ND_MUL;
    case TK_DIV:
        return ND_DIV;
    case TK_FLOORDIV:
        return ND_FLOORDIV;
    case TK_MOD:
        return ND_MOD;
    default:
        return ND_CONST; /* none of them */
    }
}

static nd *product(parser *p) {
    nd *left = power(p);
    for (;;) {
        nd_kind kind = product_kind(p->token->type);
        if (kind == ND_CONST) {
            return left;
        }
        uint32_t at = p->token->at;
        ps_next(p);
        left = binary(p, kind, at, left, power(p));
    }
}

static nd *concat(parser *p) {
    nd *first = product(p);
    if (!ps_is(p, TK_TILDE)) {
        return first;
    }
    nd *node = nd_new(p->t, ND_CONCAT, p->token->at);
    push_part(p, node, first);
    while (ps_skip(p, TK_TILDE)) {
        push_part(p, node, product(p));
    }
    return node;
}

static nd *sum(parser *p) {
    nd *left = concat(p);
    while (ps_is(p, TK_ADD) || ps_is(p, TK_SUB)) {
        uint32_t at = p->token->at;
        nd_kind kind = ps_is(p, TK_ADD) ? ND_ADD : ND_SUB;
        ps_next(p);
        left = binary(p, kind, at, left, concat(p));
    }
    return left;
}

/* Passes a comparison operator; false if there is none. */
static bool comparison(parser *p, nd_op *op) {
    if (p->token->type >= TK_EQ && p->token->type <= TK_LTEQ) {
        static const nd_op ops[] = {OP_EQ, OP_NE, OP_GT, OP_GE, OP_LT, OP_LE};
        *op = ops[p->token->type - TK_EQ];
        ps_next(p);
        return true;
    }
    if (ps_skip_name(p, "in")) {
        *op = OP_IN;
        return true;
    }
    if (ps_is_name(p, "not") && p->token[1].type == TK_NAME && tv_str_is(p->token[1].value, "in")) {
        ps_next(p);
        ps_next(p);
        *op = OP_NOT_IN;
        return true;
    }
    return false;
}

static nd *compare(parser *p) {
    nd *first = sum(p), *node = NULL;
    for (;;) {
        uint32_t at = p->token->at;
        nd_op op;
        if (!comparison(p, &op)) {
            return node ? node : first;
        }
        node = node ? node : unary(p, ND_COMPARE, at, first);
        nd *operand = unary(p, ND_OPERAND, at, sum(p));
        operand->op = (uint8_t)op;
        push_part(p, node, operand);
    }
}

static nd *negation(parser *p) {
    uint32_t at = p->token->at;
    if (!ps_skip_name(p, "not")) {
        return compare(p);
    }
    tm_enter(p->t);
    nd *node = unary(p, ND_NOT, at, negation(p));
    tm_leave(p->t);
    return node;
}

static nd *conjunction(parser *p) {
    nd *left = negation(p);
    for (uint32_t at = p->token->at; ps_skip_name(p, "and"); at = p->token->at) {
        left = binary(p, ND_AND, at, left, negation(p));
    }
    return left;
}

static nd *disjunction(parser *p) {
    nd *left = conjunction(p);
    for (uint32_t at = p->token->at; ps_skip_name(p, "or"); at = p->token->at) {
        left = binary(p, ND_OR, at, left, conjunction(p));
    }
    return left;
}

nd *ps_expression(parser *p, bool with_else) {
    tm_enter(p->t);
    nd *node = disjunction(p);
    for (uint32_t at = p->token->at; with_else && ps_skip_name(p, "if"); at = p->token->at) {
        nd *condition = disjunction(p);
        node = binary(p, ND_COND, at, condition, node);
        if (ps_skip_name(p, "else")) {
            node->c = ps_expression(p, true);
            contains(p, node, node->c);
        }
    }
    tm_leave(p->t);
    return node;
}

/* Not before `in` or `recursive`: to jinja2 these are names, where a comma stands before them. */
static bool at_tuple_end(const parser *p) {
    return ps_is(p, TK_VARIABLE_END) || ps_is(p, TK_BLOCK_END) || ps_is(p, TK_RPAREN);
}

nd *ps_tuple(parser *p, ps_tuple_rules rules) {
    nd *node = nd_new(p->t, ND_TUPLE, p->token->at);
    bool is_tuple = false;
    for (;;) {
        if (node->items.n) {
            ps_expect(p, TK_COMMA);
        }
        if (at_tuple_end(p)) {
            break;
        }
        push_part(p, node,
                  rules.primary_only ? primary(p, rules.with_namespace)
                                     : ps_expression(p, rules.with_else));
        if (!ps_is(p, TK_COMMA)) {
            break;
        }
        is_tuple = true;
    }
    if (is_tuple || (node->items.n == 0 && rules.in_parentheses)) {
        return node;
    }
    if (node->items.n == 0) {
        p->t->at = p->token->at;
        tm_fail(p->t, "Expected an expression, got '%s'", tk_describe(p->t, p->token));
    }
    return node->items.items[0];
}
