/* chat.c - a chat in under a hundred lines.
 *
 *     chat MODEL [MESSAGE]
 *
 * Answers the message, or each line of standard input as one turn of a conversation. The prompt of
 * a turn is the whole conversation through the model's own template; the session computes only what
 * is new in it. */
#include <jang.h>

#include <stdio.h>
#include <string.h>

/* The conversation as JSON text, all but its end. */
typedef struct dialogue {
    char json[1 << 20];
    size_t n;
} dialogue;

static void put(dialogue *d, const char *text) {
    d->n += (size_t)snprintf(d->json + d->n, sizeof d->json - d->n, "%s", text);
    d->n = d->n < sizeof d->json ? d->n : sizeof d->json - 1;
}

/* Appends text as the inside of a JSON string. */
static void put_escaped(dialogue *d, const char *text, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes; i++) {
        bool plain = (unsigned char)text[i] >= ' ' && text[i] != '"' && text[i] != '\\';
        char out[8];
        snprintf(out, sizeof out, plain ? "%c" : "\\u%04x", text[i]);
        put(d, out);
    }
}

/* Shows a piece of the answer and keeps it for the next turn. */
static bool on_text(void *user, const char *piece, size_t n_bytes) {
    fwrite(piece, 1, n_bytes, stdout);
    fflush(stdout);
    put_escaped(user, piece, n_bytes);
    return true;
}

static jang_status answer(jang_context *ctx, jang_model *model, jang_session *session, dialogue *d,
                          const char *message) {
    jang_tokenizer *tok = jang_model_tokenizer(model);
    size_t n_prompt = 0, n_ids = 0;
    char *prompt = NULL;
    int32_t *ids = NULL;
    put(d, d->n ? ",{\"role\":\"user\",\"content\":\""
                : "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    put_escaped(d, message, strlen(message));
    size_t n_before = d->n + 2; /* what follows is written over by the answer */
    put(d, "\"}],\"add_generation_prompt\":true}");
    jang_status status = jang_chat_prompt(&prompt, &n_prompt, tok, d->json);
    if (status == JANG_OK) {
        status = jang_tokenize(&ids, &n_ids, tok, prompt, n_prompt, 0);
    }
    if (status == JANG_OK) {
        d->n = n_before;
        put(d, ",{\"role\":\"assistant\",\"content\":\"");
        status = jang_generate(session, ids, n_ids, 256, NULL, on_text, d, NULL);
        put(d, "\"}");
        putchar('\n');
    }
    jang_free(ctx, prompt);
    jang_free(ctx, ids);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: chat MODEL [MESSAGE]\n");
        return 2;
    }
    static dialogue d;
    char line[1 << 16];
    jang_context *ctx = NULL;
    jang_model *model = NULL;
    jang_session *session = NULL;
    jang_status status = jang_context_new(&ctx, NULL);
    if (status == JANG_OK) {
        status = jang_model_open(&model, ctx, argv[1], NULL);
    }
    if (status == JANG_OK) {
        status = jang_session_new(&session, model, NULL);
    }
    if (status == JANG_OK && argc == 3) {
        status = answer(ctx, model, session, &d, argv[2]);
    }
    while (status == JANG_OK && argc == 2 && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        status = answer(ctx, model, session, &d, line);
    }
    if (status != JANG_OK) {
        fprintf(stderr, "%s\n", ctx ? jang_context_error(ctx) : jang_status_name(status));
    }
    jang_session_free(session);
    jang_model_free(model);
    jang_context_free(ctx);
    return status == JANG_OK ? 0 : 1;
}
