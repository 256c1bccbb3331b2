/* tok_regex.c - Oniguruma patterns on PCRE2.
 *
 * What is translated (Oniguruma's Ruby syntax on the left, in UTF-8):
 *   \s \S      White_Space; PCRE2's \s with UCP also has U+180E
 *   \w \W      alphabetic, marks, decimal digits, connectors; PCRE2's has all numbers and no marks
 *   \h \H      hexadecimal digits; in PCRE2 horizontal space
 *   ^ $        at every line; \Z before a last newline (PCRE2_MULTILINE gives the first two)
 *   (?m        the dot matches newlines, PCRE2's s
 *   \p{^X}     as PCRE2 has it already
 * Newline is LF only in both. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/tok_regex.h"

#include <pcre2.h>
#include <string.h>

struct tok_regex {
    ctx_t *ctx;
    pcre2_code *code;
};

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define WORDS "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"
#define HEX "0-9a-fA-F"

/* The members of an escape's class, or NULL. */
static const char *class_members(char c) {
    switch (c) {
    case 's':
    case 'S':
        return SPACES;
    case 'w':
    case 'W':
        return WORDS;
    case 'h':
    case 'H':
        return HEX;
    default:
        return NULL;
    }
}

/* Appends the translation of backslash and c. A negated class within brackets cannot be spelled
 * out, so PCRE2's nearest is taken. */
static void put_escape(buf *out, char c, bool in_class) {
    const char *members = class_members(c);
    bool negated = c >= 'A' && c <= 'Z';
    if (!members) {
        buf_putc(out, '\\');
        buf_putc(out, c);
    } else if (!in_class) {
        buf_puts(out, negated ? "[^" : "[");
        buf_puts(out, members);
        buf_putc(out, ']');
    } else if (!negated) {
        buf_puts(out, members);
    } else {
        buf_puts(out, c == 'S' ? "\\S\\x{180e}" : c == 'W' ? "\\W" : "\\x{0}-/:-@G-`g-\\x{10ffff}");
    }
}

/* Copies "(?" options ":" or ")" with Ruby's m as PCRE2's s. Returns the bytes read. */
static size_t put_options(buf *out, const char *p, size_t n) {
    size_t i = 2;
    while (i < n && (p[i] == '-' || p[i] == 'i' || p[i] == 'm' || p[i] == 'x')) {
        i++;
    }
    if (i == 2 || i == n || (p[i] != ':' && p[i] != ')')) {
        buf_puts(out, "(?");
        return 2;
    }
    for (size_t k = 0; k <= i; k++) {
        buf_putc(out, p[k] == 'm' ? 's' : p[k]);
    }
    return i + 1;
}

static void translate(buf *out, const char *p, size_t n) {
    int class_depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            put_escape(out, p[++i], class_depth > 0);
        } else if (class_depth == 0 && p[i] == '(' && i + 2 < n && p[i + 1] == '?') {
            i += put_options(out, p + i, n - i) - 1;
        } else {
            if (p[i] == '[' && (class_depth == 0 || i + 1 >= n || p[i + 1] != ':')) {
                class_depth = 1;
                buf_putc(out, '[');
                if (i + 1 < n && p[i + 1] == '^') {
                    buf_putc(out, p[++i]);
                }
                continue;
            }
            if (p[i] == ']' && class_depth > 0) {
                class_depth = 0;
            }
            buf_putc(out, p[i]);
        }
    }
}

static jang_status compile(tok_regex *re, const char *what, const char *pattern, size_t n) {
    int error;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) {
        return ctx_fail_memory(re->ctx, 256);
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    re->code = pcre2_compile((PCRE2_SPTR)pattern, n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                             &error, &at, context);
    pcre2_compile_context_free(context);
    if (!re->code) {
        char message[128] = "";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)message, sizeof message);
        return ctx_fail(re->ctx, JANG_ERR_FORMAT, "%s: pattern '%.*s': %s (byte %zu)", what,
                        (int)(n < 200 ? n : 200), pattern, message, (size_t)at);
    }
    pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* without JIT it runs, slowly */
    return JANG_OK;
}

jang_status tok_regex_open(tok_regex **out, ctx_t *ctx, const char *what, const char *pattern,
                           size_t n_bytes) {
    tok_regex *re = ctx_zero(ctx, 1, sizeof *re);
    if (!re) {
        return ctx_fail_memory(ctx, sizeof *re);
    }
    re->ctx = ctx;
    buf text;
    buf_init(&text, ctx, (size_t)1 << 20);
    translate(&text, pattern, n_bytes);
    jang_status status = buf_status(&text);
    if (status == JANG_OK) {
        status = compile(re, what, text.data, text.size);
    }
    buf_free(&text);
    if (status != JANG_OK) {
        tok_regex_close(re);
        return status;
    }
    *out = re;
    return JANG_OK;
}

void tok_regex_close(tok_regex *re) {
    if (re) {
        pcre2_code_free(re->code);
        ctx_free(re->ctx, re);
    }
}

void tok_regex_scratch_free(tok_regex_scratch *s) {
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
    pcre2_jit_stack_free(s->jit_stack);
    *s = (tok_regex_scratch){0};
}

static jang_status make_scratch(ctx_t *ctx, tok_regex_scratch *s) {
    s->match_data = pcre2_match_data_create(1, NULL);
    s->match_context = pcre2_match_context_create(NULL);
    s->jit_stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)32 << 20, NULL);
    if (!s->match_data || !s->match_context || !s->jit_stack) {
        tok_regex_scratch_free(s);
        return ctx_fail_memory(ctx, (size_t)32 << 10);
    }
    pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    pcre2_set_match_limit(s->match_context, 100000000);
    return JANG_OK;
}

jang_status tok_regex_find(const tok_regex *re, tok_regex_scratch *s, const char *text, size_t n,
                           size_t from, size_t *start, size_t *end) {
    jang_status status = s->match_data ? JANG_OK : make_scratch(re->ctx, s);
    if (status != JANG_OK) {
        return status;
    }
    int found = pcre2_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, s->match_data,
                            s->match_context);
    if (found == PCRE2_ERROR_NOMATCH) {
        *start = n + 1;
        *end = 0;
        return JANG_OK;
    }
    if (found < 0) {
        char message[128] = "";
        pcre2_get_error_message(found, (PCRE2_UCHAR *)message, sizeof message);
        return ctx_fail(re->ctx, JANG_ERR_UNSUPPORTED, "a split pattern failed on the text: %s",
                        message);
    }
    const PCRE2_SIZE *ovector = pcre2_get_ovector_pointer(s->match_data);
    *start = ovector[0];
    *end = ovector[1];
    return JANG_OK;
}
