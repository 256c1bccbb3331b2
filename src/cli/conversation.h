/* conversation.h - messages in, streamed answers out, with one session whose cache is kept. */
#ifndef JANG_CLI_CONVERSATION_H
#define JANG_CLI_CONVERSATION_H

#include "jang.h"

#include <jansson.h>
#include <stdio.h>

typedef struct conversation {
    jang_context *ctx;
    jang_model *model;
    jang_session *session;
    jang_sampling sampling;
    size_t n_max;              /* most tokens of an answer; 0: until the context is full */
    bool raw;                  /* no template, no memory: each prompt is text to be continued */
    json_t *messages;          /* array of {role, content}; a system message comes first */
    jang_generate_stats stats; /* of the last answer */
    FILE *out;                 /* where answers are streamed to */
} conversation;

/* The session is made here; everything else is set by the caller before. Prints why it failed. */
bool conversation_start(conversation *c, int32_t n_context, jang_kv_type kv_type);
void conversation_end(conversation *c);

/* Sets the system message, which stays at the beginning. */
bool conversation_set_system(conversation *c, const char *text);
/* The system message; NULL if there is none. */
const char *conversation_system(const conversation *c);

/* Forgets everything but the system message. */
void conversation_reset(conversation *c);

/* Adds the user's text, streams the answer to out and adds it too. Ctrl-C ends the answer, which
 * is then kept as far as it went. On failure prints why and forgets the user's text. */
bool conversation_answer(conversation *c, const char *text, size_t n_bytes);

/* Prints the figures of the last answer as one line. */
void conversation_print_stats(const conversation *c, FILE *to);

#endif
