/* test_grammar_memory.c - grammars with each allocation failing in turn, and on many threads.
 *
 * The JSON library allocates as ever: it leaks an element of a list when memory ends there. */
#include "support.h"
#include "torture.h"

#include "grammar/grammar.h"

#include <pthread.h>
#include <string.h>

typedef struct work {
    const char *name;
    jang_grammar_kind kind;
    const char *text, *document;
} work;

static const work works[] = {
    {"schema", JANG_GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":-3,\"maximum\":"
     "120},\"b\":{\"type\":\"string\",\"pattern\":\"^[a-c]+$\",\"maxLength\":9},\"c\":{\"anyOf\":"
     "[{\"$ref\":\"#\"},{\"enum\":[1,\"x\",[2]]}]},\"d\":{\"type\":\"number\",\"multipleOf\":0.5}}"
     ",\"patternProperties\":{\"^x\":{\"type\":\"null\"}},\"additionalProperties\":{\"type\":"
     "\"array\",\"items\":{\"type\":\"boolean\"},\"maxItems\":3}}",
     "{\"a\": 12, \"b\": \"abc\", \"c\": {\"d\": 2.5}, \"y\": [true]}"},
    {"gbnf", JANG_GRAMMAR_GBNF,
     "root ::= (\"- \" item)+\nitem ::= [^\\n]+ ([0-9]{2,3} \"a\"){1,90} \"\\n\" | <call>",
     "- 12ab 12a\n- x01a\n"},
    {"structure", JANG_GRAMMAR_STRUCTURE,
     "{\"lazy\":[{\"marker\":\"<call>\",\"then\":[{\"schema\":{\"type\":\"integer\"},\"style\":"
     "\"python\"},{\"repeat\":\"x\",\"min\":2,\"max\":9,\"separator\":\",\"},{\"fields\":[{\"part\""
     ":{\"regex\":\"a|b\"}}]},{\"any_until\":[\"!\"]}]}],\"again\":true}",
     "text <call>12x,xab!"},
};
#define N_WORKS (sizeof works / sizeof *works)

static const char *byte_token(void *user, int32_t id, size_t *n, bool *special) {
    char *byte = user;
    *byte = (char)id;
    *n = 1;
    *special = false;
    return byte;
}

static jang_status make_vocab(grammar_vocab **v, ctx_t *ctx) {
    static const int32_t end = 256;
    char byte[2] = "";
    grammar_tokens tokens = {257, byte_token, byte, &end, 1};
    return grammar_vocab_new(v, ctx, &tokens);
}

/* Masks and bytes along the document; each byte must be in its mask. */
static jang_status follow(grammar *g, grammar_vocab *v, const char *document) {
    grammar_state *s, *copy = NULL;
    uint64_t bits[5];
    jang_status status = grammar_state_new(&s, g, v);
    if (status != JANG_OK) {
        return status;
    }
    for (; *document && status == JANG_OK; document++) {
        int byte = (unsigned char)*document;
        bool ok = true;
        status = grammar_mask(s, bits);
        if (status == JANG_OK) {
            assert_true(bits[byte >> 6] >> (byte & 63) & 1);
            status = grammar_accept(s, byte, &ok);
        }
        assert_true(ok);
        grammar_state_free(copy);
        copy = NULL;
        status = status == JANG_OK ? grammar_state_clone(&copy, s) : status;
    }
    if (status == JANG_OK) {
        assert_true(grammar_is_complete(copy));
    }
    grammar_state_free(copy);
    grammar_state_free(s);
    return status;
}

static jang_status compile_and_follow(ctx_t *ctx, const void *arg) {
    const work *w = arg;
    grammar *g;
    grammar_vocab *v;
    jang_status status = grammar_new(&g, ctx, w->kind, w->text, strlen(w->text));
    if (status != JANG_OK) {
        return status;
    }
    status = make_vocab(&v, ctx);
    if (status == JANG_OK) {
        status = follow(g, v, w->document);
        grammar_vocab_unref(v);
    }
    grammar_unref(g);
    return status;
}

static void test_torture(void **state) {
    (void)state;
    for (size_t i = 0; i < N_WORKS; i++) {
        torture(works[i].name, TORTURE_ONE, compile_and_follow, &works[i]);
        torture(works[i].name, TORTURE_ALL_AFTER, compile_and_follow, &works[i]);
    }
}

/* ---- Threads ---- */

typedef struct shared {
    grammar *g[N_WORKS];
    grammar_vocab *v;
    int n_failed[8];
} shared;

typedef struct thread {
    shared *s;
    int index;
} thread;

static void *run_thread(void *arg) {
    const thread *t = arg;
    for (size_t i = 0; i < 12; i++) {
        size_t k = (i + (size_t)t->index) % N_WORKS;
        t->s->n_failed[t->index] += follow(t->s->g[k], t->s->v, works[k].document) != JANG_OK;
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    shared s = {.n_failed = {0}};
    for (size_t i = 0; i < N_WORKS; i++) {
        assert_ok(ctx,
                  grammar_new(&s.g[i], ctx, works[i].kind, works[i].text, strlen(works[i].text)));
    }
    assert_ok(ctx, make_vocab(&s.v, ctx));
    pthread_t threads[8];
    thread args[8];
    for (int i = 0; i < 8; i++) {
        args[i] = (thread){&s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_thread, &args[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(s.n_failed[i], 0);
    }
    for (size_t i = 0; i < N_WORKS; i++) {
        grammar_unref(s.g[i]);
    }
    grammar_vocab_unref(s.v);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torture),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
