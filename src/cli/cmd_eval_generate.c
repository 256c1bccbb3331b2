/* cmd_eval_generate.c - jang eval generate: answers of several models side by side. */
#include "command.h"
#include "eval_answers.h"
#include "eval_measure.h"
#include "interrupt.h"
#include "open_model.h"
#include "terminal.h"

#include <string.h>

typedef struct generate_arguments {
    text_list models;
    const char *prompts;
    int64_t n_max, limit, seed, n_threads;
    double temp;
    bool raw, exact, json;
} generate_arguments;

static const generate_arguments generate_defaults = {.n_max = 200};

static const opt_spec generate_options[] = {
    {.name = "prompts",
     .kind = OPT_TEXT,
     .required = true,
     .value = "FILE",
     .target = offsetof(generate_arguments, prompts),
     .help =
         "A prompt on each line; a .jsonl file has {\"prompt\": ...} or {\"messages\": [...]}."},
    {.name = "max-tokens",
     .letter = 'n',
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(generate_arguments, n_max),
     .min = 1,
     .max = INT32_MAX,
     .help = "Most tokens of an answer."},
    {.name = "limit",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(generate_arguments, limit),
     .max = INT64_MAX,
     .help = "Only the first N prompts; 0: all."},
    {.name = "temp",
     .kind = OPT_REAL,
     .value = "T",
     .target = offsetof(generate_arguments, temp),
     .max = 100,
     .help = "Temperature; 0 always takes the likeliest token."},
    {.name = "seed",
     .kind = OPT_INT,
     .value = "S",
     .target = offsetof(generate_arguments, seed),
     .max = INT64_MAX,
     .help = "Seed of the draws."},
    {.name = "raw",
     .kind = OPT_FLAG,
     .target = offsetof(generate_arguments, raw),
     .help = "Continue the prompts as they are, without the model's chat template."},
    EVAL_EXACT_OPTION(generate_arguments),
    EVAL_JSON_OPTION(generate_arguments),
    THREADS_OPTION(generate_arguments),
};

static void print_value(const json_t *value) {
    print_text(stdout, json_string_value(value), json_string_length(value));
    putchar('\n');
}

static void print_answers(const json_t *all) {
    size_t i;
    json_t *row;
    json_array_foreach(all, i, row) {
        const json_t *prompt = json_object_get(row, "prompt");
        const json_t *text = json_object_get(prompt, "prompt");
        printf("%s== %zu ==\n", i ? "\n" : "", i + 1);
        if (text) {
            print_value(text);
        } else {
            json_dumpf(json_object_get(prompt, "messages"), stdout, 0);
            putchar('\n');
        }
        const char *model;
        json_t *answer;
        json_object_foreach(json_object_get(row, "answers"), model, answer) {
            printf("-- %s --\n", model);
            print_value(answer);
        }
    }
}

static int generate_run(const void *arguments) {
    const generate_arguments *a = arguments;
    interrupt_catch();
    jang_context *ctx = open_context(a->n_threads);
    json_t *prompts = ctx ? prompts_read(a->prompts, (size_t)a->limit) : NULL;
    const answer_options options = {
        .n_max = (size_t)a->n_max,
        .sampling = {.temperature = (float)a->temp, .top_p = 1, .seed = (uint64_t)a->seed},
        .raw = a->raw,
    };
    json_t *all = prompts ? answers_of(ctx, &a->models, prompts, a->exact, &options) : NULL;
    if (all && a->json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (all) {
        print_answers(all);
    }
    int code = all ? CLI_DONE : CLI_FAILED;
    json_decref(all);
    json_decref(prompts);
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_eval_generate = {
    .name = "eval generate",
    .summary = "answers of several models, side by side",
    .operand = "MODEL",
    .operand_target = offsetof(generate_arguments, models),
    .many_operands = true,
    .example = "  jang eval generate smol-4m smol-2s --prompts prompts.txt\n",
    .options = generate_options,
    .n_options = sizeof generate_options / sizeof generate_options[0],
    .defaults = &generate_defaults,
    .n_default_bytes = sizeof generate_defaults,
    .run = generate_run,
};
