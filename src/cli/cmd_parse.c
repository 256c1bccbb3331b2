/* cmd_parse.c - jang parse: raw model text in, the assistant's message out. */
#include "command.h"
#include "jang.h"
#include "read_input.h"
#include "server/parse_text.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

typedef struct parse_arguments {
    const char *format, *reasoning, *tools, *input;
    int64_t chunk;
    bool open, forced;
} parse_arguments;

static const parse_arguments parse_defaults = {.format = "none", .reasoning = "none", .input = "-"};

static const opt_spec parse_options[] = {
    {.name = "format",
     .letter = 'f',
     .kind = OPT_TEXT,
     .value = "NAME",
     .target = offsetof(parse_arguments, format),
     .help = "How the model writes tool calls; docs/server.md lists the formats."},
    {.name = "reasoning",
     .letter = 'r',
     .kind = OPT_TEXT,
     .value = "NAME",
     .target = offsetof(parse_arguments, reasoning),
     .help = "How it marks its reasoning."},
    {.name = "tools",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(parse_arguments, tools),
     .help = "JSON array of the tools it was offered; calls of others stay text."},
    {.name = "chunk",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(parse_arguments, chunk),
     .max = INT32_MAX,
     .help = "Feed the text in pieces of N bytes; 0: all at once. The result is the same."},
    {.name = "open",
     .kind = OPT_FLAG,
     .target = offsetof(parse_arguments, open),
     .help = "The text begins inside reasoning, which the prompt has opened."},
    {.name = "forced",
     .kind = OPT_FLAG,
     .target = offsetof(parse_arguments, forced),
     .help = "Read it as text that a grammar held to the format: markers inside code count, and "
             "an unfinished call is passed on as far as it goes."},
    {.name = "input",
     .letter = 'i',
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(parse_arguments, input),
     .help = "The text; - is standard input."},
};

static int parse_run(const void *arguments) {
    const parse_arguments *a = arguments;
    parse_job job = {.format = a->format,
                     .reasoning = a->reasoning,
                     .chunk = (size_t)a->chunk,
                     .open = a->open,
                     .forced = a->forced};
    char *text = NULL, *tools = NULL, *message = NULL, error[512];
    int code = CLI_FAILED;
    if (!read_whole(&text, &job.n_text, a->input) ||
        (a->tools && !read_whole(&tools, &job.n_tools_json, a->tools))) {
        goto done;
    }
    job.text = text;
    job.tools_json = tools;
    message = parse_text(&job, error, sizeof error);
    if (!message) {
        code = cli_failed("%s", error);
        goto done;
    }
    print_text(stdout, message, strlen(message));
    fputc('\n', stdout);
    code = CLI_DONE;
done:
    free(text);
    free(tools);
    free(message);
    return code;
}

const cli_command cmd_parse = {
    .name = "parse",
    .summary = "take apart what a model wrote: reasoning, text, tool calls",
    .details =
        "Reads raw model text, special tokens included, and prints the assistant's message as "
        "JSON. It is the code that jang serve runs.",
    .example = "  jang parse --format hermes --reasoning think --tools tools.json < answer.txt\n",
    .options = parse_options,
    .n_options = sizeof parse_options / sizeof parse_options[0],
    .defaults = &parse_defaults,
    .n_default_bytes = sizeof parse_defaults,
    .run = parse_run,
};
