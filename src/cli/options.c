/* options.c - parsing of command-line options from a table, and the help text made from the same
 * table. */
#include "options.h"

#include "command.h"
#include "terminal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 26
#define HELP_WIDTH 88
#define NAME_BYTES 64

/* ---- Nearest name ---- */

/* Number of insertions, deletions, changes and swaps of neighbours that make a into b, for names
 * of less than NAME_BYTES; the optimal string alignment distance. */
static size_t edit_distance(const char *a, const char *b) {
    size_t n_a = strlen(a), n_b = strlen(b);
    if (n_a >= NAME_BYTES || n_b >= NAME_BYTES) {
        return NAME_BYTES;
    }
    size_t rows[3][NAME_BYTES + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= n_b; j++) {
        last[j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = before[j - 2] + 1 < best ? before[j - 2] + 1 : best;
            }
            row[j] = best;
        }
        size_t *free_row = before;
        before = last, last = row, row = free_row;
    }
    return last[n_b];
}

const char *opt_nearest(const char *typed, const char *(*name_at)(const void *table, size_t i),
                        const void *table, size_t n) {
    const char *nearest = NULL;
    size_t best = 1 + strlen(typed) / 3;
    best = best > 3 ? 3 : best;
    for (size_t i = 0; i < n; i++) {
        const char *name = name_at(table, i);
        size_t distance = edit_distance(typed, name);
        /* what was typed may also be a beginning: --temperature for --temp, --prof for --profile */
        size_t n_typed = strlen(typed), n_name = strlen(name);
        size_t shorter = n_typed < n_name ? n_typed : n_name;
        if (shorter >= 3 && !strncmp(typed, name, shorter)) {
            distance = 1;
        }
        if (distance <= best && (!nearest || distance < best)) {
            best = distance;
            nearest = name;
        }
    }
    return nearest;
}

static const char *option_name_at(const void *table, size_t i) {
    return ((const opt_spec *)table)[i].name;
}

/* ---- Values ---- */

bool opt_read_int(const char *text, int64_t *value) {
    const char *digits = *text == '-' ? text + 1 : text;
    if (!*digits || digits[strspn(digits, "0123456789")]) {
        return false;
    }
    errno = 0;
    long long number = strtoll(text, NULL, 10);
    if (errno) {
        return false;
    }
    *value = number;
    return true;
}

/* Decimal notation only: no hexadecimal, "inf" or "nan", no blanks. */
static bool read_real(const char *text, double *value) {
    if (!*text || text[strspn(text, "0123456789+-.eE")]) {
        return false;
    }
    char *end;
    double number = strtod(text, &end);
    if (*end || !isfinite(number)) {
        return false;
    }
    *value = number;
    return true;
}

static bool store_int(const cli_command *c, const opt_spec *o, const char *text, int64_t *to) {
    int64_t number;
    if (!opt_read_int(text, &number) || number < o->min || number > o->max) {
        if (o->max == INT64_MAX) {
            cli_misused(c->name, "--%s %s: not a whole number of at least %" PRId64, o->name, text,
                        o->min);
        } else {
            cli_misused(c->name, "--%s %s: not a whole number from %" PRId64 " to %" PRId64,
                        o->name, text, o->min, o->max);
        }
        return false;
    }
    *to = number;
    return true;
}

static bool store_real(const cli_command *c, const opt_spec *o, const char *text, double *to) {
    double number;
    if (!read_real(text, &number) || number < (double)o->min || number > (double)o->max) {
        cli_misused(c->name, "--%s %s: not a number from %" PRId64 " to %" PRId64, o->name, text,
                    o->min, o->max);
        return false;
    }
    *to = number;
    return true;
}

static void join_choices(const opt_spec *o, char *out, size_t n_bytes) {
    out[0] = 0;
    for (size_t i = 0, at = 0; o->choices[i] && at < n_bytes; i++) {
        int n = snprintf(out + at, n_bytes - at, "%s%s", i ? ", " : "", o->choices[i]);
        at += (size_t)n;
    }
}

