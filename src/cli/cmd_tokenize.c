/* cmd_tokenize.c - jang tokenize: text to token ids and back, whole or line by line. */
#include "command.h"
#include "jang.h"
#include "open_model.h"
#include "read_input.h"
#include "terminal.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_arguments {
    const char *model;
    bool lines, decode, add_special, no_special;
} tokenize_arguments;

static const tokenize_arguments tokenize_defaults = {0};

static const opt_spec tokenize_options[] = {
    {.name = "model",
     .letter = 'm',
     .kind = OPT_TEXT,
     .required = true,
     .value = "MODEL",
     .target = offsetof(tokenize_arguments, model),
     .help = "Model directory, .jang or GGUF file; its weights are not read."},
    {.name = "lines",
     .kind = OPT_FLAG,
     .target = offsetof(tokenize_arguments, lines),
     .help = "One JSON string a line in, one JSON array of ids a line out."},
    {.name = "decode",
     .letter = 'd',
     .kind = OPT_FLAG,
     .target = offsetof(tokenize_arguments, decode),
     .help = "The other way round: ids in, text out."},
    {.name = "add-special",
     .kind = OPT_FLAG,
     .target = offsetof(tokenize_arguments, add_special),
     .help = "Add what the model's post-processor adds, such as begin-of-text."},
    {.name = "no-special",
     .kind = OPT_FLAG,
     .target = offsetof(tokenize_arguments, no_special),
     .help = "Take special tokens written in the text as plain text; with --decode, leave special "
             "tokens out."},
};

typedef struct tokenize_job {
    jang_context *ctx;
    jang_tokenizer *tok;
    unsigned flags;
} tokenize_job;

/* ---- One text ---- */

static int print_ids_of(const tokenize_job *job, const char *text, size_t n_bytes,
                        const char *before, const char *after) {
    int32_t *ids = NULL;
    size_t n_ids = 0;
    jang_status status = jang_tokenize(&ids, &n_ids, job->tok, text, n_bytes, job->flags);
    if (status != JANG_OK) {
        return library_failed(job->ctx, status);
    }
    fputs(before, stdout);
    for (size_t i = 0; i < n_ids; i++) {
        printf(i ? ",%" PRId32 : "%" PRId32, ids[i]);
    }
    fputs(after, stdout);
    jang_free(job->ctx, ids);
    return CLI_DONE;
}

/* Prints the text of ids, as it is or as a JSON string and a line feed. */
static int print_text_of(const tokenize_job *job, const id_list *list, bool as_json) {
    char *text = NULL;
    size_t n_bytes = 0;
    jang_status status = jang_detokenize(&text, &n_bytes, job->tok, list->ids, list->n, job->flags);
    if (status != JANG_OK) {
        return library_failed(job->ctx, status);
    }
    int code = CLI_DONE;
    if (as_json) {
        json_t *string = json_stringn(text, n_bytes);
        size_t flags = JSON_ENCODE_ANY | (is_terminal(stdout) ? JSON_ENSURE_ASCII : 0);
        if (!string || json_dumpf(string, stdout, flags)) {
            code = cli_failed("cannot write the text of %zu ids as JSON", list->n);
        }
        putchar('\n');
        json_decref(string);
    } else {
        print_text(stdout, text, n_bytes);
    }
    jang_free(job->ctx, text);
    return code;
}

static int tokenize_all(const tokenize_job *job, bool decode) {
    char *text = NULL;
    size_t n_bytes = 0;
    if (!read_whole(&text, &n_bytes, "-")) {
        return CLI_FAILED;
    }
    int code;
    char error[256];
    id_list list = {0};
    if (!decode) {
        code = print_ids_of(job, text, n_bytes, "", "\n");
    } else if (strlen(text) != n_bytes) {
        code = cli_failed("standard input: no list of ids: it has a 0 byte");
    } else if (!id_list_parse(&list, text, false, error, sizeof error)) {
        code = cli_failed("standard input: %s", error);
    } else {
        code = print_text_of(job, &list, false);
    }
    free(list.ids);
    free(text);
    return code;
}

/* ---- Line by line ---- */

static int decode_json(const tokenize_job *job, const json_t *array, size_t line_number) {
    id_list list = {0};
    int code = CLI_DONE;
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item) {
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX ||
            !id_list_add(&list, (int32_t)id)) {
            code = cli_failed("standard input, line %zu: item %zu is no token id", line_number, i);
            break;
        }
    }
    if (code == CLI_DONE) {
        code = print_text_of(job, &list, true);
    }
    free(list.ids);
    return code;
}

static int tokenize_line(const tokenize_job *job, bool decode, const char *line, size_t n_bytes,
                         size_t line_number) {
    json_error_t error;
    json_t *value = json_loadb(line, n_bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    int code;
    if (!value) {
        code = cli_failed("standard input, line %zu: not JSON: %s", line_number, error.text);
    } else if (decode && json_is_array(value)) {
        code = decode_json(job, value, line_number);
    } else if (!decode && json_is_string(value)) {
        code = print_ids_of(job, json_string_value(value), json_string_length(value), "[", "]\n");
    } else {
        code = cli_failed("standard input, line %zu: not a JSON %s", line_number,
                          decode ? "array of ids" : "string");
    }
    json_decref(value);
    return code;
}

static int tokenize_lines(const tokenize_job *job, bool decode) {
    setvbuf(stdout, NULL, _IOLBF, 1 << 16); /* a program at the other end may wait for its line */
    char *line = NULL;
    size_t capacity = 0;
    int code = CLI_DONE;
    ssize_t n;
    for (size_t number = 1; code == CLI_DONE && (n = getline(&line, &capacity, stdin)) >= 0;
         number++) {
        code = tokenize_line(job, decode, line, (size_t)n, number);
    }
    if (code == CLI_DONE && ferror(stdin)) {
        code = cli_failed("cannot read standard input: %s", strerror(errno));
    }
    free(line);
    return code;
}

static int tokenize_run(const void *arguments) {
    const tokenize_arguments *a = arguments;
    if (a->decode && a->add_special) {
        return cli_misused("tokenize", "--add-special has no meaning with --decode");
    }
    tokenize_job job = {.ctx = open_context(1)};
    if (a->decode) {
        job.flags = a->no_special ? JANG_TEXT_SKIP_SPECIAL : 0;
    } else {
        job.flags = (a->add_special ? JANG_TOKENIZE_ADD_SPECIAL : 0) |
                    (a->no_special ? JANG_TOKENIZE_NO_SPECIAL : 0);
    }
    int code = CLI_FAILED;
    if (job.ctx) {
        jang_status status = jang_tokenizer_open(&job.tok, job.ctx, a->model);
        if (status != JANG_OK) {
            code = library_failed(job.ctx, status);
        } else {
            code = a->lines ? tokenize_lines(&job, a->decode) : tokenize_all(&job, a->decode);
        }
    }
    jang_tokenizer_free(job.tok);
    jang_context_free(job.ctx);
    return code;
}

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token ids, or ids into text",
    .details = "Without --lines, standard input is one text, line feeds included, and the ids come "
               "out on one line, separated by commas.",
    .example = "  printf 'Hello world' | jang tokenize --model smol-4m\n"
               "  echo 19556,905 | jang tokenize --model smol-4m --decode\n"
               "  echo '\"Hello\\nworld\"' | jang tokenize --model smol-4m --lines\n",
    .options = tokenize_options,
    .n_options = sizeof tokenize_options / sizeof tokenize_options[0],
    .defaults = &tokenize_defaults,
    .n_default_bytes = sizeof tokenize_defaults,
    .run = tokenize_run,
};
