/* tmpl_scope.c - gives every variable its slot, by jinja2's rules of scope.
 *
 * Each scope (template, loop body, macro, with, captured block) has a table of the names it
 * mentions. A name that a scope assigns becomes its own: it starts as a copy of the outer variable
 * (alias), or unassigned; a name it only reads and that no outer scope knows is looked up in the
 * context when the scope is entered. Branches of an if share their scope. A variable is known by
 * its scope's nesting level and name within a unit, so that closures see what jinja2's see. */
#include "template/tmpl_run.h"
#include "template/tmpl_walk.h"

#include <string.h>

typedef struct slot_row {
    unsigned level;
    tval name;
} slot_row;

typedef struct unit {
    struct unit *parent;
    tm_unit *made;
    slot_row *slots;
    size_t capacity;
} unit;

typedef struct symbol {
    tval name;
    bool loaded, stored;
    tm_load_kind load;
    struct unit *alias_unit; /* LOAD_ALIAS */
    unsigned alias_level;
} symbol;

typedef struct symbols {
    struct symbols *parent;
    unit *unit;
    unsigned level;
    symbol *rows;
    size_t n, capacity;
} symbols;

/* A place in the template, as jinja2's Frame. */
typedef struct frame {
    symbols *symbols;
    bool toplevel, soft;
} frame;

typedef struct resolver {
    tm_core *t;
    tm_tree *tree;
    symbols *symbols; /* what the analysis fills */
} resolver;

/* ---- Tables of names ---- */

static symbol *find_own(tm_core *t, const symbols *s, tval name) {
    tm_step(t, s->n / 4);
    for (size_t i = 0; i < s->n; i++) {
        if (tv_str_equal(s->rows[i].name.str, name.str)) {
            return &s->rows[i];
        }
    }
    return NULL;
}

/* The innermost table that knows the name, or NULL. */
static symbols *find_ref(tm_core *t, symbols *s, tval name) {
    for (; s; s = s->parent) {
        if (find_own(t, s, name)) {
            return s;
        }
    }
    return NULL;
}

static symbol *define(tm_core *t, symbols *s, tval name, tm_load_kind load) {
    symbol *row = find_own(t, s, name);
    if (!row) {
        if (s->n == s->capacity) {
            size_t capacity = s->capacity ? s->capacity * 2 : 8;
            symbol *rows = tm_array(t, capacity, sizeof *rows);
            if (s->n) {
                memcpy(rows, s->rows, s->n * sizeof *rows);
            }
            s->rows = rows;
            s->capacity = capacity;
        }
        row = &s->rows[s->n++];
        *row = (symbol){.name = name};
    }
    row->loaded = true;
    row->load = load;
    return row;
}

/* Sets what a name starts as when the scope itself assigns it. */
static void load_from_outside(tm_core *t, symbols *s, tval name, tm_load_kind otherwise) {
    symbols *outer = find_ref(t, s->parent, name);
    symbol *row = define(t, s, name, outer ? LOAD_ALIAS : otherwise);
    if (outer) {
        row->alias_unit = outer->unit;
        row->alias_level = outer->level;
    }
}

static void store_name(tm_core *t, symbols *s, tval name) {
    if (!find_own(t, s, name)) {
        load_from_outside(t, s, name, LOAD_MISSING);
    }
    find_own(t, s, name)->stored = true;
}

static void load_name(tm_core *t, symbols *s, tval name) {
    if (!find_ref(t, s, name)) {
        define(t, s, name, LOAD_RESOLVE);
    }
}

static void declare_parameter(tm_core *t, symbols *s, tval name) {
    define(t, s, name, LOAD_PARAM)->stored = true;
}

static symbols *symbols_new(tm_core *t, symbols *parent, unit *u) {
    symbols *s = tm_zero(t, sizeof *s);
    s->parent = parent;
    s->unit = u;
    s->level = parent ? parent->level + 1 : 0;
    return s;
}

static symbols *symbols_copy(tm_core *t, const symbols *from) {
    symbols *s = tm_alloc(t, sizeof *s);
    *s = *from;
    s->rows = tm_array(t, s->capacity, sizeof *s->rows);
    tm_step(t, s->n);
    if (s->n) {
        memcpy(s->rows, from->rows, s->n * sizeof *s->rows);
    }
    return s;
}

/* Joins what the branches of an if did to their copies of s. A name that only some branches assign
 * keeps its outer value otherwise. */
