/* logits.c - what a model expects after some tokens.
 *
 *     logits MODEL ID [ID...]
 *
 * Prints the five likeliest next tokens with their logits and, where the model has a tokenizer,
 * their text. */
#include <jang.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define N_BEST 5

/* Finds the N_BEST largest logits, largest first; -1 where there are fewer. */
static void find_best(int32_t best[N_BEST], const float *logits, int32_t n_vocab) {
    for (int i = 0; i < N_BEST; i++) {
        best[i] = -1;
    }
    for (int32_t id = 0; id < n_vocab; id++) {
        int at = N_BEST;
        while (at > 0 && (best[at - 1] < 0 || logits[id] > logits[best[at - 1]])) {
            at--;
        }
        for (int i = N_BEST - 1; i > at; i--) {
            best[i] = best[i - 1];
        }
        if (at < N_BEST) {
            best[at] = id;
        }
    }
}

static void print_token(jang_context *ctx, jang_model *model, int32_t id, float logit) {
    jang_tokenizer *tok = jang_model_tokenizer(model);
    char *text = NULL;
    size_t n_bytes = 0;
    printf("%8d %10.4f", (int)id, (double)logit);
    if (tok && jang_detokenize(&text, &n_bytes, tok, &id, 1, 0) == JANG_OK) {
        printf("  '%.*s'", (int)n_bytes, text);
    }
    putchar('\n');
    jang_free(ctx, text);
}

static jang_status print_next(jang_context *ctx, jang_model *model, const int32_t *ids,
                              size_t n_ids) {
    jang_session *session = NULL;
    jang_status status = jang_session_new(&session, model, NULL);
    if (status == JANG_OK) {
        status = jang_session_append(session, ids, n_ids, NULL);
    }
    if (status == JANG_OK) {
        const float *logits = jang_session_logits(session);
        int32_t best[N_BEST];
        find_best(best, logits, jang_model_get_info(model)->n_vocab);
        for (int i = 0; i < N_BEST && best[i] >= 0; i++) {
            print_token(ctx, model, best[i], logits[best[i]]);
        }
    }
    jang_session_free(session);
    return status;
}

int main(int argc, char **argv) {
    int32_t ids[256];
    if (argc < 3 || argc - 2 > 256) {
        fprintf(stderr, "usage: logits MODEL ID [ID...]\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        char *end;
        errno = 0;
        long id = strtol(argv[i], &end, 10);
        if (errno || *end || end == argv[i] || id < 0 || id > INT32_MAX) {
            fprintf(stderr, "'%s' is no token id\n", argv[i]);
            return 2;
        }
        ids[i - 2] = (int32_t)id;
    }
    jang_context *ctx = NULL;
    jang_model *model = NULL;
    jang_status status = jang_context_new(&ctx, NULL);
    if (status == JANG_OK) {
        status = jang_model_open(&model, ctx, argv[1], NULL);
    }
    if (status == JANG_OK) {
        status = print_next(ctx, model, ids, (size_t)argc - 2);
    }
    if (status != JANG_OK) {
        fprintf(stderr, "%s\n", ctx ? jang_context_error(ctx) : jang_status_name(status));
    }
    jang_model_free(model);
    jang_context_free(ctx);
    return status == JANG_OK ? 0 : 1;
}
