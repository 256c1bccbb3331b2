/* tmpl_filters_web.c - filters made for HTML: escaping, and text that is marked safe. */
#include "template/tmpl_filters.h"
#include "template/tmpl_text.h"

#include <string.h>

/* ---- Escaping ---- */

static const char *entity(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&#34;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static tval escape_text(tm_core *t, const tv_str *s) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t plain = at;
        while (plain < s->n && !entity(s->data[plain])) {
            plain++;
        }
        tm_text_put(&b, s->data + at, plain - at);
        if (plain < s->n) {
            tm_text_puts(&b, entity(s->data[plain]));
        }
        at = plain + 1;
    }
    tval v = tm_text_end(&b);
    v.str->markup = true;
    return v;
}

tval tm_escape(tm_core *t, tval v) {
    if (v.type == TV_STR && v.str->markup) {
        return v;
    }
    return escape_text(t, tv_to_str(t, v).str);
}

static tval filter_escape(tm_core *t, const tm_call *c) {
    return tm_escape(t, c->self);
}

static tval filter_forceescape(tm_core *t, const tm_call *c) {
    return escape_text(t, tv_to_str(t, c->self).str);
}

static tval filter_safe(tm_core *t, const tm_call *c) {
    return tv_as_markup(t, c->self.type == TV_STR ? c->self : tv_to_str(t, c->self), true);
}

static const tm_builtin rows[] = {
    {"escape", filter_escape, "/", 0},
    {"e", filter_escape, "/", 0},
    {"forceescape", filter_forceescape, "", 0},
    {"safe", filter_safe, "", 0},
};
const tm_filter_table tm_web_filters = {rows, sizeof rows / sizeof *rows};
