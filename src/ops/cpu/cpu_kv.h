/* cpu_kv.h - the cache of keys and values in memory, for the files that write and read it.
 *
 * A page holds [layer][kv head], each K [k_dim][64 tokens] and V [64 tokens][v_dim]: scores of 64
 * tokens come from whole vectors of K, sums of values from whole vectors of V. Of types with
 * integers, scales and minima follow, which the scores and weights take, not the numbers. The keys
 * and values of such a page are turned (host_kv_rotate), those in f16 while it is open as well: so
 * are the queries, and the sums are turned back. */
#ifndef JANG_OPS_CPU_KV_H
#define JANG_OPS_CPU_KV_H

#include "ops/cpu/cpu_ops.h"

/* Pages of one form. */
typedef struct kv_form {
    kv_type type;
    size_t page_bytes;
    host_block **pages; /* [n_pages] */
} kv_form;

struct ops_kv {
    host_kv_layer *layers; /* [n_layer + 1] */
    int32_t n_pages;
    kv_form kept;
    kv_form open;       /* F16; of pages that are not open NULL, as all are of most types */
    host_block **spare; /* [n_spare] of the open form, room for n_pages */
    int32_t n_spare;
};

/* A head's part of a layer of a page. */
typedef struct kv_place {
    const kv_form *form;
    kv_layer d;
    uint8_t *data;
} kv_place;

kv_place kv_at(const ops_kv *kv, const kv_form *form, int32_t page, int layer, int head);

static inline uint8_t *kv_keys_at(kv_place p) {
    return p.data;
}

static inline uint8_t *kv_values_at(kv_place p) {
    return p.data + OPS_PAGE_TOKENS / 8 * (size_t)(p.d.k_dim * kv_key_bits(p.form->type));
}

/* Scales that a head's keys have in a page. */
static inline int kv_key_params(kv_place p) {
    return kv_type_opens(p.form->type) ? p.d.k_dim : OPS_PAGE_TOKENS;
}

/* Scales of the keys, their minima, scales of the values, their minima, as far as the type has
 * them. */
static inline uint16_t *kv_params_at(kv_place p) {
    size_t n = OPS_PAGE_TOKENS / 8 * (size_t)(p.d.v_dim * kv_value_bits(p.form->type));
    return (uint16_t *)(void *)(kv_values_at(p) + n);
}

/* Of types that open, behind those: the number of the token that stays in f16, its key and value.
 */
static inline uint16_t *kv_token_at(kv_place p) {
    return kv_params_at(p) + 2 * (kv_key_params(p) + OPS_PAGE_TOKENS);
}

#endif
