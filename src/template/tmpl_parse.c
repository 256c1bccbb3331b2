/* tmpl_parse.c - statements: a table of tags, each with the function that parses it. */
#include "template/tmpl_parse.h"

#include "template/tmpl_repr.h"

#include <string.h>

/* ---- Tokens ---- */

bool ps_is_name(const parser *p, const char *name) {
    return p->token->type == TK_NAME && tv_str_is(p->token->value, name);
}

void ps_next(parser *p) {
    if (p->token->type != TK_EOF) {
        p->token++;
    }
}

bool ps_skip(parser *p, tk_type type) {
    bool found = ps_is(p, type);
    if (found) {
        ps_next(p);
    }
    return found;
}

bool ps_skip_name(parser *p, const char *name) {
    bool found = ps_is_name(p, name);
    if (found) {
        ps_next(p);
    }
    return found;
}

static _Noreturn void unexpected(parser *p, const char *wanted) {
    p->t->at = p->token->at;
    if (ps_is(p, TK_EOF)) {
        tm_fail(p->t, "unexpected end of template, expected '%s'.", wanted);
    }
    tm_fail(p->t, "expected token '%s', got '%s'", wanted, tk_describe(p->t, p->token));
}

const tk *ps_expect(parser *p, tk_type type) {
    if (!ps_is(p, type)) {
        unexpected(p, tk_type_name(type));
    }
    const tk *token = p->token;
    ps_next(p);
    return token;
}

void ps_expect_name(parser *p, const char *name) {
    if (!ps_skip_name(p, name)) {
        unexpected(p, name);
    }
}

/* ---- Targets of assignments ---- */

void ps_set_use(nd *node, nd_use use) {
    node->use = (uint8_t)use;
    for (size_t i = 0; i < node->items.n; i++) {
        ps_set_use(node->items.items[i], use);
    }
}

static void check_target(parser *p, const nd *node) {
    static const char *const names[] = {
        [ND_CONST] = "const", [ND_LIST] = "list", [ND_DICT] = "dict"};
    for (size_t i = 0; node->kind == ND_TUPLE && i < node->items.n; i++) {
        check_target(p, node->items.items[i]);
    }
    if (node->kind != ND_NAME && node->kind != ND_TUPLE && node->kind != ND_NSREF) {
        p->t->at = node->at;
        tm_fail(p->t, "can't assign to '%s'", node->kind <= ND_DICT ? names[node->kind] : "expr");
    }
}

nd *ps_target(parser *p, bool with_namespace) {
    nd *node =
        ps_tuple(p, (ps_tuple_rules){.primary_only = true, .with_namespace = with_namespace});
    check_target(p, node);
    ps_set_use(node, USE_STORE);
    return node;
}

nd *ps_target_name(parser *p) {
    const tk *token = ps_expect(p, TK_NAME);
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        if (tv_str_is(token->value, reserved[i])) {
            p->t->at = token->at;
            tm_fail(p->t, "can't assign to 'name'");
        }
    }
    nd *node = nd_new(p->t, ND_NAME, token->at);
    node->value = token->value;
    node->use = USE_STORE;
    return node;
}

/* ---- Bodies ---- */

#define MAX_ENDS 4
typedef const char *const ends[MAX_ENDS];

static nd_list statements(parser *p, const ends wanted);

/* "%}" and what follows, up to the tag with one of the names; that name is then current. */
static nd_list body_until(parser *p, const ends wanted) {
    ps_skip(p, TK_COLON);
    ps_expect(p, TK_BLOCK_END);
    return statements(p, wanted);
}

static nd_list body_to(parser *p, const char *end) {
    nd_list body = body_until(p, (ends){end});
    ps_next(p);
    return body;
}

/* ---- Tags ---- */

static nd *parse_for(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_FOR, at);
    nd_for *loop = node->loop = tm_zero(p->t, sizeof *loop);
    const tk *first = p->token;
    loop->target = ps_target(p, false);
    ps_expect_name(p, "in");
    loop->iter = ps_tuple(p, (ps_tuple_rules){0});
    if (ps_skip_name(p, "if")) {
        loop->test = ps_expression(p, true);
        parser again = *p; /* the filter needs the target resolved for itself */
        again.token = first;
        loop->test_target = ps_target(&again, false);
    }
    loop->recursive = ps_skip_name(p, "recursive");
    p->n_loops++;
    loop->body = body_until(p, (ends){"endfor", "else"});
    p->n_loops--;
    loop->has_else = ps_is_name(p, "else");
    ps_next(p);
    if (loop->has_else) {
        loop->otherwise = body_to(p, "endfor");
    }
    return node;
}

static nd *parse_if(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_IF, at);
    size_t capacity = 4, n = 0;
    node->branches = tm_array(p->t, capacity, sizeof *node->branches);
    for (bool more = true; more;) {
        if (n + 2 > capacity) {
            nd_list *grown = tm_array(p->t, capacity * 2, sizeof *grown);
            memcpy(grown, node->branches, n * sizeof *grown);
            node->branches = grown;
            capacity *= 2;
        }
        nd_push(p->t, &node->items, ps_tuple(p, (ps_tuple_rules){0}));
        node->branches[n++] = body_until(p, (ends){"elif", "else", "endif"});
        more = ps_is_name(p, "elif");
        bool otherwise = ps_is_name(p, "else");
        ps_next(p);
        if (!more) {
            node->branches[n] = otherwise ? body_to(p, "endif") : (nd_list){0};
        }
    }
    return node;
}

