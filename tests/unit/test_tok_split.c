/* test_tok_split.c - the hand-written matchers against the patterns they stand for, run by PCRE2
 * with the same Unicode tables; and the translation of patterns. */
#include "support.h"

#include "base/buf.h"
#include "tokenizer/split_scan.h"
#include "tokenizer/tok_regex.h"
#include "tokenizer/tok_regex_translate.h"

#include <string.h>

#define LLAMA3(digits)                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits                     \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char *const patterns[] = {SCAN_GPT2_PATTERN, LLAMA3("{1,3}"), LLAMA3("")};

typedef struct both {
    ctx_t *ctx;
    scan_fn scan;
    size_t parameter;
    tok_regex *regex;
    tok_regex_scratch scratch;
} both;

static both open_both(ctx_t *ctx, const char *pattern) {
    both b = {.ctx = ctx};
    b.scan = scan_of_pattern(pattern, strlen(pattern), &b.parameter);
    assert_non_null(b.scan);
    assert_ok(ctx, tok_regex_open(&b.regex, ctx, "test", pattern, strlen(pattern)));
    return b;
}

static void close_both(both *b) {
    tok_regex_close(b->regex);
    tok_regex_scratch_free(&b->scratch);
}

static void compare(both *b, const char *text, size_t n) {
    for (size_t at = 0; at < n;) {
        size_t start, end, scan_start, scan_end;
        assert_ok(b->ctx, tok_regex_find(b->regex, &b->scratch, text, n, at, &start, &end));
        scan_end = b->scan(text, n, at, b->parameter, &scan_start);
        if (scan_start != start || scan_end != end) {
            fail_msg("byte %zu of '%.*s': %zu to %zu, expected %zu to %zu", at, (int)n, text,
                     scan_start, scan_end, start, end);
        }
        at = end;
    }
}

/* Every code point between neighbours of each class. */
static void test_tok_split_scanners_know_every_character(void **state) {
    (void)state;
    static const char *const around[][2] = {{"", ""},    {"a", "b"}, {" ", "1"},  {"'", "s"},
                                            {"!", "\n"}, {"1", " "}, {"\n", "a"}, {"  ", "!"}};
    ctx_t *ctx = test_context();
    buf text;
    buf_init(&text, ctx, 64);
    for (size_t k = 0; k < sizeof patterns / sizeof *patterns; k++) {
        both b = open_both(ctx, patterns[k]);
        for (uint32_t c = 0; c < 0x110000; c += c >= 0x20000 && c < 0xe0000 ? 61 : 1) {
            const char *const *near = around[c % (sizeof around / sizeof *around)];
            buf_clear(&text);
            buf_puts(&text, near[0]);
            buf_put_utf8(&text, c);
            buf_puts(&text, near[1]);
            compare(&b, text.data, text.size);
        }
        close_both(&b);
    }
    buf_free(&text);
    jang_context_free(ctx);
}

static void test_tok_split_scanners_equal_their_patterns(void **state) {
    (void)state;
    static const uint32_t characters[] = {
        'a',   'B',   's',  't',  'l',    'L',    'e',    'r',    'V',    'd',     'm',   '\'',
        '\'',  ' ',   ' ',  '\n', '\r',   '\t',   '1',    '2',    '!',    '.',     0xe9,  0x17f,
        0x300, 0x660, 0x85, 0xa0, 0x3000, 0x180e, 0x200d, 0x4e2d, 0x2028, 0x1f600, 0x1680};
    ctx_t *ctx = test_context();
    test_rng rng = {20240607};
    buf text;
    buf_init(&text, ctx, 256);
    for (size_t k = 0; k < sizeof patterns / sizeof *patterns; k++) {
        both b = open_both(ctx, patterns[k]);
        for (int i = 0; i < 30000; i++) {
            buf_clear(&text);
            for (int64_t left = 1 + rng_below(&rng, 14); left > 0; left--) {
                int64_t n = (int64_t)(sizeof characters / sizeof *characters);
                buf_put_utf8(&text, characters[rng_below(&rng, n)]);
            }
            compare(&b, text.data, text.size);
        }
        close_both(&b);
    }
    buf_free(&text);
    jang_context_free(ctx);
}

/* Whether a pattern matches the whole of a text. */
static bool matches(ctx_t *ctx, const char *pattern, const char *text) {
    tok_regex *re;
    tok_regex_scratch scratch = {0};
    size_t start, end;
    assert_ok(ctx, tok_regex_open(&re, ctx, "test", pattern, strlen(pattern)));
    assert_ok(ctx, tok_regex_find(re, &scratch, text, strlen(text), 0, &start, &end));
    tok_regex_close(re);
    tok_regex_scratch_free(&scratch);
    return start == 0 && end == strlen(text);
}

static void test_tok_split_translates_oniguruma(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    assert_false(matches(ctx, "\\s", "\xe1\xa0\x8e"));       /* U+180E is no space */
    assert_true(matches(ctx, "\\w+", "a\xcc\x81_\xd9\xa1")); /* marks and digits are words */
    assert_false(matches(ctx, "[\\w]", "\xc2\xb2"));         /* superscript two is not */
    assert_true(matches(ctx, "\\h+", "09afAF"));             /* hexadecimal digits */
    assert_true(matches(ctx, "[a-z&&[^aeiou]]+", "xyz"));
    assert_false(matches(ctx, "[a-z&&[^aeiou]]", "e"));
    assert_true(matches(ctx, "[a[bc]]+", "abc"));
    assert_true(matches(ctx, "[[:alpha:]]+", "\xc3\xa9z"));
    assert_true(matches(ctx, "[\\u4e00-\\u9fff]+", "\xe4\xb8\xad"));
    assert_true(matches(ctx, "(?m:a.b)", "a\nb"));
    assert_false(matches(ctx, "a.b", "a\nb"));
    assert_false(matches(ctx, "\\p{Han}", "\xe3\x80\x82")); /* no script extensions */
    assert_true(matches(ctx, "\\p{^L}\\P{N}", "1a"));
    assert_true(matches(ctx, "\\p{L}", "\xf0\x90\xb5\xaf")); /* of Unicode 16 */
    tok_regex *re;
    assert_fails(ctx, tok_regex_open(&re, ctx, "t", "[a[^b]]", 7), JANG_ERR_UNSUPPORTED,
                 "a negated set within a set");
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tok_split_scanners_know_every_character),
        cmocka_unit_test(test_tok_split_scanners_equal_their_patterns),
        cmocka_unit_test(test_tok_split_translates_oniguruma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
