/* test_grammar.c - regular expressions, GBNF and structures: which texts match, what is refused. */
#include "support.h"

#include "grammar/grammar.h"

#include <stdio.h>
#include <string.h>

static ctx_t *ctx;

static grammar *compile(jang_grammar_kind kind, const char *text) {
    grammar *g = NULL;
    assert_ok(ctx, grammar_new(&g, ctx, kind, text, strlen(text)));
    return g;
}

/* Asserts whether each text, up to NULL, is one of the grammar. */
static void check_texts(grammar *g, bool wanted, const char *const *texts) {
    for (; *texts; texts++) {
        size_t n;
        bool complete;
        assert_ok(ctx, jang_grammar_match(&n, &complete, g, *texts, strlen(*texts)));
        if (complete != wanted) {
            fail_msg("\"%s\" %s", *texts, wanted ? "should match" : "should not match");
        }
    }
}

#define MATCHES(kind, text, ...)                                                                   \
    do {                                                                                           \
        grammar *g_ = compile(kind, text);                                                         \
        check_texts(g_, true, (const char *const[]){__VA_ARGS__, NULL});                           \
        grammar_unref(g_);                                                                         \
    } while (0)

#define MATCHES_NOT(kind, text, ...)                                                               \
    do {                                                                                           \
        grammar *g_ = compile(kind, text);                                                         \
        check_texts(g_, false, (const char *const[]){__VA_ARGS__, NULL});                          \
        grammar_unref(g_);                                                                         \
    } while (0)

static void refused(jang_grammar_kind kind, const char *text, jang_status status,
                    const char *message) {
    grammar *g = NULL;
    assert_fails(ctx, grammar_new(&g, ctx, kind, text, strlen(text)), status, message);
    assert_null(g);
}

#define REGEX JANG_GRAMMAR_REGEX
#define GBNF JANG_GRAMMAR_GBNF
#define STRUCTURE JANG_GRAMMAR_STRUCTURE