static void join_branches(tm_core *t, symbols *s, symbols *const *branches, size_t n) {
    symbols *before = symbols_copy(t, s);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < branches[i]->n; k++) {
            const symbol *from = &branches[i]->rows[k];
            symbol *row = define(t, s, from->name, from->load);
            bool stored = row->stored || from->stored;
            *row = *from;
            row->stored = stored;
        }
    }
    for (size_t k = 0; k < s->n; k++) {
        const symbol *old = find_own(t, before, s->rows[k].name);
        if (s->rows[k].stored && !(old && old->stored)) {
            load_from_outside(t, s, s->rows[k].name, LOAD_RESOLVE);
        }
    }
}

/* ---- Analysis: which names does a scope mention, and how ---- */

static bool analyze(tm_core *t, nd *node, void *user);

static void declare_targets(tm_core *t, symbols *s, const nd *target) {
    if (target->kind == ND_NAME) {
        declare_parameter(t, s, target->value);
    }
    for (size_t i = 0; i < target->items.n; i++) {
        declare_targets(t, s, target->items.items[i]);
    }
}

/* Analyzes a list in a copy of the table. */
static symbols *analyze_branch(resolver *r, symbols *base, const nd_list *body) {
    symbols *copy = symbols_copy(r->t, base);
    r->symbols = copy;
    nd_list_visit(r->t, body, analyze, r);
    r->symbols = base;
    return copy;
}

static void analyze_if(resolver *r, const nd *node) {
    symbols *base = r->symbols;
    analyze(r->t, node->items.items[0], r);
    symbols *first = analyze_branch(r, base, &node->branches[0]);
    /* All elif parts are one branch, within which each is an if of its own. */
    symbols *elifs = symbols_copy(r->t, base);
    r->symbols = elifs;
    for (size_t i = 1; i < node->items.n; i++) {
        analyze(r->t, node->items.items[i], r);
        symbols *body = analyze_branch(r, elifs, &node->branches[i]);
        join_branches(r->t, elifs, (symbols *[]){body}, 1);
    }
    r->symbols = base;
    symbols *otherwise = analyze_branch(r, base, &node->branches[node->items.n]);
    join_branches(r->t, base, (symbols *[]){first, elifs, otherwise}, 3);
}

static void analyze_name(resolver *r, const nd *node) {
    switch (node->use) {
    case USE_LOAD:
        load_name(r->t, r->symbols, node->value);
        break;
    case USE_STORE:
        store_name(r->t, r->symbols, node->value);
        break;
    default:
        declare_parameter(r->t, r->symbols, node->value);
        break;
    }
}

/* Visits what belongs to the current scope and stops where an inner one begins. */
static bool analyze(tm_core *t, nd *node, void *user) {
    resolver *r = user;
    switch (node->kind) {
    case ND_NAME:
        analyze_name(r, node);
        return true;
    case ND_NSREF:
        load_name(t, r->symbols, node->value);
        return true;
    case ND_IF:
        analyze_if(r, node);
        return true;
    case ND_MACRO:
        store_name(t, r->symbols, node->macro->name);
        return true;
    case ND_SET:
        analyze(t, node->b, r);
        return analyze(t, node->a, r);
    case ND_FOR:
        return analyze(t, node->loop->iter, r);
    case ND_CALL_BLOCK:
    case ND_FILTER_BLOCK:
    case ND_SET_BLOCK:
        return analyze(t, node->a, r);
    case ND_WITH:
        for (size_t i = 1; i < node->items.n; i += 2) {
            analyze(t, node->items.items[i], r);
        }
        return true;
    case ND_GENERATION:
    case ND_SCOPE:
    case ND_BLOCK:
        return true;
    default:
        return nd_children(t, node, analyze, r);
    }
}

static void analyze_list(resolver *r, symbols *s, const nd_list *list) {
    r->symbols = s;
    nd_list_visit(r->t, list, analyze, r);
}

/* ---- Slots ---- */

static unit *unit_new(tm_core *t, unit *parent) {
    unit *u = tm_zero(t, sizeof *u);
    u->parent = parent;
    u->made = tm_zero(t, sizeof *u->made);
    return u;
}

