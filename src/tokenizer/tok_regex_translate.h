/* tok_regex_translate.h - a pattern for Oniguruma as one for PCRE2. */
#ifndef JANG_TOKENIZER_TOK_REGEX_TRANSLATE_H
#define JANG_TOKENIZER_TOK_REGEX_TRANSLATE_H

#include "base/buf.h"

/* Appends the translation. JANG_ERR_UNSUPPORTED for what PCRE2 cannot say. */
JANG_MUST_CHECK jang_status tok_regex_translate(buf *out, ctx_t *ctx, const char *what,
                                                const char *pattern, size_t n_bytes);

#endif
