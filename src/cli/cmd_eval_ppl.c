/* cmd_eval_ppl.c - jang eval ppl: perplexity of models on texts. */
#include "command.h"
#include "eval_measure.h"
#include "open_model.h"
#include "terminal.h"

typedef struct ppl_arguments {
    text_list models, texts;
    int64_t context, max_tokens, n_threads;
    bool exact, json;
    int kv_type;
} ppl_arguments;

static const ppl_arguments ppl_defaults = {.context = 512};

static const opt_spec ppl_options[] = {
    EVAL_TEXT_OPTIONS(ppl_arguments), EVAL_EXACT_OPTION(ppl_arguments),
    KV_TYPE_OPTION(ppl_arguments),    EVAL_JSON_OPTION(ppl_arguments),
    THREADS_OPTION(ppl_arguments),
};

static int ppl_run(const void *arguments) {
    const ppl_arguments *a = arguments;
    const eval_measure_options options = {
        .models = &a->models,
        .texts = &a->texts,
        .context = a->context,
        .max_tokens = a->max_tokens,
        .n_threads = a->n_threads,
        .exact = a->exact,
        .kv_type = kv_types[a->kv_type],
    };
    return measure_command(&options, a->json);
}

const cli_command cmd_eval_ppl = {
    .name = "eval ppl",
    .summary = "perplexity of models on texts",
    .operand = "MODEL",
    .operand_target = offsetof(ppl_arguments, models),
    .many_operands = true,
    .details = "Each token of a window but the first is predicted from those before it. The figure "
               "behind +- is one standard error, windows taken as independent of each other.",
    .example = "  jang eval ppl smol-4m smol-2s --text notes.txt --text chats.jsonl\n",
    .options = ppl_options,
    .n_options = sizeof ppl_options / sizeof ppl_options[0],
    .defaults = &ppl_defaults,
    .n_default_bytes = sizeof ppl_defaults,
    .run = ppl_run,
};
