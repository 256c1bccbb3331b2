/* cmd_eval_kl.c - jang eval kl: how far models are from a reference, token by token. */
#include "command.h"
#include "eval_measure.h"
#include "open_model.h"
#include "terminal.h"

typedef struct kl_arguments {
    text_list models, texts;
    const char *reference, *reference_logits, *save_reference;
    int64_t context, max_tokens, n_threads;
    bool exact, json;
    int kv_type;
} kl_arguments;

static const kl_arguments kl_defaults = {.context = 512};

static const opt_spec kl_options[] = {
    {.name = "reference",
     .kind = OPT_TEXT,
     .value = "MODEL",
     .target = offsetof(kl_arguments, reference),
     .help = "The model to compare with, mostly the unquantized one."},
    {.name = "reference-logits",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(kl_arguments, reference_logits),
     .help = "Its logits as --save-reference stored them, instead of the model."},
    {.name = "save-reference",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(kl_arguments, save_reference),
     .help = "Store the reference's logits, 2 bytes for each token and vocabulary entry."},
    EVAL_TEXT_OPTIONS(kl_arguments),
    EVAL_EXACT_OPTION(kl_arguments),
    KV_TYPE_OPTION(kl_arguments),
    EVAL_JSON_OPTION(kl_arguments),
    THREADS_OPTION(kl_arguments),
};

static int kl_run(const void *arguments) {
    const kl_arguments *a = arguments;
    if (!a->reference == !a->reference_logits) {
        return cli_misused("eval kl", a->reference
                                          ? "--reference and --reference-logits exclude each other"
                                          : "--reference MODEL or --reference-logits FILE is "
                                            "missing");
    }
    if (a->save_reference && !a->reference) {
        return cli_misused("eval kl", "--save-reference needs --reference");
    }
    const eval_measure_options options = {
        .models = &a->models,
        .texts = &a->texts,
        .reference = a->reference,
        .reference_logits = a->reference_logits,
        .save_reference = a->save_reference,
        .context = a->context,
        .max_tokens = a->max_tokens,
        .n_threads = a->n_threads,
        .exact = a->exact,
        .kv_type = kv_types[a->kv_type],
    };
    return measure_command(&options, a->json);
}

const cli_command cmd_eval_kl = {
    .name = "eval kl",
    .summary = "how far models are from a reference, token by token",
    .operand = "MODEL",
    .operand_target = offsetof(kl_arguments, models),
    .many_operands = true,
    .details =
        "KL is the divergence of the model's distribution over the next token from the "
        "reference's, in nats, at every token of the texts; same top counts the tokens after "
        "which both hold the same successor likeliest. The figure behind +- is one standard "
        "error, windows taken as independent of each other.",
    .example = "  jang eval kl smol-4m smol-2s --reference smol-bf16 --text notes.txt\n"
               "  jang eval kl smol-4m --reference smol-bf16 --text notes.txt --save-reference "
               "notes.logits\n"
               "  jang eval kl smol-2s --reference-logits notes.logits --text notes.txt\n",
    .options = kl_options,
    .n_options = sizeof kl_options / sizeof kl_options[0],
    .defaults = &kl_defaults,
    .n_default_bytes = sizeof kl_defaults,
    .run = kl_run,
};
