/* normalize.h - normalizers: a piece of text rewritten before it is cut into words. */
#ifndef JANG_TOKENIZER_NORMALIZE_H
#define JANG_TOKENIZER_NORMALIZE_H

#include "base/json.h"
#include "tokenizer/tok_regex.h"

typedef struct norm_step norm_step;
typedef struct norm_scratch norm_scratch;

/* Appends what a step makes of text (valid UTF-8, not empty) to out. */
typedef jang_status (*norm_fn)(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                               size_t n);

struct norm_step {
    norm_fn run;
    tok_regex *regex; /* Replace by pattern */
    char *text; /* Replace by string: what is replaced; Prepend, Append: what is added; owned */
    size_t n_text;
    char *content; /* Replace: the replacement; owned */
    size_t n_content;
    int options; /* Unicode forms: utf8proc's options */
};

#define NORM_MAX_STEPS 32

typedef struct norm_chain {
    ctx_t *ctx;
    norm_step steps[NORM_MAX_STEPS];
    int n_steps;
} norm_chain;

/* Reads the "normalizer" object; NULL is an empty chain. */
JANG_MUST_CHECK jang_status norm_read(norm_chain *chain, ctx_t *ctx, const char *what,
                                      const json_t *json);
void norm_free(norm_chain *chain);

/* Adds SentencePiece's own normalizer: the precompiled map (n bytes; none if 0) with the longest
 * key at each place, then white space: with collapse, none at the ends and one space between;
 * spaces become U+2581 if escape. */
JANG_MUST_CHECK jang_status norm_add_sentencepiece(norm_chain *chain, ctx_t *ctx, const char *what,
                                                   const char *map, size_t n, bool collapse,
                                                   bool escape);

struct norm_scratch {
    buf text[2]; /* input and output of the step at work, in turn */
    buf points;  /* int32 code points */
    tok_regex_scratch regex;
};

void norm_scratch_init(norm_scratch *s, ctx_t *ctx);
void norm_scratch_free(norm_scratch *s);

/* Normalizes text (valid UTF-8). The result is borrowed from text or the scratch until the next
 * call. */
JANG_MUST_CHECK jang_status norm_run(const norm_chain *chain, norm_scratch *s, const char *text,
                                     size_t n, const char **out, size_t *n_out);

#endif
