/* msg_parser_impl.h - the parser's state, seen by msg_parser.c and msg_harmony.c only. */
#ifndef JANG_SERVER_MSG_PARSER_IMPL_H
#define JANG_SERVER_MSG_PARSER_IMPL_H

#include "msg_parser.h"

typedef enum msg_mode { MODE_TEXT, MODE_THINK, MODE_CALL, MODE_HEADER, MODE_BODY } msg_mode;

/* Where the text stands between code and prose, as far as back-ticks tell. */
typedef struct code_state {
    bool line_start;   /* nothing but blanks since the line feed */
    bool fenced;       /* inside a fenced block, opened by n_fence ticks */
    bool spanned;      /* inside a span of the line, opened by n_span ticks */
    bool run_at_start; /* the run of ticks at hand began a line */
    size_t n_run, n_fence, n_span;
} code_state;

/* What a channel's text is (harmony). */
typedef enum body_kind { BODY_TEXT, BODY_REASONING, BODY_CALL } body_kind;

struct msg_parser {
    msg_options o;
    msg_sink sink;
    tbuf pending; /* what has come and is not passed on */
    msg_mode mode;
    code_state code;
    bool fresh;     /* nothing but white space since the beginning, reasoning or a call */
    bool answered;  /* some text or call was passed on */
    bool skip_feed; /* line feeds at this place are left out */
    bool failed;

    size_t n_lead;      /* MODE_CALL: blanks before the call */
    size_t n_scanned;   /* bytes pending when they were last scanned */
    call_list list;     /* what the last scan found */
    size_t n_calls;     /* calls of earlier lists */
    size_t n_begun;     /* calls of this list passed on, the last perhaps in part */
    size_t n_args_sent; /* bytes of the last one's arguments */

    body_kind body; /* harmony */
    tbuf recipient; /* BODY_CALL: the tool */
};

void msg_emit(msg_parser *p, msg_part part, const char *text, size_t n_bytes);
/* Passes on a call's name and arguments as far as they are new. */
void msg_emit_call(msg_parser *p, size_t i);
/* Ends the list at hand: its calls are done. */
void msg_end_calls(msg_parser *p);
/* How many bytes at the end of a text may be the beginning of a marker. */
size_t msg_held_back(const char *text, size_t n_bytes, const char *marker);
/* One step of harmony; false: more text is needed. */
bool msg_harmony_step(msg_parser *p, bool final);

#endif
