/* bpe.h - byte pair encoding: a word to ids by merging neighbours in order of rank. */
#ifndef JANG_TOKENIZER_BPE_H
#define JANG_TOKENIZER_BPE_H

#include "base/jsonpull.h"
#include "tokenizer/tok_vocab.h"
#include "tokenizer/tokenizer.h"

/* A merge of two ids; 16 bytes. Free slots have rank UINT32_MAX. */
typedef struct bpe_merge {
    int32_t left, right;
    uint32_t rank;
    int32_t id; /* of the two together */
} bpe_merge;

typedef struct bpe_model {
    ctx_t *ctx;
    const tok_vocab *vocab;
    bpe_merge *merges; /* open addressing by (left, right) */
    uint32_t mask;     /* slots - 1 */
    uint32_t n_merges;
    int32_t unk; /* id or -1 */
    bool fuse_unk, byte_fallback, ignore_merges;
    char *prefix, *suffix; /* of continuing and of last symbols; NULL when empty */
    int32_t fallback[256]; /* ids of <0x00> ... <0xFF>; -1 */
    bool raw;              /* words come as plain bytes and stand for byte-level characters */
    int32_t byte_id[256];  /* with raw: the id of each byte's character, or -1 */
    bool cuts;             /* whether words may be cut where no merge can join; with cuts: */
    uint64_t *junctions;   /* set over hashed pairs of characters between which a merge joins */
    uint64_t *known;       /* set of the characters below U+10000 that are tokens */
} bpe_model;

void bpe_init(bpe_model *m, ctx_t *ctx, const tok_vocab *vocab);
void bpe_free(bpe_model *m);

/* Reads the "merges" list, in either spelling, once vocabulary and prefix are known. */
JANG_MUST_CHECK jang_status bpe_read_merges(bpe_model *m, jsonpull *p);
/* Adding merges one by one with their ranks, which are below UINT32_MAX; equal ranks go from left
 * to right. They wait in a batch; _finish adds the last ones. JANG_ERR_FORMAT, which may come late,
 * if a token is not in the vocabulary. */
typedef struct bpe_batch bpe_batch;
JANG_MUST_CHECK jang_status bpe_batch_new(bpe_batch **out, bpe_model *m, const char *what,
                                          size_t n_expected);
void bpe_batch_free(bpe_batch *b);
JANG_MUST_CHECK jang_status bpe_add_merge(bpe_batch *b, uint32_t rank, const char *left,
                                          size_t n_left, const char *right, size_t n_right);
/* Adds all ways to put a token together from two others, for vocabularies without merges. */
JANG_MUST_CHECK jang_status bpe_add_splits(bpe_batch *b, uint32_t rank, const char *token,
                                           size_t n_bytes);
JANG_MUST_CHECK jang_status bpe_batch_finish(bpe_batch *b);

/* Looks up what encoding needs, after vocabulary, options and merges. raw as in the struct. */
JANG_MUST_CHECK jang_status bpe_finish(bpe_model *m, bool raw);

/* Where a pair belongs in the merge table. */
static inline uint32_t bpe_pair_hash(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32 ^ h >> 15);
}

#define BPE_JUNCTION_BITS 21

/* The place in junctions of a character and the one after it. */
static inline uint32_t bpe_junction(uint32_t left, uint32_t right) {
    return (left * 0x9e3779b1u ^ right * 0x85ebca6bu) * 0xc2b2ae35u >> (32 - BPE_JUNCTION_BITS);
}

/* Scratch of one encoder, and its cache of words. */
typedef struct bpe_symbol {
    int32_t id, previous, next; /* places in the list, -1 at the ends */
} bpe_symbol;

typedef struct bpe_candidate {
    uint64_t key; /* rank << 32 | place of the left symbol */
    int32_t id;
} bpe_candidate;

#define BPE_CACHE_KEY 27
#define BPE_CACHE_IDS 8

/* One word and its ids; 64 bytes. n_bytes 0: free. */
typedef struct bpe_cached {
    uint8_t n_bytes, n_ids;
    char key[BPE_CACHE_KEY + 3];
    int32_t ids[BPE_CACHE_IDS];
} bpe_cached;

typedef struct bpe_scratch {
    ctx_t *ctx;
    bpe_symbol *symbols;
    bpe_candidate *heap;
    size_t capacity;
    buf text;          /* a word's spelling where it must be put together */
    bpe_cached *cache; /* direct mapped; NULL until used */
} bpe_scratch;

void bpe_scratch_init(bpe_scratch *s, ctx_t *ctx);
void bpe_scratch_free(bpe_scratch *s);

/* Appends the ids of one word (valid UTF-8, or any bytes with raw). */
JANG_MUST_CHECK jang_status bpe_encode(const bpe_model *m, bpe_scratch *s, tok_ids *out,
                                       const char *word, size_t n_bytes);

#endif
