/* unigram.h - the Unigram model: the likeliest way to cut a word into pieces. */
#ifndef JANG_TOKENIZER_UNIGRAM_H
#define JANG_TOKENIZER_UNIGRAM_H

#include "base/jsonpull.h"
#include "tokenizer/tok_trie.h"
#include "tokenizer/tok_vocab.h"
#include "tokenizer/tokenizer.h"

typedef struct uni_model {
    ctx_t *ctx;
    tok_vocab *vocab;
    double *scores; /* [n_scores] by id */
    size_t n_scores, capacity;
    double lowest;
    tok_trie trie;
    int32_t unk; /* -1: none */
    bool byte_fallback;
    int32_t fallback[256];
} uni_model;

void uni_init(uni_model *m, ctx_t *ctx, tok_vocab *vocab);
void uni_free(uni_model *m);

/* Adds the next piece; its id is its place. One whose score is NaN is found in no word. */
JANG_MUST_CHECK jang_status uni_add(uni_model *m, const char *text, size_t n_bytes, double score);
/* Reads the list of [piece, score]. */
JANG_MUST_CHECK jang_status uni_read_vocab(uni_model *m, jsonpull *p);
/* Builds what encoding needs, after vocabulary and options. */
JANG_MUST_CHECK jang_status uni_finish(uni_model *m, const char *what);

/* Scratch of one encoder: per byte of the word the best way to get there. */
typedef struct uni_node {
    double score;
    int32_t id;
    int32_t from; /* -1: not reached */
} uni_node;

typedef struct uni_scratch {
    uni_node *nodes;
    size_t capacity;
} uni_scratch;

void uni_scratch_free(uni_scratch *s, ctx_t *ctx);

/* Appends the ids of one word (valid UTF-8). */
JANG_MUST_CHECK jang_status uni_encode(const uni_model *m, uni_scratch *s, tok_ids *out,
                                       const char *word, size_t n_bytes);

#endif
