/* cmd_convert.c - jang convert: a model in, a quantized model and the table of its plan out. */
#include "command.h"
#include "conversion.h"
#include "jang.h"
#include "open_model.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct convert_arguments {
    const char *model, *profile, *output;
    int64_t bits;
    double budget;
    const char *size, *overrides, *memory;
    double minutes;
    int group_size, method; /* indexes into the choices; -1: not given */
    int64_t n_threads;
    bool plan_only, force, resume, keep_codes;
    const char *calibration;
    int64_t calibration_tokens, tune_steps, gradient_tokens;
} convert_arguments;

static const convert_arguments convert_defaults = {
    .group_size = -1, .calibration_tokens = 32768, .tune_steps = -1, .gradient_tokens = -1};

static const char *const group_size_names[] = {"32", "64", "128", NULL};
static const int group_sizes[] = {32, 64, 128};
static const char *const method_names[] = {"mse",      "rtn",  "gptq", "awq",
                                           "awq+gptq", "best", "auto", NULL};

static const opt_spec convert_options[] = {
    {.name = "model",
     .letter = 'm',
     .kind = OPT_TEXT,
     .required = true,
     .value = "SOURCE",
     .target = offsetof(convert_arguments, model),
     .help = "What to convert: a Hugging Face or MLX directory, a .jang or a GGUF file."},
    {.name = "profile",
     .letter = 'p',
     .kind = OPT_TEXT,
     .value = "NAME",
     .target = offsetof(convert_arguments, profile),
     .help = "Bits for each kind of tensor, by name (list below)."},
    {.name = "bits",
     .letter = 'b',
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(convert_arguments, bits),
     .min = 2,
     .max = 8,
     .help = "The same width for every quantized tensor, instead of a profile; not 7."},
    {.name = "budget",
     .kind = OPT_REAL,
     .value = "BITS",
     .target = offsetof(convert_arguments, budget),
     .min = 2,
     .max = 8,
     .help = "Nominal bits on average, instead of a profile: each matrix gets the width that by "
             "measured errors serves the whole best."},
    {.name = "size",
     .kind = OPT_TEXT,
     .value = "SIZE",
     .target = offsetof(convert_arguments, size),
     .help = "The same for all weights' bytes: 4.0GB, 90MB, 2.5GiB. Group sizes are chosen too. "
             "JANG_4K (JANG_3.5K, ..) is the size that 4 bits everywhere take."},
    {.name = "overrides",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(convert_arguments, overrides),
     .help = "JSON of modules ('*' is any text) and what they get, whatever the profile: "
             "{\"*.down_proj\": 4, \"lm_head\": {\"bits\": 8, \"group_size\": 32}, "
             "\"model.layers.0.*\": false}."},
    {.name = "keep-codes",
     .kind = OPT_FLAG,
     .target = offsetof(convert_arguments, keep_codes),
     .help =
         "Matrices of AWQ, GPTQ, MLX and JANG models keep their codes, exactly. Others get what "
         "the profile says; without one they stay as they are."},
    OUTPUT_OPTION(convert_arguments, false),
    {.name = "method",
     .kind = OPT_CHOICE,
     .value = "NAME",
     .target = offsetof(convert_arguments, method),
     .choices = method_names,
     .help = "How codes are found: mse fits each group's grid (the default), rtn rounds to the "
             "nearest as MLX does, gptq makes up for errors by what it sees on calibration text, "
             "awq scales inputs that matter, awq+gptq does both, best is gptq with gradients and "
             "tuning, ten times as long, and auto takes the best of these that --time and "
             "--memory allow, and says which."},
    {.name = "time",
     .kind = OPT_REAL,
     .value = "MINUTES",
     .target = offsetof(convert_arguments, minutes),
     .min = 0,
     .max = 1000000,
     .help = "With auto: the time it may take, as far as can be estimated; an hour without it."},
    {.name = "memory",
     .kind = OPT_TEXT,
     .value = "SIZE",
     .target = offsetof(convert_arguments, memory),
     .help = "With auto: the memory likewise (3GB); without it what the machine has to spare."},
    {.name = "calibration",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(convert_arguments, calibration),
     .help =
         "Text, or .jsonl of {\"messages\": [...]} or {\"text\": ...}, that the model is run on. "
         "mse then weighs errors by their inputs; gptq, awq, and mse at 2 bits have a built-in "
         "text without it."},
    {.name = "calibration-tokens",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(convert_arguments, calibration_tokens),
     .min = 512,
     .max = 1 << 24,
     .help = "Tokens of it to use, at most."},
    {.name = "gradient-tokens",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(convert_arguments, gradient_tokens),
     .min = 0,
     .max = 1 << 24,
     .help = "With gptq: find what an error of each output does to the answers, by going back "
             "through the whole model from so many tokens, so that rows make up for each other's "
             "errors; several times the calibration's tokens are worth it. 0: not. Without it best "
             "takes four times as many, others none."},
    {.name = "tune",
     .kind = OPT_INT,
     .value = "STEPS",
     .target = offsetof(convert_arguments, tune_steps),
     .min = 0,
     .max = 100000,
     .help = "Then tune codes and scales together, by the gradient of the whole model's divergence "
             "from the original; 0: not. Without it best takes two for each 512 tokens, at most "
             "1024, others none."},
    {.name = "resume",
     .kind = OPT_FLAG,
     .target = offsetof(convert_arguments, resume),
     .help = "Keep what gptq or awq has finished in DIR.work, and go on from what is there."},
    {.name = "group-size",
     .kind = OPT_CHOICE,
     .value = "N",
     .target = offsetof(convert_arguments, group_size),
     .choices = group_size_names,
     .help =
         "Weights that share a scale and a bias. Without it 64, or 32 where 64 divides no row."},
    THREADS_OPTION(convert_arguments),
    {.name = "plan",
     .kind = OPT_FLAG,
     .target = offsetof(convert_arguments, plan_only),
     .help = "Print the plan and write nothing."},
    FORCE_OPTION(convert_arguments),
};

