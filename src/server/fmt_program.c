/* fmt_program.c - calls written as programs: Python's f(x=1) in lists or fenced blocks (pythonic,
 * gemma3), and Gemma's call:f{x:1}. */
#include "tool_format.h"

#include <string.h>

/* f(x=1, y="a") */
static scan_result scan_python_call(scanner *s, call_list *out) {
    const char *name;
    size_t n;
    scan_space(s);
    scan_result r = scan_name(s, "_.-", &name, &n);
    if (r == SCAN_OK) {
        scan_space(s);
        r = scan_literal(s, "(");
    }
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    tbuf_add(&call->name, name, n);
    return scan_python_arguments(s, &call->args);
}

/* [f(x=1), g()] */
static scan_result scan_call_list(scanner *s, call_list *out) {
    scan_result r = scan_literal(s, "[");
    while (r == SCAN_OK) {
        r = scan_python_call(s, out);
        if (r != SCAN_OK) {
            return r;
        }
        scan_space(s);
        if (s->at < s->n && s->text[s->at] == ']') {
            s->at++;
            return SCAN_OK;
        }
        r = scan_literal(s, ",");
    }
    return r;
}

/* openings[0] .. section_close around a list; or the list alone, which then is the whole answer. */
scan_result fmt_pythonic(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    static const char *const ends[] = {"<|eom_id|>", "<|eot_id|>", "<|eom|>", "<|eot|>"};
    (void)tools;
    scan_result marked = scan_literal(s, f->openings[0]);
    if (marked == SCAN_MORE) {
        return marked;
    }
    scan_space(s);
    scan_result r = scan_call_list(s, out);
    if (r != SCAN_OK) {
        return r;
    }
    scan_space(s);
    if (marked == SCAN_OK) {
        return scan_closer(s, f->section_close);
    }
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (scan_literal(s, ends[i]) == SCAN_MORE) {
            return SCAN_MORE;
        }
    }
    scan_space(s);
    return s->at < s->n ? SCAN_BAD : s->final ? SCAN_OK : SCAN_MORE;
}

/* ---- Gemma 3 ---- */

/* A call may be printed or kept: print(f(x=1)), y = f(x=1). */
static scan_result scan_statement(scanner *s, call_list *out) {
    scan_result printed = scan_literal(s, "print(");
    if (printed == SCAN_MORE) {
        return printed;
    }
    scan_result r = scan_python_call(s, out);
    return r == SCAN_OK && printed == SCAN_OK ? scan_literal(s, ")") : r;
}

/* A fenced block whose lines are calls; openings[2] is FunctionGemma's own. */
scan_result fmt_gemma3(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    scan_result r = SCAN_BAD;
    for (size_t i = 0; i < 2; i++) {
        scan_result opened = scan_literal(s, f->openings[i]);
        if (opened != SCAN_BAD) {
            r = opened;
            break;
        }
    }
    if (r == SCAN_BAD) {
        return fmt_gemma4(f, s, tools, out);
    }
    for (size_t n = 0; r == SCAN_OK; n++) {
        scan_space(s);
        scan_result closed = n ? scan_closer(s, "```") : SCAN_BAD;
        if (closed != SCAN_BAD) {
            return closed;
        }
        if (s->at < s->n && s->text[s->at] == '[') {
            r = scan_call_list(s, out);
        } else {
            r = scan_statement(s, out);
        }
    }
    return r;
}

/* ---- Gemma 4, FunctionGemma ---- */

/* section_open "call:" NAME {...} section_close; param_open is the quote mark. */
scan_result fmt_gemma4(const tool_format *f, scanner *s, const tool_set *tools, call_list *out) {
    const char *name;
    size_t n;
    (void)tools;
    scan_result r = scan_literal(s, f->section_open);
    if (r == SCAN_OK) {
        scan_space(s);
        r = scan_literal(s, "call:");
    }
    if (r == SCAN_OK) {
        r = scan_name(s, "_-.:/", &name, &n);
    }
    tool_call *call = r == SCAN_OK ? call_add(out) : NULL;
    if (!call) {
        return r == SCAN_OK ? SCAN_BAD : r;
    }
    tbuf_add(&call->name, name, n);
    if (s->at < s->n && s->text[s->at] != '{') {
        return SCAN_BAD;
    }
    r = scan_gemma(s, f->param_open, &call->args);
    if (r != SCAN_OK) {
        return r;
    }
    scan_space(s);
    return scan_closer(s, f->section_close);
}
