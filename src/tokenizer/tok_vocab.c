/* tok_vocab.c - spellings to ids and back. */
#include "tokenizer/tok_vocab.h"

#include <string.h>

void vocab_init(tok_vocab *v, ctx_t *ctx) {
    *v = (tok_vocab){.ctx = ctx};
    buf_init(&v->arena, ctx, UINT32_MAX);
}

void vocab_free(tok_vocab *v) {
    if (v->ctx) {
        buf_free(&v->arena);
        ctx_free(v->ctx, v->entries);
        ctx_free(v->ctx, v->slots);
        ctx_free(v->ctx, v->by_id);
    }
    *v = (tok_vocab){0};
}

uint32_t vocab_hash(const char *text, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    while (n > 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        __uint128_t p = (__uint128_t)(h ^ word) * 0xd6e8feb86659fd93u;
        h = (uint64_t)p ^ (uint64_t)(p >> 64);
        text += 8;
        n -= 8;
    }
    uint64_t word = 0;
    if (n >= 4) { /* two words that may overlap cover 4 to 8 bytes */
        uint32_t low, high;
        memcpy(&low, text, 4);
        memcpy(&high, text + n - 4, 4);
        word = (uint64_t)high << 32 | low;
    } else if (n > 0) {
        word = (uint64_t)(unsigned char)text[0] | (uint64_t)(unsigned char)text[n / 2] << 8 |
               (uint64_t)(unsigned char)text[n - 1] << 16;
    }
    __uint128_t p = (__uint128_t)(h ^ word) * 0xa0761d6478bd642fu;
    h = (uint64_t)p ^ (uint64_t)(p >> 64);
    return (uint32_t)(h ^ h >> 32);
}

/* The slot that holds the text, or the free one where it belongs. */
static vocab_slot *find_slot(const tok_vocab *v, const char *text, size_t n, uint32_t hash) {
    for (uint32_t i = hash & v->mask;; i = (i + 1) & v->mask) {
        vocab_slot *slot = &v->slots[i];
        if (slot->entry == 0) {
            return slot;
        }
        if (slot->hash == hash) {
            const vocab_entry *e = &v->entries[slot->entry - 1];
            if (e->n_bytes == n && memcmp(v->arena.data + e->at, text, n) == 0) {
                return slot;
            }
        }
    }
}

/* Makes the hash table hold n entries at most 5/8 full. */
static jang_status grow_slots(tok_vocab *v, size_t n) {
    size_t n_slots = v->slots ? (size_t)v->mask + 1 : 64;
    while (n_slots / 8 * 5 < n) {
        n_slots *= 2;
    }
    if (v->slots && n_slots == (size_t)v->mask + 1) {
        return JANG_OK;
    }
    vocab_slot *slots = ctx_zero(v->ctx, n_slots, sizeof *slots);
    if (!slots) {
        return ctx_fail_memory(v->ctx, n_slots * sizeof *slots);
    }
    uint32_t mask = (uint32_t)(n_slots - 1);
    for (size_t i = 0; v->slots && i <= v->mask; i++) {
        if (v->slots[i].entry) {
            uint32_t to = v->slots[i].hash & mask;
            while (slots[to].entry) {
                to = (to + 1) & mask;
            }
            slots[to] = v->slots[i];
        }
    }
    ctx_free(v->ctx, v->slots);
    v->slots = slots;
    v->mask = mask;
    return JANG_OK;
}

static jang_status grow_entries(tok_vocab *v, size_t n) {
    if (n <= v->capacity) {
        return JANG_OK;
    }
    size_t capacity = v->capacity ? (size_t)v->capacity * 2 : 256;
    capacity = capacity < n ? n : capacity;
    vocab_entry *entries = NULL;
    if (capacity <= UINT32_MAX / 2) {
        entries = ctx_realloc(v->ctx, v->entries, capacity * sizeof *entries);
    }
    if (!entries) {
        return ctx_fail_memory(v->ctx, capacity * sizeof *entries);
    }
    v->entries = entries;
    v->capacity = (uint32_t)capacity;
    return JANG_OK;
}

