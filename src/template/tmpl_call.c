/* tmpl_call.c - calling: arguments to parameters, builtins, macros, blocks, recursive loops. */
#include "template/tmpl_run.h"

#include <string.h>

const tm_builtin *tm_find_row(const tm_builtin *rows, size_t n, tval name) {
    for (size_t i = 0; i < n && name.type == TV_STR; i++) {
        if (tv_str_is(name, rows[i].name)) {
            return &rows[i];
        }
    }
    return NULL;
}

tval tm_make_method(tm_core *t, tval self, const tm_builtin *builtin) {
    tv_method *method = tm_alloc(t, sizeof *method);
    *method = (tv_method){.self = self, .builtin = builtin};
    return (tval){.type = TV_METHOD, .method = method};
}

/* ---- Builtins ---- */

/* The number of the parameter with this name, or -1. */
static int param_index(const char *params, const tv_str *name) {
    int i = 0;
    for (const char *p = params; *p; i++) {
        size_t n = strcspn(p, " ");
        if (n == name->n && memcmp(p, name->data, n) == 0) {
            return i;
        }
        p += n + (p[n] == ' ');
    }
    return -1;
}

static size_t count_params(const char *params) {
    size_t n = *params != 0;
    for (; *params; params++) {
        n += *params == ' ';
    }
    return n;
}

tval tm_call_builtin(tm_core *t, const tm_builtin *builtin, tval self, const tm_args *given) {
    tm_call call = {.builtin = builtin, .self = self, .given = given};
    const char *params = builtin->params;
    if (params[0] == '*') {
        return builtin->run(t, &call);
    }
    bool nameless = params[0] == '/';
    params += nameless ? (params[1] == ' ' ? 2 : 1) : 0;
    size_t n = count_params(params);
    if (given->n > n) {
        tm_fail(t, "%s() takes at most %zu arguments (%zu given)", builtin->name, n, given->n);
    }
    for (size_t i = 0; i < n; i++) {
        call.arg[i] = i < given->n ? given->positional[i] : tv_missing();
    }
    for (size_t i = 0; i < given->n_named; i++) {
        const tv_str *name = given->named[i].name.str;
        int at = nameless ? -1 : param_index(params, name);
        if (at < 0) {
            tm_fail(t, "%s() got an unexpected keyword argument '%.*s'", builtin->name,
                    (int)name->n, name->data);
        }
        if (call.arg[at].type != TV_MISSING) {
            tm_fail(t, "%s() got multiple values for argument '%.*s'", builtin->name, (int)name->n,
                    name->data);
        }
        call.arg[at] = given->named[i].value;
    }
    for (size_t i = 0; i < builtin->n_required; i++) {
        if (call.arg[i].type == TV_MISSING) {
            tm_fail(t, "%s() is missing a required argument (%u are needed)", builtin->name,
                    builtin->n_required);
        }
    }
    return builtin->run(t, &call);
}

/* ---- Macros ---- */

static bool is_word(tval name, const char *word) {
    return tv_str_is(name, word);
}

/* The keyword argument that a parameter takes, which is then used up; or missing. */
static tval take_named(const tm_args *given, bool *used, tval name) {
    for (size_t i = 0; i < given->n_named; i++) {
        if (!used[i] && tv_str_equal(given->named[i].name.str, name.str)) {
            used[i] = true;
            return given->named[i].value;
        }
    }
    return tv_missing();
}

static tval rest_named(tm_core *t, const tm_args *given, const bool *used) {
    tv_dict *d = tv_dict_new(t, given->n_named);
    for (size_t i = 0; i < given->n_named; i++) {
        if (!used[i]) {
            tv_dict_put(t, d, given->named[i].name, given->named[i].value);
        }
    }
    return tv_from_dict(d);
}

/* Fails for the first argument that no parameter takes. */
static void check_all_used(tm_core *t, const tv_macro *macro, const tm_args *given,
                           const bool *used) {
    const nd_macro *def = macro->def;
    const char *name = tv_repr_text(t, macro->name);
    for (size_t i = 0; i < given->n_named && !def->uses_kwargs; i++) {
        if (!used[i] && is_word(given->named[i].name, "caller")) {
            tm_fail(t,
                    "macro %s was invoked with two values for the special caller argument. This "
                    "is most likely a bug.",
                    name);
        }
    }
    for (size_t i = 0; i < given->n_named && !def->uses_kwargs; i++) {
        if (!used[i]) {
            tm_fail(t, "macro %s takes no keyword argument %s", name,
                    tv_repr_text(t, given->named[i].name));
        }
    }
    if (given->n > def->params.n && !def->uses_varargs) {
        tm_fail(t, "macro %s takes not more than %zu argument(s)", name, def->params.n);
    }
}

static tval extra_positional(tm_core *t, const nd_macro *def, const tm_args *given) {
    size_t n = given->n > def->params.n ? given->n - def->params.n : 0;
    tval rest = tv_seq_new(t, TV_TUPLE, n);
    for (size_t i = 0; i < n; i++) {
        rest.seq->items[i] = given->positional[def->params.n + i];
    }
    return rest;
}

