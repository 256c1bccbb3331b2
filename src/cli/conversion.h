/* conversion.h - one conversion with its progress, plan and messages, for the commands that make
 * one.
 */
#ifndef JANG_CLI_CONVERSION_H
#define JANG_CLI_CONVERSION_H

#include "jang.h"

/* Runs jang_convert, shows progress on stderr, prints the plan and what was written. command stands
 * in messages about its usage. Sets the progress callback of options. Returns an exit code. */
int conversion_run(const char *command, jang_context *ctx, jang_convert_options *options);

/* The options of every command that converts; their structs have const char *output and bool force.
 * needed: whether the command cannot do without. */
#define OUTPUT_OPTION(type, needed)                                                                \
    {                                                                                              \
        .name = "output", .letter = 'o', .kind = OPT_TEXT, .required = (needed), .value = "DIR",   \
        .target = offsetof(type, output),                                                          \
        .help = "Directory to make. It appears whole or not at all."                               \
    }
#define FORCE_OPTION(type)                                                                         \
    {                                                                                              \
        .name = "force", .letter = 'f', .kind = OPT_FLAG, .target = offsetof(type, force),         \
        .help = "Replace an output directory that is not empty."                                   \
    }

#endif
