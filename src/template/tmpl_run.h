/* tmpl_run.h - the state of a rendering, and the parts of the evaluator that call each other. */
#ifndef JANG_TMPL_RUN_H
#define JANG_TMPL_RUN_H

#include "base/json.h"
#include "template/tmpl_ast.h"
#include "template/tmpl_repr.h"

/* ---- Activations and the run ---- */

/* The variables of one call of a unit. parent is the activation of the unit around it. */
typedef struct tm_frame {
    struct tm_frame *parent;
    const tv_dict *locals; /* a scoped block's variables from outside, or NULL */
    tval slots[];
} tm_frame;

typedef struct tm_run {
    const tm_tree *tree;
    tv_dict *context; /* the caller's variables */
    tv_dict *vars;    /* what the top level assigned, if there are blocks; else NULL */
    tm_text *out;     /* where output goes now */
} tm_run;

/* ---- Calling ---- */

typedef struct tm_kwarg {
    tval name; /* str */
    tval value;
} tm_kwarg;

/* The arguments of a call as given. */
typedef struct tm_args {
    const tval *positional;
    size_t n;
    const tm_kwarg *named;
    size_t n_named;
} tm_args;

#define TM_MAX_PARAMS 8

/* A call of a builtin: its value or object, arguments by parameter (TV_MISSING when not given), and
 * all of them as given. */
typedef struct tm_call {
    const struct tm_builtin *builtin;
    tval self;
    tval arg[TM_MAX_PARAMS];
    const tm_args *given;
} tm_call;

/* A row in a table of filters, tests, methods or functions. params: their names parted by blanks;
 * "/" first: they are not known by name; "*": takes anything. */
typedef struct tm_builtin {
    const char *name;
    tval (*run)(tm_core *t, const tm_call *call);
    const char *params;
    unsigned n_required;
} tm_builtin;

typedef struct tv_method {
    tval self;
    const tm_builtin *builtin;
} tv_method;

typedef struct tv_macro {
    tval name; /* str or None */
    const nd_macro *def;
    tm_frame *outer;
} tv_macro;

typedef struct tv_block {
    const nd_block *def; /* NULL: self */
} tv_block;

/* Matches given arguments with a builtin's parameters and runs it. */
tval tm_call_builtin(tm_core *t, const tm_builtin *builtin, tval self, const tm_args *given);
/* Calls anything that can be called, or fails. */
tval tm_call_value(tm_core *t, tval callee, const tm_args *given);
bool tm_is_callable(tval v);
tval tm_call_macro(tm_core *t, const tv_macro *macro, const tm_args *given);
tval tm_call_block(tm_core *t, const nd_block *block, const tv_dict *locals);
tval tm_call_loop(tm_core *t, struct tv_loop *loop, tval iterable);
tval tm_make_method(tm_core *t, tval self, const tm_builtin *builtin);

/* Tables. NULL when there is no such name. */
const tm_builtin *tm_find_filter(tval name);
const tm_builtin *tm_find_test(tval name);
const tm_builtin *tm_find_global(tval name);
const tm_builtin *tm_find_row(const tm_builtin *rows, size_t n, tval name);

/* ---- Iteration ---- */

/* An iterator: next sets *out, or returns false at the end and ever after. */
typedef struct tv_iter {
    bool (*next)(tm_core *t, struct tv_iter *it, tval *out);
    tval source;
    size_t at;
    struct tv_iter *inner;
    void *state;
    const char *type_name; /* "generator" */
    bool done;
} tv_iter;

/* Whether tv_iterate would succeed. */
bool tv_iterable(tval v);
/* An iterator over v; v itself if it is one. Fails when v cannot be gone through. */
tv_iter *tv_iterate(tm_core *t, tval v);
bool tv_next(tm_core *t, tv_iter *it, tval *out);
/* Wraps a generator made by a filter. */
tval tv_from_iter(tv_iter *it);
/* All items: the sequence itself when v is a list or tuple. */
const tv_seq *tv_items(tm_core *t, tval v);
/* Whether an item is in v (Python's in). */
bool tv_contains(tm_core *t, tval container, tval item);

/* ---- Loops ---- */

typedef struct tv_loop {
    tv_iter *it;
    tval source; /* for its length */
    int64_t index0;
    bool has_length, has_next, has_changed;
    size_t length;
    tval next, current, before, last_changed;
    int64_t depth0;
    const nd *node; /* of a recursive loop, else NULL */
    tm_frame *outer;
} tv_loop;

bool loop_advance(tm_core *t, tv_loop *loop, tval *out);
size_t loop_length(tm_core *t, tv_loop *loop);
void loop_put(tm_text *b, tv_loop *loop);
/* loop.name, or TV_MISSING. */
tval loop_attr(tm_core *t, tval loop, tval name);

/* ---- Evaluation ---- */

tval tm_eval(tm_core *t, tm_frame *f, const nd *node);
/* A call node; caller, if not missing, is passed as the keyword of that name. */
tval tm_eval_call(tm_core *t, tm_frame *f, const nd *node, tval caller);
/* Runs statements; what they break out of is returned. */
typedef enum tm_flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } tm_flow;
tm_flow tm_exec(tm_core *t, tm_frame *f, const nd_list *body);
tm_frame *tm_frame_new(tm_core *t, const tm_unit *unit, tm_frame *parent);
void tm_scope_enter(tm_core *t, tm_frame *f, const tm_scope *scope);
void tm_scope_leave(tm_frame *f, const tm_scope *scope);
tval *tm_slot(tm_frame *f, tm_ref ref);
void tm_assign(tm_core *t, tm_frame *f, const nd *target, tval value);
/* A filter or test node applied to a value. */
tval tm_apply(tm_core *t, tm_frame *f, const nd *node, tval value);
tval tm_resolve_name(tm_core *t, const tm_frame *f, tval name);

/* x.name and x[key], which fall back to each other as in jinja2. */
tval tm_get_attr(tm_core *t, tval object, tval name);
tval tm_get_item(tm_core *t, tval object, tval key);
tval tm_slice(tm_core *t, tval object, tval start, tval stop, tval step);

tval tm_add(tm_core *t, tval a, tval b);
tval tm_binary(tm_core *t, nd_kind kind, tval a, tval b);
tval tm_unary(tm_core *t, nd_kind kind, tval a);

/* Python's % and str.format. */
tval tm_format_percent(tm_core *t, tval format, tval values);
tval tm_format_braces(tm_core *t, tval format, const tm_args *args);
tval tm_format_map(tm_core *t, tval format, tval mapping);

/* json.dumps as transformers' tojson calls it. */
tval tm_json_dumps(tm_core *t, tval v, bool ascii, tval indent, tval separators, bool sort_keys);
tval tm_from_json(tm_core *t, const json_t *json);

/* HTML-escaped text of v, marked safe. */
tval tm_escape(tm_core *t, tval v);
/* Without tags, blank space made single, entities resolved. */
tval tm_striptags(tm_core *t, tval v);

/* Stable sort by keys (or by the items themselves when keys is NULL). */
void tm_sort(tm_core *t, tval *items, tval *keys, size_t n, bool reverse);

#endif
