/* strmap.c - byte strings to int32 by open addressing. */
#include "base/strmap.h"

#include <string.h>

void strmap_init(strmap *map, ctx_t *ctx) {
    *map = (strmap){.ctx = ctx};
}

void strmap_free(strmap *map) {
    if (map->ctx) {
        ctx_free(map->ctx, map->entries);
    }
    *map = (strmap){.ctx = map->ctx};
}

/* Multiply-and-fold over eight bytes at a time (as wyhash's mixing step). */
static uint32_t hash_bytes(const char *key, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    while (n >= 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        __uint128_t p = (__uint128_t)(h ^ word) * 0xd6e8feb86659fd93u;
        h = (uint64_t)p ^ (uint64_t)(p >> 64);
        key += 8;
        n -= 8;
    }
    uint64_t word = 0;
    memcpy(&word, key, n);
    __uint128_t p = (__uint128_t)(h ^ word) * 0xa0761d6478bd642fu;
    h = (uint64_t)p ^ (uint64_t)(p >> 64);
    return (uint32_t)(h ^ h >> 32);
}

/* The slot that holds the key, or the free one where it belongs. */
static strmap_entry *find_slot(const strmap *map, const char *key, size_t n, uint32_t hash) {
    uint32_t i = hash & map->mask;
    for (;;) {
        strmap_entry *e = &map->entries[i];
        if (!e->key || (e->hash == hash && e->n_bytes == n && memcmp(e->key, key, n) == 0)) {
            return e;
        }
        i = (i + 1) & map->mask;
    }
}

jang_status strmap_reserve(strmap *map, size_t n) {
    if (n > (size_t)1 << 29) {
        return ctx_fail_memory(map->ctx, n);
    }
    size_t slots = map->entries ? (size_t)map->mask + 1 : 16;
    while (slots / 4 * 3 < n) {
        slots *= 2;
    }
    if (map->entries && slots == (size_t)map->mask + 1) {
        return JANG_OK;
    }
    strmap_entry *entries = ctx_zero(map->ctx, slots, sizeof *entries);
    if (!entries) {
        return ctx_fail_memory(map->ctx, slots * sizeof *entries);
    }
    strmap grown = {map->ctx, entries, map->n_entries, (uint32_t)(slots - 1)};
    for (size_t i = 0; map->entries && i <= map->mask; i++) {
        const strmap_entry *e = &map->entries[i];
        if (e->key) {
            *find_slot(&grown, e->key, e->n_bytes, e->hash) = *e;
        }
    }
    ctx_free(map->ctx, map->entries);
    *map = grown;
    return JANG_OK;
}

jang_status strmap_put(strmap *map, const char *key, size_t n_bytes, int32_t value, int32_t *old) {
    if (n_bytes > UINT32_MAX) {
        return ctx_fail_memory(map->ctx, n_bytes);
    }
    jang_status status = strmap_reserve(map, (size_t)map->n_entries + 1);
    if (status != JANG_OK) {
        return status;
    }
    uint32_t hash = hash_bytes(key, n_bytes);
    strmap_entry *e = find_slot(map, key, n_bytes, hash);
    if (old) {
        *old = e->key ? e->value : -1;
    }
    map->n_entries += e->key ? 0 : 1;
    *e = (strmap_entry){key, (uint32_t)n_bytes, hash, value};
    return JANG_OK;
}

int32_t strmap_get(const strmap *map, const char *key, size_t n_bytes) {
    if (!map->entries || n_bytes > UINT32_MAX) {
        return -1;
    }
    const strmap_entry *e = find_slot(map, key, n_bytes, hash_bytes(key, n_bytes));
    return e->key ? e->value : -1;
}
