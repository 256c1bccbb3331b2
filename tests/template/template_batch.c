/* template_batch.c - renders many templates in one process, for scripts that compare engines.
 *
 * Reads lines {"template": text, "context": object} from stdin and answers each with one line,
 * {"text": rendering} or {"error": message}, with "warning": text if something was told to the
 * log. */
#include "base/ctx.h"
#include "template/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char warning[512];

static void keep_warning(void *user, const char *line) {
    (void)user;
    snprintf(warning, sizeof warning, "%s", line);
}

static void answer(const char *key, const char *text, size_t n) {
    json_t *reply = json_pack("{s:o}", key, json_stringn_nocheck(text, n));
    if (*warning) {
        json_object_set_new_nocheck(reply, "warning", json_string_nocheck(warning));
    }
    char *line = json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII);
    puts(line ? line : "{\"error\": \"no valid text\"}");
    free(line);
    json_decref(reply);
}

static void render(ctx_t *ctx, const json_t *request) {
    const json_t *text = json_object_get(request, "template");
    tmpl *t = NULL;
    buf out;
    buf_init(&out, ctx, BUF_NO_LIMIT);
    *warning = '\0';
    jang_status status =
        tmpl_compile(&t, ctx, "t", json_string_value(text), json_string_length(text));
    if (status == JANG_OK) {
        status = tmpl_render(t, &out, json_object_get(request, "context"));
    }
    if (status == JANG_OK) {
        answer("text", out.data, out.size);
    } else {
        answer("error", jang_context_error(ctx), strlen(jang_context_error(ctx)));
    }
    buf_free(&out);
    tmpl_free(t);
}

int main(void) {
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    options.log = keep_warning;
    ctx_t *ctx = NULL;
    if (jang_context_new(&ctx, &options) != JANG_OK) {
        return 1;
    }
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        json_t *request = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        if (request) {
            render(ctx, request);
        } else {
            puts("{\"error\": \"bad request\"}");
        }
        json_decref(request);
        fflush(stdout);
    }
    free(line);
    jang_context_free(ctx);
    return 0;
}
