/* fmt_named.c - a name in marks, then its arguments as a JSON object (mistral, deepseek, kimi). */
#include "tool_format.h"

#include <string.h>

static const char name_extra[] = "_-.:/";

/* functions.f:0 is the call of f whose id is that text. */
static void name_from_id(tool_call *call, const char *name, size_t n) {
    tbuf_add(&call->id, name, n);
    if (n > 10 && !memcmp(name, "functions.", 10)) {
        name += 10;
        n -= 10;
    }
    const char *colon = memrchr(name, ':', n);
    tbuf_add(&call->name, name, colon ? (size_t)(colon - name) : n);
}

static scan_result scan_arguments(scanner *s, tbuf *args) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    return s->text[s->at] == '{' ? scan_json(s, args) : SCAN_BAD;
}

/* The mark of a fenced block, where the format has one; the newlines around it are free. */
static scan_result scan_fence(scanner *s, const char *fence) {
    if (!fence) {
        return SCAN_OK;
    }
    scan_space(s);
    return scan_literal(s, fence);
}

/* Behind call_open. param_open, param_close: the fence around the arguments. */
static scan_result scan_call(const tool_format *f, scanner *s, call_list *out) {
    const char *name;
    size_t n;
    scan_space(s);
    scan_result r = scan_name(s, name_extra, &name, &n);
    if (r != SCAN_OK) {
        return r;
    }
    scan_space(s);
    r = scan_literal(s, f->call_middle);
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    if (f->param_middle) { /* the type came first: "function", then the mark, then the name */
        r = scan_until(s, f->param_middle, &name, &n);
        if (r != SCAN_OK) {
            call->name.n = 0;
            return r;
        }
    }
    if (f->name_keys[0]) {
        name_from_id(call, name, n);
    } else {
        tbuf_add(&call->name, name, n);
    }
    r = scan_fence(s, f->param_open);
    if (r == SCAN_OK) {
        r = scan_arguments(s, &call->args);
    }
    if (r == SCAN_OK) {
        r = scan_fence(s, f->param_close);
    }
    if (r != SCAN_OK) {
        return r;
    }
    scan_space(s);
    return scan_closer(s, f->call_close);
}

/* Uses section_open .. section_close around calls: call_open, name, call_middle, arguments,
 * call_close. param_middle: see scan_call. name_keys[0]: the name is an id (kimi). */
scan_result fmt_named_json(const tool_format *f, scanner *s, const tool_set *tools,
                           call_list *out) {
    (void)tools;
    scan_result r = scan_literal(s, f->section_open);
    if (r == SCAN_MORE) {
        return r;
    }
    bool in_section = r == SCAN_OK;
    for (size_t n = 0;; n++) {
        scan_space(s);
        r = scan_literal(s, f->call_open);
        if (r == SCAN_OK) {
            r = scan_call(f, s, out);
        } else if (r == SCAN_BAD && n && !in_section) {
            return SCAN_OK;
        } else if (n && scan_closer(s, f->section_close) == SCAN_OK) {
            return SCAN_OK;
        } else if (n && scan_peek(s, f->section_close) == SCAN_MORE) {
            return SCAN_MORE;
        }
        if (r != SCAN_OK) {
            return r == SCAN_BAD && n && s->final && s->at == s->n ? SCAN_OK : r;
        }
    }
}

/* ---- Mistral ---- */

/* f{...}, f[ARGS]{...}, f[CALL_ID]id[ARGS]{...} */
static scan_result scan_mistral_call(scanner *s, call_list *out) {
    const char *name, *id = NULL;
    size_t n, n_id = 0;
    scan_space(s);
    scan_result r = scan_name(s, name_extra, &name, &n);
    if (r != SCAN_OK) {
        return r;
    }
    scan_result with_id = scan_literal(s, "[CALL_ID]");
    if (with_id == SCAN_OK) {
        r = scan_name(s, "_-", &id, &n_id);
        if (r != SCAN_OK) {
            return r;
        }
    }
    scan_result marked = scan_literal(s, "[ARGS]");
    if (with_id == SCAN_MORE || marked == SCAN_MORE) {
        return SCAN_MORE;
    }
    if (s->at == s->n) {
        return scan_end(s);
    }
    tool_call *call = call_add(out);
    if (!call) {
        return SCAN_BAD;
    }
    tbuf_add(&call->name, name, n);
    if (id) {
        tbuf_add(&call->id, id, n_id);
    }
    return scan_arguments(s, &call->args);
}

scan_result fmt_mistral(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    scanner start = *s;
    scan_result r = scan_literal(s, f->openings[0]);
    if (r != SCAN_OK) {
        return r;
    }
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    if (s->text[s->at] == '[') {
        *s = start;
        return fmt_json_calls(f, s, tools, out);
    }
    return scan_mistral_call(s, out);
}