static jang_status grow_ids(tok_vocab *v, int32_t n) {
    if (n > v->ids_capacity) {
        size_t capacity = v->ids_capacity ? (size_t)v->ids_capacity * 2 : 256;
        capacity = capacity < (size_t)n ? (size_t)n : capacity;
        int32_t *by_id = ctx_realloc(v->ctx, v->by_id, capacity * sizeof *by_id);
        if (!by_id) {
            return ctx_fail_memory(v->ctx, capacity * sizeof *by_id);
        }
        v->by_id = by_id;
        v->ids_capacity = (int32_t)capacity;
    }
    while (v->n_ids < n) {
        v->by_id[v->n_ids++] = -1;
    }
    return JANG_OK;
}

jang_status vocab_reserve(tok_vocab *v, size_t n_tokens, size_t n_bytes) {
    jang_status status = grow_slots(v, n_tokens);
    if (status == JANG_OK) {
        status = grow_entries(v, n_tokens);
    }
    if (status == JANG_OK && !buf_reserve(&v->arena, n_bytes)) {
        status = buf_status(&v->arena);
    }
    return status;
}

jang_status vocab_add(tok_vocab *v, const char *text, size_t n_bytes, int32_t id) {
    jang_status status = grow_slots(v, (size_t)v->n_entries + 1);
    if (status == JANG_OK) {
        status = grow_entries(v, (size_t)v->n_entries + 1);
    }
    if (status == JANG_OK && id >= v->n_ids) {
        status = grow_ids(v, id + 1);
    }
    if (status != JANG_OK) {
        return status;
    }
    uint32_t hash = vocab_hash(text, n_bytes);
    vocab_slot *slot = find_slot(v, text, n_bytes, hash);
    uint32_t number = slot->entry - 1;
    if (slot->entry == 0) {
        number = v->n_entries;
        size_t at = v->arena.size;
        buf_put(&v->arena, text, n_bytes);
        buf_putc(&v->arena, 0);
        status = buf_status(&v->arena);
        if (status != JANG_OK) {
            return status;
        }
        v->entries[number] = (vocab_entry){(uint32_t)at, (uint32_t)n_bytes, id};
        v->n_entries++;
        *slot = (vocab_slot){hash, number + 1};
    }
    v->entries[number].id = id;
    v->by_id[id] = (int32_t)number;
    v->longest = n_bytes > v->longest ? (uint32_t)n_bytes : v->longest;
    return JANG_OK;
}

int32_t vocab_get_hashed(const tok_vocab *v, const char *text, size_t n_bytes, uint32_t hash) {
    if (!v->slots) {
        return -1;
    }
    const vocab_slot *slot = find_slot(v, text, n_bytes, hash);
    return slot->entry ? v->entries[slot->entry - 1].id : -1;
}

int32_t vocab_get(const tok_vocab *v, const char *text, size_t n_bytes) {
    return vocab_get_hashed(v, text, n_bytes, vocab_hash(text, n_bytes));
}

/* ---- Fetching ahead ---- */

/* The entry that a hash leads to, found without looking at spellings; NULL. */
static const vocab_entry *likely_entry(const tok_vocab *v, uint32_t hash) {
    for (uint32_t i = hash & v->mask; v->slots && v->slots[i].entry; i = (i + 1) & v->mask) {
        if (v->slots[i].hash == hash) {
            return &v->entries[v->slots[i].entry - 1];
        }
    }
    return NULL;
}

void vocab_fetch_slot(const tok_vocab *v, uint32_t hash) {
    if (v->slots) {
        __builtin_prefetch(&v->slots[hash & v->mask]);
    }
}

void vocab_fetch_entry(const tok_vocab *v, uint32_t hash) {
    __builtin_prefetch(likely_entry(v, hash));
}

void vocab_fetch_text(const tok_vocab *v, uint32_t hash) {
    const vocab_entry *e = likely_entry(v, hash);
    if (e) {
        __builtin_prefetch(v->arena.data + e->at);
    }
}

const char *vocab_text(const tok_vocab *v, int32_t id, size_t *n_bytes) {
    if (id < 0 || id >= v->n_ids || v->by_id[id] < 0) {
        return NULL;
    }
    const vocab_entry *e = &v->entries[v->by_id[id]];
    if (n_bytes) {
        *n_bytes = e->n_bytes;
    }
    return v->arena.data + e->at;
}
