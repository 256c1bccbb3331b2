/* msg_parser.h - takes apart what a model writes: reasoning, text, tool calls.
 *
 * Text comes in pieces of any size and goes on as soon as it is known what it is: what may be the
 * beginning of a marker is held back, and released when it is none. How the pieces were cut never
 * changes what comes out, joined together. */
#ifndef JANG_SERVER_MSG_PARSER_H
#define JANG_SERVER_MSG_PARSER_H

#include "tool_format.h"

/* ---- Reasoning formats ---- */

typedef struct reasoning_format {
    const char *name;
    const char *families;
    const char *open, *close; /* NULL: harmony, whose channels are the parser's own affair */
    bool implied;             /* an answer begins inside reasoning, without an opening */
    const char *strip[2];     /* markers of the answer proper that are left out */
    const char *sign;         /* what a template holds that is made for this format */
} reasoning_format;

const reasoning_format *reasoning_find(const char *name);
const reasoning_format *reasoning_at(size_t i);
const reasoning_format *reasoning_detect(const char *chat_template);

/* Whether a rendered prompt ends inside reasoning: its last opening is not closed, and nothing but
 * white space follows it. */
bool reasoning_is_open(const reasoning_format *r, const char *prompt, size_t n_bytes);

/* ---- The parser ---- */

typedef enum msg_part { MSG_TEXT, MSG_REASONING } msg_part;

/* Receives the parts in order. id is "" unless the text carries one; calls count from 0. Everything
 * is borrowed for the time of the call. */
typedef struct msg_sink {
    void *user;
    void (*text)(void *user, msg_part part, const char *text, size_t n_bytes);
    void (*call)(void *user, size_t index, const char *name, const char *id);
    void (*args)(void *user, size_t index, const char *json, size_t n_bytes);
} msg_sink;

typedef struct msg_options {
    const tool_format *format;         /* NULL: no tool calls */
    const reasoning_format *reasoning; /* NULL: no reasoning */
    const tool_set *tools;             /* only calls of these count; NULL or empty: none */
    bool reasoning_open;               /* the text begins inside reasoning */
    bool reasoning_inline;             /* reasoning stays in the text, with its markers */
    bool forced; /* a grammar makes the calls: markers count inside code, too, and arguments are
                  * passed on while they come; otherwise a call is kept until it is whole */
} msg_options;

typedef struct msg_parser msg_parser;

/* NULL when out of memory. The tools must outlive it. */
msg_parser *msg_parser_new(const msg_options *options, const msg_sink *sink);
void msg_parser_free(msg_parser *p);
void msg_parser_feed(msg_parser *p, const char *text, size_t n_bytes);
/* The text is complete. */
void msg_parser_finish(msg_parser *p);
/* Whether memory ran out; the rest is then missing. */
bool msg_parser_failed(const msg_parser *p);
/* Whether the text so far ends inside reasoning. */
bool msg_parser_in_reasoning(const msg_parser *p);

#endif