static nd *parse_set(parser *p, uint32_t at) {
    nd *target = ps_target(p, true);
    bool block = !ps_skip(p, TK_ASSIGN);
    nd *node = nd_new(p->t, block ? ND_SET_BLOCK : ND_SET, at);
    node->a = target;
    if (block) {
        node->b = ps_filters(p, NULL, false);
        node->body = body_to(p, "endset");
    } else {
        node->b = ps_tuple(p, (ps_tuple_rules){.with_else = true});
    }
    return node;
}

static nd *parse_with(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_WITH, at);
    while (!ps_is(p, TK_BLOCK_END)) {
        if (node->items.n) {
            ps_expect(p, TK_COMMA);
        }
        nd *target = ps_target(p, false);
        ps_set_use(target, USE_PARAM);
        nd_push(p->t, &node->items, target);
        ps_expect(p, TK_ASSIGN);
        nd_push(p->t, &node->items, ps_expression(p, true));
    }
    node->body = body_to(p, "endwith");
    return node;
}

/* "(a, b=1)" */
static void signature(parser *p, nd_macro *macro) {
    ps_expect(p, TK_LPAREN);
    while (!ps_is(p, TK_RPAREN)) {
        if (macro->params.n) {
            ps_expect(p, TK_COMMA);
        }
        nd *param = ps_target_name(p);
        param->use = USE_PARAM;
        for (size_t i = 0; i < macro->params.n; i++) {
            if (tv_str_equal(macro->params.items[i]->value.str, param->value.str)) {
                p->t->at = param->at;
                tm_fail(p->t, "duplicate argument '%s' in function definition",
                        tv_repr_text(p->t, param->value));
            }
        }
        if (ps_skip(p, TK_ASSIGN)) {
            nd_push(p->t, &macro->defaults, ps_expression(p, true));
        } else if (macro->defaults.n) {
            p->t->at = p->token->at;
            tm_fail(p->t, "non-default argument follows default argument");
        }
        nd_push(p->t, &macro->params, param);
    }
    ps_expect(p, TK_RPAREN);
}

/* The body of a macro, call or generation block: loops around it are out of reach. */
static nd_list unit_body(parser *p, const char *end) {
    unsigned n_loops = p->n_loops;
    p->n_loops = 0;
    nd_list body = body_to(p, end);
    p->n_loops = n_loops;
    return body;
}

static nd *parse_macro(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_MACRO, at);
    node->macro = tm_zero(p->t, sizeof *node->macro);
    node->a = ps_target_name(p);
    node->macro->name = node->a->value;
    signature(p, node->macro);
    node->macro->body = unit_body(p, "endmacro");
    return node;
}

static nd *parse_call(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_CALL_BLOCK, at);
    node->macro = tm_zero(p->t, sizeof *node->macro);
    node->macro->name = tv_none();
    if (ps_is(p, TK_LPAREN)) {
        signature(p, node->macro);
    }
    node->a = ps_expression(p, true);
    if (node->a->kind != ND_CALL) {
        p->t->at = at;
        tm_fail(p->t, "expected call");
    }
    node->macro->body = unit_body(p, "endcall");
    return node;
}

static nd *parse_generation(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_GENERATION, at);
    node->macro = tm_zero(p->t, sizeof *node->macro);
    node->macro->name = tv_none();
    node->macro->body = unit_body(p, "endgeneration");
    return node;
}

static nd *parse_filter(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_FILTER_BLOCK, at);
    node->a = ps_filters(p, NULL, true);
    node->body = body_to(p, "endfilter");
    return node;
}

static nd *parse_print(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_OUTPUT, at);
    while (!ps_is(p, TK_BLOCK_END)) {
        if (node->items.n) {
            ps_expect(p, TK_COMMA);
        }
        nd_push(p->t, &node->items, ps_expression(p, true));
    }
    return node;
}

static nd *parse_autoescape(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_SCOPE, at);
    node->a = ps_expression(p, true);
    node->body = body_to(p, "endautoescape");
    return node;
}

static bool only_blank(const nd_list *body) {
    for (size_t i = 0; i < body->n; i++) {
        const nd *node = body->items[i];
        for (size_t k = 0; k < node->items.n; k++) {
            const nd *part = node->items.items[k];
            bool text = node->kind == ND_OUTPUT && part->kind == ND_CONST && part->use == USE_PARAM;
            for (size_t j = 0; text && j < part->value.str->n; j++) {
                text = strchr(" \t\n\r\f\v", part->value.str->data[j]) != NULL;
            }
            if (!text) {
                return false;
            }
        }
        if (node->kind != ND_OUTPUT) {
            return false;
        }
    }
    return true;
}

