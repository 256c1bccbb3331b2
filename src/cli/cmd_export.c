/* cmd_export.c - jang export: a model in a form that other programs read. */
#include "command.h"
#include "conversion.h"
#include "interrupt.h"
#include "open_model.h"
#include "plan_view.h"
#include "progress_bar.h"
#include "terminal.h"
#include "text_table.h"

#include <jansson.h>

typedef struct export_arguments {
    const char *model, *output;
    int64_t n_threads;
    int format, type; /* indexes into the choices */
    bool force;
} export_arguments;

static const char *const format_names[] = {"hf", "gguf", "awq", NULL};
static const char *const type_names[] = {"f32", "f16", "bf16", "exact", "small", NULL};
static const export_arguments export_defaults = {.type = -1};

static const opt_spec export_options[] = {
    {.name = "format",
     .kind = OPT_CHOICE,
     .required = true,
     .value = "NAME",
     .target = offsetof(export_arguments, format),
     .choices = format_names,
     .help = "hf: safetensors without quantization, for transformers. gguf: one file for llama.cpp "
             "and its kin. awq: AutoAWQ's form, of a model of 4 bits, for vLLM and its kin."},
    {.name = "type",
     .kind = OPT_CHOICE,
     .value = "TYPE",
     .target = offsetof(export_arguments, type),
     .choices = type_names,
     .help = "Of hf: floating type of all tensors (default f16). Of gguf: exact (the default), the "
             "same numbers wherever GGUF can say them; or small, the smallest type whose rounding "
             "is little beside that of the model's own codes."},
    {.name = "output",
     .letter = 'o',
     .kind = OPT_TEXT,
     .required = true,
     .value = "PATH",
     .target = offsetof(export_arguments, output),
     .help = "Directory to make, or the file of gguf. It appears whole or not at all."},
    {.name = "force",
     .letter = 'f',
     .kind = OPT_FLAG,
     .target = offsetof(export_arguments, force),
     .help = "Replace an output that is there."},
    THREADS_OPTION(export_arguments),
};

/* ---- What became of the tensors ---- */

static double number_of(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static const char *string_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static void print_report(const json_t *report) {
    static const char *const titles[] = {"from",        "to",     ">tensors", ">exact",
                                         ">parameters", ">bytes", ">error",   NULL};
    text_table table;
    table_init(&table, titles);
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(report, "rows"), i, item) {
        table_row *row = table_add(&table);
        table_set(row, 0, "%s", string_of(item, "from"));
        table_set(row, 1, "%s", string_of(item, "to"));
        table_set(row, 2, "%.0f", number_of(item, "tensors"));
        table_set(row, 3, "%.0f", number_of(item, "exact"));
        table_set(row, 4, "%.0f", number_of(item, "params"));
        table_set(row, 5, "%s", human_bytes(number_of(item, "bytes")).text);
        table_set(row, 6, "%.3g%%", 100 * number_of(item, "error"));
    }
    table_print(&table, stdout);
    table_free(&table);
    notes_print(json_object_get(report, "notes"));
    printf("%s: %.2f true bits per weight, %s\n", string_of(report, "format"),
           number_of(report, "true_bits"), human_bytes(number_of(report, "weight_bytes")).text);
}

static int show(const char *text) {
    json_error_t error;
    json_t *report = json_loads(text, 0, &error);
    if (!report) {
        return cli_failed("the report is not JSON: %s", error.text);
    }
    if (json_object_get(report, "format")) {
        print_report(report);
    } else {
        plan_print(report);
    }
    json_decref(report);
    return CLI_DONE;
}

static int export_run(const void *arguments) {
    const export_arguments *a = arguments;
    jang_context *ctx = open_context(a->n_threads);
    if (!ctx) {
        return CLI_FAILED;
    }
    conversion_watch watch;
    jang_export_options o = {.source = a->model,
                             .format = format_names[a->format],
                             .output = a->output,
                             .type = a->type >= 0 ? type_names[a->type] : NULL,
                             .force = a->force,
                             .on_progress = conversion_progress,
                             .user = &watch};
    conversion_begin(&watch);
    char *report = NULL;
    jang_status status = jang_export(&report, ctx, &o);
    int code = conversion_end(&watch, "export", ctx, status, a->output, a->force);
    if (status == JANG_OK) {
        code = show(report);
        jang_free(ctx, report);
        conversion_wrote(&watch, a->output);
    }
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_export = {
    .name = "export",
    .summary = "make a model that other programs read",
    .operand = "MODEL",
    .operand_target = offsetof(export_arguments, model),
    .details =
        "hf: every weight becomes code * scale + bias, rounded to the type. Tensors have the "
        "hub's names and layouts; a note says where that cannot be.\n\n"
        "gguf: codes of up to 4 bits become Q4_1 and of 5 bits Q5_1, with the same codes, scales "
        "and biases: exactly, where those are f16 numbers. Codes of 6 and 8 bits are rounded to "
        "Q8_0. --type small uses the K types as well, of 2.6 to 6.6 bits. "
        "The table says how many tensors are exact, and how far the others are off.\n\n"
        "awq: matrices of layers keep their 4 bits, with zeros that are codes; all else is F16.",
    .example = "  jang export smol-4m --format gguf --output smol-4m.gguf\n"
               "  jang export smol-4m --format hf --type f32 --output smol-4m-hf\n",
    .options = export_options,
    .n_options = sizeof export_options / sizeof export_options[0],
    .defaults = &export_defaults,
    .n_default_bytes = sizeof export_defaults,
    .run = export_run,
};
