/* sequence.c - an answer's pages: found in the cache, taken, made known, given back. */
#include "engine/saving.h"

#include <string.h>

/* ---- Slots of recurrent state ---- */

static jang_status take_slot(jang_engine *e, int32_t *slot) {
    if (e->n_free_slots == 0) {
        jang_status status = model_cache_grow(&e->cache, e->model->model, 0, e->n_slots + 1);
        if (status != JANG_OK) {
            return status;
        }
        e->free_slots[e->n_free_slots++] = e->n_slots++;
    }
    *slot = e->free_slots[--e->n_free_slots];
    return JANG_OK;
}

jang_status sequence_take_slot(jang_engine *e, answer *a) {
    return e->cache.state && a->slot < 0 ? take_slot(e, &a->slot) : JANG_OK;
}

static void give_slot(jang_engine *e, answer *a) {
    if (a->slot >= 0) {
        e->free_slots[e->n_free_slots++] = a->slot;
        a->slot = -1;
    }
}

/* ---- Snapshots ---- */

void sequence_forget_snapshot(void *user, int32_t page) {
    jang_engine *e = user;
    page_info *info = &e->pages.pages[page];
    if (info->snapshot >= 0) {
        e->free_slots[e->n_free_slots++] = info->snapshot;
        e->n_snapshots--;
        info->snapshot = -1;
    }
}

/* Makes room for one more, at the cost of the one not used for longest. */
static bool room_for_snapshot(jang_engine *e) {
    int32_t page = e->pages.oldest;
    while (e->n_snapshots >= e->max_snapshots && page >= 0) {
        sequence_forget_snapshot(e, page);
        page = e->pages.pages[page].next;
    }
    return e->n_snapshots < e->max_snapshots;
}

/* The last border of a page that leaves a token to compute. */
static int32_t last_border(const answer *a) {
    return (a->n_ids - 1) / OPS_PAGE_TOKENS * OPS_PAGE_TOKENS;
}

int32_t sequence_step(const jang_engine *e, const answer *a, int32_t n) {
    int32_t border = last_border(a);
    bool stops = e->cache.state && !e->o.no_cache && a->n_done < border && a->n_done + n > border;
    return stops ? border - a->n_done : n;
}

void sequence_snapshot(jang_engine *e, answer *a) {
    bool is_end = a->n_done == a->n_ids; /* generated text goes on from its last border */
    if (!e->cache.state || e->o.no_cache || a->n_done == 0 ||
        (a->n_done != last_border(a) && !is_end) || a->n_known * OPS_PAGE_TOKENS != a->n_done) {
        return;
    }
    if (is_end && a->n_done - OPS_PAGE_TOKENS > a->n_prompt) { /* one is enough for an answer */
        sequence_forget_snapshot(e, a->pages[a->n_known - 2]);
    }
    page_info *info = &e->pages.pages[a->pages[a->n_known - 1]];
    int32_t slot;
    if (info->snapshot < 0 && room_for_snapshot(e) && take_slot(e, &slot) == JANG_OK) {
        model_cache_copy_state(&e->cache, e->model->model, a->slot, slot);
        info->snapshot = slot;
        e->n_snapshots++;
    }
}

/* ---- Pages ---- */

/* What is computed for its own sake, row by row, cannot be taken from the cache. */
static bool may_reuse(const jang_engine *e, const answer *a) {
    const jang_request *d = &a->r->d;
    bool wants_rows = d->prompt_logprobs && a->index == 0;
    bool pools_rows = d->task == JANG_TASK_EMBED && d->pooling != JANG_POOL_LAST;
    return d->cache_prompt && !e->o.no_cache && !wants_rows && !pools_rows;
}

/* Gives back the pages behind the last snapshot, whose state is taken over. */
static void go_back_to_snapshot(jang_engine *e, answer *a, const page_key *root) {
    while (a->n_pages > 0 && e->pages.pages[a->pages[a->n_pages - 1]].snapshot < 0) {
        page_pool_drop(&e->pages, a->pages[--a->n_pages]);
    }
    a->n_known = a->n_pages;
    a->key = *root;
    if (a->n_pages > 0) {
        const page_info *info = &e->pages.pages[a->pages[a->n_pages - 1]];
        a->key = info->key;
        model_cache_copy_state(&e->cache, e->model->model, info->snapshot, a->slot);
    }
}

/* Where the chain of a sequence's keys begins. Long sequences may turn by other frequencies than
 * short ones, so that their pages are no good for each other. */
