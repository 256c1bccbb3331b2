/* convert.c - makes a quantized model.
 *
 *     convert SOURCE OUTPUT [PROFILE]
 *
 * PROFILE is JANG_4M where it is not given. Shows the progress on stderr and prints the plan as
 * JSON.
 */
#include <jang.h>

#include <stdio.h>

/* Called again and again during the conversion; returning false would cancel it. */
static bool on_progress(void *user, const jang_progress *p) {
    int *last_percent = user;
    int percent = p->total ? (int)(100 * p->done / p->total) : 100;
    if (percent / 10 != *last_percent / 10) {
        fprintf(stderr, "%d%% after %.1f s\n", percent, p->seconds);
        *last_percent = percent;
    }
    return true;
}

static void print_profiles(void) {
    fprintf(stderr, "usage: convert SOURCE OUTPUT [PROFILE]; PROFILE is one of");
    for (const char *const *name = jang_profile_names(); *name; name++) {
        fprintf(stderr, " %s", *name);
    }
    fputc('\n', stderr);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        print_profiles();
        return 2;
    }
    jang_context *ctx = NULL;
    jang_status status = jang_context_new(&ctx, NULL);
    if (status != JANG_OK) {
        fprintf(stderr, "%s\n", jang_status_name(status));
        return 1;
    }
    int last_percent = 0;
    jang_convert_options options = jang_convert_options_default();
    options.source = argv[1];
    options.output = argv[2];
    options.profile = argc == 4 ? argv[3] : "JANG_4M";
    options.on_progress = on_progress;
    options.user = &last_percent;

    char *plan = NULL;
    status = jang_convert(&plan, ctx, &options);
    if (status == JANG_OK) {
        puts(plan);
    } else {
        fprintf(stderr, "%s\n", jang_context_error(ctx));
    }
    jang_free(ctx, plan);
    jang_context_free(ctx);
    return status == JANG_OK ? 0 : 1;
}
