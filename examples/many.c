/* many.c - answers many prompts at once: each argument is one, and gets one paragraph. */
#include "jang.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 4096

/* What has come of a prompt so far. */
typedef struct paragraph {
    char text[LONGEST];
    size_t n_bytes;
} paragraph;

static void on_event(void *user, const jang_event *event) {
    (void)user;
    paragraph *p = event->user;
    if (event->kind == JANG_EVENT_TEXT && p->n_bytes + event->n_bytes < LONGEST) {
        memcpy(p->text + p->n_bytes, event->text, event->n_bytes + 1);
        p->n_bytes += event->n_bytes;
    } else if (event->kind == JANG_EVENT_END && event->finish == JANG_FINISH_ERROR) {
        fprintf(stderr, "%s\n", event->message);
    }
}

static jang_status submit(jang_engine *engine, jang_context *ctx, jang_model *model,
                          const char *prompt, paragraph *p) {
    int32_t *ids;
    size_t n;
    jang_status status = jang_tokenize(&ids, &n, jang_model_tokenizer(model), prompt,
                                       strlen(prompt), JANG_TOKENIZE_ADD_SPECIAL);
    if (status != JANG_OK) {
        return status;
    }
    jang_request request = jang_request_default(model);
    request.prompt = ids;
    request.n_prompt = n;
    request.n_max = 40;
    request.sampling.temperature = 0;
    request.user = p;
    uint64_t id;
    jang_message message;
    status = jang_engine_submit(&id, engine, &request, &message);
    if (status != JANG_OK) {
        fprintf(stderr, "%s\n", message.text);
    }
    jang_free(ctx, ids);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT...\n", argv[0]);
        return 2;
    }
    jang_context *ctx;
    jang_model *model = NULL;
    jang_engine *engine = NULL;
    paragraph *paragraphs = calloc((size_t)argc, sizeof *paragraphs);
    jang_engine_options options = jang_engine_options_default();
    options.on_event = on_event;
    if (!paragraphs || jang_context_new(&ctx, NULL) != JANG_OK) {
        return 1;
    }
    jang_status status = jang_model_open(&model, ctx, argv[1], NULL);
    if (status == JANG_OK) {
        status = jang_engine_new(&engine, model, &options);
    }
    for (int i = 2; status == JANG_OK && i < argc; i++) {
        status = submit(engine, ctx, model, argv[i], &paragraphs[i]);
    }
    for (bool busy = true; status == JANG_OK && busy;) {
        status = jang_engine_step(&busy, engine);
    }
    for (int i = 2; status == JANG_OK && i < argc; i++) {
        printf("%s%s\n\n", argv[i], paragraphs[i].text);
    }
    if (status != JANG_OK) {
        fprintf(stderr, "%s: %s\n", argv[0], jang_context_error(ctx));
    }
    jang_engine_free(engine);
    jang_model_free(model);
    jang_context_free(ctx);
    free(paragraphs);
    return status == JANG_OK ? 0 : 1;
}
