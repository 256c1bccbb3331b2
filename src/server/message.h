/* message.h - an assistant's message, put together from the parts a parser passes on. */
#ifndef JANG_SERVER_MESSAGE_H
#define JANG_SERVER_MESSAGE_H

#include "json_out.h"
#include "msg_parser.h"

typedef struct chat_message {
    tbuf text, reasoning;
    call_list calls;
    const tool_format *format; /* decides how ids look; may be NULL */
    uint64_t *random;          /* state of the generator that ids are drawn with */
} chat_message;

void message_free(chat_message *m);
/* A sink whose parts go into the message. */
msg_sink message_sink(chat_message *m);
/* "role", "content", "reasoning_content", "refusal" and "tool_calls" as OpenAI names them: members
 * of the object that is open. */
void message_write(const chat_message *m, jw *w);
bool message_failed(const chat_message *m);

/* Draws n letters and digits. */
void random_letters(tbuf *out, uint64_t *random, int n);
/* Appends an id as the format's models use them: call_ and 24 letters and digits, or 9 alone. */
void tool_make_id(tbuf *out, const tool_format *format, uint64_t *random);

#endif
