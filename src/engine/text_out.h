/* text_out.h - an answer's text on its way out: what may be handed out, and where it must stop.
 *
 * Tokens become text (whole characters only); text that may be the beginning of a stop string is
 * held back until it is known not to be. A token goes out with the first byte of its text. */
#ifndef JANG_ENGINE_TEXT_OUT_H
#define JANG_ENGINE_TEXT_OUT_H

#include "engine/engine.h"
#include "engine/logprobs.h"

/* A token made. */
typedef struct out_token {
    int32_t id;
    float logprob;
    size_t at; /* where its text begins, in bytes from the start of the answer */
} out_token;

typedef struct text_out {
    ctx_t *ctx;
    tok_stream *stream; /* NULL: tokens have no text */
    const char *const *stops;
    size_t n_stops;
    buf held;            /* text not handed out */
    size_t n_out;        /* bytes handed out */
    size_t watched;      /* bytes of held that stop strings may not begin in: made too early */
    out_token *tokens;   /* [n_tokens] not handed out */
    logprob_entry *tops; /* [capacity, n_top] lists of the tokens */
    size_t n_tokens, capacity;
    int32_t n_top;
} text_out;

/* What goes out: the first n_bytes of held and the first n_tokens of tokens. */
typedef struct text_part {
    size_t n_bytes, n_tokens;
    int32_t stop; /* which stop string came after it; -1: none */
} text_part;

/* stops is borrowed. tok NULL: no text. */
JANG_MUST_CHECK jang_status text_out_init(text_out *t, ctx_t *ctx, const tok *tokenizer,
                                          const jang_request *r);
void text_out_free(text_out *t);

/* Adds a token with its top list [n_top]; may_stop: stop strings may begin in its text. */
JANG_MUST_CHECK jang_status text_out_push(text_out *t, int32_t id, float logprob,
                                          const logprob_entry *top, bool may_stop);
/* Ends the text: what was held back of a character becomes U+FFFD. */
JANG_MUST_CHECK jang_status text_out_finish(text_out *t);

/* What may go out now; all of it when the text has ended and holds no stop string. */
text_part text_out_ready(const text_out *t, bool has_ended);
/* Takes away what went out. */
void text_out_take(text_out *t, text_part part);

#endif
