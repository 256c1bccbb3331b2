/* tmpl_eval.c - evaluates expressions. */
#include "template/tmpl_run.h"

#include <string.h>

/* ---- Variables ---- */

tm_frame *tm_frame_new(tm_core *t, const tm_unit *unit, tm_frame *parent) {
    tm_frame *f = tm_alloc(t, sizeof *f + unit->n_slots * sizeof(tval));
    f->parent = parent;
    f->locals = parent ? parent->locals : NULL;
    for (uint32_t i = 0; i < unit->n_slots; i++) {
        f->slots[i] = tv_missing();
    }
    return f;
}

tval *tm_slot(tm_frame *f, tm_ref ref) {
    for (uint32_t up = ref.up; up > 0; up--) {
        f = f->parent;
    }
    return &f->slots[ref.slot];
}

tval tm_resolve_name(tm_core *t, const tm_frame *f, tval name) {
    const tm_run *run = t->run;
    const tval *v = f->locals ? tv_dict_get(t, f->locals, name) : NULL;
    if (!v && run->vars) {
        v = tv_dict_get(t, run->vars, name);
    }
    if (!v) {
        v = tv_dict_get(t, run->context, name);
    }
    if (v) {
        return *v;
    }
    const tm_builtin *function = tm_find_global(name);
    return function ? (tval){.type = TV_FUNCTION, .function = function} : tv_missing();
}

void tm_scope_enter(tm_core *t, tm_frame *f, const tm_scope *scope) {
    for (size_t i = 0; i < scope->n; i++) {
        const tm_load *load = &scope->loads[i];
        switch (load->kind) {
        case LOAD_PARAM:
            break;
        case LOAD_RESOLVE:
            f->slots[load->slot] = tm_resolve_name(t, f, load->name);
            break;
        case LOAD_ALIAS:
            f->slots[load->slot] = *tm_slot(f, load->from);
            break;
        case LOAD_MISSING:
            f->slots[load->slot] = tv_missing();
            break;
        }
    }
}

void tm_scope_leave(tm_frame *f, const tm_scope *scope) {
    for (size_t i = 0; i < scope->n; i++) {
        f->slots[scope->loads[i].slot] = tv_missing();
    }
}

static tval eval_name(tm_core *t, tm_frame *f, const nd *node) {
    tval v = *tm_slot(f, node->ref);
    return v.type == TV_MISSING ? tv_undefined_name(t, node->value) : v;
}

/* ---- Literals ---- */

static tval eval_items(tm_core *t, tm_frame *f, const nd *node, tv_type type) {
    tval seq = tv_seq_new(t, type, node->items.n);
    for (size_t i = 0; i < node->items.n; i++) {
        seq.seq->items[i] = tm_eval(t, f, node->items.items[i]);
    }
    return seq;
}

static tval eval_dict(tm_core *t, tm_frame *f, const nd *node) {
    tv_dict *d = tv_dict_new(t, node->items.n / 2);
    for (size_t i = 0; i < node->items.n; i += 2) {
        tval key = tm_eval(t, f, node->items.items[i]);
        tval value = tm_eval(t, f, node->items.items[i + 1]);
        t->at = node->items.items[i]->at;
        tv_dict_put(t, d, key, value);
    }
    return tv_from_dict(d);
}

static tval eval_concat(tm_core *t, tm_frame *f, const nd *node) {
    tval sum = tv_to_str(t, tm_eval(t, f, node->items.items[0]));
    for (size_t i = 1; i < node->items.n; i++) {
        tval part = tm_eval(t, f, node->items.items[i]);
        sum = tv_concat(t, sum, tv_to_str(t, part));
    }
    return sum;
}

/* ---- Operators ---- */

static tval eval_cond(tm_core *t, tm_frame *f, const nd *node) {
    if (tv_truth(t, tm_eval(t, f, node->a))) {
        return tm_eval(t, f, node->b);
    }
    if (node->c) {
        return tm_eval(t, f, node->c);
    }
    return tv_undefined_hint(t, "the inline if-expression evaluated to false and no else section "
                                "was defined.");
}

