/* page_key.h - names of pages of keys and values by what they hold.
 *
 * The key of a page is a keyed hash (SipHash-2-4 with 128 bits, Aumasson and Bernstein 2012, of
 * a secret of the cache) of the key of the page before it and its own 64 token ids; the first one
 * follows a key made of the cache's salt. So a key stands for a whole beginning of a sequence, and
 * nobody who does not know the secret can make two that are alike. */
#ifndef JANG_ENGINE_PAGE_KEY_H
#define JANG_ENGINE_PAGE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct page_key {
    uint64_t a, b;
} page_key;

/* Hashes bytes with a secret. */
page_key page_key_hash(page_key secret, const void *data, size_t n_bytes);

/* The key that the first page of sequences with this salt follows. */
page_key page_key_root(page_key secret, const char *salt);

/* The key of a page that follows another. ids: OPS_PAGE_TOKENS of them. */
page_key page_key_next(page_key secret, page_key before, const int32_t *ids);

/* A secret that nobody can guess. */
page_key page_key_random(void);

static inline bool page_key_equal(page_key x, page_key y) {
    return x.a == y.a && x.b == y.b;
}

#endif
