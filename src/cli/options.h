/* options.h - the option parser: a table of options in, a filled struct or a help text out.
 *
 * --name value, --name=value, -n value, -nvalue; -- ends the options; of an option given twice the
 * last counts, but for lists, which gather all. Numbers are taken whole and checked against their
 * range. */
#ifndef JANG_CLI_OPTIONS_H
#define JANG_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum opt_kind {
    OPT_FLAG,   /* bool, no value */
    OPT_INT,    /* int64_t, min .. max */
    OPT_REAL,   /* double, min .. max */
    OPT_TEXT,   /* const char *, not empty */
    OPT_ANY,    /* const char *, may be empty */
    OPT_CHOICE, /* int, index into choices */
    OPT_LIST,   /* text_list, one more text each time the option is given */
} opt_kind;

#define TEXT_LIST_MAX 32

/* Texts of an option or operand that may be given several times; they point into argv. */
typedef struct text_list {
    const char *items[TEXT_LIST_MAX];
    size_t n;
} text_list;

typedef struct opt_spec {
    const char *name; /* without dashes */
    char letter;      /* short form, or 0 */
    opt_kind kind;
    bool required;
    const char *value; /* what --help calls the value: "DIR" */
    size_t target;     /* where in the command's struct the value goes */
    int64_t min, max;
    const char *const *choices; /* ended by NULL */
    const char *help;
} opt_spec;

struct cli_command;

typedef enum opt_result {
    OPT_RUN,  /* all is well: run the command */
    OPT_HELP, /* help was asked for and printed */
    OPT_WRONG /* one line about the mistake was printed */
} opt_result;

/* Reads the arguments after the command's name into target, which holds the defaults already. Text
 * values point into argv. */
opt_result opt_parse(const struct cli_command *command, int argc, char **argv, void *target);

/* Prints usage, options, and the example of a command. */
void opt_print_help(const struct cli_command *command, FILE *to);

/* Finds the name most like a mistyped one; NULL if none is near. name_at gives the i-th of n. */
const char *opt_nearest(const char *typed, const char *(*name_at)(const void *table, size_t i),
                        const void *table, size_t n);

/* Reads a whole number, digits with an optional minus sign and nothing else. */
bool opt_read_int(const char *text, int64_t *value);

#endif
