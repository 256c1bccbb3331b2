/* strmap.h - a map from byte strings to int32, for names of tensors, tokens, keys.
 *
 * Open addressing with linear probing over a power-of-two table, at most 3/4 full; strings are
 * borrowed, not copied. A seed from the address space would make runs differ, so the hash is fixed
 * and probing is bounded by the table's size: hostile keys can make it slow, never endless. */
#ifndef JANG_BASE_STRMAP_H
#define JANG_BASE_STRMAP_H

#include "base/ctx.h"

typedef struct strmap_entry {
    const char *key; /* NULL: free */
    uint32_t n_bytes;
    uint32_t hash;
    int32_t value;
} strmap_entry;

typedef struct strmap {
    ctx_t *ctx;
    strmap_entry *entries;
    uint32_t n_entries, mask; /* mask + 1 slots; no table yet when entries is NULL */
} strmap;

void strmap_init(strmap *map, ctx_t *ctx);
void strmap_free(strmap *map);

/* Makes room for n entries at once. */
JANG_MUST_CHECK jang_status strmap_reserve(strmap *map, size_t n);

/* Adds or replaces; *old, if not NULL, is the value it had, or -1. Values are >= 0. */
JANG_MUST_CHECK jang_status strmap_put(strmap *map, const char *key, size_t n_bytes, int32_t value,
                                       int32_t *old);

/* Returns the value, or -1. */
int32_t strmap_get(const strmap *map, const char *key, size_t n_bytes);

#endif
