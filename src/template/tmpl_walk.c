/* tmpl_walk.c - visiting the children of a node, and questions about subtrees. */
#include "template/tmpl_walk.h"

bool nd_list_visit(tm_core *t, const nd_list *list, nd_visit visit, void *user) {
    for (size_t i = 0; i < list->n; i++) {
        tm_step(t, 1);
        if (!visit(t, list->items[i], user)) {
            return false;
        }
    }
    return true;
}

static bool visit_one(tm_core *t, nd *child, nd_visit visit, void *user) {
    tm_step(t, 1);
    return !child || visit(t, child, user);
}

static bool visit_args(tm_core *t, const nd_args *args, nd_visit visit, void *user) {
    if (!nd_list_visit(t, &args->positional, visit, user)) {
        return false;
    }
    for (size_t i = 0; i < args->n_named; i++) {
        if (!visit(t, args->named[i].value, user)) {
            return false;
        }
    }
    return visit_one(t, args->star, visit, user) && visit_one(t, args->star_star, visit, user);
}

static bool visit_if(tm_core *t, const nd *node, nd_visit visit, void *user) {
    for (size_t i = 0; i <= node->items.n; i++) {
        if ((i < node->items.n && !visit(t, node->items.items[i], user)) ||
            !nd_list_visit(t, &node->branches[i], visit, user)) {
            return false;
        }
    }
    return true;
}

static bool visit_for(tm_core *t, const nd_for *loop, nd_visit visit, void *user) {
    return visit(t, loop->target, user) && visit(t, loop->iter, user) &&
           nd_list_visit(t, &loop->body, visit, user) &&
           nd_list_visit(t, &loop->otherwise, visit, user) && visit_one(t, loop->test, visit, user);
}

/* Targets come before values. */
static bool visit_with(tm_core *t, const nd *node, nd_visit visit, void *user) {
    for (size_t part = 0; part < 2; part++) {
        for (size_t i = part; i < node->items.n; i += 2) {
            if (!visit(t, node->items.items[i], user)) {
                return false;
            }
        }
    }
    return nd_list_visit(t, &node->body, visit, user);
}

static bool visit_macro(tm_core *t, const nd_macro *macro, nd_visit visit, void *user) {
    return nd_list_visit(t, &macro->params, visit, user) &&
           nd_list_visit(t, &macro->defaults, visit, user) &&
           nd_list_visit(t, &macro->body, visit, user);
}

bool nd_children(tm_core *t, nd *node, nd_visit visit, void *user) {
    bool more = true;
    tm_enter(t);
    switch (node->kind) {
    case ND_IF:
        more = visit_if(t, node, visit, user);
        break;
    case ND_FOR:
        more = visit_for(t, node->loop, visit, user);
        break;
    case ND_WITH:
        more = visit_with(t, node, visit, user);
        break;
    case ND_MACRO:
        more = visit_macro(t, node->macro, visit, user);
        break;
    case ND_CALL_BLOCK:
    case ND_GENERATION:
        more = visit_one(t, node->a, visit, user) && visit_macro(t, node->macro, visit, user);
        break;
    case ND_FILTER_BLOCK:
        more = nd_list_visit(t, &node->body, visit, user) && visit(t, node->a, user);
        break;
    case ND_BLOCK:
        more = nd_list_visit(t, &node->block->body, visit, user);
        break;
    default:
        more = visit_one(t, node->a, visit, user) && visit_one(t, node->b, visit, user) &&
               visit_one(t, node->c, visit, user) && visit_one(t, node->d, visit, user) &&
               nd_list_visit(t, &node->items, visit, user) &&
               (!node->args || visit_args(t, node->args, visit, user)) &&
               nd_list_visit(t, &node->body, visit, user);
        break;
    }
    tm_leave(t);
    return more;
}

/* ---- Undeclared names ---- */

typedef struct undeclared {
    const char *const *names;
    unsigned n, wanted, found; /* bits: still undeclared, read */
} undeclared;

static bool find_undeclared(tm_core *t, nd *node, void *user) {
    undeclared *u = user;
    if (node->kind == ND_BLOCK) {
        return true;
    }
    if (node->kind != ND_NAME) {
        return nd_children(t, node, find_undeclared, u);
    }
    for (unsigned i = 0; i < u->n; i++) {
        if (tv_str_is(node->value, u->names[i])) {
            if (node->use == USE_LOAD) {
                u->found |= u->wanted & 1u << i;
            } else {
                u->wanted &= ~(1u << i);
            }
        }
    }
    return u->found != u->wanted;
}

unsigned nd_undeclared(tm_core *t, const nd_list *body, const char *const *names, unsigned n) {
    undeclared u = {.names = names, .n = n, .wanted = (1u << n) - 1};
    nd_list_visit(t, body, find_undeclared, &u);
    return u.found;
}

/* ---- Searches ---- */

typedef struct store_search {
    const char *name;
    const nd *found;
} store_search;

static bool find_store(tm_core *t, nd *node, void *user) {
    store_search *s = user;
    if (node->kind == ND_NAME && node->use == USE_STORE && tv_str_is(node->value, s->name)) {
        s->found = node;
        return false;
    }
    return nd_children(t, node, find_store, s);
}

const nd *nd_find_store(tm_core *t, nd *node, const char *name) {
    store_search s = {.name = name};
    find_store(t, node, &s);
    return s.found;
}

static bool not_scoped_block(tm_core *t, nd *node, void *user) {
    return !(node->kind == ND_BLOCK && node->block->scoped) &&
           nd_children(t, node, not_scoped_block, user);
}

bool nd_has_scoped_block(tm_core *t, nd *node) {
    return !not_scoped_block(t, node, NULL);
}
