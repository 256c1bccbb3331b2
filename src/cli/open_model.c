/* open_model.c - the context and the model of a command, with the errors printed. */
#include "open_model.h"

#include "command.h"
#include "terminal.h"

#include <string.h>

const char *const kv_type_names[] = {"f32", "f16", "q8", "q5", "q4", NULL};
const jang_kv_type kv_types[] = {JANG_KV_F32, JANG_KV_F16, JANG_KV_Q8, JANG_KV_Q5, JANG_KV_Q4};

static void log_line(void *user, const char *line) {
    (void)user;
    cli_failed("%s", line);
}

jang_context *open_context(int64_t n_threads) {
    return open_context_on(n_threads, NULL);
}

jang_context *open_context_on(int64_t n_threads, const char *affinity) {
    jang_context_options options = jang_context_options_default();
    options.n_threads = (int)n_threads;
    options.affinity = affinity;
    options.log = log_line;
    jang_context *ctx = NULL;
    jang_status status = jang_context_new(&ctx, &options);
    if (status == JANG_ERR_UNSUPPORTED || (status == JANG_ERR_ARGUMENT && affinity)) {
        return NULL; /* log_line has printed the reason */
    }
    if (status != JANG_OK) {
        cli_failed("cannot start: %s", jang_status_name(status));
        return NULL;
    }
    return ctx;
}

jang_model *open_model(jang_context *ctx, const char *path, bool exact) {
    jang_model_options options = jang_model_options_default();
    options.exact = exact;
    return open_model_as(ctx, path, &options);
}

jang_model *open_model_as(jang_context *ctx, const char *path, const jang_model_options *options) {
    jang_model *model = NULL;
    jang_status status = jang_model_open(&model, ctx, path, options);
    if (status != JANG_OK) {
        library_failed(ctx, status);
        return NULL;
    }
    return model;
}

int library_failed(jang_context *ctx, jang_status status) {
    const char *message = jang_context_error(ctx);
    return cli_failed("%s", *message ? message : jang_status_name(status));
}

void print_model_line(const jang_model *model) {
    const jang_model_info *info = jang_model_get_info(model);
    char line[1024];
    int n =
        snprintf(line, sizeof line,
                 "%s: %s, %.2f nominal average bits, %.2f true bits per weight, %s, loaded in "
                 "%.2f s (%s)\n",
                 info->path, info->profile, info->nominal_bits, info->true_bits,
                 human_bytes((double)info->weight_bytes).text, info->load_seconds, info->backend);
    size_t n_bytes = n < (int)sizeof line ? (size_t)n : sizeof line - 1;
    print_text(stderr, line, n_bytes);
}
