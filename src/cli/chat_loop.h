/* chat_loop.h - the interactive chat: lines and /commands in, answers out, until the user leaves.
 */
#ifndef JANG_CLI_CHAT_LOOP_H
#define JANG_CLI_CHAT_LOOP_H

#include "conversation.h"

/* Runs the chat on the terminal; returns the program's exit code. */
int chat_run(conversation *c);

#endif
