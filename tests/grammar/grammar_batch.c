/* grammar_batch.c - compiles grammars, matches texts and makes some, for the scripts beside it.
 *
 * Each line of input is an object {"kind", "text", "match": [texts], "walks": n, "seed"}; each line
 * of output {"error"} or {"matched": [true or false], "made": [texts]}. Texts are made by a random
 * walk over single bytes, which sees the grammar only through its masks. */
#include "support.h"

#include "base/json.h"
#include "grammar/grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG 600 /* bytes after which a walk looks for its end */
#define TOO_LONG 6000

static const char *byte_token(void *user, int32_t id, size_t *n, bool *special) {
    char *byte = user;
    *byte = (char)id;
    *n = 1;
    *special = false;
    return byte;
}

static bool allowed(const uint64_t *bits, int byte) {
    return bits[byte >> 6] >> (byte & 63) & 1;
}

/* A byte of the mask: mostly any, late in the walk and now and then one that closes something. */
static int choose(test_rng *rng, const uint64_t *bits, size_t length) {
    if (length > LONG || rng_below(rng, 4) == 0) {
        for (const char *c = "\"}])>"; *c; c++) {
            if (allowed(bits, *c)) {
                return *c;
            }
        }
    }
    if (rng_below(rng, 12)) { /* rarely the bytes of long characters */
        int n = 0, chosen = -1;
        for (int byte = 0; byte < 128; byte++) {
            if (allowed(bits, byte) && rng_below(rng, ++n) == 0) {
                chosen = byte;
            }
        }
        if (chosen >= 0) {
            return chosen;
        }
    }
    int n = 0, chosen = -1;
    for (int byte = 0; byte < 255; byte++) { /* 255 is the mark of special tokens */
        if (allowed(bits, byte) && rng_below(rng, ++n) == 0) {
            chosen = byte;
        }
    }
    return chosen;
}

static json_t *walk(ctx_t *ctx, grammar *g, grammar_vocab *v, test_rng *rng) {
    grammar_state *s;
    buf text;
    uint64_t bits[5];
    json_t *made = NULL;
    buf_init(&text, ctx, BUF_NO_LIMIT);
    assert_ok(ctx, grammar_state_new(&s, g, v));
    for (;;) {
        if (grammar_is_complete(s) &&
            (grammar_is_done(s) || text.size > LONG || rng_below(rng, 3) == 0)) {
            made = json_stringn(text.data, text.size);
            break;
        }
        jang_status status = grammar_mask(s, bits);
        if (status != JANG_OK) {
            made = json_pack("{s:s, s:o}", "stuck", jang_context_error(ctx), "text",
                             json_repaired(ctx, text.data));
            break;
        }
        if (text.size > TOO_LONG) {
            made = json_null();
            break;
        }
        int byte = choose(rng, bits, text.size);
        bool ok = false;
        assert_true(byte >= 0);
        assert_ok(ctx, grammar_accept(s, byte, &ok));
        assert_true(ok);
        buf_putc(&text, (char)byte);
    }
    grammar_state_free(s);
    buf_free(&text);
    return made;
}

static jang_grammar_kind kind_of(const char *name) {
    static const char *const names[] = {"schema", "loose", "json",     "object",
                                        "gbnf",   "regex", "structure"};
    for (int i = 0; i < 7; i++) {
        if (strcmp(names[i], name) == 0) {
            return (jang_grammar_kind)i;
        }
    }
    return JANG_GRAMMAR_JSON;
}

static json_t *answer(ctx_t *ctx, grammar_vocab *v, const json_t *request) {
    grammar *g;
    const json_t *text = json_object_get(request, "text"),
                 *match = json_object_get(request, "match");
    jang_status status =
        grammar_new(&g, ctx, kind_of(json_string_value(json_object_get(request, "kind"))),
                    json_string_value(text), json_string_length(text));
    if (status != JANG_OK) {
        json_t *error = json_repaired(ctx, jang_context_error(ctx));
        return json_pack("{s:o, s:s}", "error", error, "status", jang_status_name(status));
    }
    json_t *matched = json_array(), *made = json_array();
    for (size_t i = 0; i < json_array_size(match); i++) {
        const json_t *one = json_array_get(match, i);
        size_t n;
        bool complete;
        assert_ok(ctx, jang_grammar_match(&n, &complete, g, json_string_value(one),
                                          json_string_length(one)));
        json_array_append_new(matched, json_boolean(complete));
    }
    test_rng rng = {(uint64_t)json_integer_value(json_object_get(request, "seed"))};
    for (json_int_t i = json_integer_value(json_object_get(request, "walks")); i > 0; i--) {
        json_array_append_new(made, walk(ctx, g, v, &rng));
    }
    grammar_unref(g);
    return json_pack("{s:o, s:o}", "matched", matched, "made", made);
}

int main(void) {
    ctx_t *ctx = test_context();
    char byte[2] = "";
    int32_t end = 256;
    grammar_tokens tokens = {257, byte_token, byte, &end, 1};
    grammar_vocab *v;
    assert_ok(ctx, grammar_vocab_new(&v, ctx, &tokens));
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        json_t *request;
        assert_ok(ctx, json_parse(&request, ctx, "request", line, (size_t)n));
        json_t *out = answer(ctx, v, request);
        char *text = json_dumps(out, JSON_ENSURE_ASCII | JSON_COMPACT);
        puts(text ? text : "{\"error\": \"cannot be written\"}");
        fflush(stdout);
        free(text);
        json_decref(out);
        json_decref(request);
    }
    free(line);
    grammar_vocab_unref(v);
    jang_context_free(ctx);
    return 0;
}
