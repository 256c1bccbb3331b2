/* fmt_json.c - calls written as JSON objects: {"name": "f", "arguments": {...}}, alone, in lists,
 * between tags (hermes, llama3, phi, granite, apriel, cohere). */
#include "tool_format.h"

#include <string.h>

static bool one_of(const tbuf *key, const char *const *keys) {
    for (size_t i = 0; i < MAX_KEYS && keys[i]; i++) {
        if (tbuf_is(key, keys[i])) {
            return true;
        }
    }
    return false;
}

/* Arguments: an object; or a string that holds one, as some models write it. */
static scan_result scan_arguments(scanner *s, tbuf *args) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    char c = s->text[s->at];
    if (c == '{') {
        return scan_json(s, args);
    }
    tbuf text = {0};
    scan_result r = c == '"' ? scan_json_text(s, &text) : scan_json(s, &text);
    if (r == SCAN_OK && !tbuf_is(&text, "null") && text.n) {
        const char *first = tbuf_text(&text) + strspn(tbuf_text(&text), " \n\t\r");
        r = *first == '{' && json_compact(args, text.data, text.n) ? SCAN_OK : SCAN_BAD;
    }
    args->failed |= text.failed;
    tbuf_free(&text);
    return r;
}

static scan_result scan_member(const tool_format *f, scanner *s, tool_call *call) {
    tbuf key = {0}, skipped = {0};
    scan_result r = scan_json_text(s, &key);
    if (r == SCAN_OK) {
        scan_space(s);
        r = scan_literal(s, ":");
    }
    if (r == SCAN_OK) {
        scan_space(s);
        if (one_of(&key, f->name_keys)) {
            tbuf_clear(&call->name);
            r = scan_json_text(s, &call->name);
        } else if (one_of(&key, f->args_keys)) {
            tbuf_clear(&call->args);
            r = scan_arguments(s, &call->args);
        } else if (tbuf_is(&key, "id")) {
            tbuf_clear(&call->id);
            r = scan_json_text(s, &call->id);
        } else {
            r = scan_json(s, &skipped);
        }
    }
    call->args.failed |= key.failed;
    tbuf_free(&key);
    tbuf_free(&skipped);
    return r;
}

/* One object. A name that is not complete yet is taken back. */
static scan_result scan_object(const tool_format *f, scanner *s, call_list *out) {
    scan_result r = scan_literal(s, "{");
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    for (bool first = true; r == SCAN_OK; first = false) {
        scan_space(s);
        if (s->at < s->n && s->text[s->at] == '}' && call->name.n) {
            s->at++;
            if (!call->args.n) {
                tbuf_puts(&call->args, "{}");
            }
            return SCAN_OK;
        }
        r = first ? SCAN_OK : scan_literal(s, ",");
        scan_space(s);
        if (r == SCAN_OK) {
            r = scan_member(f, s, call);
        }
    }
    return r;
}

/* An object, or a list of them. */
static scan_result scan_objects(const tool_format *f, scanner *s, call_list *out) {
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    if (s->text[s->at] != '[') {
        return scan_object(f, s, out);
    }
    s->at++;
    for (bool first = true;; first = false) {
        scan_space(s);
        if (!first && s->at < s->n && s->text[s->at] == ']') {
            s->at++;
            return SCAN_OK;
        }
        scan_result r = first ? SCAN_OK : scan_literal(s, ",");
        scan_space(s);
        if (r == SCAN_OK) {
            r = scan_object(f, s, out);
        }
        if (r != SCAN_OK) {
            return r;
        }
    }
}

/* Uses section_close (NULL: none) for openings[0], call_close for openings[1]; name_keys,
 * args_keys. */
scan_result fmt_json_calls(const tool_format *f, scanner *s, const tool_set *tools,
                           call_list *out) {
    (void)tools;
    const char *closer = f->section_close;
    scan_result r = scan_literal(s, f->openings[0]);
    if (r == SCAN_BAD && f->openings[1]) {
        r = scan_literal(s, f->openings[1]);
        closer = f->call_close;
    }
    if (r == SCAN_OK) {
        r = scan_objects(f, s, out);
    }
    if (r != SCAN_OK || !closer) {
        return r;
    }
    scan_space(s);
    return scan_closer(s, closer);
}

/* ---- Llama 3 ---- */

static scan_result skip_end(scanner *s) {
    static const char *const ends[] = {"<|eom_id|>", "<|eot_id|>"};
    scan_space(s);
    for (size_t i = 0; i < 2; i++) {
        scan_result r = scan_literal(s, ends[i]);
        if (r == SCAN_MORE) {
            return r;
        }
    }
    return SCAN_OK;
}

/* <function=f>{...}</function> */
static scan_result scan_function_tag(scanner *s, call_list *out) {
    const char *name;
    size_t n;
    scan_result r = scan_until(s, ">", &name, &n);
    if (r != SCAN_OK) {
        return r;
    }
    tool_call *call = call_add(out);
    if (!call) {
        return SCAN_BAD;
    }
    tbuf_add(&call->name, name, n);
    scan_space(s);
    if (s->at < s->n && s->text[s->at] != '{') {
        return SCAN_BAD;
    }
    r = scan_json(s, &call->args);
    if (r == SCAN_OK) {
        scan_space(s);
        r = scan_closer(s, "</function>");
    }
    return r;
}

/* f.call(x=1), a built-in tool. */
static scan_result scan_builtin(scanner *s, call_list *out) {
    const char *name;
    size_t n;
    scan_result r = scan_name(s, "_-", &name, &n);
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    tbuf_add(&call->name, name, n);
    r = scan_literal(s, ".call(");
    return r == SCAN_OK ? scan_python_arguments(s, &call->args) : r;
}

/* Objects divided by semicolons. */
static scan_result scan_objects_list(const tool_format *f, scanner *s, call_list *out) {
    for (;;) {
        scan_result r = scan_objects(f, s, out);
        if (r != SCAN_OK) {
            return r;
        }
        scan_space(s);
        if (s->at == s->n || s->text[s->at] != ';') {
            return SCAN_OK;
        }
        s->at++;
    }
}

/* Nothing but the end may follow a bare object, or the text is no call. */
static scan_result only_end(scanner *s) {
    scan_result r = skip_end(s);
    if (r == SCAN_OK && s->at == s->n) {
        return s->final ? SCAN_OK : SCAN_MORE;
    }
    return r == SCAN_OK ? SCAN_BAD : r;
}

scan_result fmt_llama3(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    (void)tools;
    scan_result r = scan_literal(s, "<function=");
    if (r == SCAN_OK) {
        return scan_function_tag(s, out);
    }
    if (r == SCAN_MORE) {
        return r;
    }
    r = scan_literal(s, "<|python_tag|>");
    if (r == SCAN_MORE) {
        return r;
    }
    bool tagged = r == SCAN_OK;
    scan_space(s);
    if (s->at == s->n) {
        return scan_end(s);
    }
    bool is_object = s->text[s->at] == '{' || s->text[s->at] == '[';
    r = tagged && !is_object ? scan_builtin(s, out) : scan_objects_list(f, s, out);
    if (r != SCAN_OK) {
        return r;
    }
    return tagged ? skip_end(s) : only_end(s);
}