/* ---- Converting ---- */

/* Reads "4.0GB"; 0: it is no size. Units are powers of 1000, with an i of 1024. */
static uint64_t read_size(const char *text) {
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"B", 1},     {"kB", 1e3},     {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char *end;
    double n = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        double bytes = n * units[i].bytes;
        if (strcmp(end, units[i].name) == 0 && bytes >= 1 && bytes < 0x1p62) {
            return (uint64_t)bytes;
        }
    }
    return 0;
}

static int check_arguments(const convert_arguments *a) {
    int n = (a->profile != NULL) + (a->bits != 0) + (a->budget != 0) + (a->size != NULL);
    if (n == 0 && !a->keep_codes) {
        return cli_misused("convert",
                           "--profile NAME or --bits N (or --budget or --size) is missing");
    }
    if (n > 1) {
        return cli_misused("convert", "--profile, --bits, --budget and --size exclude each other");
    }
    if (a->size && !read_size(a->size)) {
        return cli_misused("convert",
                           "--size %s: must be a number with a unit: 4.0GB, 90MB, 2.5GiB", a->size);
    }
    if (a->memory && !read_size(a->memory)) {
        return cli_misused(
            "convert", "--memory %s: must be a number with a unit: 3GB, 900MB, 2.5GiB", a->memory);
    }
    if (a->bits == 7) {
        return cli_misused("convert", "--bits 7: must be one of 2, 3, 4, 5, 6, 8");
    }
    if (!a->output && !a->plan_only) {
        return cli_misused("convert", "--output DIR is missing (or --plan, which writes nothing)");
    }
    return CLI_DONE;
}

static int convert_with(jang_context *ctx, const convert_arguments *a) {
    jang_convert_options o = jang_convert_options_default();
    o.source = a->model;
    o.output = a->output;
    o.profile = a->profile;
    o.bits = (int)a->bits;
    o.budget = a->budget;
    o.size = a->size ? read_size(a->size) : 0;
    o.overrides = a->overrides;
    o.keep_codes = a->keep_codes;
    o.group_size = a->group_size >= 0 ? group_sizes[a->group_size] : 0;
    o.method = method_names[a->method];
    o.time_limit = a->minutes * 60;
    o.memory_limit = a->memory ? read_size(a->memory) : 0;
    o.calibration = a->calibration;
    o.calibration_tokens = a->calibration_tokens;
    o.tune_steps = (int32_t)a->tune_steps;
    o.gradient_tokens = a->gradient_tokens;
    o.resume = a->resume;
    o.force = a->force;
    o.plan_only = a->plan_only;
    return conversion_run("convert", ctx, &o);
}

static int convert_run(const void *arguments) {
    const convert_arguments *a = arguments;
    int code = check_arguments(a);
    if (code != CLI_DONE) {
        return code;
    }
    jang_context *ctx = open_context(a->n_threads);
    if (!ctx) {
        return CLI_FAILED;
    }
    code = convert_with(ctx, a);
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_convert = {
    .name = "convert",
    .summary = "make a quantized model from a Hugging Face, MLX or GGUF model",
    .details = "Prints the plan as a table: role, tier, bits, tensors, parameters, bytes. Ctrl-C "
               "stops and leaves nothing behind.",
    .names_title = "Profiles",
    .names = jang_profile_names,
    .example = "  jang convert --model SmolLM2-135M-Instruct --profile JANG_4M --output smol-4m\n"
               "  jang convert --model model.gguf --bits 4 --plan\n",
    .options = convert_options,
    .n_options = sizeof convert_options / sizeof convert_options[0],
    .defaults = &convert_defaults,
    .n_default_bytes = sizeof convert_defaults,
    .run = convert_run,
};
