/* gr_auto.c - writing the automata of rules, from their ends to their beginnings. */
#include "grammar/gr_auto.h"

#include <string.h>

jang_status gr_grow(ctx_t *ctx, void *array, size_t *capacity, size_t n, size_t size) {
    if (n < *capacity) {
        return JANG_OK;
    }
    size_t more = n < 16 ? 32 : n * 2;
    void *old, *grown;
    memcpy(&old, array, sizeof old);
    grown = more <= SIZE_MAX / size ? ctx_realloc(ctx, old, more * size) : NULL;
    if (!grown) {
        return ctx_fail_memory(ctx, more * size);
    }
    memcpy(array, &grown, sizeof grown);
    *capacity = more;
    return JANG_OK;
}

void gr_fail(gr_auto *a, jang_status status) {
    if (a->status == JANG_OK) {
        a->status = status;
    }
}

static uint32_t new_node(gr_auto *a, gr_node node) {
    if (a->status != JANG_OK) {
        return 0;
    }
    if (a->n_nodes >= GR_MAX_NODES) {
        gr_fail(a, ctx_fail(a->ctx, JANG_ERR_UNSUPPORTED,
                            "the grammar is too large: over %u automaton nodes", GR_MAX_NODES));
        return 0;
    }
    gr_fail(a, gr_grow(a->ctx, &a->nodes, &a->nodes_capacity, a->n_nodes, sizeof *a->nodes));
    if (a->status != JANG_OK) {
        return 0;
    }
    a->nodes[a->n_nodes] = node;
    return (uint32_t)a->n_nodes++;
}

uint32_t gr_rule_new(gr_auto *a) {
    if (a->status == JANG_OK && a->n_rules >= GR_MAX_RULES) {
        gr_fail(a, ctx_fail(a->ctx, JANG_ERR_UNSUPPORTED, "the grammar is too large: over %u rules",
                            GR_MAX_RULES));
    }
    if (a->status == JANG_OK) {
        gr_fail(a, gr_grow(a->ctx, &a->rules, &a->rules_capacity, a->n_rules, sizeof *a->rules));
    }
    if (a->status != JANG_OK) {
        return 0;
    }
    a->rules[a->n_rules] = 0;
    return (uint32_t)a->n_rules++;
}

void gr_rule_set(gr_auto *a, uint32_t rule, uint32_t entry) {
    if (a->status == JANG_OK && rule) {
        a->rules[rule] = entry;
    }
}

uint32_t gr_range(gr_auto *a, unsigned lo, unsigned hi, uint32_t next) {
    if (!next || lo > hi) {
        return 0;
    }
    return new_node(a, (gr_node){next, 0, GR_RANGE, (uint8_t)lo, (uint8_t)hi, 0});
}

uint32_t gr_text(gr_auto *a, const char *text, size_t n_bytes, uint32_t next) {
    for (size_t i = n_bytes; i > 0; i--) {
        unsigned byte = (unsigned char)text[i - 1];
        next = gr_range(a, byte, byte, next);
    }
    return next;
}

uint32_t gr_split(gr_auto *a, uint32_t one, uint32_t other) {
    if (!one || !other || one == other) {
        return one ? one : other;
    }
    return new_node(a, (gr_node){one, other, GR_SPLIT, 0, 0, 0});
}

uint32_t gr_call(gr_auto *a, gr_ref ref, uint32_t next) {
    if (!next || !ref.rule || a->status != JANG_OK) {
        return 0;
    }
    gr_fail(a, gr_grow(a->ctx, &a->calls, &a->calls_capacity, a->n_calls, sizeof *a->calls));
    if (a->status != JANG_OK) {
        return 0;
    }
    a->calls[a->n_calls++] = ref;
    return new_node(a, (gr_node){next, (uint32_t)a->n_calls - 1, GR_CALL, 0, 0, 0});
}

uint32_t gr_call_rule(gr_auto *a, uint32_t rule, uint32_t next) {
    return gr_call(a, (gr_ref){rule, 0, GR_INF}, next);
}

uint32_t gr_count_guarded(gr_auto *a, gr_guard guard, uint32_t next) {
    if (!next || a->status != JANG_OK) {
        return 0;
    }
    gr_fail(a, gr_grow(a->ctx, &a->guards, &a->guards_capacity, a->n_guards, sizeof *a->guards));
    if (a->status != JANG_OK) {
        return 0;
    }
    a->guards[a->n_guards++] = guard;
    uint32_t widest = guard.most == GR_INF       ? guard.least
                      : guard.most > guard.least ? guard.most
                                                 : guard.least;
    a->widest_guard = widest > a->widest_guard ? widest : a->widest_guard;
    return new_node(a, (gr_node){next, (uint32_t)a->n_guards - 1, GR_COUNT, 0, 0, 0});
}

uint32_t gr_count(gr_auto *a, uint32_t next) {
    if (!next) {
        return 0;
    }
    return new_node(a, (gr_node){next, 0, GR_COUNT, 0, 0, 0}); /* guard 0 asks nothing */
}

uint32_t gr_check(gr_auto *a, uint32_t next) {
    return next ? new_node(a, (gr_node){next, 0, GR_CHECK, 0, 0, 0}) : 0;
}

uint32_t gr_final(gr_auto *a) {
    return new_node(a, (gr_node){0, 0, GR_FINAL, 0, 0, 0});
}

uint32_t gr_marker(gr_auto *a, const char *name, size_t n_bytes, uint32_t next) {
    uint32_t text = gr_text(a, name, n_bytes, next);
    uint32_t token = gr_range(a, GR_MARK, GR_MARK, gr_text(a, name, n_bytes, next));
    return gr_split(a, text, token);
}

uint32_t gr_place(gr_auto *a) {
    return new_node(a, (gr_node){0, 0, GR_SPLIT, 0, 0, 0});
}

void gr_fill(gr_auto *a, uint32_t place, uint32_t one, uint32_t other) {
    if (a->status == JANG_OK && place) {
        a->nodes[place].next = one;
        a->nodes[place].arg = other;
    }
}

jang_status gr_auto_init(gr_auto *a, ctx_t *ctx) {
    *a = (gr_auto){.ctx = ctx};
    new_node(a, (gr_node){0, 0, GR_DEAD, 0, 0, GR_LOST});
    gr_rule_new(a);
    gr_fail(a, gr_grow(ctx, &a->guards, &a->guards_capacity, 0, sizeof *a->guards));
    if (a->status == JANG_OK) {
        a->guards[a->n_guards++] = (gr_guard){0, GR_INF, true};
    }
    gr_json_rules(a, &a->json, false);
    a->n_common = (uint32_t)a->n_nodes;
    return a->status;
}

void gr_auto_free(gr_auto *a) {
    ctx_free(a->ctx, a->nodes);
    ctx_free(a->ctx, a->calls);
    ctx_free(a->ctx, a->guards);
    ctx_free(a->ctx, a->rules);
}
