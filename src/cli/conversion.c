/* conversion.c - what convert, upgrade and export do alike. */
#include "conversion.h"

#include "command.h"
#include "interrupt.h"
#include "open_model.h"
#include "plan_view.h"
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

bool conversion_progress(void *user, const jang_progress *progress) {
    conversion_watch *watch = user;
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

void conversion_begin(conversion_watch *watch) {
    *watch = (conversion_watch){.start = now_seconds()};
    progress_bar_init(&watch->bar, stderr);
    interrupt_catch();
}

int conversion_end(conversion_watch *watch, const char *command, jang_context *ctx,
                   jang_status status, const char *output, bool force) {
    progress_bar_finish(&watch->bar);
    if (status == JANG_OK) {
        return CLI_DONE;
    }
    if (status == JANG_ERR_CANCELLED) {
        return cli_failed("stopped; nothing was written");
    }
    if (status == JANG_ERR_EXISTS && !force && is_directory(output)) {
        return cli_failed("%s exists and is not empty; --force replaces it", output);
    }
    if (status == JANG_ERR_ARGUMENT) {
        return cli_misused(command, "%s", jang_context_error(ctx));
    }
    return library_failed(ctx, status);
}

void conversion_wrote(const conversion_watch *watch, const char *output) {
    double seconds = now_seconds() - watch->start;
    char line[512];
    snprintf(line, sizeof line, "wrote %s in %.1f s (%s/s of the source)\n", output, seconds,
             human_bytes((double)watch->total / (seconds > 0 ? seconds : 1)).text);
    print_text(stdout, line, strlen(line));
}

int conversion_run(const char *command, jang_context *ctx, jang_convert_options *o) {
    conversion_watch watch;
    o->on_progress = conversion_progress;
    o->user = &watch;
    conversion_begin(&watch);
    char *plan = NULL;
    jang_status status = jang_convert(&plan, ctx, o);
    int code = conversion_end(&watch, command, ctx, status, o->output, o->force);
    if (status != JANG_OK) {
        return code;
    }
    code = print_plan(plan);
    jang_free(ctx, plan);
    if (!o->plan_only) {
        conversion_wrote(&watch, o->output);
    }
    return code;
}