static void bind_parameters(tm_core *t, tm_frame *f, const tv_macro *macro, const tm_args *given) {
    const nd_macro *def = macro->def;
    bool *used = tm_zero(t, given->n_named + 1);
    bool found_caller = given->n >= def->params.n && def->explicit_caller;
    for (size_t i = 0; i < def->params.n; i++) {
        const nd *param = def->params.items[i];
        tval value = i < given->n ? given->positional[i] : take_named(given, used, param->value);
        found_caller |= i >= given->n && is_word(param->value, "caller");
        *tm_slot(f, param->ref) = value;
    }
    if (def->uses_caller && !found_caller) {
        tval name = tv_literal(t, "caller");
        tval caller = take_named(given, used, name);
        if (caller.type == TV_MISSING || caller.type == TV_NONE) {
            caller = tv_undefined_hint(t, "No caller defined");
        }
        *tm_slot(f, def->caller) = caller;
    }
    check_all_used(t, macro, given, used);
    if (def->uses_kwargs) {
        *tm_slot(f, def->kwargs) = rest_named(t, given, used);
    }
    if (def->uses_varargs) {
        *tm_slot(f, def->varargs) = extra_positional(t, def, given);
    }
}

static void set_defaults(tm_core *t, tm_frame *f, const nd_macro *def) {
    size_t first = def->params.n - def->defaults.n;
    for (size_t i = 0; i < def->params.n; i++) {
        const nd *param = def->params.items[i];
        tval *slot = tm_slot(f, param->ref);
        if (slot->type != TV_MISSING) {
            continue;
        }
        if (i >= first) {
            tval value = tm_eval(t, f, def->defaults.items[i - first]);
            *tm_slot(f, param->ref) = value;
        } else {
            tval hint =
                tv_printf(t, "parameter %s was not provided%c", tv_repr_text(t, param->value), 0);
            *slot = tv_undefined_hint(t, hint.str->data);
        }
    }
}

/* Runs a body with its output caught. */
static tval run_captured(tm_core *t, tm_frame *f, const nd_list *body) {
    tm_text text = tm_text_start(t), *before = t->run->out;
    t->run->out = &text;
    tm_exec(t, f, body);
    t->run->out = before;
    return tm_text_end(&text);
}

tval tm_call_macro(tm_core *t, const tv_macro *macro, const tm_args *given) {
    const nd_macro *def = macro->def;
    tm_enter(t);
    tm_frame *f = tm_frame_new(t, def->unit, macro->outer);
    bind_parameters(t, f, macro, given);
    tm_scope_enter(t, f, &def->scope);
    set_defaults(t, f, def);
    tval text = run_captured(t, f, &def->body);
    tm_leave(t);
    return text;
}

tval tm_call_block(tm_core *t, const nd_block *block, const tv_dict *locals) {
    tm_enter(t);
    tm_frame *f = tm_frame_new(t, block->unit, NULL);
    f->locals = locals;
    if (block->has_self) {
        tv_block *self = tm_zero(t, sizeof *self);
        *tm_slot(f, block->self) = (tval){.type = TV_BLOCK, .block = self};
    }
    if (block->has_super) {
        tval hint =
            tv_printf(t, "there is no parent block called %s.%c", tv_repr_text(t, block->name), 0);
        *tm_slot(f, block->super) = tv_undefined_hint(t, hint.str->data);
    }
    tm_scope_enter(t, f, &block->scope);
    tval text = run_captured(t, f, &block->body);
    tm_leave(t);
    return text;
}

/* ---- Anything ---- */

bool tm_is_callable(tval v) {
    switch (v.type) {
    case TV_MACRO:
    case TV_FUNCTION:
    case TV_METHOD:
    case TV_LOOP:
    case TV_JOINER:
    case TV_UNDEFINED: /* jinja2's Undefined has __call__ */
        return true;
    case TV_BLOCK:
        return v.block->def != NULL;
    default:
        return false;
    }
}

static tval call_joiner(tm_core *t, tv_joiner *joiner) {
    if (!joiner->used) {
        joiner->used = true;
        return tv_literal(t, "");
    }
    return joiner->separator;
}

static void want_arguments(tm_core *t, const tm_args *given, size_t n, const char *what) {
    if (given->n != n || given->n_named) {
        tm_fail(t, "%s takes %zu arguments, %zu were given", what, n, given->n + given->n_named);
    }
}

tval tm_call_value(tm_core *t, tval callee, const tm_args *given) {
    switch (callee.type) {
    case TV_MACRO:
        return tm_call_macro(t, callee.macro, given);
    case TV_FUNCTION:
        return tm_call_builtin(t, callee.function, tv_none(), given);
    case TV_METHOD:
        return tm_call_builtin(t, callee.method->builtin, callee.method->self, given);
    case TV_LOOP:
        want_arguments(t, given, 1, "loop()");
        return tm_call_loop(t, callee.loop, given->positional[0]);
    case TV_JOINER:
        want_arguments(t, given, 0, "a joiner");
        return call_joiner(t, callee.joiner);
    case TV_BLOCK:
        if (callee.block->def) {
            want_arguments(t, given, 0, "a block");
            return tm_call_block(t, callee.block->def, NULL);
        }
        break;
    case TV_UNDEFINED:
        tv_fail_undefined(t, callee);
    default:
        break;
    }
    tm_fail(t, "'%s' object is not callable", tv_type_name(callee));
}
