/* conversion.c - what convert, upgrade and export do alike. */
#include "conversion.h"

#include "command.h"
#include "interrupt.h"
#include "open_model.h"
#include "plan_view.h"
#include "progress_bar.h"
#include "terminal.h"

#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

static int print_plan(const char *text) {
    json_error_t error;
    json_t *plan = json_loads(text, 0, &error);
    if (!plan) {
        return cli_failed("the plan is not JSON: %s", error.text);
    }
    plan_print(plan);
    json_decref(plan);
    return CLI_DONE;
}

typedef struct convert_watch {
    progress_bar bar;
    uint64_t total;
} convert_watch;

static bool on_progress(void *user, const jang_progress *progress) {
    convert_watch *watch = user;
    watch->total = progress->total;
    if (interrupt_seen()) {
        return false;
    }
    progress_bar_update(&watch->bar, progress);
    return true;
}

static bool is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int report(const char *command, jang_context *ctx, const jang_convert_options *o,
                  jang_status status) {
    if (status == JANG_ERR_CANCELLED) {
        return cli_failed("stopped; nothing was written");
    }
    if (status == JANG_ERR_EXISTS && !o->force && is_directory(o->output)) {
        return cli_failed("%s exists and is not empty; --force replaces it", o->output);
    }
    if (status == JANG_ERR_ARGUMENT) {
        return cli_misused(command, "%s", jang_context_error(ctx));
    }
    return library_failed(ctx, status);
}

int conversion_run(const char *command, jang_context *ctx, jang_convert_options *o) {
    convert_watch watch = {0};
    progress_bar_init(&watch.bar, stderr);
    o->on_progress = on_progress;
    o->user = &watch;
    interrupt_catch();
    char *plan = NULL;
    double start = now_seconds();
    jang_status status = jang_convert(&plan, ctx, o);
    progress_bar_finish(&watch.bar);
    if (status != JANG_OK) {
        return report(command, ctx, o, status);
    }
    int code = print_plan(plan);
    jang_free(ctx, plan);
    if (!o->plan_only) {
        double seconds = now_seconds() - start;
        char line[512];
        snprintf(line, sizeof line, "wrote %s in %.1f s (%s/s of the source)\n", o->output, seconds,
                 human_bytes((double)watch.total / (seconds > 0 ? seconds : 1)).text);
        print_text(stdout, line, strlen(line));
    }
    return code;
}
