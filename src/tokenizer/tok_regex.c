/* tok_regex.c - Oniguruma's patterns run by PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/tok_regex.h"

#include "tokenizer/tok_regex_translate.h"

#include <pcre2.h>
#include <string.h>

struct tok_regex {
    ctx_t *ctx;
    pcre2_code *code;
};

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
    jang_status status = tok_regex_translate(&text, ctx, what, pattern, n_bytes);
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
