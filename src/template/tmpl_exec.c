/* tmpl_exec.c - runs statements. */
#include "template/tmpl_run.h"

#include <string.h>

static void put_output(tm_core *t, tm_frame *f, const nd *node) {
    for (size_t i = 0; i < node->items.n; i++) {
        tval v = tm_eval(t, f, node->items.items[i]);
        tv_put_str(t->run->out, v);
    }
    if (t->run->out->n > TM_MAX_OUTPUT) {
        tm_fail(t, "the output is longer than %zu MiB", TM_MAX_OUTPUT >> 20);
    }
}

/* ---- Assignment ---- */

static void check_namespaces(tm_core *t, tm_frame *f, const nd *target) {
    if (target->kind == ND_NSREF && tm_slot(f, target->ref)->type != TV_NAMESPACE) {
        tm_fail(t, "cannot assign attribute on non-namespace object");
    }
    for (size_t i = 0; i < target->items.n; i++) {
        check_namespaces(t, f, target->items.items[i]);
    }
}

static void assign_tuple(tm_core *t, tm_frame *f, const nd *target, tval value) {
    size_t wanted = target->items.n;
    if (value.type == TV_UNDEFINED || !tv_iterable(value)) {
        if (value.type != TV_UNDEFINED) {
            tm_fail(t, "cannot unpack non-iterable %s object", tv_type_name(value));
        }
    }
    tv_iter *it = tv_iterate(t, value);
    tval *items = tm_array(t, wanted, sizeof *items);
    for (size_t i = 0; i < wanted; i++) {
        if (!tv_next(t, it, &items[i])) {
            tm_fail(t, "not enough values to unpack (expected %zu, got %zu)", wanted, i);
        }
    }
    tval more;
    if (tv_next(t, it, &more)) {
        tm_fail(t, "too many values to unpack (expected %zu)", wanted);
    }
    for (size_t i = 0; i < wanted; i++) {
        tm_assign(t, f, target->items.items[i], items[i]);
    }
}

void tm_assign(tm_core *t, tm_frame *f, const nd *target, tval value) {
    switch (target->kind) {
    case ND_NAME:
        *tm_slot(f, target->ref) = value;
        break;
    case ND_NSREF: {
        t->at = target->at;
        if (target->attr.str->n && target->attr.str->data[0] == '_') {
            tm_fail(t,
                    "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                    "but got %s. Please rename the attribute.",
                    tv_repr_text(t, target->attr));
        }
        tval ns = *tm_slot(f, target->ref);
        if (ns.type != TV_NAMESPACE) {
            tm_fail(t, "cannot assign attribute on non-namespace object");
        }
        tv_dict_put(t, ns.ns->attrs, target->attr, value);
        break;
    }
    default:
        t->at = target->at;
        assign_tuple(t, f, target, value);
        break;
    }
}

/* Makes what the top level assigned visible to blocks. */
static void export_targets(tm_core *t, tm_frame *f, const nd *target) {
    if (target->kind == ND_NAME) {
        tval v = *tm_slot(f, target->ref);
        if (v.type != TV_MISSING) {
            tv_dict_put(t, t->run->vars, target->value, v);
        }
    }
    for (size_t i = 0; i < target->items.n; i++) {
        export_targets(t, f, target->items.items[i]);
    }
}

static void run_set(tm_core *t, tm_frame *f, const nd *node) {
    t->at = node->at;
    check_namespaces(t, f, node->a);
    tm_assign(t, f, node->a, tm_eval(t, f, node->b));
    if (node->exported) {
        export_targets(t, f, node->a);
    }
}

/* ---- Captured output ---- */

/* A chain of filters without a value, applied to the caught text. */
static tval apply_filters(tm_core *t, tm_frame *f, const nd *filter, tval text) {
    if (!filter) {
        return text;
    }
    tm_enter(t);
    tval inner = apply_filters(t, f, filter->a, text);
    tval v = tm_apply(t, f, filter, inner);
    tm_leave(t);
    return v;
}

/* Outputs what a filter or call block gives, which jinja2 does not turn into text. */
static void put_block_result(tm_core *t, tval v) {
    if (v.type != TV_STR) {
        tm_fail(t, "the block gives %s where text is expected", tv_type_name(v));
    }
    tv_put_str(t->run->out, v);
}

