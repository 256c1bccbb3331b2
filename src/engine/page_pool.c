/* page_pool.c - the pages of keys and values of an engine: who uses them, and what they hold. */
#include "engine/page_pool.h"

void page_pool_init(page_pool *p, ctx_t *ctx, model *m, model_cache *cache, int32_t n_max) {
    *p = (page_pool){
        .ctx = ctx,
        .m = m,
        .cache = cache,
        .n_max = n_max,
        .free = -1,
        .oldest = -1,
        .newest = -1,
    };
}

void page_pool_free(page_pool *p) {
    ctx_free(p->ctx, p->pages);
    ctx_free(p->ctx, p->table);
    p->pages = NULL;
    p->table = NULL;
}

/* ---- Table of known pages ---- */

static int32_t *table_slot(const page_pool *p, page_key key) {
    return &p->table[(uint32_t)key.a & p->table_mask];
}

static void table_add(page_pool *p, int32_t page) {
    int32_t *slot = table_slot(p, p->pages[page].key);
    p->pages[page].chain = *slot;
    *slot = page;
}

static void table_remove(page_pool *p, int32_t page) {
    int32_t *at = table_slot(p, p->pages[page].key);
    while (*at != page) {
        at = &p->pages[*at].chain;
    }
    *at = p->pages[page].chain;
}

int32_t page_pool_find(const page_pool *p, page_key key) {
    int32_t page = p->table ? *table_slot(p, key) : -1;
    while (page >= 0 && !page_key_equal(p->pages[page].key, key)) {
        page = p->pages[page].chain;
    }
    return page;
}

/* A table of at least n places, filled anew. */
static jang_status grow_table(page_pool *p, int32_t n) {
    uint32_t size = p->table ? p->table_mask + 1 : 64;
    while (size < (uint32_t)n) {
        size *= 2;
    }
    if (p->table && size == p->table_mask + 1) {
        return JANG_OK;
    }
    int32_t *table = ctx_array(p->ctx, size, sizeof *table);
    if (!table) {
        return ctx_fail_memory(p->ctx, size * sizeof *table);
    }
    for (uint32_t i = 0; i < size; i++) {
        table[i] = -1;
    }
    ctx_free(p->ctx, p->table);
    p->table = table;
    p->table_mask = size - 1;
    for (int32_t i = 0; i < p->n; i++) {
        if (p->pages[i].is_known) {
            table_add(p, i);
        }
    }
    return JANG_OK;
}

/* ---- Cached pages, oldest first ---- */

static void unlink_cached(page_pool *p, int32_t page) {
    page_info *info = &p->pages[page];
    *(info->prev >= 0 ? &p->pages[info->prev].next : &p->oldest) = info->next;
    *(info->next >= 0 ? &p->pages[info->next].prev : &p->newest) = info->prev;
    p->n_cached--;
}

static void link_newest(page_pool *p, int32_t page) {
    page_info *info = &p->pages[page];
    info->prev = p->newest;
    info->next = -1;
    *(p->newest >= 0 ? &p->pages[p->newest].next : &p->oldest) = page;
    p->newest = page;
    p->n_cached++;
}

void page_pool_seal(page_pool *p, int32_t page) {
    model_cache_seal_page(p->cache, p->m, page);
    if (p->draft) {
        model_cache_seal_page(p->draft_cache, p->draft, page);
    }
}

static jang_status open_page(page_pool *p, int32_t page) {
    jang_status status = model_cache_open_page(p->cache, p->m, page);
    return status == JANG_OK && p->draft ? model_cache_open_page(p->draft_cache, p->draft, page)
                                         : status;
}

static void link_free(page_pool *p, int32_t page) {
    page_pool_seal(p, page);
    p->pages[page].next = p->free;
    p->free = page;
    p->n_free++;
}

