/* conversion.h - one conversion with its progress, plan and messages, for the commands that make
 * one.
 */
#ifndef JANG_CLI_CONVERSION_H
#define JANG_CLI_CONVERSION_H

#include "jang.h"

/* Runs jang_convert, shows progress on stderr, prints the plan and what was written. command stands
 * in messages about its usage. Sets the progress callback of options. Returns an exit code. */
int conversion_run(const char *command, jang_context *ctx, jang_convert_options *options);

#endif
