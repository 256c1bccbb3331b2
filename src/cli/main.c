/* main.c - the jang program: the table of commands, and the way from an argument list to one of
 * them. It sees nothing of the library but jang.h. */
#include "command.h"
#include "jang.h"
#include "line_editor.h"
#include "open_model.h"
#include "server/serve.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const cli_command *const commands[] = {
    &cmd_convert, &cmd_run,       &cmd_inspect,       &cmd_eval_ppl,     &cmd_eval_kl,
    &cmd_eval_mc, &cmd_eval_code, &cmd_eval_generate, &cmd_eval_compare, &cmd_bench,
    &cmd_upgrade, &cmd_export,    &cmd_logits,        &cmd_tokenize,     &cmd_template,
    &cmd_parse,   &cmd_embed,
#ifdef JANG_HAVE_SERVER
    &cmd_serve,
#endif
};
#define NAME_BYTES 128
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static const char *command_name_at(const void *table, size_t i) {
    return ((const cli_command *const *)table)[i]->name;
}

static const cli_command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (!strcmp(commands[i]->name, name)) {
            return commands[i];
        }
    }
    return NULL;
}

/* Whether some command is "GROUP something". */
static bool is_group(const char *group) {
    size_t n = strlen(group);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (!strncmp(commands[i]->name, group, n) && commands[i]->name[n] == ' ') {
            return true;
        }
    }
    return false;
}

/* The name that argv begins with, of one word or two; *n_words takes how many it used. */
static const char *command_name(char *out, size_t n_bytes, int argc, char **argv, int *n_words) {
    bool two = argc > 1 && is_group(argv[0]);
    *n_words = two ? 2 : 1;
    snprintf(out, n_bytes, two ? "%s %s" : "%s", argv[0], two ? argv[1] : "");
    return out;
}

static void print_group(const char *group) {
    printf("Usage: jang %s COMMAND [OPTIONS]\n\nCommands:\n", group);
    size_t n = strlen(group);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (!strncmp(commands[i]->name, group, n) && commands[i]->name[n] == ' ') {
            printf("  %-14s %s\n", commands[i]->name, commands[i]->summary);
        }
    }
    printf("\n'jang %s COMMAND --help' tells about a command.\n", group);
}

static int unknown_command(const char *name) {
    const char *nearest = opt_nearest(name, command_name_at, commands, N_COMMANDS);
    if (nearest) {
        return cli_misused(NULL, "unknown command '%s'; did you mean '%s'?", name, nearest);
    }
    return cli_misused(NULL, "unknown command '%s'; 'jang --help' lists them", name);
}

static int print_overview(void) {
    puts("jang " JANG_VERSION " - converts language models to mixed-precision quantized models and"
         " runs them\n\n"
         "Usage: jang COMMAND [OPTIONS]\n\n"
         "Commands:");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        printf("  %-14s %s\n", commands[i]->name, commands[i]->summary);
    }
    puts("\n'jang COMMAND --help' (or 'jang help COMMAND') tells about a command;\n"
         "'jang --version' prints version, instruction set, backends and libraries.\n"
         "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\n"
         "Example:\n"
         "  jang convert --model SmolLM2-135M-Instruct --profile JANG_4M --output smol-4m\n"
         "  jang run --model smol-4m");
    return CLI_DONE;
}

static int print_version(void) {
    printf("jang %s\n", jang_version());
    jang_context *ctx = open_context(0);
    if (!ctx) {
        return CLI_FAILED;
    }
    const char *info = jang_build_info(ctx);
    size_t n = strlen(info);
    print_text(stdout, info, n);
    if (n && info[n - 1] != '\n') {
        putchar('\n');
    }
    printf("line editing: %s\n", editor_version());
#ifdef JANG_HAVE_SERVER
    char libraries[96];
    serve_libraries(libraries, sizeof libraries);
    printf("server: %s\n", libraries);
#else
    puts("server: none");
#endif
    jang_context_free(ctx);
    return CLI_DONE;
}

static int run_command(const cli_command *command, int argc, char **argv) {
    void *arguments = malloc(command->n_default_bytes);
    if (!arguments) {
        return cli_failed("out of memory");
    }
    memcpy(arguments, command->defaults, command->n_default_bytes);
    int code = CLI_DONE;
    opt_result result = opt_parse(command, argc, argv, arguments);
    if (result == OPT_RUN) {
        code = command->run(arguments);
    } else if (result == OPT_WRONG) {
        code = CLI_MISUSED;
    }
    free(arguments);
    return code;
}

static int print_help_of(int argc, char **argv) {
    if (argc == 0) {
        return print_overview();
    }
    char name[NAME_BYTES];
    int n_words;
    const cli_command *command =
        find_command(command_name(name, sizeof name, argc, argv, &n_words));
    if (!command && is_group(name)) {
        print_group(name);
        return CLI_DONE;
    }
    if (!command) {
        return unknown_command(name);
    }
    opt_print_help(command, stdout);
    return CLI_DONE;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        return cli_misused(NULL, "no command; 'jang --help' lists them");
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
        return print_overview();
    }
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        return print_version();
    }
    if (!strcmp(name, "help")) {
        return print_help_of(argc - 2, argv + 2);
    }
    if (is_group(name) && argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
        print_group(name);
        return CLI_DONE;
    }
    if (is_group(name) && argc == 2) {
        return cli_misused(name, "no command; 'jang %s --help' lists them", name);
    }
    char full[NAME_BYTES];
    int n_words;
    const cli_command *command =
        find_command(command_name(full, sizeof full, argc - 1, argv + 1, &n_words));
    return command ? run_command(command, argc - 1 - n_words, argv + 1 + n_words)
                   : unknown_command(full);
}

/* Where one of the three standard streams is closed, the next file opened would take its place, and
 * messages would be written into it. The null device takes it instead; opened for reading, so that
 * output which cannot be written still fails. */
static void keep_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)!open("/dev/null", O_RDONLY);
        }
    }
}

int main(int argc, char **argv) {
    keep_standard_streams();
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error like a full disk, not a crash */
    setlocale(LC_CTYPE, "");  /* for line editing; numbers keep the C locale's point */
    int code = dispatch(argc, argv);
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && code == CLI_DONE) {
        code = cli_failed("cannot write to standard output%s%s", errno ? ": " : "",
                          errno ? strerror(errno) : "");
    }
    return code;
}
