/* page_pool.h - the pages of keys and values of an engine: who uses them, and what they hold.
 *
 * A page is free, or used by one or more sequences, or cached: used by none, but full and known
 * by its key (page_key.h), so that a later sequence that begins alike finds it. Cached pages are
 * given up when others are needed, the longest unused first. Pages are made as they are needed, up
 * to a limit; when the system has no memory for more, what there is becomes the limit.
 *
 * A sequence writes only to pages that it alone uses; a full page is never written again. Pages
 * are open (ops.h) from when they are taken until they are full or free. */
#ifndef JANG_ENGINE_PAGE_POOL_H
#define JANG_ENGINE_PAGE_POOL_H

#include "engine/page_key.h"
#include "model/model.h"

typedef struct page_info {
    page_key key;       /* of a page that is full and known */
    bool is_known;      /* it is in the table */
    bool has_draft;     /* the draft model's keys and values are in it, too */
    bool is_saved;      /* it is on disk, or need not go there */
    int32_t n_users;    /* sequences that hold it */
    int32_t snapshot;   /* slot of the recurrent state at its end; -1: none */
    int32_t chain;      /* next known page of equal hash; -1: none */
    int32_t prev, next; /* neighbours among the cached, or next among the free; -1: none */
} page_info;

typedef struct page_pool {
    ctx_t *ctx;
    model *m;
    model_cache *cache;
    model *draft;             /* NULL: none */
    model_cache *draft_cache; /* pages of the same numbers */
    page_info *pages;         /* [n] */
    int32_t n, n_max;
    int32_t *table; /* [table_mask + 1] first page of a hash; -1: none */
    uint32_t table_mask;
    int32_t free;           /* first free page; -1: none */
    int32_t oldest, newest; /* of the cached; -1: none */
    int32_t n_free, n_cached;
    int32_t n_unsaved; /* known pages that are not marked as saved */
    uint64_t n_evictions;
    /* Called before a known page is forgotten. */
    void (*on_forget)(void *user, int32_t page);
    void *user;
} page_pool;

/* m and the cache are borrowed; n_max >= 1 pages may exist. A draft model's are set by the caller,
 * where there is one. */
void page_pool_init(page_pool *p, ctx_t *ctx, model *m, model_cache *cache, int32_t n_max);
void page_pool_free(page_pool *p);

/* Takes a page for one sequence: a free one, a new one, or the longest cached. JANG_ERR_FULL,
 * without a message, when all are in use or there is no memory to open one. */
JANG_MUST_CHECK jang_status page_pool_take(page_pool *p, int32_t *page);

/* Pages that could be taken now. */
int32_t page_pool_available(const page_pool *p);

/* One more and one less user. A page that loses its last is cached if it is known, else free. */
void page_pool_hold(page_pool *p, int32_t page);
void page_pool_drop(page_pool *p, int32_t page);

/* Makes a full page known. If another is known by that key, the user gets that one instead, which
 * holds the same, and page is dropped. Returns the page to use. */
int32_t page_pool_publish(page_pool *p, int32_t page, page_key key);

/* Seals a page that is full: publish does so, too. */
void page_pool_seal(page_pool *p, int32_t page);

/* The page known by a key, or -1; nobody's use of it changes. */
int32_t page_pool_find(const page_pool *p, page_key key);

/* Marks a known page as saved. */
void page_pool_saved(page_pool *p, int32_t page);

/* Copies what a page holds to another. */
void page_pool_copy(page_pool *p, int32_t from, int32_t to);

/* Forgets all cached pages. */
void page_pool_clear(page_pool *p);

#endif
