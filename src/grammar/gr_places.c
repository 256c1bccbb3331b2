/* gr_places.c - making the automata of rules deterministic, as far as they are visited. */
#include "grammar/gr_run.h"

#include "grammar/gr_plain.h"

#include <stdlib.h>
#include <string.h>

jang_status gr_places_init(gr_places *p, const gr_auto *a) {
    *p = (gr_places){.a = a, .ctx = a->ctx, .n_slots = 256};
    p->slots = ctx_zero(p->ctx, p->n_slots, sizeof *p->slots);
    p->of_node = ctx_zero(p->ctx, a->n_nodes, sizeof *p->of_node);
    p->seen = ctx_zero(p->ctx, a->n_nodes, sizeof *p->seen);
    p->scratch = ctx_array(p->ctx, a->n_nodes, sizeof *p->scratch);
    p->stack = ctx_array(p->ctx, a->n_nodes + 1, 2 * sizeof *p->stack);
    if (!p->slots || !p->of_node || !p->seen || !p->scratch || !p->stack) {
        return ctx_fail_memory(p->ctx, a->n_nodes * 5 * sizeof(uint32_t));
    }
    for (size_t i = 0; i < 2; i++) { /* 0 is none, 1 the place without nodes */
        jang_status status = gr_grow(p->ctx, &p->list, &p->capacity, p->n, sizeof *p->list);
        gr_place_info *info = status == JANG_OK ? ctx_zero(p->ctx, 1, sizeof *info) : NULL;
        if (!info) {
            return status != JANG_OK ? status : ctx_fail_memory(p->ctx, sizeof *info);
        }
        p->list[p->n++] = info;
    }
    return JANG_OK;
}

void gr_places_free(gr_places *p) {
    for (size_t i = 0; i < p->n; i++) {
        ctx_free(p->ctx, p->list[i]->after);
        ctx_free(p->ctx, p->list[i]->calls);
        ctx_free(p->ctx, p->list[i]->nodes);
        ctx_free(p->ctx, p->list[i]);
    }
    ctx_free(p->ctx, p->list);
    ctx_free(p->ctx, p->slots);
    ctx_free(p->ctx, p->of_node);
    ctx_free(p->ctx, p->seen);
    ctx_free(p->ctx, p->scratch);
    ctx_free(p->ctx, p->stack);
}

/* ---- Sets of nodes ---- */

static void begin_set(gr_places *p) {
    p->n_scratch = 0;
    if (++p->stamp == 0) {
        memset(p->seen, 0, p->a->n_nodes * sizeof *p->seen);
        p->stamp = 1;
    }
}

/* Adds a node and what splits lead to. Each node is put on the stack at most twice: by next and by
 * arg of the splits before it are as many as there are splits. */
static void add_closure(gr_places *p, uint32_t node) {
    const gr_node *nodes = p->a->nodes;
    size_t depth = 0;
    p->stack[depth++] = node;
    while (depth) {
        node = p->stack[--depth];
        if (p->seen[node] == p->stamp || (nodes[node].flags & GR_LOST)) {
            continue;
        }
        p->seen[node] = p->stamp;
        if (nodes[node].kind == GR_SPLIT) {
            p->stack[depth++] = nodes[node].arg;
            p->stack[depth++] = nodes[node].next;
        } else {
            p->scratch[p->n_scratch++] = node;
        }
    }
}

