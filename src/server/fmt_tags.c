/* fmt_tags.c - a tag around each parameter (qwen3_coder, seed, minimax, dsml, glm). The values are
 * text; what they mean is in the tool's schema. */
#include "json_out.h"
#include "tool_format.h"

#include <string.h>

/* A value less one line feed at each side. */
static void trim_line_feeds(const char **text, size_t *n) {
    if (*n && (*text)[0] == '\n') {
        (*text)++;
        (*n)--;
    }
    if (*n && (*text)[*n - 1] == '\n') {
        (*n)--;
    }
}

typedef struct tag_value {
    const tool_def *tool;
    const char *param;
    size_t n_param;
    const char *closer;
    bool raw, json; /* the tag itself says that it is text, or JSON */
} tag_value;

static void put_value(tbuf *args, const tag_value *v, const char *text, size_t n, bool complete) {
    if (v->json) {
        if (complete && !json_compact(args, text, n)) {
            tool_typed_value(args, v->tool, v->param, v->n_param, text, n, true);
        }
    } else {
        tool_typed_value(args, v->raw ? NULL : v->tool, v->param, v->n_param, text, n, complete);
    }
}

/* Behind the opening tag: the value and its closing tag. Of an unfinished value all is passed on
 * but what may belong to the end. */
static scan_result scan_value(scanner *s, tbuf *args, const tag_value *v) {
    const char *text = s->text + s->at;
    size_t n = s->n - s->at;
    scan_result r = scan_until(s, v->closer, &text, &n);
    if (r == SCAN_OK) {
        if (!v->raw) {
            trim_line_feeds(&text, &n);
        }
        put_value(args, v, text, n, true);
        return r;
    }
    size_t n_held = strlen(v->closer) + 1;
    if (n > n_held) {
        n -= n_held;
        if (!v->raw && text[0] == '\n') {
            text++;
            n--;
        }
        put_value(args, v, text, n, false);
    }
    return r;
}

static void begin_param(tbuf *args, const tag_value *v) {
    if (args->n > 1) {
        tbuf_putc(args, ',');
    }
    json_quote(args, v->param, v->n_param);
    tbuf_putc(args, ':');
}

/* <parameter=NAME>, <parameter name="NAME">, <... name="NAME" string="true">: reads the rest of the
 * tag after param_open. */
static scan_result scan_param_tag(const tool_format *f, scanner *s, tag_value *v) {
    scan_result r = scan_until(s, ">", &v->param, &v->n_param);
    if (r != SCAN_OK || !f->param_middle) {
        return r;
    }
    const char *quote = memchr(v->param, '"', v->n_param);
    if (!quote) {
        return SCAN_BAD;
    }
    size_t n_tag = v->n_param;
    v->n_param = (size_t)(quote - v->param);
    size_t n_rest = n_tag - v->n_param;
    v->raw = memmem(quote, n_rest, "string=\"true\"", 13) != NULL;
    v->json = memmem(quote, n_rest, "string=\"false\"", 14) != NULL;
    return SCAN_OK;
}

static scan_result scan_params(const tool_format *f, scanner *s, tool_call *call,
                               const tool_def *tool) {
    tbuf_putc(&call->args, '{');
    for (;;) {
        scan_space(s);
        scan_result r = scan_literal(s, f->call_close);
        if (r == SCAN_OK) {
            tbuf_putc(&call->args, '}');
            return r;
        }
        scan_result opened = scan_literal(s, f->param_open);
        if (opened != SCAN_OK) {
            return r == SCAN_MORE ? r : opened;
        }
        tag_value v = {.tool = tool, .closer = f->param_close};
        r = scan_param_tag(f, s, &v);
        if (r != SCAN_OK) {
            return r;
        }
        begin_param(&call->args, &v);
        r = scan_value(s, &call->args, &v);
        if (r != SCAN_OK) {
            return r;
        }
    }
}

/* Behind call_open. */
static scan_result scan_function(const tool_format *f, scanner *s, const tool_set *tools,
                                 call_list *out) {
    const char *name;
    size_t n;
    scan_result r = scan_until(s, f->call_middle, &name, &n);
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    tbuf_add(&call->name, name, n);
    return scan_params(f, s, call, tool_find(tools, name, n));
}

/* Which of section_open's forms is there: openings other than call_open; DeepSeek-V4 writes another
 * word in it than V3.2, and closes with the same. */
static scan_result scan_section_open(const tool_format *f, scanner *s, const char **closer) {
    *closer = f->section_close;
    scan_result r = scan_literal(s, f->section_open);
    if (r == SCAN_BAD && f->name_keys[0]) {
        r = scan_literal(s, f->name_keys[0]);
        *closer = f->name_keys[1];
    }
    return r;
}

/* Uses section_open .. section_close around functions: call_open NAME call_middle, parameters,
 * call_close; a function may also stand alone. A parameter is param_open NAME ">" value
 * param_close; with param_middle its name stands in quotes and attributes may follow. name_keys:
 * another opening and closing of the section. */
scan_result fmt_tags(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    const char *closer;
    scan_result r = scan_section_open(f, s, &closer);
    if (r == SCAN_MORE) {
        return r;
    }
    bool in_section = r == SCAN_OK;
    for (size_t n = 0;; n++) {
        if (n && !in_section) {
            return SCAN_OK; /* blanks behind it are the text's */
        }
        scan_space(s);
        r = n ? scan_closer(s, closer) : SCAN_BAD;
        if (r == SCAN_OK) {
            return SCAN_OK;
        }
        scan_result opened = scan_literal(s, f->call_open);
        if (opened != SCAN_OK) {
            return r == SCAN_MORE ? r : opened;
        }
        r = scan_function(f, s, tools, out);
        if (r != SCAN_OK) {
            return r;
        }
    }
}

/* ---- GLM ---- */

/* <arg_key>x</arg_key> <arg_value>1</arg_value> */
static scan_result scan_glm_pair(scanner *s, tool_call *call, const tool_def *tool) {
    tag_value v = {.tool = tool, .closer = "</arg_value>"};
    scan_result r = scan_until(s, "</arg_key>", &v.param, &v.n_param);
    if (r != SCAN_OK) {
        return r;
    }
    scan_space(s);
    r = scan_literal(s, "<arg_value>");
    if (r != SCAN_OK) {
        return r;
    }
    begin_param(&call->args, &v);
    return scan_value(s, &call->args, &v);
}

/* <tool_call>f, pairs of key and value, </tool_call> */
scan_result fmt_glm(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    const char *name;
    size_t n;
    scan_result r = scan_literal(s, f->openings[0]);
    scan_space(s);
    if (r == SCAN_OK) {
        r = scan_name(s, "_-.:/", &name, &n);
    }
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    const tool_def *tool = tool_find(tools, name, n);
    tbuf_add(&call->name, name, n);
    tbuf_putc(&call->args, '{');
    for (;;) {
        scan_space(s);
        scan_result closed = scan_literal(s, f->section_close);
        if (closed == SCAN_OK) {
            break;
        }
        r = scan_literal(s, "<arg_key>");
        if (r != SCAN_OK) {
            return closed == SCAN_MORE ? closed : r;
        }
        r = scan_glm_pair(s, call, tool);
        if (r != SCAN_OK) {
            return r;
        }
    }
    tbuf_putc(&call->args, '}');
    return SCAN_OK;
}