static nd *parse_block(parser *p, uint32_t at) {
    nd *node = nd_new(p->t, ND_BLOCK, at);
    nd_block *block = node->block = tm_zero(p->t, sizeof *block);
    block->name = ps_expect(p, TK_NAME)->value;
    block->scoped = ps_skip_name(p, "scoped");
    block->required = ps_skip_name(p, "required");
    if (ps_is(p, TK_SUB)) {
        p->t->at = p->token->at;
        tm_fail(p->t, "Block names in Jinja have to be valid Python identifiers and may not "
                      "contain hyphens, use an underscore instead.");
    }
    for (const nd_block *other = p->tree->blocks; other; other = other->next) {
        if (tv_str_equal(other->name.str, block->name.str)) {
            p->t->at = at;
            tm_fail(p->t, "block %s defined twice", tv_repr_text(p->t, block->name));
        }
    }
    block->next = p->tree->blocks;
    p->tree->blocks = block;
    block->body = unit_body(p, "endblock");
    if (block->required && !only_blank(&block->body)) {
        tm_fail(p->t, "Required blocks can only contain comments or whitespace");
    }
    if (ps_is(p, TK_NAME) && tv_str_equal(p->token->value.str, block->name.str)) {
        ps_next(p);
    }
    return node;
}

static nd *parse_loop_control(parser *p, uint32_t at) {
    bool is_break = tv_str_is(p->token[-1].value, "break");
    if (p->n_loops == 0) {
        p->t->at = at;
        tm_fail(p->t, "'%s' outside loop", is_break ? "break" : "continue");
    }
    return nd_new(p->t, is_break ? ND_BREAK : ND_CONTINUE, at);
}

static _Noreturn nd *refuse(parser *p, uint32_t at) {
    p->t->at = at;
    tm_fail(p->t, "{%% %s %%} is not allowed: a chat template is one text without other files",
            tk_describe(p->t, p->token - 1));
}

static const struct tag_row {
    const char *name;
    nd *(*parse)(parser *p, uint32_t at); /* the name has been passed */
} tags[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call},
    {"filter", parse_filter},
    {"with", parse_with},
    {"generation", parse_generation},
    {"break", parse_loop_control},
    {"continue", parse_loop_control},
    {"print", parse_print},
    {"block", parse_block},
    {"autoescape", parse_autoescape},
    {"include", refuse},
    {"import", refuse},
    {"from", refuse},
    {"extends", refuse},
};

static nd *statement(parser *p, const ends wanted) {
    const tk *token = p->token;
    p->t->at = token->at;
    if (token->type != TK_NAME) {
        tm_fail(p->t, "tag name expected");
    }
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (tv_str_is(token->value, tags[i].name)) {
            ps_next(p);
            tm_enter(p->t);
            nd *node = tags[i].parse(p, token->at);
            tm_leave(p->t);
            return node;
        }
    }
    const char *name = tk_describe(p->t, token);
    if (!wanted[0]) {
        tm_fail(p->t, "Encountered unknown tag '%s'.", name);
    }
    tm_fail(p->t, "Encountered unknown tag '%s'. Jinja was looking for the tag '%s'.", name,
            wanted[0]);
}

static bool at_end_tag(const parser *p, const ends wanted) {
    for (size_t i = 0; i < MAX_ENDS && wanted[i]; i++) {
        if (ps_is_name(p, wanted[i])) {
            return true;
        }
    }
    return false;
}

/* Text and print statements that follow each other are one ND_OUTPUT. */
static void push_output(parser *p, nd_list *body, nd *part) {
    nd *last = body->n ? body->items[body->n - 1] : NULL;
    if (!last || last->kind != ND_OUTPUT) {
        last = nd_new(p->t, ND_OUTPUT, part->at);
        nd_push(p->t, body, last);
    }
    nd_push(p->t, &last->items, part);
}

static nd_list statements(parser *p, const ends wanted) {
    nd_list body = {0};
    for (;;) {
        const tk *token = p->token;
        if (token->type == TK_EOF) {
            if (wanted[0]) {
                p->t->at = token->at;
                tm_fail(p->t, "Unexpected end of template. Jinja was looking for the tag '%s'.",
                        wanted[0]);
            }
            return body;
        }
        ps_next(p);
        if (token->type == TK_DATA) {
            nd *text = nd_new(p->t, ND_CONST, token->at);
            text->value = token->value;
            text->use = USE_PARAM; /* marks text outside of tags */
            push_output(p, &body, text);
        } else if (token->type == TK_VARIABLE_BEGIN) {
            push_output(p, &body, ps_tuple(p, (ps_tuple_rules){.with_else = true}));
            ps_expect(p, TK_VARIABLE_END);
        } else {
            if (at_end_tag(p, wanted)) {
                return body;
            }
            nd_push(p->t, &body, statement(p, wanted));
            ps_expect(p, TK_BLOCK_END);
        }
    }
}

void tm_parse(tm_core *t, tm_tree *tree) {
    tk_list tokens = {0};
    tm_lex(t, &tokens);
    parser p = {.t = t, .token = tokens.items, .tree = tree};
    tree->body = statements(&p, (ends){NULL});
}
