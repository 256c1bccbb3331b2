/* conversion.h - one conversion with its progress, plan and messages, for the commands that make
 * one.
 */
#ifndef JANG_CLI_CONVERSION_H
#define JANG_CLI_CONVERSION_H

#include "jang.h"
#include "progress_bar.h"

/* ---- Progress and messages of any such command ---- */

typedef struct conversion_watch {
    progress_bar bar;
    uint64_t total; /* bytes of the source */
    double start;
} conversion_watch;

void conversion_begin(conversion_watch *watch);
/* A jang_progress_fn whose user is the watch; false once the user has interrupted. */
bool conversion_progress(void *user, const jang_progress *progress);
/* Ends the progress bar, prints what went wrong, returns an exit code. */
int conversion_end(conversion_watch *watch, const char *command, jang_context *ctx,
                   jang_status status, const char *output, bool force);
/* Prints the line about the output and the speed. */
void conversion_wrote(const conversion_watch *watch, const char *output);

/* ---- Conversions ---- */

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
