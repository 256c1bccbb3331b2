/* cmd_upgrade.c - jang upgrade: a model of today's format from a legacy JANG v1 one. */
#include "command.h"
#include "conversion.h"
#include "open_model.h"

typedef struct upgrade_arguments {
    const char *model, *output;
    int64_t n_threads;
    bool force;
} upgrade_arguments;

static const upgrade_arguments upgrade_defaults = {0};

static const opt_spec upgrade_options[] = {
    OUTPUT_OPTION(upgrade_arguments, true),
    FORCE_OPTION(upgrade_arguments),
    THREADS_OPTION(upgrade_arguments),
};

static int upgrade_run(const void *arguments) {
    const upgrade_arguments *a = arguments;
    jang_context *ctx = open_context(a->n_threads);
    if (!ctx) {
        return CLI_FAILED;
    }
    jang_convert_options o = jang_convert_options_default();
    o.source = a->model;
    o.output = a->output;
    o.force = a->force;
    o.keep_codes = true;
    int code = conversion_run("upgrade", ctx, &o);
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_upgrade = {
    .name = "upgrade",
    .summary = "make a model of today's format from a legacy JANG v1 one",
    .operand = "MODEL",
    .operand_target = offsetof(upgrade_arguments, model),
    .details =
        "Codes, scales and biases are taken over as they are; tensors get the names and shapes "
        "that MLX's programs know.",
    .example = "  jang upgrade Qwen2.5-3B-JANG_2S --output Qwen2.5-3B-JANG_2S-v2\n",
    .options = upgrade_options,
    .n_options = sizeof upgrade_options / sizeof upgrade_options[0],
    .defaults = &upgrade_defaults,
    .n_default_bytes = sizeof upgrade_defaults,
    .run = upgrade_run,
};