static bool compare_one(tm_core *t, nd_op op, tval a, tval b) {
    switch (op) {
    case OP_EQ:
        return tv_equal(t, a, b);
    case OP_NE:
        return !tv_equal(t, a, b);
    case OP_LT:
        return tv_compare(t, TV_LT, a, b);
    case OP_LE:
        return tv_compare(t, TV_LE, a, b);
    case OP_GT:
        return tv_compare(t, TV_GT, a, b);
    case OP_GE:
        return tv_compare(t, TV_GE, a, b);
    case OP_IN:
        return tv_contains(t, b, a);
    default:
        return !tv_contains(t, b, a);
    }
}

static tval eval_compare(tm_core *t, tm_frame *f, const nd *node) {
    tval left = tm_eval(t, f, node->a);
    for (size_t i = 0; i < node->items.n; i++) {
        const nd *operand = node->items.items[i];
        tval right = tm_eval(t, f, operand->a);
        t->at = operand->at;
        if (!compare_one(t, (nd_op)operand->op, left, right)) {
            return tv_bool(false);
        }
        left = right;
    }
    return tv_bool(true);
}

static tval eval_binary(tm_core *t, tm_frame *f, const nd *node) {
    tval a = tm_eval(t, f, node->a), b = tm_eval(t, f, node->b);
    t->at = node->at;
    return node->kind == ND_ADD ? tm_add(t, a, b) : tm_binary(t, node->kind, a, b);
}

static tval eval_slice(tm_core *t, tm_frame *f, const nd *node) {
    tval object = tm_eval(t, f, node->a);
    tval start = node->b ? tm_eval(t, f, node->b) : tv_none();
    tval stop = node->c ? tm_eval(t, f, node->c) : tv_none();
    tval step = node->d ? tm_eval(t, f, node->d) : tv_none();
    t->at = node->at;
    return tm_slice(t, object, start, stop, step);
}

/* ---- Calls ---- */

typedef struct arg_builder {
    tm_kwarg *named;
    size_t n_named, capacity;
} arg_builder;

static void add_named(tm_core *t, arg_builder *b, tval name, tval value) {
    for (size_t i = 0; i < b->n_named; i++) {
        if (tv_str_equal(b->named[i].name.str, name.str)) {
            tm_fail(t, "got multiple values for keyword argument %s", tv_repr_text(t, name));
        }
    }
    if (b->n_named == b->capacity) {
        b->capacity = b->capacity ? b->capacity * 2 : 4;
        tm_kwarg *named = tm_array(t, b->capacity, sizeof *named);
        if (b->n_named) {
            memcpy(named, b->named, b->n_named * sizeof *named);
        }
        b->named = named;
    }
    tm_step(t, b->n_named);
    b->named[b->n_named++] = (tm_kwarg){.name = name, .value = value};
}

static void add_mapping(tm_core *t, arg_builder *b, tval mapping) {
    if (mapping.type == TV_UNDEFINED) {
        tv_fail_undefined(t, mapping);
    }
    if (mapping.type != TV_DICT) {
        tm_fail(t, "argument after ** must be a mapping, not %s", tv_type_name(mapping));
    }
    for (size_t i = 0; i < mapping.dict->n; i++) {
        if (mapping.dict->entries[i].key.type != TV_STR) {
            tm_fail(t, "keywords must be strings");
        }
        add_named(t, b, mapping.dict->entries[i].key, mapping.dict->entries[i].value);
    }
}