static tm_flow run_captured_block(tm_core *t, tm_frame *f, const nd *node) {
    tm_text text = tm_text_start(t), *before = t->run->out;
    tm_scope_enter(t, f, &node->scope);
    t->run->out = &text;
    tm_flow flow = tm_exec(t, f, &node->body);
    t->run->out = before;
    if (flow == FLOW_NEXT) {
        tval caught = tm_text_end(&text);
        if (node->kind == ND_FILTER_BLOCK) {
            put_block_result(t, apply_filters(t, f, node->a, caught));
        } else {
            tm_assign(t, f, node->a, apply_filters(t, f, node->b, caught));
            if (node->exported) {
                export_targets(t, f, node->a);
            }
        }
        tm_scope_leave(f, &node->scope);
    }
    return flow;
}

/* ---- Loops ---- */

typedef struct loop_filter {
    const nd_for *loop;
    tm_frame *outer, *frame; /* frame is made when the first item is asked for */
    tv_iter *items;
    tval source;
} loop_filter;

/* The values that were assigned to a target, as jinja2's filter passes them on. */
static tval target_values(tm_core *t, tm_frame *f, const nd *target) {
    if (target->kind == ND_NAME) {
        return *tm_slot(f, target->ref);
    }
    tval tuple = tv_seq_new(t, TV_TUPLE, target->items.n);
    for (size_t i = 0; i < target->items.n; i++) {
        tuple.seq->items[i] = target_values(t, f, target->items.items[i]);
    }
    return tuple;
}

static bool next_filtered(tm_core *t, tv_iter *it, tval *out) {
    loop_filter *lf = it->state;
    if (!lf->frame) {
        lf->frame = tm_frame_new(t, lf->loop->test_unit, lf->outer);
        tm_scope_enter(t, lf->frame, &lf->loop->test_scope);
        lf->items = tv_iterate(t, lf->source);
    }
    for (tval item; tv_next(t, lf->items, &item);) {
        tm_assign(t, lf->frame, lf->loop->test_target, item);
        if (tv_truth(t, tm_eval(t, lf->frame, lf->loop->test))) {
            *out = target_values(t, lf->frame, lf->loop->test_target);
            return true;
        }
    }
    return false;
}

static tval filtered(tm_core *t, tm_frame *f, const nd_for *loop, tval source) {
    loop_filter *lf = tm_zero(t, sizeof *lf);
    *lf = (loop_filter){.loop = loop, .outer = f, .source = source};
    tv_iter *it = tm_zero(t, sizeof *it);
    it->next = next_filtered;
    it->state = lf;
    return tv_from_iter(it);
}

/* Goes through the items with the body's variables in f. As in jinja2, the else part runs when no
 * iteration came to its end, be it for a lack of items or for break and continue. */
static tm_flow run_loop(tm_core *t, tm_frame *f, const nd *node, tv_loop *loop) {
    const nd_for *def = node->loop;
    tm_flow flow = FLOW_NEXT;
    bool completed = false;
    for (tval item; flow != FLOW_BREAK && loop_advance(t, loop, &item);) {
        if (def->has_loop) {
            *tm_slot(f, def->loop) = (tval){.type = TV_LOOP, .loop = loop};
        }
        tm_assign(t, f, def->target, item);
        tm_scope_enter(t, f, &def->scope);
        flow = tm_exec(t, f, &def->body);
        completed |= flow == FLOW_NEXT;
    }
    tm_scope_leave(f, &def->scope);
    if (!completed && def->has_else) {
        tm_scope_enter(t, f, &def->else_scope);
        flow = tm_exec(t, f, &def->otherwise);
        tm_scope_leave(f, &def->else_scope);
        return flow;
    }
    return FLOW_NEXT;
}

static tv_loop *loop_new(tm_core *t, tm_frame *f, const nd *node, tval source) {
    if (node->loop->test) {
        source = filtered(t, f, node->loop, source);
    }
    t->at = node->loop->iter->at;
    tv_loop *loop = tm_zero(t, sizeof *loop);
    loop->it = tv_iterate(t, source);
    loop->source = source;
    loop->index0 = -1;
    loop->outer = f;
    return loop;
}

/* One level of a recursive loop, whose output is a text. */
static tval run_recursive(tm_core *t, tm_frame *outer, const nd *node, tval source, int64_t depth) {
    tm_enter(t);
    tv_loop *loop = loop_new(t, outer, node, source);
    loop->node = node;
    loop->depth0 = depth;
    tm_text text = tm_text_start(t), *before = t->run->out;
    t->run->out = &text;
    run_loop(t, tm_frame_new(t, node->loop->unit, outer), node, loop);
    t->run->out = before;
    tm_leave(t);
    return tm_text_end(&text);
}

tval tm_call_loop(tm_core *t, struct tv_loop *loop, tval iterable) {
    if (!loop->node) {
        tm_fail(t, "The loop must have the 'recursive' marker to be called recursively.");
    }
    return run_recursive(t, loop->outer, loop->node, iterable, loop->depth0 + 1);
}