static page_key root_key(const jang_engine *e, const answer *a) {
    page_key root = page_key_root(e->secret, a->r->d.cache_salt);
    int32_t long_from = model_get_facts(e->model->model)->long_from;
    return long_from && a->n_form > long_from ? page_key_hash(e->secret, &root, sizeof root) : root;
}

/* The last token is always computed, for its logits. */
void sequence_match(jang_engine *e, answer *a) {
    const page_key root = root_key(e, a);
    a->key = root;
    a->n_known = 0;
    int32_t n_full = (a->n_ids - 1) / OPS_PAGE_TOKENS, n_disk = 0;
    for (int32_t i = 0; may_reuse(e, a) && i < n_full; i++) {
        page_key key = page_key_next(e->secret, a->key, a->ids + i * OPS_PAGE_TOKENS);
        int32_t page = page_pool_find(&e->pages, key);
        if (page < 0) {
            page = saving_fetch(e, key);
            n_disk += page >= 0;
        }
        if (page < 0) {
            break;
        }
        page_pool_hold(&e->pages, page);
        a->pages[a->n_pages++] = page;
        a->key = key;
        a->n_known++;
        a->n_draft_pages += a->n_draft_pages == i && e->pages.pages[page].has_draft;
    }
    a->n_drafted_done = a->n_draft_pages * OPS_PAGE_TOKENS;
    if (e->cache.state) {
        go_back_to_snapshot(e, a, &root);
    }
    a->n_done = a->n_known * OPS_PAGE_TOKENS;
    a->stats.n_cached_disk += a->started > 0 ? 0 : n_disk * OPS_PAGE_TOKENS;
}

jang_status sequence_grow(jang_engine *e, answer *a, int32_t n_tok) {
    while (a->n_pages * OPS_PAGE_TOKENS < n_tok) {
        jang_status status = page_pool_take(&e->pages, &a->pages[a->n_pages]);
        if (status != JANG_OK) {
            return status;
        }
        a->n_pages++;
    }
    return JANG_OK;
}

void sequence_publish(jang_engine *e, answer *a) {
    int32_t n_drafted = a->n_drafted_done < a->n_done ? a->n_drafted_done : a->n_done;
    for (; (a->n_draft_pages + 1) * OPS_PAGE_TOKENS <= n_drafted; a->n_draft_pages++) {
        e->pages.pages[a->pages[a->n_draft_pages]].has_draft = true;
    }
    for (; (a->n_known + 1) * OPS_PAGE_TOKENS <= a->n_done; a->n_known++) {
        int32_t *page = &a->pages[a->n_known];
        if (e->o.no_cache) {
            page_pool_seal(&e->pages, *page);
            continue;
        }
        a->key = page_key_next(e->secret, a->key, a->ids + a->n_known * OPS_PAGE_TOKENS);
        *page = page_pool_publish(&e->pages, *page, a->key);
    }
}

/* The last page first, so that the beginning of a sequence is kept longest. */
void sequence_release(jang_engine *e, answer *a) {
    while (a->n_pages > 0) {
        page_pool_drop(&e->pages, a->pages[--a->n_pages]);
    }
    give_slot(e, a);
    a->n_done = 0;
    a->n_known = 0;
    a->n_draft = 0;
    a->n_drafted_done = 0;
    a->n_draft_pages = 0;
}

/* Full pages are shared; the one that will be written to is copied. */
jang_status sequence_fork(jang_engine *e, const answer *from, answer *to) {
    int32_t n_full = from->n_done / OPS_PAGE_TOKENS;
    jang_status status = sequence_take_slot(e, to);
    for (int32_t i = 0; status == JANG_OK && i < n_full; i++) {
        page_pool_hold(&e->pages, from->pages[i]);
        to->pages[to->n_pages++] = from->pages[i];
    }
    if (status == JANG_OK && from->n_done % OPS_PAGE_TOKENS) {
        status = sequence_grow(e, to, from->n_done);
    }
    if (status != JANG_OK) {
        sequence_release(e, to);
        return status;
    }
    if (from->n_done % OPS_PAGE_TOKENS) {
        page_pool_copy(&e->pages, from->pages[n_full], to->pages[n_full]);
    }
    if (to->slot >= 0) {
        model_cache_copy_state(&e->cache, e->model->model, from->slot, to->slot);
    }
    to->n_done = from->n_done;
    to->n_known = from->n_known;
    to->key = from->key;
    to->n_drafted_done = from->n_drafted_done;
    to->n_draft_pages = from->n_draft_pages;
    return JANG_OK;
}
