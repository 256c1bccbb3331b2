/* pretok.h - pre-tokenizers: a piece of text becomes words.
 *
 * The chain is flat: what tokenizer.json nests becomes a list of elementary steps. A step takes a
 * part of the text and passes parts of it, or a rewritten copy, to the next step at once, so no
 * list of parts is ever made. */
#ifndef JANG_TOKENIZER_PRETOK_H
#define JANG_TOKENIZER_PRETOK_H

#include "base/json.h"
#include "tokenizer/split_scan.h"
#include "tokenizer/tok_regex.h"

typedef enum pre_kind {
    PRE_SPLIT,        /* cut at the matches of a pattern */
    PRE_PREFIX_SPACE, /* put a space in front unless there is one */
    PRE_BYTE_CHARS,   /* write bytes as byte-level characters */
    PRE_DUMMY_PREFIX, /* put a text in front of the whole text */
    PRE_METASPACE,    /* write spaces as the replacement, put one in front */
} pre_kind;

/* What becomes of the matches of a split. */
typedef enum pre_behavior {
    PRE_ISOLATED,
    PRE_REMOVED,
    PRE_MERGED_WITH_PREVIOUS,
    PRE_MERGED_WITH_NEXT,
    PRE_CONTIGUOUS
} pre_behavior;

typedef enum pre_prepend { PRE_PREPEND_ALWAYS, PRE_PREPEND_FIRST, PRE_PREPEND_NEVER } pre_prepend;

/* Whether a pattern that is one character of a kind matches it. */
typedef bool (*pre_is)(uint32_t c);

typedef struct pre_step {
    pre_kind kind;
    /* PRE_SPLIT: one of the four */
    scan_fn scan;
    tok_regex *regex;
    pre_is is;
    char *text; /* a fixed string; owned. PRE_METASPACE: the replacement */
    size_t n_text;
    size_t parameter; /* of scan */
    pre_behavior behavior;
    bool invert;
    pre_prepend prepend; /* PRE_METASPACE */
} pre_step;

#define PRE_MAX_STEPS 32

typedef struct pre_chain {
    ctx_t *ctx;
    pre_step steps[PRE_MAX_STEPS];
    int n_steps;
} pre_chain;

/* Reads the "pre_tokenizer" object; NULL is an empty chain. */
JANG_MUST_CHECK jang_status pre_read(pre_chain *chain, ctx_t *ctx, const char *what,
                                     const json_t *json);
void pre_free(pre_chain *chain);

/* Adds a step that puts text in front of the whole text (SentencePiece's dummy prefix). */
JANG_MUST_CHECK jang_status pre_add_dummy_prefix(pre_chain *chain, ctx_t *ctx, const char *text);

/* Adds a split that keeps everything, by a pattern. */
JANG_MUST_CHECK jang_status pre_add_pattern(pre_chain *chain, ctx_t *ctx, const char *what,
                                            const char *pattern);

/* Adds the step that writes bytes as byte-level characters. */
JANG_MUST_CHECK jang_status pre_add_byte_chars(pre_chain *chain, ctx_t *ctx);

/* Takes a word. */
typedef jang_status (*pre_sink)(void *user, const char *word, size_t n_bytes);

typedef struct pre_scratch {
    buf text[PRE_MAX_STEPS]; /* rewritten copies, one per step */
    tok_regex_scratch regex;
    const pre_chain *chain;
    pre_sink sink;
    void *user;
} pre_scratch;

void pre_scratch_init(pre_scratch *s, ctx_t *ctx, const pre_chain *chain, pre_sink sink,
                      void *user);
void pre_scratch_free(pre_scratch *s);

/* Sends text (valid UTF-8) through the chain. n_origin: how many bytes at its beginning come
 * from the very first character of the whole text; 0 if it lies further in. */
JANG_MUST_CHECK jang_status pre_run(pre_scratch *s, const char *text, size_t n_bytes,
                                    size_t n_origin);

#endif