static void test_regex(void **state) {
    (void)state;
    MATCHES(REGEX, "a|bc*|", "", "a", "b", "bccc");
    MATCHES_NOT(REGEX, "a|bc*|", "ab", "c");
    MATCHES(REGEX, "^(?:ab){2,3}?$", "abab", "ababab");
    MATCHES_NOT(REGEX, "^(?:ab){2,3}$", "ab", "abababab", "abab ");
    MATCHES(REGEX, "[^a-z\\d]+\\.\\x41\\u00e9\\u{1f600}", "AB.A\xc3\xa9\xf0\x9f\x98\x80");
    MATCHES(REGEX, "[]x-]+[a\\-z]", "]-x-", "xa");
    MATCHES(REGEX, "\\p{Lu}\\P{L}\\w\\W\\s\\S",
            "\xc3\x89"
            "1_- !");
    MATCHES(REGEX, ".{300}",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    MATCHES_NOT(REGEX, ".{300}", "aaa", "\n");
    MATCHES(REGEX, "(^a|b)(c$|d)", "ac", "bd");
}

static void test_regex_refusals(void **state) {
    (void)state;
    refused(REGEX, "a(?=b)", JANG_ERR_UNSUPPORTED, "look-around");
    refused(REGEX, "(a)\\1", JANG_ERR_UNSUPPORTED, "back reference");
    refused(REGEX, "\\bword", JANG_ERR_UNSUPPORTED, "assertion");
    refused(REGEX, "a(b", JANG_ERR_FORMAT, "( without )");
    refused(REGEX, "a)", JANG_ERR_FORMAT, ") without (");
    refused(REGEX, "[a", JANG_ERR_FORMAT, "[ without ]");
    refused(REGEX, "*a", JANG_ERR_FORMAT, "nothing to repeat at byte 0");
    refused(REGEX, "a{3,2}", JANG_ERR_FORMAT, "repetition");
    refused(REGEX, "a^b", JANG_ERR_UNSUPPORTED, "^ or $");
    refused(REGEX, "\xff", JANG_ERR_FORMAT, "UTF-8");
    refused(REGEX, "[^\\s\\S]", JANG_ERR_FORMAT, "no finite text");
}

static void test_gbnf(void **state) {
    (void)state;
    const char *list = "# a list\nroot ::= (\"- \" item)+ # one or more\n"
                       "item ::= [^\\n]+ \"\\n\" | \n  \"?\"\n";
    MATCHES(GBNF, list, "- a b\n", "- a\n- ?\n- ?");
    MATCHES_NOT(GBNF, list, "", "- \n", "-a\n");
    MATCHES(GBNF,
            "root ::= \"a\"{2} [b-d]{1,} .{,2} x-1? \"\\u00e9\\U0001F600\\x41\\\"\\\\\"\n"
            "x-1 ::= ( \"x\"\n | \"y\" )",
            "aabxx\xc3\xa9\xf0\x9f\x98\x80"
            "A\"\\",
            "aacby\xc3\xa9\xf0\x9f\x98\x80"
            "A\"\\");
    MATCHES(GBNF, "root ::= [\xe3\x81\x81-\xe3\x82\x9f]+", "\xe3\x81\x82\xe3\x81\xaa");
    MATCHES(GBNF, "root ::= \"(\" root? \")\"", "()", "((()))");
    MATCHES_NOT(GBNF, "root ::= \"(\" root? \")\"", "((())", ")");
    /* Sixty places to call from at each depth, which are one call. */
    MATCHES(GBNF, "root ::= \"(\" root? {0,60} \")\"", "()", "((()())()(()()))",
            "((((((((()())()()))))))())");
    MATCHES_NOT(GBNF, "root ::= \"(\" root? {0,60} \")\"", "(()", "(()()))");
    MATCHES(GBNF, "root ::= \"a\" root? {0,60}", "a",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    MATCHES(GBNF, "root ::= expr\nexpr ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
            "1+(2+34)+5");
    MATCHES(GBNF, "root ::= ([0-9]{3}){50,60} end*\nend ::= \"\" | \"z\"",
            "123456789123456789123456789123456789123456789123456789123456789123456789123456"
            "789123456789123456789123456789123456789123456789123456789123456789123456zz");
}

static void test_gbnf_refusals(void **state) {
    (void)state;
    refused(GBNF, "root ::= x", JANG_ERR_FORMAT, "line 1: no rule x");
    refused(GBNF, "a ::= \"b\"", JANG_ERR_FORMAT, "no rule root");
    refused(GBNF, "root ::= \"b\"\nroot ::= \"c\"", JANG_ERR_FORMAT, "line 2");
    refused(GBNF, "root ::= a \"x\" | \"z\"\na ::= \"y\"? root", JANG_ERR_UNSUPPORTED,
            "left recursion");
    refused(GBNF, "root ::= \"a\" root", JANG_ERR_FORMAT, "no finite text");
    refused(GBNF, "root ::= \"a", JANG_ERR_FORMAT, "closing");
    refused(GBNF, "root ::= <[12]>", JANG_ERR_UNSUPPORTED, "by number");
    refused(GBNF, "root ::= (\"a\"", JANG_ERR_FORMAT, "( without )");
}

#define CALL                                                                                       \
    "{\"marker\":\"<call>\",\"then\":[\"\\n\",{\"schema\":{\"type\":\"integer\"}},\"</call>\"]}"

static void test_structure(void **state) {
    (void)state;
    MATCHES(STRUCTURE, "[\"a\",{\"choice\":[\"b\",{\"regex\":\"c+\"}]},{\"optional\":\"d\"}]", "ab",
            "acccd");
    const char *until = "{\"sequence\":[{\"any_until\":[\"<aab>\",\"!\"]},\"x\"]}";
    MATCHES(STRUCTURE, until, "text <a<aab>x", "!x", "<aa<aab>x");
    MATCHES_NOT(STRUCTURE, until, "text", "<aab>", "a!b!x");
    MATCHES(STRUCTURE, "{\"any_except\":[\"end\"]}", "", "en", "een");
    MATCHES_NOT(STRUCTURE, "{\"any_except\":[\"end\"]}", "the end");
    MATCHES(STRUCTURE, "{\"lazy\":[" CALL "]}", "", "free <cal", "so: <call>\n12</call>");
    MATCHES_NOT(STRUCTURE, "{\"lazy\":[" CALL "]}", "<call>", "<call>12", "<call>\n1</call> more");
    MATCHES(STRUCTURE, "{\"lazy\":[" CALL "],\"again\":true}",
            "a<call>\n1</call> b <call>\n2</call>", "");
    MATCHES_NOT(STRUCTURE, "{\"lazy\":[" CALL "],\"again\":true,\"required\":true}", "", "text");
    MATCHES(STRUCTURE, "{\"lazy\":[" CALL "],\"again\":true,\"required\":true}",
            "<call>\n1</call> more");
    MATCHES(STRUCTURE, "{\"repeat\":{\"json\":\"value\"},\"min\":2,\"max\":3,\"separator\":\";\"}",
            "1;2", "[];\"a\";{}");
    MATCHES_NOT(STRUCTURE, "{\"repeat\":\"a\",\"min\":2,\"max\":3}", "a", "aaaa");
    MATCHES(STRUCTURE, "{\"schema\":{\"type\":[\"boolean\",\"null\"]},\"style\":\"python\"}",
            "True", "None");
    const char *fields = "[\"f(\",{\"fields\":[{\"part\":\"a\",\"required\":true},{\"part\":\"b\"},"
                         "{\"part\":\"c\"}],\"separator\":\", \"},\")\"]";
    MATCHES(STRUCTURE, fields, "f(a)", "f(a, b)", "f(a, c)", "f(a, b, c)");
    MATCHES_NOT(STRUCTURE, fields, "f()", "f(b)", "f(a, )", "f(a, c, b)");
    MATCHES(STRUCTURE,
            "{\"define\":{\"list\":[\"(\",{\"optional\":{\"use\":\"list\"}},\")\"]},"
            "\"in\":{\"use\":\"list\"}}",
            "((()))");
    refused(STRUCTURE, "[\"a\",{\"regexp\":\"b\"}]", JANG_ERR_FORMAT, "structure[1]: no such part");
    refused(STRUCTURE, "{\"choice\":[{\"schema\":{\"type\":\"strin\"}}]}", JANG_ERR_FORMAT,
            "structure.choice[0].schema.type: expected");
    refused(STRUCTURE, "{\"use\":\"x\"}", JANG_ERR_FORMAT, "structure.use");
}

static void test_json(void **state) {
    (void)state;
    MATCHES(JANG_GRAMMAR_JSON, "", "null", "-0.5e+10", "\"\\u00e9\\n\"", "[]",
            "{\n  \"a\": [1, 2]\n}", "\"\\ud83d\\ude00\"");
    MATCHES_NOT(JANG_GRAMMAR_JSON, "", "", "01", "[1,]", "{\"a\"}", "{  }", "\"\\ud83d\"", "nul",
                "1 ", "\"\x01\"", "\"\xc3\"");
    MATCHES_NOT(JANG_GRAMMAR_JSON_OBJECT, "", "[]", "1");
}

/* ---- Vocabularies ---- */

static const char *const words[] = {
    "{",      "}",     "\"",       "a",       "\"a\"", ":", " ",  "1",         "12",
    "true",   "tr",    "ue}",      "\xc3",    "\xa9",  ",", "\n", "\"a\": 1}", "<call>",
    "<call>", "<end>", "\xe6\xbc", "\xa2\"}", "b\xc3", "",  "[]"};
#define N_WORDS ((int32_t)(sizeof words / sizeof *words))
#define LETTER_A 3
#define SPECIAL_CALL 17
#define END 19

static const char *word(void *user, int32_t id, size_t *n, bool *special) {
    (void)user;
    *n = strlen(words[id]);
    *special = id == SPECIAL_CALL;
    return words[id];
}

static grammar_vocab *make_vocab(void) {
    static const int32_t end = END;
    grammar_tokens tokens = {N_WORDS, word, NULL, &end, 1};
    grammar_vocab *v;
    assert_ok(ctx, grammar_vocab_new(&v, ctx, &tokens));
    return v;
}

static void feed(grammar_state *s, const char *text) {
    size_t n;
    assert_ok(ctx, grammar_accept_bytes(s, text, strlen(text), &n));
    assert_int_equal(n, strlen(text));
}

/* The mask must say what accepting each token says. */
static uint64_t checked_mask(const grammar_state *s) {
    uint64_t bits, tried = 0;
    grammar_state *at, *copy;
    assert_ok(ctx, grammar_state_clone(&at, s));
    assert_ok(ctx, grammar_mask(at, &bits));
    for (int32_t id = 0; id < N_WORDS; id++) {
        bool ok;
        assert_ok(ctx, grammar_state_clone(&copy, s));
        assert_ok(ctx, grammar_accept(copy, id, &ok));
        tried |= (uint64_t)ok << id;
        grammar_state_free(copy);
    }
    grammar_state_free(at);
    assert_int_equal(bits, tried);
    return bits;
}

static void test_masks(void **state) {
    (void)state;
    grammar_vocab *v = make_vocab();
    grammar *g = compile(JANG_GRAMMAR_SCHEMA,
                         "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"integer\","
                         "\"boolean\",\"string\"],\"maxLength\":3}},\"required\":[\"a\"]}");
    grammar_state *s;
    assert_ok(ctx, grammar_state_new(&s, g, v));
    assert_int_equal(checked_mask(s), 1u << 0);
    feed(s, "{");
    uint64_t bits = checked_mask(s);
    assert_true(bits >> 16 & 1); /* "a": 1} in one token */
    assert_true(bits >> 15 & 1); /* a new line */
    feed(s, "\"a\": ");
    bits = checked_mask(s);
    assert_true((bits >> 7 & 1) && (bits >> 8 & 1) && (bits >> 9 & 1) && (bits >> 2 & 1));
    feed(s, "\"");
    bits = checked_mask(s);
    assert_true(bits >> 12 & 1);  /* a first byte of two */
    assert_false(bits >> 13 & 1); /* a last one */
    assert_true(bits >> 20 & 1);  /* two of three */
    feed(s, "b\xc3");             /* in the middle of a character */
    assert_int_equal(checked_mask(s), 1u << 13 | 1u << 21);
    feed(s, "\xa9");
    checked_mask(s);
    feed(s, "\xe6\xbc"); /* the third and last */
    assert_int_equal(checked_mask(s), 1u << 13 | 1u << 21);
    feed(s, "\xa2");
    assert_int_equal(checked_mask(s), 1u << 2);
    feed(s, "\"}");
    assert_true(grammar_is_complete(s) && grammar_is_done(s));
    assert_int_equal(checked_mask(s), 1u << END);
    grammar_state_free(s);
    grammar_unref(g);
    grammar_vocab_unref(v);
}

static void test_special_tokens(void **state) {
    (void)state;
    grammar_vocab *v = make_vocab();
    grammar *g = compile(STRUCTURE, "{\"lazy\":[" CALL "]}");
    grammar_state *s;
    assert_ok(ctx, grammar_state_new(&s, g, v));
    uint64_t bits = checked_mask(s);
    assert_true((bits >> SPECIAL_CALL & 1) && (bits >> (SPECIAL_CALL + 1) & 1));
    assert_true(bits >> END & 1);
    bool ok;
    assert_ok(ctx, grammar_accept(s, SPECIAL_CALL, &ok));
    assert_true(ok);
    assert_int_equal(checked_mask(s), 1u << 15);
    assert_ok(ctx, grammar_accept(s, END, &ok));
    assert_false(ok);
    grammar_state_free(s);
    grammar_unref(g);
    g = compile(JANG_GRAMMAR_JSON, "");
    assert_ok(ctx, grammar_state_new(&s, g, v));
    feed(s, "\"");
    bits = checked_mask(s); /* in a string the text may stand, the special token may not */
    assert_true(!(bits >> SPECIAL_CALL & 1) && (bits >> (SPECIAL_CALL + 1) & 1));
    grammar_state_free(s);
    grammar_unref(g);
    grammar_vocab_unref(v);
}

static void test_forced(void **state) {
    (void)state;
    grammar *g = compile(JANG_GRAMMAR_SCHEMA, "{\"type\":\"object\",\"properties\":{\"name\":"
                                              "{\"enum\":[\"left\",\"less\"]}},\"required\":"
                                              "[\"name\"]}");
    grammar_state *s, *copy;
    char bytes[64];
    size_t n;
    assert_ok(ctx, grammar_state_new(&s, g, NULL));
    assert_ok(ctx, grammar_forced(s, bytes, sizeof bytes, &n));
    assert_int_equal(n, 1);
    feed(s, "{\"");
    assert_ok(ctx, grammar_forced(s, bytes, sizeof bytes, &n));
    assert_int_equal(n, 6);
    assert_memory_equal(bytes, "name\":", 6);
    feed(s, "name\":\"");
    assert_ok(ctx, grammar_state_clone(&copy, s));
    assert_ok(ctx, grammar_forced(s, bytes, 1, &n));
    assert_int_equal(n, 1);
    assert_ok(ctx, grammar_forced(s, bytes, sizeof bytes, &n));
    assert_memory_equal(bytes, "le", n);
    feed(s, "lef");
    assert_ok(ctx, grammar_forced(s, bytes, sizeof bytes, &n));
    assert_memory_equal(bytes, "t\"", n);
    feed(copy, "less\"}"); /* a copy goes its own way */
    assert_true(grammar_is_done(copy));
    assert_ok(ctx, grammar_state_copy(copy, s));
    feed(copy, "t\"}");
    assert_ok(ctx, grammar_state_reset(s));
    feed(s, "{");
    assert_false(grammar_is_complete(s));
    grammar_state_free(copy);
    grammar_state_free(s);
    grammar_unref(g);
}

/* Nesting beyond what a state holds is forbidden, and what is open can still be closed. */
static void test_limits(void **state) {
    (void)state;
    grammar *g = compile(JANG_GRAMMAR_JSON, "");
    grammar_state *s;
    assert_ok(ctx, grammar_state_new(&s, g, NULL));
    size_t n = 1, depth = 0;
    for (; n == 1 && depth < 10000; depth++) {
        assert_ok(ctx, grammar_accept_bytes(s, "[", 1, &n));
    }
    assert_in_range(depth, 1000, 9999);
    for (size_t i = 0; i + 1 < depth; i++) {
        feed(s, "]");
    }
    assert_true(grammar_is_done(s));
    grammar_state_free(s);
    grammar_unref(g);
}

/* 200 rules are open at once, and each calls two rules deep after its 'a': the mask, which looks at
 * the ways one by one, allows it, and following them all meets the limit. It is said, not guessed.
 */
static void test_too_many_ways(void **state) {
    (void)state;
    char text[32768];
    size_t n = (size_t)snprintf(text, sizeof text, "root ::= r0");
    for (int i = 1; i < 200; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, " | r%d", i);
    }
    for (int i = 0; i < 200; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "\nr%d ::= \"a\" c%d \"z%d\"\nc%d ::= d%d \"y\"\nd%d ::= \"b\"", i, i,
                              i, i, i, i);
    }
    grammar_vocab *v = make_vocab();
    grammar *g = compile(GBNF, text);
    grammar_state *s;
    uint64_t bits;
    bool ok;
    assert_ok(ctx, grammar_state_new(&s, g, v));
    assert_ok(ctx, grammar_mask(s, &bits));
    assert_true(bits >> LETTER_A & 1);
    assert_fails(ctx, grammar_accept(s, LETTER_A, &ok), JANG_ERR_UNSUPPORTED, "too many ways");
    assert_ok(ctx, grammar_mask(s, &bits)); /* as before */
    assert_true(bits >> LETTER_A & 1);
    grammar_state_free(s);
    grammar_unref(g);
    grammar_vocab_unref(v);
}

int main(void) {
    ctx = test_context();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regex),         cmocka_unit_test(test_regex_refusals),
        cmocka_unit_test(test_gbnf),          cmocka_unit_test(test_gbnf_refusals),
        cmocka_unit_test(test_structure),     cmocka_unit_test(test_json),
        cmocka_unit_test(test_masks),         cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_forced),        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_too_many_ways),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    jang_context_free(ctx);
    return failed;
}
