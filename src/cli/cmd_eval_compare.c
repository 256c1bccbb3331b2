/* cmd_eval_compare.c - jang eval compare: models against a reference, as a page. */
#include "command.h"
#include "eval_answers.h"
#include "eval_measure.h"
#include "eval_report.h"
#include "interrupt.h"
#include "open_model.h"
#include "terminal.h"

typedef struct compare_arguments {
    text_list models, texts;
    const char *reference, *prompts, *report;
    int64_t context, max_tokens, n_max, n_threads;
    bool exact;
} compare_arguments;

static const compare_arguments compare_defaults = {.context = 512, .n_max = 120};

static const opt_spec compare_options[] = {
    {.name = "reference",
     .kind = OPT_TEXT,
     .required = true,
     .value = "MODEL",
     .target = offsetof(compare_arguments, reference),
     .help = "The model to compare with, mostly the unquantized one."},
    {.name = "report",
     .kind = OPT_TEXT,
     .required = true,
     .value = "DIR",
     .target = offsetof(compare_arguments, report),
     .help = "Directory for index.html and results.json; files of these names are replaced."},
    EVAL_TEXT_OPTIONS(compare_arguments),
    {.name = "prompts",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(compare_arguments, prompts),
     .help = "Prompts to be answered side by side, as for eval generate."},
    {.name = "max-answer",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(compare_arguments, n_max),
     .min = 1,
     .max = INT32_MAX,
     .help = "Most tokens of an answer."},
    EVAL_EXACT_OPTION(compare_arguments),
    THREADS_OPTION(compare_arguments),
};

/* Adds to each model of the results the list of its tensors. */
static bool add_tensors(json_t *models, jang_context *ctx) {
    size_t i;
    json_t *model;
    json_array_foreach(models, i, model) {
        char *text = NULL;
        size_t n_bytes = 0;
        jang_status status =
            jang_inspect(&text, &n_bytes, ctx, json_string_value(json_object_get(model, "model")));
        if (status != JANG_OK) {
            library_failed(ctx, status);
            return false;
        }
        json_t *description = json_loadb(text, n_bytes, JSON_ALLOW_NUL, NULL);
        json_object_set(model, "tensors", json_object_get(description, "tensors"));
        json_decref(description);
        jang_free(ctx, text);
    }
    return true;
}

static bool add_answers(json_t *results, jang_context *ctx, const compare_arguments *a) {
    if (!a->prompts) {
        return true;
    }
    json_t *prompts = prompts_read(a->prompts, 0);
    const answer_options options = {.n_max = (size_t)a->n_max, .sampling = {.top_p = 1}};
    text_list models = {.items = {a->reference}, .n = 1};
    for (size_t i = 0; i < a->models.n && models.n < TEXT_LIST_MAX; i++) {
        models.items[models.n++] = a->models.items[i];
    }
    json_t *answers = prompts ? answers_of(ctx, &models, prompts, a->exact, &options) : NULL;
    json_decref(prompts);
    return answers && json_object_set_new(results, "answers", answers) == 0;
}

static int compare_run(const void *arguments) {
    const compare_arguments *a = arguments;
    const eval_measure_options options = {
        .models = &a->models,
        .texts = &a->texts,
        .reference = a->reference,
        .context = a->context,
        .max_tokens = a->max_tokens,
        .n_threads = a->n_threads,
        .exact = a->exact,
    };
    interrupt_catch();
    eval_measure m;
    json_t *results = json_pack("{s:s}", "reference", a->reference);
    bool ok = measure_open(&m, &options) && measure_run(&m);
    json_t *models = ok ? measure_json(&m) : NULL;
    ok = models && json_object_set_new(results, "models", models) == 0 && measure_print(&m) &&
         add_tensors(models, m.ctx) && add_answers(results, m.ctx, a) &&
         report_write(a->report, results);
    json_decref(results);
    measure_close(&m);
    return ok ? CLI_DONE : CLI_FAILED;
}

const cli_command cmd_eval_compare = {
    .name = "eval compare",
    .summary = "models against a reference, as a web page with plots and answers",
    .operand = "MODEL",
    .operand_target = offsetof(compare_arguments, models),
    .many_operands = true,
    .details =
        "Measures as eval kl does, prints its table, and writes a page: figures, size "
        "against divergence with the Pareto line, bits of each matrix over layers and roles, "
        "answers side by side.",
    .example = "  jang eval compare smol-4m smol-2s --reference smol-bf16 --text notes.txt "
               "--prompts prompts.txt --report report\n",
    .options = compare_options,
    .n_options = sizeof compare_options / sizeof compare_options[0],
    .defaults = &compare_defaults,
    .n_default_bytes = sizeof compare_defaults,
    .run = compare_run,
};