static bool store_choice(const cli_command *c, const opt_spec *o, const char *text, int *to) {
    for (int i = 0; o->choices[i]; i++) {
        if (!strcmp(text, o->choices[i])) {
            *to = i;
            return true;
        }
    }
    char names[256];
    join_choices(o, names, sizeof names);
    cli_misused(c->name, "--%s %s: must be one of %s", o->name, text, names);
    return false;
}

static bool add_to_list(const cli_command *c, const char *what, const char *text, text_list *to) {
    if (!*text) {
        cli_misused(c->name, "%s: the value is empty", what);
        return false;
    }
    if (to->n == TEXT_LIST_MAX) {
        cli_misused(c->name, "%s: at most %d can be given", what, TEXT_LIST_MAX);
        return false;
    }
    to->items[to->n++] = text;
    return true;
}

static bool store_in_list(const cli_command *c, const opt_spec *o, const char *text,
                          text_list *to) {
    char what[NAME_BYTES];
    snprintf(what, sizeof what, "--%s", o->name);
    return add_to_list(c, what, text, to);
}

static bool store_value(const cli_command *c, const opt_spec *o, const char *text, void *target) {
    void *to = (char *)target + o->target;
    switch (o->kind) {
    case OPT_INT:
        return store_int(c, o, text, to);
    case OPT_REAL:
        return store_real(c, o, text, to);
    case OPT_CHOICE:
        return store_choice(c, o, text, to);
    case OPT_TEXT:
        if (!*text) {
            cli_misused(c->name, "--%s: the value is empty", o->name);
            return false;
        }
        /* fall through */
    case OPT_ANY:
        *(const char **)to = text;
        return true;
    case OPT_FLAG:
        *(bool *)to = true;
        return true;
    case OPT_LIST:
        return store_in_list(c, o, text, to);
    }
    return false;
}

/* ---- Parsing ---- */

typedef struct parse_state {
    const cli_command *command;
    int argc, at; /* at: the argument being read */
    char **argv;
    void *target;
    bool *seen; /* [n_options] */
    bool help, has_operand;
} parse_state;

static const opt_spec *find_long(const cli_command *c, const char *name, size_t n_bytes) {
    for (size_t i = 0; i < c->n_options; i++) {
        if (strlen(c->options[i].name) == n_bytes && !memcmp(c->options[i].name, name, n_bytes)) {
            return &c->options[i];
        }
    }
    return NULL;
}

static const opt_spec *find_letter(const cli_command *c, char letter) {
    for (size_t i = 0; i < c->n_options; i++) {
        if (c->options[i].letter == letter) {
            return &c->options[i];
        }
    }
    return NULL;
}

/* Stores an option with the value that stands in its own argument (inline_value) or the next. */
static bool take_option(parse_state *p, const opt_spec *o, const char *inline_value) {
    p->seen[o - p->command->options] = true;
    if (o->kind == OPT_FLAG) {
        if (inline_value) {
            cli_misused(p->command->name, "--%s takes no value", o->name);
            return false;
        }
        return store_value(p->command, o, "", p->target);
    }
    const char *value = inline_value;
    if (!value) {
        /* a value that looks like an option is more likely a forgotten value */
        if (p->at + 1 >= p->argc || !strncmp(p->argv[p->at + 1], "--", 2)) {
            cli_misused(p->command->name, "--%s needs a value: --%s %s", o->name, o->name,
                        o->value);
            return false;
        }
        value = p->argv[++p->at];
    }
    return store_value(p->command, o, value, p->target);
}

static bool take_long(parse_state *p, const char *name) {
    size_t n_name = strcspn(name, "=");
    const opt_spec *o = find_long(p->command, name, n_name);
    if (o) {
        return take_option(p, o, name[n_name] ? name + n_name + 1 : NULL);
    }
    char typed[NAME_BYTES];
    snprintf(typed, sizeof typed, "%.*s", (int)(n_name < NAME_BYTES ? n_name : NAME_BYTES), name);
    const char *nearest =
        opt_nearest(typed, option_name_at, p->command->options, p->command->n_options);
    if (!nearest && edit_distance(typed, "help") == 1) {
        nearest = "help";
    }
    if (nearest) {
        cli_misused(p->command->name, "unknown option --%s; did you mean --%s?", typed, nearest);
    } else {
        cli_misused(p->command->name, "unknown option --%s; 'jang %s --help' lists them", typed,
                    p->command->name);
    }
    return false;
}