static void forget(page_pool *p, int32_t page) {
    if (p->on_forget) {
        p->on_forget(p->user, page);
    }
    table_remove(p, page);
    p->n_unsaved -= !p->pages[page].is_saved;
    p->pages[page].is_known = false;
}

/* ---- Taking ---- */

static jang_status grow(page_pool *p) {
    int32_t n = p->n + p->n / 4 + 8;
    n = n > p->n_max ? p->n_max : n;
    page_info *pages = ctx_realloc(p->ctx, p->pages, (size_t)n * sizeof *pages);
    if (!pages) {
        return ctx_fail_memory(p->ctx, (size_t)n * sizeof *pages);
    }
    p->pages = pages;
    jang_status status = grow_table(p, n);
    if (status == JANG_OK) {
        status = model_cache_grow(p->cache, p->m, n, 0);
    }
    if (status == JANG_OK && p->draft) {
        status = model_cache_grow(p->draft_cache, p->draft, n, 0);
    }
    if (status != JANG_OK) {
        return status;
    }
    for (int32_t i = n - 1; i >= p->n; i--) {
        pages[i] = (page_info){.snapshot = -1, .chain = -1};
        link_free(p, i);
    }
    p->n = n;
    return JANG_OK;
}

jang_status page_pool_take(page_pool *p, int32_t *page) {
    if (p->free < 0 && p->n < p->n_max && grow(p) != JANG_OK) {
        ctx_log(p->ctx, "no memory for more than %d pages of keys and values", (int)p->n);
        p->n_max = p->n;
    }
    if (p->free < 0 && p->oldest >= 0) {
        int32_t oldest = p->oldest;
        unlink_cached(p, oldest);
        forget(p, oldest);
        link_free(p, oldest);
        p->n_evictions++;
    }
    if (p->free < 0 || open_page(p, p->free) != JANG_OK) {
        return JANG_ERR_FULL;
    }
    *page = p->free;
    p->free = p->pages[*page].next;
    p->n_free--;
    p->pages[*page] = (page_info){.n_users = 1, .snapshot = -1, .chain = -1};
    return JANG_OK;
}

int32_t page_pool_available(const page_pool *p) {
    return p->n_max - p->n + p->n_free + p->n_cached;
}

/* ---- Using ---- */

void page_pool_hold(page_pool *p, int32_t page) {
    if (p->pages[page].n_users++ == 0) {
        unlink_cached(p, page);
    }
}

void page_pool_drop(page_pool *p, int32_t page) {
    if (--p->pages[page].n_users > 0) {
        return;
    }
    if (p->pages[page].is_known) {
        link_newest(p, page);
    } else {
        link_free(p, page);
    }
}

int32_t page_pool_publish(page_pool *p, int32_t page, page_key key) {
    int32_t known = page_pool_find(p, key);
    if (known >= 0) {
        if (p->pages[page].has_draft && !p->pages[known].has_draft) {
            model_cache_copy_page(p->draft_cache, p->draft, page, known);
            p->pages[known].has_draft = true;
        }
        page_pool_hold(p, known);
        page_pool_drop(p, page);
        return known;
    }
    page_pool_seal(p, page);
    p->pages[page].key = key;
    p->pages[page].is_known = true;
    p->pages[page].is_saved = false;
    p->n_unsaved++;
    table_add(p, page);
    return page;
}

void page_pool_saved(page_pool *p, int32_t page) {
    p->n_unsaved -= !p->pages[page].is_saved;
    p->pages[page].is_saved = true;
}

void page_pool_copy(page_pool *p, int32_t from, int32_t to) {
    model_cache_copy_page(p->cache, p->m, from, to);
    if (p->draft) {
        model_cache_copy_page(p->draft_cache, p->draft, from, to);
    }
}

void page_pool_clear(page_pool *p) {
    while (p->oldest >= 0) {
        int32_t page = p->oldest;
        unlink_cached(p, page);
        forget(p, page);
        link_free(p, page);
    }
}
