/* tok_added.h - added tokens: found in the text before anything else looks at it. */
#ifndef JANG_TOKENIZER_TOK_ADDED_H
#define JANG_TOKENIZER_TOK_ADDED_H

#include "base/json.h"
#include "base/jsonpull.h"
#include "tokenizer/tok_trie.h"
#include "tokenizer/tok_vocab.h"

typedef struct added_token {
    char *content; /* owned */
    size_t n_content;
    char *normalized_content; /* what the normalizer makes of it, where that differs; owned; NULL */
    size_t n_normalized;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} added_token;

typedef struct tok_added {
    ctx_t *ctx;
    added_token *tokens;
    size_t n, capacity;
    tok_vocab map;  /* content to id */
    int32_t *by_id; /* [n_ids] index into tokens, -1 */
    int32_t n_ids;
    tok_trie plain, normal; /* over tokens with normalized false, true */
} tok_added;

void added_init(tok_added *a, ctx_t *ctx);
void added_free(tok_added *a);

/* Reads the list "added_tokens". model is the model's vocabulary, n_model its size as the
 * reference counts it: a token it lacks gets the next free id. */
JANG_MUST_CHECK jang_status added_read(tok_added *a, jsonpull *p, const tok_vocab *model);
/* Adds one token, copying its content; its id is in it. */
JANG_MUST_CHECK jang_status added_add(tok_added *a, added_token token);
/* Reads "added_tokens_decoder" of tokenizer_config.json: ids to tokens. NULL is empty. */
JANG_MUST_CHECK jang_status added_read_decoder(tok_added *a, const char *what, const json_t *json);
/* Builds what matching needs, after the normalized spellings are set. */
JANG_MUST_CHECK jang_status added_finish(tok_added *a);

const added_token *added_of_id(const tok_added *a, int32_t id);

/* A match: bytes start to end of the text, stripped spaces included. */
typedef struct added_match {
    size_t start, end;
    int32_t id;
} added_match;

/* Where a search stands; starts as zeros. */
typedef struct added_search {
    size_t at;   /* where to look on */
    size_t done; /* end of what has been handed out */
} added_search;

/* Finds the next token in text. Returns false when there is none. With no_special, special tokens
 * are plain text. */
bool added_next(const tok_added *a, const tok_trie *trie, const char *text, size_t n,
                bool no_special, added_search *search, added_match *out);

#endif