/* One argument of letters: flags may stand together, the first option with a value takes the rest.
 */
static bool take_letters(parse_state *p, const char *letters) {
    for (size_t i = 0; letters[i]; i++) {
        if (letters[i] == 'h') {
            p->help = true;
            return true;
        }
        const opt_spec *o = find_letter(p->command, letters[i]);
        if (!o) {
            cli_misused(p->command->name, "unknown option -%c; 'jang %s --help' lists them",
                        letters[i], p->command->name);
            return false;
        }
        if (o->kind != OPT_FLAG) {
            return take_option(p, o, letters[i + 1] ? letters + i + 1 : NULL);
        }
        if (!take_option(p, o, NULL)) {
            return false;
        }
    }
    return true;
}

static bool take_operand(parse_state *p, const char *text) {
    if (!p->command->operand) {
        cli_misused(p->command->name, "unexpected argument '%s'; 'jang %s --help' tells how", text,
                    p->command->name);
        return false;
    }
    void *to = (char *)p->target + p->command->operand_target;
    if (p->command->many_operands) {
        p->has_operand = true;
        return add_to_list(p->command, p->command->operand, text, to);
    }
    if (p->has_operand) {
        cli_misused(p->command->name, "unexpected argument '%s': one %s is enough", text,
                    p->command->operand);
        return false;
    }
    if (!*text) {
        cli_misused(p->command->name, "%s is empty", p->command->operand);
        return false;
    }
    p->has_operand = true;
    *(const char **)to = text;
    return true;
}

