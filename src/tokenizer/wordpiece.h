/* wordpiece.h - WordPiece (longest piece first) and WordLevel (whole words). */
#ifndef JANG_TOKENIZER_WORDPIECE_H
#define JANG_TOKENIZER_WORDPIECE_H

#include "tokenizer/tok_vocab.h"
#include "tokenizer/tokenizer.h"

typedef struct wp_model {
    ctx_t *ctx;
    const tok_vocab *vocab;
    const char *prefix; /* of continuing pieces; borrowed, NULL for none */
    int64_t max_chars;  /* a longer word is unknown */
    int32_t unk;        /* -1: none, and an unknown word is an error */
} wp_model;

/* Appends the ids of one word: the longest piece that begins it, then the longest continuing one,
 * and so on; the unknown token if that fails. scratch holds prefixed pieces. */
JANG_MUST_CHECK jang_status wp_encode(const wp_model *m, buf *scratch, tok_ids *out,
                                      const char *word, size_t n_bytes);

/* Appends the id of a whole word. */
JANG_MUST_CHECK jang_status wp_encode_word(const wp_model *m, tok_ids *out, const char *word,
                                           size_t n_bytes);

#endif
