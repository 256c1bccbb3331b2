/* bench_grammar.c - what constraining costs with a real vocabulary: compiling, masks, tokens.
 *
 *     bench_grammar tokenizer.json [--check]
 *
 * For each grammar and document below: time to compile, then the masks along the document, cold
 * (a new grammar, nothing kept) and warm (again). --check compares each mask with what accepting
 * every token one by one says. */
#include "base/file.h"
#include "base/json.h"
#include "grammar/grammar.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct sample {
    const char *name;
    jang_grammar_kind kind;
    const char *text, *document;
} sample;

#define PERSON                                                                                     \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"       \
    "\"integer\",\"minimum\":0,\"maximum\":150},\"email\":{\"type\":\"string\",\"format\":"        \
    "\"email\"},\"note\":{\"type\":\"string\",\"maxLength\":40},\"tags\":{\"type\":\"array\","     \
    "\"items\":{\"type\":\"string\"}}},\"required\":[\"name\",\"age\"]}"

static const sample samples[] = {
    {"any object", JANG_GRAMMAR_JSON_OBJECT, "",
     "{\"a\": [1, 2.5, \"text with words, and \\\"quotes\\\"\"], \"b\": {\"c\": null, \"d\": "
     "\"\xe6\xbc\xa2\xe5\xad\x97 and \xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82\"}}"},
    {"schema", JANG_GRAMMAR_SCHEMA, PERSON,
     "{\n  \"name\": \"Ada Lovelace, countess\",\n  \"age\": 36,\n  \"email\": "
     "\"ada.lovelace@example.com\",\n  \"note\": \"wrote the first program there was\",\n  "
     "\"tags\": [\"mathematics\", \"computing engines\"]}"},
    {"tool call, lazy", JANG_GRAMMAR_STRUCTURE,
     "{\"lazy\":[{\"marker\":\"<tool_call>\",\"then\":[\"\\n{\\\"name\\\": \\\"save\\\", "
     "\\\"arguments\\\": \",{\"schema\":" PERSON "},\"}\\n</tool_call>\"]}],\"again\":true}",
     "I will save this person for you. Some more text, as models write "
     "it.\n<tool_call>\n{\"name\": "
     "\"save\", \"arguments\": {\"name\": \"Ada\", \"age\": 36}}\n</tool_call> Done."},
    {"regex", JANG_GRAMMAR_REGEX, "([A-Z][a-z]+ )+is [0-9]{1,3}( years old| months old)\\.",
     "Ada Lovelace is 36 years old."},
    {"gbnf", JANG_GRAMMAR_GBNF, "root ::= (\"- \" item)+\nitem ::= [^\\n]+ \"\\n\"",
     "- milk and honey\n- bread, \"brown\"\n- \xe6\xbc\xa2\xe5\xad\x97\n"},
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(ctx_t *ctx, jang_status status, const char *what) {
    if (status != JANG_OK) {
        fprintf(stderr, "%s: %s\n", what, jang_context_error(ctx));
        exit(1);
    }
}

typedef struct source {
    const tok *t;
    buf bytes;
} source;

static const char *token_bytes(void *user, int32_t id, size_t *n, bool *special) {
    source *s = user;
    buf_clear(&s->bytes);
    if (id >= tok_size(s->t) || tok_token_bytes(s->t, &s->bytes, id) != JANG_OK) {
        return NULL;
    }
    *n = s->bytes.size;
    *special = tok_is_special(s->t, id);
    return s->bytes.data;
}

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Compares a mask with accepting each token; returns the number of differences. */
static size_t check_mask(ctx_t *ctx, const grammar_state *s, const uint64_t *bits, int32_t n,
                         const int32_t *ends) {
    size_t n_wrong = 0;
    grammar_state *copy;
    must(ctx, grammar_state_clone(&copy, s), "clone");
    for (int32_t id = 0; id < n; id++) {
        bool ok;
        must(ctx, grammar_accept(copy, id, &ok), "accept");
        n_wrong += ok != (bits[id >> 6] >> (id & 63) & 1);
        if (ok && id != *ends) {
            must(ctx, grammar_state_copy(copy, s), "copy");
        }
    }
    grammar_state_free(copy);
    return n_wrong;
}

/* The masks along a document; prints their times. */
static void run(ctx_t *ctx, grammar *g, grammar_vocab *v, const tok_ids *ids, int32_t n_vocab,
                const char *label, bool check) {
    grammar_state *s;
    size_t n = ids->n + 1, n_wrong = 0;
    double *times = calloc(n, sizeof *times), accept = 0, sum = 0;
    uint64_t *bits = calloc(grammar_mask_words(n_vocab), sizeof *bits);
    must(ctx, grammar_state_new(&s, g, v), "state");
    size_t i = 0;
    for (; i < n; i++) {
        double start = now();
        must(ctx, grammar_mask(s, bits), "mask");
        times[i] = now() - start;
        sum += times[i];
        if (check) {
            int32_t end = n_vocab - 1;
            n_wrong += check_mask(ctx, s, bits, n_vocab, &end);
        }
        bool ok = false;
        start = now();
        if (i < ids->n) {
            must(ctx, grammar_accept(s, ids->ids[i], &ok), "accept");
            accept += now() - start;
            if (!ok) {
                printf("  token %zu is refused\n", i);
                break;
            }
        }
    }
    n = i < n ? i : n;
    qsort(times, n, sizeof *times, compare_times);
    printf("  %s  masks: median %7.1f us, mean %7.1f, p95 %7.1f, max %7.1f; a token %.2f us", label,
           times[n / 2] * 1e6, sum / (double)n * 1e6, times[n * 95 / 100] * 1e6, times[n - 1] * 1e6,
           accept / (double)ids->n * 1e6);
    if (check) {
        printf("; %zu differences", n_wrong);
    }
    printf("%s\n", grammar_is_complete(s) ? "" : "; not complete");
    grammar_state_free(s);
    free(times);
    free(bits);
}

static void measure(ctx_t *ctx, const tok *t, grammar_vocab *v, int32_t n_vocab, const sample *x,
                    bool check) {
    tok_ids ids = {0};
    grammar *g;
    must(ctx, tok_encode(t, &ids, x->document, strlen(x->document), 0), "encode");
    double start = now();
    must(ctx, grammar_new(&g, ctx, x->kind, x->text, strlen(x->text)), x->name);
    printf("%s: compiled in %.1f us, %zu tokens\n", x->name, (now() - start) * 1e6, ids.n);
    run(ctx, g, v, &ids, n_vocab, "cold", check);
    run(ctx, g, v, &ids, n_vocab, "warm", false);
    grammar_unref(g);
    tok_ids_free(ctx, &ids);
}

/* 100 tools of about 10 kB of schema each. */
static void measure_tools(ctx_t *ctx) {
    buf b;
    buf_init(&b, ctx, BUF_NO_LIMIT);
    buf_puts(&b, "{\"anyOf\":[");
    for (int tool = 0; tool < 100; tool++) {
        buf_printf(&b, "%s{\"type\":\"object\",\"properties\":{\"name\":{\"const\":\"tool_%d\"}",
                   tool ? "," : "", tool);
        for (int i = 0; i < 40; i++) {
            buf_printf(&b,
                       ",\"argument_%d\":{\"type\":\"%s\",\"description\":\"what this argument of "
                       "the tool is for, at some length, as people write it in their programs, "
                       "and then a little more, so that it is long\",\"maxLength\":%d}",
                       i, i % 3 ? "string" : "array", 100 + i);
        }
        buf_puts(&b, "},\"required\":[\"name\"]}");
    }
    buf_puts(&b, "]}");
    double start = now();
    grammar *g;
    must(ctx, grammar_new(&g, ctx, JANG_GRAMMAR_SCHEMA, b.data, b.size), "tools");
    printf("100 tools, %zu bytes: compiled in %.1f ms\n", b.size, (now() - start) * 1e3);
    grammar_unref(g);
    buf_free(&b);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "bench_grammar tokenizer.json [--check]\n");
        return 2;
    }
    jang_context *ctx;
    if (jang_context_new(&ctx, NULL) != JANG_OK) {
        return 1;
    }
    char *json;
    size_t n;
    tok *t;
    must(ctx, file_read(&json, &n, ctx, argv[1], (size_t)1 << 28), "read");
    must(ctx, tok_open(&t, ctx, argv[1], json, n, NULL, 0), "open");
    source from = {.t = t};
    buf_init(&from.bytes, ctx, BUF_NO_LIMIT);
    int32_t n_vocab = tok_size(t) + 1, end = tok_size(t);
    grammar_tokens tokens = {n_vocab, token_bytes, &from, &end, 1};
    grammar_vocab *v;
    double start = now();
    must(ctx, grammar_vocab_new(&v, ctx, &tokens), "vocabulary");
    printf("vocabulary of %d: %.1f ms\n", n_vocab, (now() - start) * 1e3);
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        measure(ctx, t, v, n_vocab, &samples[i], argc > 2 && !strcmp(argv[2], "--check"));
    }
    measure_tools(ctx);
    grammar_vocab_unref(v);
    buf_free(&from.bytes);
    tok_close(t);
    ctx_free(ctx, json);
    jang_context_free(ctx);
    return 0;
}