static bool take_all(parse_state *p) {
    bool options_ended = false;
    for (p->at = 0; p->at < p->argc && !p->help; p->at++) {
        const char *argument = p->argv[p->at];
        bool ok = true;
        if (options_ended || argument[0] != '-' || !argument[1]) {
            ok = take_operand(p, argument);
        } else if (!strcmp(argument, "--")) {
            options_ended = true;
        } else if (!strcmp(argument, "--help")) {
            p->help = true;
        } else if (argument[1] == '-') {
            ok = take_long(p, argument + 2);
        } else {
            ok = take_letters(p, argument + 1);
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

static bool check_required(const parse_state *p) {
    const cli_command *c = p->command;
    if (c->operand && !p->has_operand) {
        cli_misused(c->name, "%s is missing; 'jang %s --help' tells how", c->operand, c->name);
        return false;
    }
    for (size_t i = 0; i < c->n_options; i++) {
        if (c->options[i].required && !p->seen[i]) {
            cli_misused(c->name, "--%s %s is missing; 'jang %s --help' tells how",
                        c->options[i].name, c->options[i].value, c->name);
            return false;
        }
    }
    return true;
}

opt_result opt_parse(const cli_command *command, int argc, char **argv, void *target) {
    parse_state p = {.command = command, .argc = argc, .argv = argv, .target = target};
    p.seen = calloc(command->n_options + 1, sizeof *p.seen);
    if (!p.seen) {
        cli_failed("out of memory");
        return OPT_WRONG;
    }
    opt_result result = OPT_WRONG;
    if (take_all(&p)) {
        if (p.help) {
            opt_print_help(command, stdout);
            result = OPT_HELP;
        } else if (check_required(&p)) {
            result = OPT_RUN;
        }
    }
    free(p.seen);
    return result;
}

/* ---- Help ---- */

/* Prints words, broken at HELP_WIDTH, lines after the first indented to column. */
static void print_wrapped(FILE *to, const char *text, int column) {
    int at = column;
    while (*text) {
        size_t n = strcspn(text, " \n");
        if (at > column && at + 1 + (int)n > HELP_WIDTH) {
            fprintf(to, "\n%*s", column, "");
            at = column;
        } else if (at > column) {
            fputc(' ', to);
            at++;
        }
        fwrite(text, 1, n, to);
        at += (int)n;
        text += n;
        while (*text == '\n') {
            fprintf(to, "\n%*s", column, "");
            at = column;
            text++;
        }
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

/* Writes what the table knows of a value: " (1 to 256; default 5)". */
static void describe_value(const opt_spec *o, const void *defaults, char *out, size_t n_bytes) {
    const char *from = (const char *)defaults + o->target;
    char allowed[256] = "", given[64] = "";
    if (o->kind == OPT_CHOICE) {
        join_choices(o, allowed, sizeof allowed);
        int index = *(const int *)from;
        if (index >= 0) {
            snprintf(given, sizeof given, "default %s", o->choices[index]);
        }
    } else if (o->kind == OPT_INT) {
        if (o->max < INT32_MAX) {
            snprintf(allowed, sizeof allowed, "%" PRId64 " to %" PRId64, o->min, o->max);
        }
        int64_t value = *(const int64_t *)from;
        if (value >= o->min && value != 0 && !o->required) {
            snprintf(given, sizeof given, "default %" PRId64, value);
        }
    } else if (o->kind == OPT_REAL) {
        snprintf(allowed, sizeof allowed, "%" PRId64 " to %" PRId64, o->min, o->max);
        double value = *(const double *)from;
        if (value >= (double)o->min) {
            snprintf(given, sizeof given, "default %g", value);
        }
    } else if (o->kind == OPT_TEXT && *(const char *const *)from) {
        snprintf(given, sizeof given, "default %s", *(const char *const *)from);
    }
    const char *comma = *allowed && *given ? "; " : "";
    snprintf(out, n_bytes, *allowed || *given ? " (%s%s%s)" : "%s%s%s", allowed, comma, given);
}

static void print_option(const opt_spec *o, const void *defaults, FILE *to) {
    char left[96], right[1024], value[400];
    snprintf(left, sizeof left, "  %s%.1s%s--%s%s%s", o->letter ? "-" : "  ", &o->letter,
             o->letter ? ", " : "  ", o->name, o->value ? " " : "", o->value ? o->value : "");
    describe_value(o, defaults, value, sizeof value);
    snprintf(right, sizeof right, "%s%s", o->help, value);
    fputs(left, to);
    int column = (int)strlen(left);
    if (column + 2 > HELP_COLUMN) {
        fputc('\n', to);
        column = 0;
    }
    fprintf(to, "%*s", HELP_COLUMN - column, "");
    print_wrapped(to, right, HELP_COLUMN);
}

/* "Profiles:" and the names, comma-separated, on as many lines as they need. */
static void print_names(const cli_command *c, FILE *to) {
    fprintf(to, "\n%s:\n ", c->names_title);
    int at = 1;
    for (const char *const *name = c->names(); *name; name++) {
        int n = (int)strlen(*name) + 2;
        if (at + n > HELP_WIDTH) {
            fputs("\n ", to);
            at = 1;
        }
        at += n;
        fprintf(to, " %s%s", *name, name[1] ? "," : "\n");
    }
}

void opt_print_help(const cli_command *c, FILE *to) {
    fprintf(to, "jang %s - %s\n\nUsage: jang %s", c->name, c->summary, c->name);
    if (c->operand) {
        fprintf(to, c->many_operands ? " %s..." : " %s", c->operand);
    }
    bool has_optional = false;
    for (size_t i = 0; i < c->n_options; i++) {
        if (c->options[i].required) {
            fprintf(to, " --%s %s", c->options[i].name, c->options[i].value);
        } else {
            has_optional = true;
        }
    }
    fputs(has_optional ? " [OPTIONS]\n\n" : "\n\n", to);
    if (c->details) {
        print_wrapped(to, c->details, 0);
        fputc('\n', to);
    }
    fputs("Options:\n", to);
    for (size_t i = 0; i < c->n_options; i++) {
        print_option(&c->options[i], c->defaults, to);
    }
    print_option(&(opt_spec){.name = "help", .letter = 'h', .help = "Print this and exit."}, NULL,
                 to);
    if (c->names_title) {
        print_names(c, to);
    }
    fprintf(to, "\nExample:\n%s", c->example);
}
