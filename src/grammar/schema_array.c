/* schema_array.c - arrays: items of a fixed beginning, then any number of others. */
#include "grammar/schema.h"

#define MAX_PREFIX 10000u

size_t sc_n_prefix(const sc_facts *f) {
    size_t n = 0;
    for (uint32_t i = 0; i < f->items.n; i++) {
        const sc_items *part = f->items.items[i];
        size_t size = json_array_size(part->prefix);
        n = size > n ? size : n;
    }
    return n;
}

jang_status sc_item_schemas(sc *s, sc_list *out, const sc_facts *f, size_t index) {
    for (uint32_t i = 0; i < f->items.n; i++) {
        const sc_items *part = f->items.items[i];
        const json_t *schema = index < json_array_size(part->prefix)
                                   ? json_array_get(part->prefix, index)
                                   : part->rest;
        jang_status status = schema ? sc_push(s, out, schema) : JANG_OK;
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

static jang_status item(sc *s, gr_ref *out, const sc_facts *f, size_t index, bool rest) {
    sc_list schemas = {0};
    jang_status status = sc_item_schemas(s, &schemas, f, index);
    size_t size = sc_enter(s, rest ? "items" : "prefixItems");
    if (!rest) {
        sc_enter_index(s, index);
    }
    *out = (gr_ref){s->json->value, 0, GR_INF};
    if (status == JANG_OK && schemas.n) {
        status = sc_value(s, out, &schemas);
    }
    sc_leave(s, size);
    return status;
}

/* The end after an item, if there are enough: checked in front of the space, so that no space leads
 * where nothing can follow. */
static uint32_t end_of_items(sc *s, uint32_t close) {
    return gr_check(s->a, gr_call_rule(s->a, s->json->space, close));
}

/* After an item: a comma and what follows, or the end. more: the way to the next item. */
static uint32_t after_item(sc *s, uint32_t more, uint32_t close) {
    gr_auto *a = s->a;
    uint32_t comma = gr_range(a, ',', ',', gr_call_rule(a, s->json->space, more));
    return gr_split(a, gr_count(a, comma), end_of_items(s, close));
}

/* The items from the first one that has no schema of its own, after a comma. */
static uint32_t rest_items(sc *s, gr_ref rest, uint32_t close) {
    uint32_t after = gr_place(s->a);
    uint32_t one = gr_call(s->a, rest, after);
    gr_fill(s->a, after, after_item(s, one, close), 0);
    return one;
}

static jang_status write_array(sc *s, gr_ref *out, const sc_facts *f, size_t n_prefix,
                               gr_ref rest) {
    gr_auto *a = s->a;
    uint32_t close = gr_range(a, ']', ']', gr_final(a));
    uint32_t next = rest.rule ? rest_items(s, rest, close) : 0; /* at the beginning of an item */
    for (size_t i = n_prefix; i-- > 0;) {
        gr_ref one;
        jang_status status = item(s, &one, f, i, false);
        if (status != JANG_OK) {
            return status;
        }
        next = gr_call(a, one, next ? after_item(s, next, close) : end_of_items(s, close));
    }
    uint32_t inside = gr_split(a, gr_count(a, next), gr_check(a, close));
    *out = (gr_ref){gr_rule_new(a), f->min_items, f->max_items};
    gr_rule_set(a, out->rule, gr_range(a, '[', '[', gr_call_rule(a, s->json->space, inside)));
    return a->status;
}

jang_status sc_array(sc *s, gr_ref *out, const sc_facts *f) {
    size_t n_prefix = sc_n_prefix(f);
    *out = (gr_ref){0, 0, 0};
    if (n_prefix > MAX_PREFIX) {
        return sc_fail(s, JANG_ERR_UNSUPPORTED, "over %u prefixItems", MAX_PREFIX);
    }
    if (!f->items.n && !f->min_items && f->max_items == GR_INF) {
        *out = (gr_ref){s->json->array, 0, GR_INF};
        return JANG_OK;
    }
    gr_ref rest;
    jang_status status = item(s, &rest, f, n_prefix, true);
    if (status != JANG_OK) {
        return status;
    }
    sc_facts fitted = *f;
    for (size_t i = 0; i < n_prefix; i++) { /* an item that cannot be ends the array before it */
        gr_ref one;
        status = item(s, &one, f, i, false);
        if (status != JANG_OK) {
            return status;
        }
        if (!one.rule) {
            n_prefix = i;
            rest.rule = 0;
        }
    }
    if (!rest.rule && fitted.max_items > n_prefix) {
        fitted.max_items = (uint32_t)n_prefix;
    }
    if (fitted.min_items > fitted.max_items) {
        sc_note(s, "there cannot be so many items");
        return JANG_OK;
    }
    return write_array(s, out, &fitted, n_prefix, rest);
}
