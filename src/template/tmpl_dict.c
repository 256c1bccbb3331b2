/* tmpl_dict.c - dictionaries in order of insertion, and the hashes of values. */
#include "template/tmpl_value.h"

#include "template/tmpl_big.h"

#include <math.h>
#include <string.h>

#define INDEX_FROM 8 /* fewer entries are searched one by one */

/* ---- Hashing: equal values have equal hashes, so 1, 1.0 and true share theirs ---- */

static uint64_t mix(uint64_t h) {
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

static uint64_t hash_bytes(const char *data, size_t n) {
    uint64_t h = 0xcbf29ce484222325u ^ n;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        h = mix(h ^ word);
    }
    uint64_t word = 0;
    memcpy(&word, data + i, n - i);
    return mix(h ^ word);
}

static uint64_t hash_double(double x) {
    if (x >= -9.2e18 && x <= 9.2e18 && x == floor(x)) {
        return mix((uint64_t)(int64_t)x);
    }
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return mix(bits + 1);
}

bool tv_hashable(tm_core *t, tval v) {
    if (v.type == TV_TUPLE) {
        tm_enter(t);
        bool all = true;
        for (size_t i = 0; i < v.seq->n && all; i++) {
            all = tv_hashable(t, v.seq->items[i]);
        }
        tm_leave(t);
        return all;
    }
    if (v.type == TV_VIEW) {
        return v.view->kind == TV_VALUES;
    }
    return v.type != TV_LIST && v.type != TV_DICT;
}

uint64_t tv_hash(tm_core *t, tval v) {
    switch (v.type) {
    case TV_STR:
        tm_step(t, v.str->n / 64);
        return hash_bytes(v.str->data, v.str->n);
    case TV_BOOL:
        return mix((uint64_t)v.boolean);
    case TV_INT:
        return mix((uint64_t)v.integer);
    case TV_BIG:
        return hash_double(big_to_double(v.big));
    case TV_FLOAT:
        return hash_double(v.real);
    case TV_TUPLE: {
        uint64_t h = 17;
        tm_enter(t);
        tm_step(t, v.seq->n);
        for (size_t i = 0; i < v.seq->n; i++) {
            h = mix(h ^ tv_hash(t, v.seq->items[i]));
        }
        tm_leave(t);
        return h;
    }
    case TV_RANGE:
        return mix(v.range->n + 3);
    case TV_NONE:
    case TV_UNDEFINED:
    case TV_MISSING:
        return mix((uint64_t)v.type);
    case TV_VIEW:
        if (v.view->kind == TV_VALUES) {
            return mix((uint64_t)(uintptr_t)v.any);
        }
        tm_fail(t, "unhashable type: '%s'", tv_type_name(v));
    case TV_LIST:
    case TV_DICT:
        tm_fail(t, "unhashable type: '%s'", tv_type_name(v));
    default:
        return mix((uint64_t)(uintptr_t)v.any);
    }
}

/* ---- Entries ---- */

tv_dict *tv_dict_new(tm_core *t, size_t n_expected) {
    tv_dict *d = tm_zero(t, sizeof *d);
    d->capacity = n_expected ? n_expected : 4;
    d->entries = tm_array(t, d->capacity, sizeof *d->entries);
    return d;
}

static void index_insert(tv_dict *d, size_t entry) {
    size_t slot = d->entries[entry].hash & d->mask;
    while (d->index[slot]) {
        slot = (slot + 1) & d->mask;
    }
    d->index[slot] = (uint32_t)(entry + 1);
}

static void index_build(tm_core *t, tv_dict *d) {
    size_t size = 32;
    while (size < d->capacity * 2) {
        size *= 2;
    }
    if (d->capacity > UINT32_MAX / 4) {
        tm_fail_memory(t, d->capacity);
    }
    d->index = tm_zero(t, size * sizeof *d->index);
    d->mask = size - 1;
    for (size_t i = 0; i < d->n; i++) {
        index_insert(d, i);
    }
}

static bool key_is(tm_core *t, const tv_entry *e, uint64_t hash, tval key) {
    return e->hash == hash && (tv_same(e->key, key) || tv_equal(t, e->key, key));
}

static tv_entry *find(tm_core *t, const tv_dict *d, tval key, uint64_t hash) {
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            if (key_is(t, &d->entries[i], hash, key)) {
                return &d->entries[i];
            }
        }
        return NULL;
    }
    size_t slot = hash & d->mask;
    for (; d->index[slot]; slot = (slot + 1) & d->mask) {
        tv_entry *e = &d->entries[d->index[slot] - 1];
        tm_step(t, 1);
        if (key_is(t, e, hash, key)) {
            return e;
        }
    }
    return NULL;
}

void tv_dict_put(tm_core *t, tv_dict *d, tval key, tval value) {
    uint64_t hash = tv_hash(t, key);
    tv_entry *old = find(t, d, key, hash);
    if (old) {
        old->value = value;
        return;
    }
    if (d->n == d->capacity) {
        size_t capacity = d->capacity * 2;
        tv_entry *entries = tm_array(t, capacity, sizeof *entries);
        tm_copy(entries, d->entries, d->n * sizeof *entries);
        d->entries = entries;
        d->capacity = capacity;
        d->index = NULL;
    }
    d->entries[d->n++] = (tv_entry){.key = key, .value = value, .hash = hash};
    if (d->index) {
        index_insert(d, d->n - 1);
    } else if (d->n > INDEX_FROM) {
        index_build(t, d);
    }
}

const tval *tv_dict_get(tm_core *t, const tv_dict *d, tval key) {
    const tv_entry *e = find(t, d, key, tv_hash(t, key));
    return e ? &e->value : NULL;
}

const tval *tv_dict_get_text(tm_core *t, const tv_dict *d, const char *key) {
    tv_str s = {.data = key, .n = strlen(key), .n_chars = TV_UNCOUNTED};
    return tv_dict_get(t, d, (tval){.type = TV_STR, .str = &s});
}
