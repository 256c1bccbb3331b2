/* cmd_export.c - jang export: a model in a form that other programs read. */
#include "command.h"
#include "conversion.h"
#include "open_model.h"

typedef struct export_arguments {
    const char *model, *output;
    int64_t n_threads;
    int format, type; /* indexes into the choices */
    bool force;
} export_arguments;

static const char *const format_names[] = {"hf", NULL};
static const char *const type_names[] = {"f32", "f16", "bf16", NULL};
static const export_arguments export_defaults = {.type = 1};

static const opt_spec export_options[] = {
    {.name = "format",
     .kind = OPT_CHOICE,
     .required = true,
     .value = "NAME",
     .target = offsetof(export_arguments, format),
     .choices = format_names,
     .help = "hf: safetensors without quantization, for transformers."},
    {.name = "type",
     .kind = OPT_CHOICE,
     .value = "TYPE",
     .target = offsetof(export_arguments, type),
     .choices = type_names,
     .help = "Floating type of all tensors."},
    OUTPUT_OPTION(export_arguments, true),
    FORCE_OPTION(export_arguments),
    THREADS_OPTION(export_arguments),
};

static int export_run(const void *arguments) {
    const export_arguments *a = arguments;
    jang_context *ctx = open_context(a->n_threads);
    if (!ctx) {
        return CLI_FAILED;
    }
    jang_convert_options o = jang_convert_options_default();
    o.source = a->model;
    o.output = a->output;
    o.force = a->force;
    o.profile = type_names[a->type];
    int code = conversion_run("export", ctx, &o);
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_export = {
    .name = "export",
    .summary = "make a model that other programs read",
    .operand = "MODEL",
    .operand_target = offsetof(export_arguments, model),
    .details =
        "Every weight becomes code * scale + bias, rounded to the type. Tensors have mlx-lm's "
        "names, which are the hub's own in families without experts or recurrent layers.",
    .example = "  jang export smol-4m --format hf --type f32 --output smol-4m-hf\n",
    .options = export_options,
    .n_options = sizeof export_options / sizeof export_options[0],
    .defaults = &export_defaults,
    .n_default_bytes = sizeof export_defaults,
    .run = export_run,
};