static uint32_t slot_of(tm_core *t, unit *u, unsigned level, tval name) {
    size_t n = u->made->n_slots;
    tm_step(t, n / 4);
    for (size_t i = 0; i < n; i++) {
        if (u->slots[i].level == level && tv_str_equal(u->slots[i].name.str, name.str)) {
            return (uint32_t)i;
        }
    }
    if (n == u->capacity) {
        u->capacity = n ? n * 2 : 8;
        slot_row *slots = tm_array(t, u->capacity, sizeof *slots);
        if (n) {
            memcpy(slots, u->slots, n * sizeof *slots);
        }
        u->slots = slots;
    }
    u->slots[n] = (slot_row){.level = level, .name = name};
    return u->made->n_slots++;
}

static tm_ref make_ref(tm_core *t, const unit *from, unit *to, unsigned level, tval name) {
    tm_ref ref = {0};
    for (; from != to; from = from->parent) {
        ref.up++;
    }
    ref.slot = slot_of(t, to, level, name);
    return ref;
}

static tm_ref ref_name(resolver *r, symbols *s, tval name, uint32_t at) {
    symbols *found = find_ref(r->t, s, name);
    if (!found) { /* jinja2 leaves such a name out of its analysis and fails as well */
        r->t->at = at;
        tm_fail(r->t, "Tried to resolve a name to a reference that was unknown to the frame (%s)",
                tv_repr_text(r->t, name));
    }
    return make_ref(r->t, s->unit, found->unit, found->level, name);
}

/* What is to be done on entering the scope of s. */
static tm_scope scope_of(resolver *r, symbols *s) {
    tm_scope scope = {.loads = tm_array(r->t, s->n, sizeof *scope.loads)};
    for (size_t i = 0; i < s->n; i++) {
        const symbol *row = &s->rows[i];
        tm_load *load = &scope.loads[scope.n++];
        *load = (tm_load){.kind = row->load,
                          .slot = slot_of(r->t, s->unit, s->level, row->name),
                          .name = row->name};
        if (row->load == LOAD_ALIAS) {
            load->from = make_ref(r->t, s->unit, row->alias_unit, row->alias_level, row->name);
        }
    }
    return scope;
}

/* ---- Resolution ---- */

static void resolve_list(resolver *r, const nd_list *list, frame f);

typedef struct place {
    resolver *r;
    frame f;
} place;

static bool resolve_part(tm_core *t, nd *node, void *user);

static void resolve_expr(resolver *r, nd *node, frame f) {
    if (node) {
        resolve_part(r->t, node, &(place){r, f});
    }
}

static void find_builtin(resolver *r, nd *node, frame f) {
    bool filter = node->kind == ND_FILTER;
    node->builtin = filter ? tm_find_filter(node->value) : tm_find_test(node->value);
    if (!node->builtin && !f.soft) {
        r->t->at = node->at;
        tm_fail(r->t, "No %s named %s.", filter ? "filter" : "test",
                tv_repr_text(r->t, node->value));
    }
}

static bool resolve_part(tm_core *t, nd *node, void *user) {
    place *p = user;
    switch (node->kind) {
    case ND_NAME:
    case ND_NSREF:
        node->ref = ref_name(p->r, p->f.symbols, node->value, node->at);
        return true;
    case ND_FILTER:
    case ND_TEST:
        find_builtin(p->r, node, p->f);
        return nd_children(t, node, resolve_part, p);
    case ND_COND: {
        place soft = *p;
        soft.f.soft = true;
        return nd_children(t, node, resolve_part, &soft);
    }
    default:
        return nd_children(t, node, resolve_part, p);
    }
}

static frame inner_frame(resolver *r, frame f) {
    return (frame){.symbols = symbols_new(r->t, f.symbols, f.symbols->unit)};
}

static frame unit_frame(resolver *r, frame f) {
    return (frame){.symbols = symbols_new(r->t, f.symbols, unit_new(r->t, f.symbols->unit))};
}

static void resolve_loop_filter(resolver *r, nd_for *loop, frame f) {
    frame test = unit_frame(r, f);
    declare_targets(r->t, test.symbols, loop->test_target);
    r->symbols = test.symbols;
    analyze(r->t, loop->test, r);
    loop->test_scope = scope_of(r, test.symbols);
    loop->test_unit = test.symbols->unit->made;
    resolve_expr(r, loop->test_target, test);
    resolve_expr(r, loop->test, test);
}

