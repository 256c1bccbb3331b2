/* command.h - what a subcommand is. Each lives in a file of its own, cmd_NAME.c, and is one row of
 * the table in main.c; arguments, --help and errors are the same machinery for all of them. */
#ifndef JANG_CLI_COMMAND_H
#define JANG_CLI_COMMAND_H

#include "options.h"

/* Exit codes of every command. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_MISUSED = 2 };

typedef struct cli_command {
    const char *name;    /* one word, or two: "eval ppl" belongs to the group eval */
    const char *summary; /* one line for the list of commands */
    const char *operand; /* name of the plain argument, "MODEL"; NULL: takes none */
    size_t operand_target;
    bool many_operands;      /* one or more, into a text_list; otherwise exactly one */
    const char *details;     /* paragraphs for --help, may be NULL */
    const char *names_title; /* heads the list of names in --help; NULL: there is none */
    const char *const *(*names)(void);
    const char *example; /* indented lines for --help */
    const opt_spec *options;
    size_t n_options;
    const void *defaults; /* the command's own struct, which the options' targets lie in */
    size_t n_default_bytes;
    int (*run)(const void *arguments); /* gets a filled copy of that struct; returns exit code */
} cli_command;

extern const cli_command cmd_convert, cmd_run, cmd_inspect, cmd_logits, cmd_tokenize, cmd_template,
    cmd_parse, cmd_serve, cmd_bench, cmd_eval_ppl, cmd_eval_kl, cmd_eval_mc, cmd_eval_code,
    cmd_eval_generate, cmd_eval_compare, cmd_upgrade, cmd_export, cmd_embed;

#endif
