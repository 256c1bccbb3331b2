/* saving.c - pages to and from the disk cache.
 *
 * Pages are written behind: a few a step, more when there is nothing else to do, and one that is
 * not yet written just before it is forgotten. */
#include "engine/saving.h"

#include <string.h>

#define PAGE_FORM 2      /* of the bytes that backends make of keys and values */
#define SAMPLE_BYTES 256 /* of a tensor's data, at its start and its end */

/* ---- What pages depend on ---- */

static void put_tensor(buf *b, const tensor_view *t) {
    size_t n = t->n_bytes < SAMPLE_BYTES ? t->n_bytes : SAMPLE_BYTES;
    buf_printf(b, "%s %d %zu", t->name, (int)t->type, t->n_bytes);
    for (int i = 0; i < t->n_dim; i++) {
        buf_printf(b, " %lld", (long long)t->shape[i]);
    }
    if (n) {
        buf_put(b, t->data, n);
        buf_put(b, t->data + t->n_bytes - n, n);
    }
}

static int put_json(const char *text, size_t n_bytes, void *user) {
    buf_put(user, text, n_bytes);
    return 0;
}

/* A hash of the weights (names, shapes, and some of the data of each), the config, the build, the
 * backend and the form of the pages. */
static jang_status hash_model(page_key *out, const jang_engine *e) {
    jang_model *m = e->model;
    const json_t *config;
    jang_status status = checkpoint_json(&config, m->checkpoint, "config.json");
    if (status != JANG_OK) {
        return status;
    }
    buf b;
    buf_init(&b, e->ctx, BUF_NO_LIMIT);
    buf_printf(&b, "%s %s %d %d %d %llu\n", JANG_VERSION, m->info.backend, PAGE_FORM, (int)m->exact,
               (int)e->o.kv_type, (unsigned long long)e->stats.page_bytes);
    int failed = json_dump_callback(config, put_json, &b, JSON_SORT_KEYS | JSON_COMPACT);
    size_t n;
    const tensor_view *tensors = checkpoint_tensors(m->checkpoint, &n);
    for (size_t i = 0; i < n; i++) {
        put_tensor(&b, &tensors[i]);
    }
    status = failed ? ctx_fail_memory(e->ctx, 64) : buf_status(&b);
    if (status == JANG_OK) {
        *out = page_key_hash((page_key){0, 0}, b.data, b.size);
    }
    buf_free(&b);
    return status;
}

/* ---- Writing ---- */

static void save(jang_engine *e, int32_t page) {
    page_info *info = &e->pages.pages[page];
    model_cache_save_page(&e->cache, e->model->model, page, e->page_data);
    disk_cache_write(e->disk, info->key, e->page_data);
    page_pool_saved(&e->pages, page);
}

static void save_forgotten(void *user, int32_t page) {
    jang_engine *e = user;
    if (!e->pages.pages[page].is_saved && !e->is_clearing) {
        save(e, page);
    }
}

bool saving_write_some(jang_engine *e, int32_t n) {
    page_pool *p = &e->pages;
    for (int32_t looked = 0; e->disk && n > 0 && p->n_unsaved > 0 && looked < p->n; looked++) {
        e->save_next = e->save_next + 1 < p->n ? e->save_next + 1 : 0;
        if (p->pages[e->save_next].is_known && !p->pages[e->save_next].is_saved) {
            save(e, e->save_next);
            n--;
        }
    }
    return e->disk && p->n_unsaved > 0;
}

/* ---- Reading ---- */

int32_t saving_fetch(jang_engine *e, page_key key) {
    int32_t page;
    if (!e->disk || !disk_cache_has(e->disk, key) || page_pool_take(&e->pages, &page) != JANG_OK) {
        return -1;
    }
    if (!disk_cache_read(e->disk, key, e->page_data)) {
        page_pool_drop(&e->pages, page);
        return -1;
    }
    model_cache_load_page(&e->cache, e->model->model, page, e->page_data);
    page = page_pool_publish(&e->pages, page, key);
    page_pool_saved(&e->pages, page);
    page_pool_drop(&e->pages, page);
    return page;
}

/* ---- Life ---- */

jang_status saving_open(jang_engine *e) {
    if (!e->o.disk_cache) {
        return JANG_OK;
    }
    if (e->cache.state || e->o.no_cache) {
        return ctx_fail(e->ctx, JANG_ERR_UNSUPPORTED, "no disk cache %s",
                        e->o.no_cache ? "without a cache in memory"
                                      : "for models with recurrent state");
    }
    size_t n = model_cache_page_bytes(&e->cache, e->model->model);
    page_key identity = {0, 0};
    e->page_data = ctx_alloc(e->ctx, n);
    jang_status status = e->page_data ? hash_model(&identity, e) : ctx_fail_memory(e->ctx, n);
    if (status == JANG_OK) {
        status =
            disk_cache_open(&e->disk, e->ctx, e->o.disk_cache, e->o.disk_cache_bytes, n, identity);
    }
    if (status == JANG_OK) {
        e->secret = disk_cache_secret(e->disk);
        e->pages.on_forget = save_forgotten;
        e->pages.user = e;
    }
    return status;
}

void saving_close(jang_engine *e) {
    if (e->disk) {
        (void)saving_write_some(e, e->pages.n);
        e->pages.on_forget = NULL;
    }
    disk_cache_close(e->disk);
    ctx_free(e->ctx, e->page_data);
}