static void resolve_for(resolver *r, nd *node, frame f) {
    nd_for *loop = node->loop;
    frame body = loop->recursive ? unit_frame(r, f) : inner_frame(r, f);
    frame otherwise = {.symbols = symbols_new(r->t, f.symbols, body.symbols->unit)};
    tval name = tv_literal(r->t, "loop");
    tv_n_chars(name.str);
    loop->has_loop = loop->recursive ||
                     nd_undeclared(r->t, &loop->body, (const char *[]){"loop"}, 1) ||
                     nd_has_scoped_block(r->t, node);
    if (loop->has_loop) {
        declare_parameter(r->t, body.symbols, name);
    }
    declare_targets(r->t, body.symbols, loop->target);
    analyze_list(r, body.symbols, &loop->body);
    analyze_list(r, otherwise.symbols, &loop->otherwise);
    if (loop->test) {
        resolve_loop_filter(r, loop, f);
    }
    const nd *store = nd_find_store(r->t, node, "loop");
    if (store) {
        r->t->at = store->at;
        tm_fail(r->t, "Can't assign to special loop variable in for-loop target");
    }
    loop->unit = body.symbols->unit->made;
    loop->scope = scope_of(r, body.symbols);
    loop->else_scope = scope_of(r, otherwise.symbols);
    if (loop->has_loop) {
        loop->loop = ref_name(r, body.symbols, name, node->at);
    }
    resolve_expr(r, loop->iter, f);
    resolve_expr(r, loop->target, body);
    resolve_list(r, &loop->body, body);
    resolve_list(r, &loop->otherwise, otherwise);
}

static tm_ref special_parameter(resolver *r, frame f, const char *word, uint32_t at) {
    tval name = tv_literal(r->t, word);
    tv_n_chars(name.str);
    declare_parameter(r->t, f.symbols, name);
    return ref_name(r, f.symbols, name, at);
}

static void resolve_macro(resolver *r, nd_macro *macro, frame outer, uint32_t at) {
    static const char *const special[] = {"caller", "kwargs", "varargs"};
    frame f = unit_frame(r, outer);
    analyze_list(r, f.symbols, &macro->params);
    analyze_list(r, f.symbols, &macro->defaults);
    analyze_list(r, f.symbols, &macro->body);
    bool named[3] = {false, false, false};
    for (size_t i = 0; i < macro->params.n; i++) {
        for (size_t k = 0; k < 3; k++) {
            named[k] |= tv_str_is(macro->params.items[i]->value, special[k]);
        }
        if (tv_str_is(macro->params.items[i]->value, "caller")) {
            macro->explicit_caller = true;
            bool has_default = i + macro->defaults.n >= macro->params.n;
            if (!has_default && (nd_undeclared(r->t, &macro->body, special, 3) & 1)) {
                r->t->at = at;
                tm_fail(r->t, "When defining macros or call blocks the special \"caller\" argument "
                              "must be omitted or be given a default.");
            }
        }
    }
    unsigned used = nd_undeclared(r->t, &macro->body, special, 3);
    macro->uses_caller = used & 1;
    macro->uses_kwargs = (used & 2) && !named[1];
    macro->uses_varargs = (used & 4) && !named[2];
    if (macro->uses_caller && !named[0]) {
        macro->caller = special_parameter(r, f, "caller", at);
    }
    if (macro->uses_kwargs) {
        macro->kwargs = special_parameter(r, f, "kwargs", at);
    }
    if (macro->uses_varargs) {
        macro->varargs = special_parameter(r, f, "varargs", at);
    }
    macro->scope = scope_of(r, f.symbols);
    macro->unit = f.symbols->unit->made;
    resolve_list(r, &macro->params, f);
    resolve_list(r, &macro->defaults, f);
    resolve_list(r, &macro->body, f);
}

static void resolve_with(resolver *r, nd *node, frame f) {
    frame inner = inner_frame(r, f);
    for (size_t i = 0; i < node->items.n; i += 2) {
        r->symbols = inner.symbols;
        analyze(r->t, node->items.items[i], r);
    }
    analyze_list(r, inner.symbols, &node->body);
    node->scope = scope_of(r, inner.symbols);
    for (size_t i = 0; i < node->items.n; i++) {
        resolve_expr(r, node->items.items[i], i % 2 ? f : inner);
    }
    resolve_list(r, &node->body, inner);
}

/* filter, set and autoescape blocks: a scope around the body. */
static void resolve_captured(resolver *r, nd *node, frame f) {
    frame inner = inner_frame(r, f);
    if (node->kind == ND_SCOPE) {
        r->symbols = inner.symbols;
        analyze(r->t, node->a, r);
    }
    analyze_list(r, inner.symbols, &node->body);
    if (node->kind == ND_FILTER_BLOCK) {
        analyze(r->t, node->a, r);
    }
    node->scope = scope_of(r, inner.symbols);
    resolve_list(r, &node->body, inner);
    if (node->kind == ND_FILTER_BLOCK || node->kind == ND_SCOPE) {
        resolve_expr(r, node->a, inner);
    } else if (node->kind == ND_SET_BLOCK) {
        resolve_expr(r, node->a, f);
        resolve_expr(r, node->b, inner);
    }
}

