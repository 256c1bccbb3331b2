/* openai_write.h - pieces of OpenAI's answers that several routes share. */
#ifndef JANG_SERVER_OPENAI_WRITE_H
#define JANG_SERVER_OPENAI_WRITE_H

#include "api.h"

/* Opens an answer or a chunk of one: id, object, created, model, system_fingerprint. */
jw openai_begin(const reply *r, tbuf *out, const char *object);
/* The member "timings". */
void openai_timings(jw *w, const reply *r);
/* Appends a chat log-probability entry, after a comma where others stand before it. */
void openai_logprob(tbuf *out, const jang_token *token);
/* stop, length or tool_calls. */
const char *openai_finish(const answer *a);

#endif