static tm_flow run_for(tm_core *t, tm_frame *f, const nd *node) {
    tval source = tm_eval(t, f, node->loop->iter);
    if (node->loop->recursive) {
        tv_put_str(t->run->out, run_recursive(t, f, node, source, 0));
        return FLOW_NEXT;
    }
    return run_loop(t, f, node, loop_new(t, f, node, source));
}

/* ---- Macros and blocks ---- */

static tval macro_value(tm_core *t, tm_frame *f, const nd_macro *def) {
    tv_macro *macro = tm_alloc(t, sizeof *macro);
    *macro = (tv_macro){.name = def->name, .def = def, .outer = f};
    return (tval){.type = TV_MACRO, .macro = macro};
}

static void define_macro(tm_core *t, tm_frame *f, const nd *node) {
    tval macro = macro_value(t, f, node->macro);
    *tm_slot(f, node->ref) = macro;
    if (node->exported) {
        tv_dict_put(t, t->run->vars, node->macro->name, macro);
    }
}

static void run_block(tm_core *t, tm_frame *f, const nd_block *block) {
    if (block->required) {
        tm_fail(t, "Required block %s not found", tv_repr_text(t, block->name));
    }
    tv_dict *locals = NULL;
    if (block->scoped) {
        locals = tv_dict_new(t, block->n_seen);
        for (size_t i = 0; i < block->n_seen; i++) {
            tval v = *tm_slot(f, block->seen[i].ref);
            if (v.type != TV_MISSING) {
                tv_dict_put(t, locals, block->seen[i].name, v);
            }
        }
    }
    tval text = tm_call_block(t, block, locals);
    tv_put_str(t->run->out, text);
}

static void run_with(tm_core *t, tm_frame *f, const nd *node) {
    tm_scope_enter(t, f, &node->scope);
    for (size_t i = 0; i < node->items.n; i += 2) {
        tm_assign(t, f, node->items.items[i], tm_eval(t, f, node->items.items[i + 1]));
    }
}

/* ---- Any statement ---- */

static tm_flow run_if(tm_core *t, tm_frame *f, const nd *node) {
    size_t i = 0;
    while (i < node->items.n && !tv_truth(t, tm_eval(t, f, node->items.items[i]))) {
        i++;
    }
    return tm_exec(t, f, &node->branches[i]);
}

static tm_flow run_scope_body(tm_core *t, tm_frame *f, const nd *node) {
    tm_flow flow = tm_exec(t, f, &node->body);
    if (flow == FLOW_NEXT) {
        tm_scope_leave(f, &node->scope);
    }
    return flow;
}

static tm_flow run_statement(tm_core *t, tm_frame *f, const nd *node) {
    static const tm_args no_args;
    switch (node->kind) {
    case ND_OUTPUT:
        put_output(t, f, node);
        return FLOW_NEXT;
    case ND_FOR:
        return run_for(t, f, node);
    case ND_IF:
        return run_if(t, f, node);
    case ND_SET:
        run_set(t, f, node);
        return FLOW_NEXT;
    case ND_SET_BLOCK:
    case ND_FILTER_BLOCK:
        return run_captured_block(t, f, node);
    case ND_MACRO:
        define_macro(t, f, node);
        return FLOW_NEXT;
    case ND_CALL_BLOCK:
        put_block_result(t, tm_eval_call(t, f, node->a, macro_value(t, f, node->macro)));
        return FLOW_NEXT;
    case ND_GENERATION: {
        tval body = macro_value(t, f, node->macro);
        tv_put_str(t->run->out, tm_call_macro(t, body.macro, &no_args));
        return FLOW_NEXT;
    }
    case ND_WITH:
        run_with(t, f, node);
        return run_scope_body(t, f, node);
    case ND_SCOPE:
        tm_scope_enter(t, f, &node->scope);
        if (tv_truth(t, tm_eval(t, f, node->a))) {
            tm_fail(t, "autoescape is not supported: only {%% autoescape false %%} is allowed");
        }
        return run_scope_body(t, f, node);
    case ND_BLOCK:
        run_block(t, f, node->block);
        return FLOW_NEXT;
    case ND_BREAK:
        return FLOW_BREAK;
    default:
        return FLOW_CONTINUE;
    }
}

tm_flow tm_exec(tm_core *t, tm_frame *f, const nd_list *body) {
    tm_flow flow = FLOW_NEXT;
    tm_enter(t);
    for (size_t i = 0; i < body->n && flow == FLOW_NEXT; i++) {
        tm_step(t, 1);
        t->at = body->items[i]->at;
        flow = run_statement(t, f, body->items[i]);
    }
    tm_leave(t);
    return flow;
}