/* The variables that a scoped block sees: all assigned ones, inner before outer. */
static void collect_seen(resolver *r, nd_block *block, frame f) {
    size_t capacity = 0;
    for (const symbols *s = f.symbols; s; s = s->parent) {
        capacity += s->n;
    }
    block->seen = tm_array(r->t, capacity, sizeof *block->seen);
    for (const symbols *s = f.symbols; s; s = s->parent) {
        for (size_t i = 0; i < s->n; i++) {
            bool known = !s->rows[i].stored;
            for (size_t k = 0; k < block->n_seen && !known; k++) {
                tm_step(r->t, 1);
                known = tv_str_equal(block->seen[k].name.str, s->rows[i].name.str);
            }
            if (!known) {
                tval name = s->rows[i].name;
                block->seen[block->n_seen++] =
                    (tm_exported){.name = name, .ref = ref_name(r, f.symbols, name, 0)};
            }
        }
    }
}

/* A block is a unit of its own that sees only the context. */
static void resolve_block(resolver *r, nd *node, frame outer) {
    nd_block *block = node->block;
    if (block->scoped) {
        collect_seen(r, block, outer);
    }
    frame f = {.symbols = symbols_new(r->t, NULL, unit_new(r->t, NULL))};
    unsigned used = nd_undeclared(r->t, &block->body, (const char *[]){"self", "super"}, 2);
    block->has_self = used & 1;
    block->has_super = (used & 2) != 0;
    if (block->has_self) {
        block->self = special_parameter(r, f, "self", node->at);
    }
    if (block->has_super) {
        block->super = special_parameter(r, f, "super", node->at);
    }
    analyze_list(r, f.symbols, &block->body);
    block->scope = scope_of(r, f.symbols);
    block->unit = f.symbols->unit->made;
    resolve_list(r, &block->body, f);
}

static void resolve_if(resolver *r, nd *node, frame f) {
    f.soft = true;
    for (size_t i = 0; i < node->items.n; i++) {
        resolve_expr(r, node->items.items[i], f);
    }
    for (size_t i = 0; i <= node->items.n; i++) {
        resolve_list(r, &node->branches[i], f);
    }
}

static void resolve_statement(resolver *r, nd *node, frame f) {
    node->exported = f.toplevel && r->tree->blocks;
    switch (node->kind) {
    case ND_FOR:
        resolve_for(r, node, f);
        break;
    case ND_IF:
        resolve_if(r, node, f);
        break;
    case ND_MACRO:
        resolve_macro(r, node->macro, f, node->at);
        node->ref = ref_name(r, f.symbols, node->macro->name, node->at);
        break;
    case ND_CALL_BLOCK:
        resolve_macro(r, node->macro, f, node->at);
        resolve_expr(r, node->a, f);
        break;
    case ND_GENERATION:
        resolve_macro(r, node->macro, f, node->at);
        break;
    case ND_WITH:
        resolve_with(r, node, f);
        break;
    case ND_FILTER_BLOCK:
    case ND_SET_BLOCK:
    case ND_SCOPE:
        resolve_captured(r, node, f);
        break;
    case ND_BLOCK:
        resolve_block(r, node, f);
        break;
    default:
        resolve_expr(r, node, f);
        break;
    }
}

static void resolve_list(resolver *r, const nd_list *list, frame f) {
    tm_enter(r->t);
    for (size_t i = 0; i < list->n; i++) {
        resolve_statement(r, list->items[i], f);
    }
    tm_leave(r->t);
}

void tm_resolve(tm_core *t, tm_tree *tree) {
    resolver r = {.t = t, .tree = tree};
    frame f = {.symbols = symbols_new(t, NULL, unit_new(t, NULL)), .toplevel = true};
    tree->has_self = nd_undeclared(t, &tree->body, (const char *[]){"self"}, 1);
    if (tree->has_self) {
        tree->self = special_parameter(&r, f, "self", 0);
    }
    analyze_list(&r, f.symbols, &tree->body);
    tree->scope = scope_of(&r, f.symbols);
    tree->unit = f.symbols->unit->made;
    resolve_list(&r, &tree->body, f);
}