static int compare_ids(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t hash_ids(const uint32_t *ids, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ ids[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 29;
    }
    return (uint32_t)(h >> 16);
}

static bool grow_slots(gr_places *p) {
    size_t n = p->n_slots * 2;
    uint32_t *slots = ctx_zero(p->ctx, n, sizeof *slots);
    if (!slots) {
        return false;
    }
    for (size_t i = 2; i < p->n; i++) {
        size_t at = p->list[i]->hash & (n - 1);
        while (slots[at]) {
            at = (at + 1) & (n - 1);
        }
        slots[at] = (uint32_t)i;
    }
    ctx_free(p->ctx, p->slots);
    p->slots = slots;
    p->n_slots = n;
    return true;
}

/* Makes the set in scratch a place of its own. */
static uint32_t new_place(gr_places *p, uint32_t hash, size_t slot) {
    const gr_node *nodes = p->a->nodes;
    gr_place_info *info = ctx_zero(p->ctx, 1, sizeof *info);
    uint32_t *ids = ctx_array(p->ctx, p->n_scratch, sizeof *ids);
    if (!info || !ids || gr_grow(p->ctx, &p->list, &p->capacity, p->n, sizeof *p->list)) {
        ctx_free(p->ctx, info);
        ctx_free(p->ctx, ids);
        p->status = ctx_fail_memory(p->ctx, p->n_scratch * sizeof *ids);
        return GR_NO_PLACE;
    }
    memcpy(ids, p->scratch, p->n_scratch * sizeof *ids);
    *info = (gr_place_info){.nodes = ids, .n_nodes = p->n_scratch, .hash = hash};
    info->turning = UINT64_MAX;
    for (uint32_t i = 0; i < info->n_nodes; i++) {
        info->n_ranges += nodes[ids[i]].kind == GR_RANGE;
        info->plain |= (nodes[ids[i]].flags & GR_PLAIN) != 0;
    }
    uint32_t n_others = info->n_nodes - info->n_ranges;
    info->ends = n_others > 0;
    for (uint32_t i = info->n_ranges; i < info->n_nodes; i++) {
        info->ends &= nodes[ids[i]].kind == GR_FINAL;
    }
    p->slots[slot] = (uint32_t)p->n;
    p->list[p->n++] = info;
    return (uint32_t)p->n - 1;
}

/* Finds or makes the place of the set in scratch. */
static uint32_t intern(gr_places *p) {
    uint32_t n_ranges = 0;
    for (uint32_t i = 0; i < p->n_scratch; i++) { /* ranges to the front */
        uint32_t node = p->scratch[i];
        if (p->a->nodes[node].kind == GR_RANGE) {
            p->scratch[i] = p->scratch[n_ranges];
            p->scratch[n_ranges++] = node;
        }
    }
    if (p->n_scratch == 0) {
        return GR_NO_PLACE;
    }
    qsort(p->scratch, n_ranges, sizeof *p->scratch, compare_ids);
    qsort(p->scratch + n_ranges, p->n_scratch - n_ranges, sizeof *p->scratch, compare_ids);
    uint32_t hash = hash_ids(p->scratch, p->n_scratch);
    size_t slot = hash & (p->n_slots - 1);
    for (; p->slots[slot]; slot = (slot + 1) & (p->n_slots - 1)) {
        const gr_place_info *info = p->list[p->slots[slot]];
        if (info->hash == hash && info->n_nodes == p->n_scratch &&
            memcmp(info->nodes, p->scratch, p->n_scratch * sizeof *p->scratch) == 0) {
            return p->slots[slot];
        }
    }
    if (p->n >= GR_MAX_PLACES || p->status != JANG_OK) {
        p->limited = true;
        return GR_NO_PLACE;
    }
    if (p->n * 2 > p->n_slots) {
        if (!grow_slots(p)) {
            p->status = ctx_fail_memory(p->ctx, p->n_slots * 2 * sizeof *p->slots);
            return GR_NO_PLACE;
        }
        slot = hash & (p->n_slots - 1);
        while (p->slots[slot]) {
            slot = (slot + 1) & (p->n_slots - 1);
        }
    }
    return new_place(p, hash, slot);
}

uint32_t gr_place_of(gr_places *p, uint32_t node) {
    if (!p->of_node[node]) {
        begin_set(p);
        add_closure(p, node);
        uint32_t place = intern(p);
        if (p->status != JANG_OK || (place == GR_NO_PLACE && p->n_scratch)) {
            return GR_NO_PLACE;
        }
        p->of_node[node] = place;
    }
    return p->of_node[node];
}

/* ---- Tables ---- */

/* The place after byte: the union of what the ranges that hold it lead to. */
static uint32_t place_after(gr_places *p, const gr_place_info *info, unsigned byte) {
    const gr_node *nodes = p->a->nodes;
    uint32_t only = 0, n = 0;
    for (uint32_t i = 0; i < info->n_ranges; i++) {
        const gr_node *node = &nodes[info->nodes[i]];
        if (node->lo <= byte && byte <= node->hi && node->next != only) {
            only = node->next;
            n++;
        }
    }
    if (n < 2) {
        return n ? gr_place_of(p, only) : GR_NO_PLACE;
    }
    begin_set(p);
    for (uint32_t i = 0; i < info->n_ranges; i++) {
        const gr_node *node = &nodes[info->nodes[i]];
        if (node->lo <= byte && byte <= node->hi) {
            add_closure(p, node->next);
        }
    }
    return intern(p);
}

void gr_place_expand(gr_places *p, gr_place_info *info) {
    uint32_t *after = ctx_array(p->ctx, 256, sizeof *after);
    if (!after) {
        p->status = ctx_fail_memory(p->ctx, 256 * sizeof *after);
        return;
    }
    bool border[257] = {[0] = true};
    for (uint32_t i = 0; i < info->n_ranges; i++) {
        const gr_node *node = &p->a->nodes[info->nodes[i]];
        border[node->lo] = true;
        border[node->hi + 1] = true;
    }
    uint64_t turning = 0;
    uint32_t place = GR_NO_PLACE;
    for (unsigned byte = 0; byte < 256; byte++) {
        if (border[byte]) {
            place = place_after(p, info, byte);
        }
        after[byte] = place;
        if (p->list[place] != info) {
            turning |= (uint64_t)1 << gr_byte_class((uint8_t)byte);
        }
    }
    if (p->status != JANG_OK) { /* not to be kept: it may lack what there was no memory for */
        ctx_free(p->ctx, after);
        return;
    }
    info->turning = turning;
    info->after = after;
}

/* ---- Calls ---- */

/* A call node, by what it calls; a last one, after which the caller ends, needs no frame. */
typedef struct call_row {
    gr_ref ref;
    uint32_t last, next;
} call_row;

static int compare_calls(const void *a, const void *b) {
    const call_row *x = a, *y = b;
    const uint32_t of_x[] = {y->last, x->ref.rule, x->ref.min, x->ref.max};
    const uint32_t of_y[] = {x->last, y->ref.rule, y->ref.min, y->ref.max};
    int order = 0;
    for (int i = 0; i < 4 && order == 0; i++) {
        order = (of_x[i] > of_y[i]) - (of_x[i] < of_y[i]);
    }
    return order;
}

static uint32_t place_of_all(gr_places *p, const call_row *rows, uint32_t n) {
    if (n == 1) {
        return gr_place_of(p, rows->next);
    }
    begin_set(p);
    for (uint32_t i = 0; i < n; i++) {
        add_closure(p, rows[i].next);
    }
    return intern(p);
}

void gr_place_find_calls(gr_places *p, gr_place_info *info) {
    uint32_t n_others = info->n_nodes - info->n_ranges, n = 0, n_calls = 0;
    call_row *rows = ctx_array(p->ctx, n_others + 1, sizeof *rows);
    gr_place_call *calls = ctx_array(p->ctx, n_others + 1, sizeof *calls);
    if (!rows || !calls) {
        p->status = ctx_fail_memory(p->ctx, n_others * (sizeof *rows + sizeof *calls));
    }
    for (uint32_t i = info->n_ranges; p->status == JANG_OK && i < info->n_nodes; i++) {
        const gr_node *node = &p->a->nodes[info->nodes[i]];
        if (node->kind == GR_CALL) {
            bool last = gr_place_is_end(p, gr_place_of(p, node->next));
            rows[n++] = (call_row){p->a->calls[node->arg], last, node->next};
        }
    }
    if (n > 1) {
        qsort(rows, n, sizeof *rows, compare_calls);
    }
    for (uint32_t i = 0, end = 0; p->status == JANG_OK && i < n; i = end) {
        while (end < n && compare_calls(&rows[i], &rows[end]) == 0) {
            end++;
        }
        calls[n_calls++] = (gr_place_call){rows[i].ref, place_of_all(p, rows + i, end - i)};
    }
    ctx_free(p->ctx, rows);
    if (p->status != JANG_OK) {
        ctx_free(p->ctx, calls);
        return;
    }
    info->calls = calls;
    info->n_calls = n_calls;
}

/* Whether place, in the middle of a character, leads back to home whatever the rest of it is. */
static bool leads_home(gr_places *p, uint32_t place, unsigned at, uint32_t home) {
    const gr_place_info *info = p->list[place];
    uint32_t last = 0;
    if (info->n_nodes != info->n_ranges) {
        return false;
    }
    for (unsigned b = at == AT_START ? 0x20 : 0x80; b < 0xf5; b++) {
        unsigned then = plain_step(at, (uint8_t)b);
        uint32_t to = then == BAD ? home : gr_place_after(p, place, (uint8_t)b);
        bool home_now = then == BAD || then == AT_START;
        if (home_now ? to != home : to <= GR_NO_PLACE || to == home) {
            return false;
        }
        /* neighbours mostly lead to the same place */
        if (!home_now && (to != last || at == AT_START) && !leads_home(p, to, then, home)) {
            return false;
        }
        last = to;
    }
    return true;
}

bool gr_place_closed(gr_places *p, uint32_t place) {
    gr_place_info *info = p->list[place];
    if (info->closed == 0) {
        bool first = gr_place_after(p, place, ' ') == place; /* what is cheap to see */
        bool closed = first && leads_home(p, place, AT_START, place);
        info->closed = closed ? 2 : 1;
    }
    return info->closed == 2;
}

/* Controls, punctuation one by one, digits, letters, and the parts of UTF-8. */
unsigned gr_byte_class(uint8_t byte) {
    if (byte < 0x20) {
        return byte == '\n' ? 1 : byte == '\t' ? 2 : byte == '\r' ? 3 : 0;
    }
    if (byte < 0x30) {
        return 4u + (byte - 0x20u);
    }
    if (byte < 0x41) {
        return byte <= '9' ? 20 : 21u + (byte - 0x3au);
    }
    if (byte < 0x80) {
        return byte <= 'Z'   ? 28
               : byte < 'a'  ? 29u + (byte - 0x5bu)
               : byte < 'n'  ? 35
               : byte <= 'z' ? 36
                             : 37u + (byte - 0x7bu);
    }
    return byte < 0xc0 ? 42 : byte < 0xe0 ? 43 : byte < 0xf0 ? 44 : byte < 0xff ? 45 : 46;
}
