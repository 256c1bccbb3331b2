/* json_mutator.h - libFuzzer's mutations of a JSON body that leave it JSON.
 *
 * A value somewhere in it is replaced by another kind of value, by one from elsewhere in the body
 * or by a mutated text; or is taken out; or comes again under another key. Most mutations of bytes
 * would end in the JSON reader. */
#ifndef FUZZ_JSON_MUTATOR_H
#define FUZZ_JSON_MUTATOR_H

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

typedef struct mutation {
    json_t *root;
    uint64_t random;
    size_t n_seen, wanted;
    json_t *found; /* a value seen at the wanted place */
    const char *const *keys;
    size_t n_keys;
    bool edit, done;
} mutation;

static size_t mutator_draw(mutation *m, size_t n) {
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(m->random >> 33) % n;
}

static json_t *mutator_text(mutation *m, json_t *old) {
    uint8_t text[256] = "auto";
    size_t n = json_string_length(old);
    if (json_is_string(old) && n < sizeof text) {
        memcpy(text, json_string_value(old), n);
    } else {
        n = 4;
    }
    n = LLVMFuzzerMutate(text, n, sizeof text);
    json_t *made = json_stringn((const char *)text, n);
    return made ? made : json_string(m->keys[mutator_draw(m, m->n_keys)]);
}

static json_t *mutator_other(mutation *m, json_t *old) {
    static const double reals[] = {0, -1, 0.5, 1e308, 1e-30, 4294967296.5};
    static const json_int_t whole[] = {0,  1,   -1,         2,         16,        64,       65,
                                       17, 255, 2147483647, INT64_MAX, INT64_MIN, 100000000};
    switch (mutator_draw(m, 8)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(mutator_draw(m, 2));
    case 2:
        return json_integer(whole[mutator_draw(m, sizeof whole / sizeof whole[0])]);
    case 3:
        return json_real(reals[mutator_draw(m, sizeof reals / sizeof reals[0])]);
    case 4:
        return json_pack("[O]", old);
    case 5:
        return json_pack("{s:O}", m->keys[mutator_draw(m, m->n_keys)], old);
    case 6:
        return m->found ? json_deep_copy(m->found) : json_object();
    default:
        return mutator_text(m, old);
    }
}

/* Counts values, in order; with edit changes the wanted one, otherwise remembers it. */
static void mutator_walk(mutation *m, json_t *parent) {
    size_t n = json_is_array(parent) ? json_array_size(parent) : 0;
    const char *key;
    json_t *value;
    void *next;
    for (size_t i = 0; !m->done && i < n; i++) {
        json_t *one = json_array_get(parent, i);
        if (m->n_seen++ != m->wanted) {
            mutator_walk(m, one);
        } else if (!m->edit) {
            m->found = one;
            m->done = true;
        } else {
            size_t how = mutator_draw(m, 6);
            m->done = true;
            if (!how) {
                json_array_remove(parent, i);
            } else if (how == 1) {
                json_array_insert(parent, i, json_incref(one));
                json_decref(one);
            } else {
                json_array_set_new(parent, i, mutator_other(m, one));
            }
        }
    }
    if (!json_is_object(parent)) {
        return;
    }
    json_object_foreach_safe(parent, next, key, value) {
        if (m->done) {
            return;
        }
        if (m->n_seen++ != m->wanted) {
            mutator_walk(m, value);
        } else if (!m->edit) {
            m->found = value;
            m->done = true;
        } else {
            size_t how = mutator_draw(m, 6);
            m->done = true;
            if (how <= 1) { /* the value, or another, under another key */
                json_t *again = how ? mutator_other(m, value) : json_incref(value);
                json_object_set_new(parent, m->keys[mutator_draw(m, m->n_keys)], again);
            } else if (how == 2) {
                json_object_del(parent, key);
            } else {
                json_object_set_new(parent, key, mutator_other(m, value));
            }
        }
    }
}

static void mutator_go(mutation *m, bool edit, size_t n_values) {
    m->edit = edit;
    m->done = false;
    m->n_seen = 0;
    m->wanted = mutator_draw(m, n_values);
    mutator_walk(m, m->root);
}

/* Mutates n_bytes of JSON within max_bytes; returns the new size, or 0 if it is no JSON. */
static inline size_t mutate_json(char *text, size_t n_bytes, size_t max_bytes, unsigned seed,
                                 const char *const *keys, size_t n_keys) {
    mutation m = {.random = seed, .keys = keys, .n_keys = n_keys, .wanted = SIZE_MAX};
    m.root = json_loadb(text, n_bytes, 0, NULL);
    if (!m.root) {
        return 0;
    }
    mutator_walk(&m, m.root);
    size_t n_values = m.n_seen, n_out = 0;
    for (size_t i = 0; n_values && i <= mutator_draw(&m, 3); i++) {
        mutator_go(&m, false, n_values);
        json_t *found = json_incref(m.found);
        mutator_go(&m, true, n_values);
        json_decref(found);
        m.found = NULL;
    }
    char *out = json_dumps(m.root, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(m.root);
    n_out = out ? strlen(out) : 0;
    if (n_out > max_bytes) {
        n_out = 0;
    } else if (out) {
        memcpy(text, out, n_out);
    }
    free(out);
    return n_out;
}

#endif
