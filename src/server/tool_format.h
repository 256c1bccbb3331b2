/* tool_format.h - how models write tool calls: one row per format, and the calls read from text.
 *
 * A format has texts that may open a call, and a function that reads what begins there. The rows
 * are in tool_format.c; the functions are in fmt_*.c, by kind: calls as JSON objects, a name with
 * JSON arguments, tags for each parameter, and programs (Python, Gemma's notation). */
#ifndef JANG_SERVER_TOOL_FORMAT_H
#define JANG_SERVER_TOOL_FORMAT_H

#include "scan.h"

#include <jansson.h>

/* ---- The tools of a request ---- */

typedef struct tool_def {
    const char *name; /* borrowed from the JSON it was made of, as all here */
    const char *description;
    json_t *parameters; /* JSON schema, or NULL */
    bool strict;
} tool_def;

typedef struct tool_set {
    tool_def *tools;
    size_t n;
} tool_set;

/* Reads an array of {"type": "function", "function": {name, description, parameters, strict}}, or
 * of the inner objects themselves; other elements are left out. The JSON must outlive the set. */
bool tool_set_read(tool_set *set, json_t *tools);
void tool_set_free(tool_set *set);
const tool_def *tool_find(const tool_set *set, const char *name, size_t n_name);

/* Appends a value that came as text, as JSON, by the type the tool's schema gives this parameter:
 * a string stays text; anything else is read as JSON or a Python literal, and is text if it is
 * neither. complete false: appends a beginning of that, of strings only. */
void tool_typed_value(tbuf *out, const tool_def *tool, const char *param, size_t n_param,
                      const char *text, size_t n_text, bool complete);

/* ---- Calls ---- */

typedef struct tool_call {
    tbuf name, args, id; /* args: compact JSON, a beginning of it while the call is unfinished */
} tool_call;

typedef struct call_list {
    tool_call *calls;
    size_t n, capacity;
    bool failed; /* out of memory */
} call_list;

/* Appends an empty call; NULL when out of memory. */
tool_call *call_add(call_list *list);
void call_list_clear(call_list *list);
void call_list_free(call_list *list);

/* ---- Formats ---- */

#define MAX_OPENINGS 4
#define MAX_KEYS 3

typedef struct tool_format tool_format;

/* Reads the calls at an opening text, where the scanner stands, and moves behind them. While
 * SCAN_MORE, the list has what is known. */
typedef scan_result (*tool_scan_fn)(const tool_format *f, scanner *s, const tool_set *tools,
                                    call_list *out);

struct tool_format {
    const char *name;
    const char *families; /* for the documentation */
    const char *openings[MAX_OPENINGS];
    bool bare;         /* the last opening counts at the beginning of the answer only */
    int id_length;     /* letters of a made id, without "call_"; 0: the usual 24 with it */
    tool_scan_fn scan; /* NULL: harmony, whose channels are the parser's own affair */
    /* for the kinds of formats; which are used, the functions say */
    const char *section_open, *section_close;
    const char *call_open, *call_middle, *call_close;
    const char *param_open, *param_middle, *param_close;
    const char *name_keys[MAX_KEYS], *args_keys[MAX_KEYS];
    /* what a template holds that is made for this format; two texts where one is not enough */
    const char *sign, *second_sign;
};

/* Finds a format by name; NULL if there is none. */
const tool_format *tool_format_find(const char *name);
/* The i-th row; NULL after the last. */
const tool_format *tool_format_at(size_t i);
/* The format that a chat template is made for; NULL if none is recognized. */
const tool_format *tool_format_detect(const char *chat_template);

scan_result fmt_json_calls(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_llama3(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_named_json(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_mistral(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_tags(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_glm(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_pythonic(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_gemma3(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);
scan_result fmt_gemma4(const tool_format *f, scanner *s, const tool_set *tools, call_list *out);

#endif
