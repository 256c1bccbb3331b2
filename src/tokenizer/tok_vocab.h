/* tok_vocab.h - spellings to ids and back.
 *
 * Spellings lie one after another, each ended by a 0 byte, in one arena; an entry says where.
 * The hash table is open addressing over entry numbers with the hash beside each, so that a lookup
 * touches one slot, one entry and one spelling. */
#ifndef JANG_TOKENIZER_TOK_VOCAB_H
#define JANG_TOKENIZER_TOK_VOCAB_H

#include "base/buf.h"

/* Ids stay below this: a hostile file must not make tables of gigabytes. */
#define TOK_MAX_IDS (1 << 24)

typedef struct vocab_entry {
    uint32_t at, n_bytes;
    int32_t id;
} vocab_entry;

typedef struct vocab_slot {
    uint32_t hash;
    uint32_t entry; /* number + 1; 0: free */
} vocab_slot;

typedef struct tok_vocab {
    ctx_t *ctx;
    buf arena;
    vocab_entry *entries;
    uint32_t n_entries, capacity;
    vocab_slot *slots;
    uint32_t mask;
    int32_t *by_id; /* [n_ids] entry numbers, -1 for holes */
    int32_t n_ids, ids_capacity;
    uint32_t longest; /* bytes of the longest spelling */
} tok_vocab;

void vocab_init(tok_vocab *v, ctx_t *ctx);
void vocab_free(tok_vocab *v);

/* Makes room for about so many tokens and bytes of spellings. */
JANG_MUST_CHECK jang_status vocab_reserve(tok_vocab *v, size_t n_tokens, size_t n_bytes);

/* Adds a token, or gives an old spelling a new id; the old id then still has the spelling.
 * 0 <= id < TOK_MAX_IDS. */
JANG_MUST_CHECK jang_status vocab_add(tok_vocab *v, const char *text, size_t n_bytes, int32_t id);

/* The id of a spelling, or -1. */
int32_t vocab_get(const tok_vocab *v, const char *text, size_t n_bytes);

/* The same in steps, for looking up many at once: with the hash known, each step fetches into the
 * cache what the next one needs. */
void vocab_fetch_slot(const tok_vocab *v, uint32_t hash);
void vocab_fetch_entry(const tok_vocab *v, uint32_t hash);
void vocab_fetch_text(const tok_vocab *v, uint32_t hash);
int32_t vocab_get_hashed(const tok_vocab *v, const char *text, size_t n_bytes, uint32_t hash);

/* The spelling of an id, borrowed until the next addition; NULL if there is none. */
const char *vocab_text(const tok_vocab *v, int32_t id, size_t *n_bytes);

/* Mixes bytes to 32 bits: multiply and fold, eight bytes at a time. */
uint32_t vocab_hash(const char *text, size_t n_bytes);

#endif
