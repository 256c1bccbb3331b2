/* bench_tokenizer.c - times a tokenizer, and lends it to scripts.
 *
 *     bench_tokenizer TOKENIZER load          milliseconds to open it, best of 5
 *     bench_tokenizer TOKENIZER encode FILE   milliseconds and ids for the file, best of 5
 *     bench_tokenizer TOKENIZER pipe          serves requests on stdin until it ends
 *
 * TOKENIZER is a tokenizer.json, a SentencePiece .model or a .tiktoken.
 *
 * pipe: a request is three little-endian uint32 (operation, flags, n) and its body; operation 0
 * encodes n bytes and answers n_ids and the ids; 1 decodes n ids, 2 decodes them as a stream, 3
 * tells the bytes of each id, and answer n_bytes and the bytes. */
#include "base/buf.h"
#include "base/file.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Processor time, so that a busy machine does not count; everything here is one thread. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(ctx_t *ctx, jang_status status) {
    if (status != JANG_OK) {
        fprintf(stderr, "%s\n", jang_context_error(ctx));
        exit(1);
    }
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Opens by the kind of the file's name: .model, .tiktoken, or else tokenizer.json. */
static jang_status open_any(tok **out, ctx_t *ctx, const char *path, const char *data, size_t n) {
    return ends_with(path, ".model") ? tok_open_sentencepiece(out, ctx, path, data, n, NULL, 0)
           : ends_with(path, ".tiktoken")
               ? tok_open_tiktoken(out, ctx, path, data, n, NULL, NULL, 0)
               : tok_open(out, ctx, path, data, n, NULL, 0);
}

static void time_load(ctx_t *ctx, const char *path, const char *json, size_t n) {
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        tok *t;
        double start = now();
        check(ctx, open_any(&t, ctx, path, json, n));
        double took = now() - start;
        best = took < best ? took : best;
        tok_close(t);
    }
    printf("%.1f\n", best * 1e3);
}

static void time_encode(ctx_t *ctx, const tok *t, const char *path) {
    char *text;
    size_t n;
    check(ctx, file_read(&text, &n, ctx, path, (size_t)1 << 30));
    tok_ids ids = {0};
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        ids.n = 0;
        double start = now();
        check(ctx, tok_encode(t, &ids, text, n, 0));
        double took = now() - start;
        best = took < best ? took : best;
    }
    printf("%.2f %zu\n", best * 1e3, ids.n);
    tok_ids_free(ctx, &ids);
    ctx_free(ctx, text);
}

static void answer(const void *data, size_t n, size_t size) {
    uint32_t count = (uint32_t)n;
    fwrite(&count, sizeof count, 1, stdout);
    if (n > 0) {
        fwrite(data, size, n, stdout);
    }
    fflush(stdout);
}

static void serve_ids(ctx_t *ctx, const tok *t, uint32_t operation, uint32_t flags,
                      const int32_t *ids, size_t n) {
    buf out;
    buf_init(&out, ctx, BUF_NO_LIMIT);
    jang_status status = JANG_OK;
    if (operation == 1) {
        status = tok_decode(t, &out, ids, n, flags);
    } else if (operation == 2) {
        tok_stream *s;
        check(ctx, tok_stream_new(&s, t, flags));
        for (size_t i = 0; status == JANG_OK && i < n; i++) {
            status = tok_stream_push(s, &out, ids[i]);
        }
        status = status == JANG_OK ? tok_stream_finish(s, &out) : status;
        tok_stream_free(s);
    } else {
        for (size_t i = 0; status == JANG_OK && i < n; i++) {
            status = tok_token_bytes(t, &out, ids[i]);
        }
    }
    check(ctx, status);
    answer(out.data, out.size, 1);
    buf_free(&out);
}

static void serve(ctx_t *ctx, const tok *t) {
    uint32_t head[3];
    while (fread(head, sizeof *head, 3, stdin) == 3) {
        size_t n_bytes = (size_t)head[2] * (head[0] == 0 ? 1 : 4);
        char *body = ctx_alloc(ctx, n_bytes);
        if (!body || fread(body, 1, n_bytes, stdin) != n_bytes) {
            exit(1);
        }
        if (head[0] == 0) {
            tok_ids ids = {0};
            check(ctx, tok_encode(t, &ids, body, n_bytes, head[1]));
            answer(ids.ids, ids.n, sizeof *ids.ids);
            tok_ids_free(ctx, &ids);
        } else {
            serve_ids(ctx, t, head[0], head[1], (const int32_t *)(void *)body, head[2]);
        }
        ctx_free(ctx, body);
    }
}

int main(int n_args, char **args) {
    if (n_args < 3) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER load|encode FILE|pipe\n");
        return 2;
    }
    ctx_t *ctx;
    if (jang_context_new(&ctx, NULL) != JANG_OK) {
        return 1;
    }
    file_map json;
    check(ctx, file_map_open(&json, ctx, args[1]));
    const char *text = (const char *)json.data;
    if (strcmp(args[2], "load") == 0) {
        time_load(ctx, args[1], text, json.n_bytes);
    } else {
        tok *t;
        check(ctx, open_any(&t, ctx, args[1], text, json.n_bytes));
        if (strcmp(args[2], "encode") == 0 && n_args > 3) {
            time_encode(ctx, t, args[3]);
        } else {
            serve(ctx, t);
        }
        tok_close(t);
    }
    file_map_close(&json);
    jang_context_free(ctx);
    return 0;
}
