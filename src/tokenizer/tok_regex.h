/* tok_regex.h - the regular expressions of tokenizer files, run by PCRE2 with JIT.
 *
 * Files are written for Oniguruma with Ruby's syntax. tok_regex_open translates what means
 * something else in PCRE2; see tok_regex_translate.c for the list. */
#ifndef JANG_TOKENIZER_TOK_REGEX_H
#define JANG_TOKENIZER_TOK_REGEX_H

#include "base/buf.h"

typedef struct tok_regex tok_regex;

/* what stands in messages. */
JANG_MUST_CHECK jang_status tok_regex_open(tok_regex **out, ctx_t *ctx, const char *what,
                                           const char *pattern, size_t n_bytes);
void tok_regex_close(tok_regex *re);

/* What one thread needs to match; made on first use. */
typedef struct tok_regex_scratch {
    void *match_data, *match_context, *jit_stack;
} tok_regex_scratch;
void tok_regex_scratch_free(tok_regex_scratch *s);

/* Finds the first match at or after from in text (valid UTF-8). *start > *end stands for none:
 * then *start is n + 1. */
JANG_MUST_CHECK jang_status tok_regex_find(const tok_regex *re, tok_regex_scratch *s,
                                           const char *text, size_t n, size_t from, size_t *start,
                                           size_t *end);

#endif