/* Evaluates the arguments; caller, if not missing, is added as the keyword of that name. */
static tm_args eval_args(tm_core *t, tm_frame *f, const nd_args *args, tval caller) {
    tv_list_builder list = {0};
    arg_builder named = {0};
    for (size_t i = 0; i < args->positional.n; i++) {
        tv_push(t, &list, tm_eval(t, f, args->positional.items[i]));
    }
    if (args->star) {
        const tv_seq *more = tv_items(t, tm_eval(t, f, args->star));
        for (size_t i = 0; i < more->n; i++) {
            tv_push(t, &list, more->items[i]);
        }
    }
    for (size_t i = 0; i < args->n_named; i++) {
        add_named(t, &named, args->named[i].name, tm_eval(t, f, args->named[i].value));
    }
    if (caller.type != TV_MISSING) {
        add_named(t, &named, tv_literal(t, "caller"), caller);
    }
    if (args->star_star) {
        add_mapping(t, &named, tm_eval(t, f, args->star_star));
    }
    return (tm_args){
        .positional = list.items, .n = list.n, .named = named.named, .n_named = named.n_named};
}

tval tm_eval_call(tm_core *t, tm_frame *f, const nd *node, tval caller) {
    tval callee = tm_eval(t, f, node->a);
    if (callee.type == TV_UNDEFINED) {
        t->at = node->at;
        tv_fail_undefined(t, callee);
    }
    tm_args args = eval_args(t, f, node->args, caller);
    t->at = node->at;
    return tm_call_value(t, callee, &args);
}

tval tm_apply(tm_core *t, tm_frame *f, const nd *node, tval value) {
    if (!node->builtin) {
        t->at = node->at;
        tm_fail(t, "No %s named %s found.", node->kind == ND_FILTER ? "filter" : "test",
                tv_repr_text(t, node->value));
    }
    tm_args args = eval_args(t, f, node->args, tv_missing());
    t->at = node->at;
    return tm_call_builtin(t, node->builtin, value, &args);
}

/* ---- Any expression ---- */

static tval eval_node(tm_core *t, tm_frame *f, const nd *node) {
    tval v;
    switch (node->kind) {
    case ND_CONST:
        return node->value;
    case ND_NAME:
        return eval_name(t, f, node);
    case ND_TUPLE:
        return eval_items(t, f, node, TV_TUPLE);
    case ND_LIST:
        return eval_items(t, f, node, TV_LIST);
    case ND_DICT:
        return eval_dict(t, f, node);
    case ND_COND:
        return eval_cond(t, f, node);
    case ND_AND:
        v = tm_eval(t, f, node->a);
        return tv_truth(t, v) ? tm_eval(t, f, node->b) : v;
    case ND_OR:
        v = tm_eval(t, f, node->a);
        return tv_truth(t, v) ? v : tm_eval(t, f, node->b);
    case ND_NOT:
        return tv_bool(!tv_truth(t, tm_eval(t, f, node->a)));
    case ND_NEG:
    case ND_POS:
        v = tm_eval(t, f, node->a);
        t->at = node->at;
        return tm_unary(t, node->kind, v);
    case ND_CONCAT:
        return eval_concat(t, f, node);
    case ND_COMPARE:
        return eval_compare(t, f, node);
    case ND_GETATTR:
        v = tm_eval(t, f, node->a);
        t->at = node->at;
        return tm_get_attr(t, v, node->value);
    case ND_GETITEM: {
        v = tm_eval(t, f, node->a);
        tval key = tm_eval(t, f, node->b);
        t->at = node->at;
        return tm_get_item(t, v, key);
    }
    case ND_SLICE:
        return eval_slice(t, f, node);
    case ND_CALL:
        return tm_eval_call(t, f, node, tv_missing());
    case ND_FILTER:
    case ND_TEST:
        v = tm_eval(t, f, node->a);
        return tm_apply(t, f, node, v);
    default:
        return eval_binary(t, f, node);
    }
}

tval tm_eval(tm_core *t, tm_frame *f, const nd *node) {
    tm_enter(t);
    tm_step(t, 1);
    t->at = node->at;
    tval v = eval_node(t, f, node);
    tm_leave(t);
    return v;
}
