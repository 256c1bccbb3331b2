/* template.c - compiling and rendering: the borders of the template engine. */
#include "template/template.h"

#include "template/tmpl_run.h"

#include <string.h>

struct tmpl {
    tm_core core; /* its arena holds everything below */
    const char *name;
    tm_tree tree;
};

/* The text as the lexer wants it: line ends are '\n', one at the end is dropped. */
static void normalize(tm_core *t, const char *text, size_t n) {
    char *copy = tm_alloc(t, n + 1);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        bool cr = text[i] == '\r';
        copy[k++] = cr ? '\n' : text[i];
        i += cr && i + 1 < n && text[i + 1] == '\n';
    }
    k -= k > 0 && copy[k - 1] == '\n';
    copy[k] = 0;
    t->source = copy;
    t->n_source = k;
}

static bool valid_utf8(const char *text, size_t n) {
    json_t *s = json_stringn(text, n);
    json_decref(s);
    return s != NULL;
}

/* Runs what may jump. */
static jang_status compile_text(tmpl *made, const char *text, size_t n) {
    tm_core *t = &made->core;
    jmp_buf escape;
    t->escape = &escape;
    if (setjmp(escape)) {
        return t->status;
    }
    size_t n_name = strlen(made->core.name);
    char *name = tm_alloc(t, n_name + 1);
    memcpy(name, made->core.name, n_name + 1);
    made->name = t->name = name;
    normalize(t, text, n);
    tm_parse(t, &made->tree);
    tm_resolve(t, &made->tree);
    return JANG_OK;
}

jang_status tmpl_compile(tmpl **out, ctx_t *ctx, const char *name, const char *text,
                         size_t n_bytes) {
    if (n_bytes > TM_MAX_SOURCE) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: a template of %zu bytes; %zu are allowed", name,
                        n_bytes, TM_MAX_SOURCE);
    }
    if (!valid_utf8(text, n_bytes)) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: the template is not valid UTF-8", name);
    }
    tmpl *made = ctx_zero(ctx, 1, sizeof *made);
    if (!made) {
        return ctx_fail_memory(ctx, sizeof *made);
    }
    tm_core_init(&made->core, ctx, name, "", 0);
    jang_status status = compile_text(made, text, n_bytes);
    if (status != JANG_OK) {
        tmpl_free(made);
        return status;
    }
    *out = made;
    return JANG_OK;
}

void tmpl_free(tmpl *t) {
    if (t) {
        tm_core_free(&t->core);
        ctx_free(t->core.ctx, t);
    }
}

static void render_tree(tm_core *t, const tm_tree *tree, const json_t *context) {
    tm_text text = tm_text_start(t);
    tm_run run = {.tree = tree, .out = &text};
    t->run = &run;
    tval variables = tm_from_json(t, context);
    run.context = variables.dict;
    run.vars = tree->blocks ? tv_dict_new(t, 8) : NULL;
    tm_frame *f = tm_frame_new(t, tree->unit, NULL);
    if (tree->has_self) {
        tv_block *self = tm_zero(t, sizeof *self);
        *tm_slot(f, tree->self) = (tval){.type = TV_BLOCK, .block = self};
    }
    tm_scope_enter(t, f, &tree->scope);
    tm_exec(t, f, &tree->body);
    t->rendered = text.n ? text.data : "";
    t->n_rendered = text.n;
}

static jang_status render_guarded(tm_core *t, const tm_tree *tree, const json_t *context) {
    jmp_buf escape;
    t->escape = &escape;
    if (setjmp(escape)) {
        return t->status;
    }
    render_tree(t, tree, context);
    return JANG_OK;
}

jang_status tmpl_render(const tmpl *t, buf *out, const json_t *context) {
    ctx_t *ctx = t->core.ctx;
    if (!json_is_object(context)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "%s: the context must be a JSON object", t->name);
    }
    tm_core run;
    tm_core_init(&run, ctx, t->name, t->core.source, t->core.n_source);
    jang_status status = render_guarded(&run, &t->tree, context);
    if (status == JANG_OK) {
        buf_put(out, run.rendered, run.n_rendered);
        status = buf_status(out);
    }
    tm_core_free(&run);
    return status;
}
