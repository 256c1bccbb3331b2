/* gr_mask.c - walking the trie of a vocabulary with a running grammar. */
#include "grammar/gr_mask.h"

#include <string.h>

/* Locals are forgotten all at once when they take more than this. */
#define MAX_LOCAL_BYTES ((size_t)48 << 20)

/* What one place allows by itself. */
typedef struct local {
    uint32_t *nodes; /* the place's nodes: its name */
    uint32_t n_nodes, hash;
    uint32_t need, room;
    bool bottom;    /* returning ends the text: there are no exits */
    uint64_t *bits; /* dense, or NULL */
    int32_t *ids;   /* sparse */
    uint32_t n_ids;
    uint32_t *exits; /* trie nodes below which the walk goes on after a return */
    uint32_t n_exits;
} local;

struct gr_locals {
    ctx_t *ctx;
    int32_t n_vocab;
    local *list;
    size_t n, capacity;
    uint32_t *slots;
    size_t n_slots;
    size_t n_bytes;
};

jang_status gr_locals_new(gr_locals **out, ctx_t *ctx, int32_t n_vocab) {
    gr_locals *l = ctx_zero(ctx, 1, sizeof *l);
    if (!l) {
        return ctx_fail_memory(ctx, sizeof *l);
    }
    *l = (gr_locals){.ctx = ctx, .n_vocab = n_vocab, .n_slots = 128};
    l->slots = ctx_zero(ctx, l->n_slots, sizeof *l->slots);
    if (!l->slots) {
        ctx_free(ctx, l);
        return ctx_fail_memory(ctx, 128 * sizeof *l->slots);
    }
    *out = l;
    return JANG_OK;
}

static void free_local(ctx_t *ctx, local *x) {
    ctx_free(ctx, x->nodes);
    ctx_free(ctx, x->bits);
    ctx_free(ctx, x->ids);
    ctx_free(ctx, x->exits);
}

static void forget(gr_locals *l) {
    for (size_t i = 0; i < l->n; i++) {
        free_local(l->ctx, &l->list[i]);
    }
    l->n = 0;
    l->n_bytes = 0;
    memset(l->slots, 0, l->n_slots * sizeof *l->slots);
}

void gr_locals_free(gr_locals *l) {
    if (l) {
        if (l->slots) {
            forget(l);
        }
        ctx_free(l->ctx, l->list);
        ctx_free(l->ctx, l->slots);
        ctx_free(l->ctx, l);
    }
}

/* ---- Walking ---- */

/* The set of heads at one depth of the walk. */
typedef struct level {
    size_t first, n, n_frames;
} level;

typedef struct walk {
    gr_run *run;
    const grammar_vocab *v;
    uint64_t *bits;
    level *levels;   /* [longest + 1] */
    bool plain;      /* plain tokens are in the mask already: covered subtrees need no look */
    bool bottom;     /* returns from frame 0 end the text; otherwise they are exits */
    uint32_t *exits; /* where not bottom */
    size_t n_exits, exits_capacity;
} walk;

static void accept_tokens(const walk *w, uint32_t from, uint32_t to) {
    const int32_t *ids = w->v->ids;
    for (uint32_t i = from; i < to; i++) {
        w->bits[ids[i] >> 6] |= (uint64_t)1 << (ids[i] & 63);
    }
}

/* How many plain characters are allowed after a head, whatever they are. */
static uint64_t plain_room(gr_places *p, const gr_head *head) {
    if (p->list[head->place]->plain) {
        return (uint64_t)head->room + 1; /* one has been counted to get here */
    }
    return gr_place_closed(p, head->place) ? UINT64_MAX : 0;
}

/* Whether all that is below a node is known to be allowed: because it is plain text inside a JSON
 * string, or because none of its bytes leads away from the place. */
static bool all_below(const walk *w, const gr_trie_node *node, const gr_head *heads, size_t n) {
    gr_places *p = w->run->p;
    if (node->plain != GR_NOT_PLAIN) { /* 0: nothing is below */
        for (size_t i = 0; i < n; i++) {
            if (node->plain <= plain_room(p, &heads[i])) {
                return true;
            }
        }
    }
    if (n != 1) {
        return false;
    }
    const gr_place_info *info = p->list[heads->place];
    bool alone = info->n_nodes == info->n_ranges;
    bool ends = info->ends && heads->frame == 0 && w->bottom;
    return (alone || ends) && (node->classes & info->turning) == 0;
}

/* Puts the set after byte on the next level; false if it is empty and nothing has ended. */
static bool step(walk *w, const level *from, level *to, uint8_t byte, bool *ended) {
    gr_run *r = w->run;
    r->n_heads = from->first + from->n;
    r->n_frames = from->n_frames;
    to->first = r->n_heads;
    if (from->n == 1 && r->n_heads < r->heads_capacity) {
        gr_head head = r->heads[from->first];
        head.place = gr_place_after(r->p, head.place, byte);
        const gr_place_info *info = r->p->list[head.place];
        if (info->n_nodes == info->n_ranges) { /* the usual case: nothing to follow */
            r->heads[r->n_heads] = head;
            to->n = info->n_nodes != 0;
            r->n_heads += to->n;
            to->n_frames = r->n_frames;
            *ended = false;
            return to->n != 0;
        }
    }
    to->n = gr_run_step(r, from->first, from->n, byte);
    to->n_frames = r->n_frames;
    *ended = r->ended;
    return to->n || r->ended;
}

static void add_exit(walk *w, uint32_t node) {
    if (w->run->p->status == JANG_OK) {
        w->run->p->status =
            gr_grow(w->run->p->ctx, &w->exits, &w->exits_capacity, w->n_exits, sizeof *w->exits);
    }
    if (w->run->p->status == JANG_OK) {
        w->exits[w->n_exits++] = node;
    }
}

/* Walks what is below the node top with the set at levels[0]. alive, if not NULL, tells which first
 * bytes are worth a step. */
static void walk_below(walk *w, uint32_t top, const bool *alive) {
    const gr_trie_node *nodes = w->v->nodes;
    unsigned base = nodes[top].depth;
    uint32_t end = nodes[top].end;
    for (uint32_t i = top + 1; i < end;) {
        unsigned depth = nodes[i].depth - base;
        level *to = &w->levels[depth];
        bool ended = false;
        if ((w->plain && nodes[i].covered) || (depth == 1 && alive && !alive[nodes[i].byte]) ||
            !step(w, to - 1, to, nodes[i].byte, &ended)) {
            i = nodes[i].end;
            continue;
        }
        if (to->n && all_below(w, &nodes[i], w->run->heads + to->first, to->n)) {
            accept_tokens(w, nodes[i].token, nodes[nodes[i].end].token);
            i = nodes[i].end;
            continue;
        }
        accept_tokens(w, nodes[i].token, nodes[i + 1].token);
        if (ended && !w->bottom && i + 1 < nodes[i].end) {
            add_exit(w, i);
        }
        i = to->n ? i + 1 : nodes[i].end;
    }
}

/* ---- Locals ---- */

static uint32_t hash_local(const gr_place_info *info, uint32_t need, uint32_t room, bool bottom) {
    uint64_t h = info->hash * 0x9e3779b97f4a7c15u ^ need * 0xff51afd7ed558ccdu;
    h ^= (uint64_t)room * 0xc4ceb9fe1a85ec53u + bottom;
    return (uint32_t)(h >> 24);
}

static bool is_local(const local *x, const local *key) {
    return x->hash == key->hash && x->need == key->need && x->room == key->room &&
           x->bottom == key->bottom && x->n_nodes == key->n_nodes &&
           memcmp(x->nodes, key->nodes, key->n_nodes * sizeof *key->nodes) == 0;
}

static local *find_local(gr_locals *l, const local *key) {
    for (size_t slot = key->hash & (l->n_slots - 1); l->slots[slot];
         slot = (slot + 1) & (l->n_slots - 1)) {
        local *x = &l->list[l->slots[slot] - 1];
        if (is_local(x, key)) {
            return x;
        }
    }
    return NULL;
}

static jang_status grow_locals(gr_locals *l) {
    jang_status status = gr_grow(l->ctx, &l->list, &l->capacity, l->n, sizeof *l->list);
    if (status != JANG_OK || l->n * 2 < l->n_slots) {
        return status;
    }
    size_t n = l->n_slots * 2;
    uint32_t *slots = ctx_zero(l->ctx, n, sizeof *slots);
    if (!slots) {
        return ctx_fail_memory(l->ctx, n * sizeof *slots);
    }
    for (size_t i = 0; i < l->n; i++) {
        size_t at = l->list[i].hash & (n - 1);
        while (slots[at]) {
            at = (at + 1) & (n - 1);
        }
        slots[at] = (uint32_t)i + 1;
    }
    ctx_free(l->ctx, l->slots);
    l->slots = slots;
    l->n_slots = n;
    return JANG_OK;
}

/* Turns a mask into a list where that is shorter. */
static jang_status pack_bits(gr_locals *l, local *x, const uint64_t *bits) {
    size_t n_words = grammar_mask_words(l->n_vocab), n = 0;
    for (size_t i = 0; i < n_words; i++) {
        n += (size_t)__builtin_popcountll(bits[i]);
    }
    if (n > n_words) {
        x->bits = ctx_array(l->ctx, n_words, sizeof *bits);
        if (!x->bits) {
            return ctx_fail_memory(l->ctx, n_words * sizeof *bits);
        }
        memcpy(x->bits, bits, n_words * sizeof *bits);
        l->n_bytes += n_words * sizeof *bits;
        return JANG_OK;
    }
    x->ids = ctx_array(l->ctx, n, sizeof *x->ids);
    if (!x->ids) {
        return ctx_fail_memory(l->ctx, n * sizeof *x->ids);
    }
    for (size_t i = 0; i < n_words; i++) {
        for (uint64_t word = bits[i]; word; word &= word - 1) {
            x->ids[x->n_ids++] = (int32_t)(i * 64 + (size_t)__builtin_ctzll(word));
        }
    }
    l->n_bytes += n * sizeof *x->ids;
    return JANG_OK;
}

/* Walks the whole trie from one head whose stack is unknown. */
static jang_status find_bits(local *x, gr_locals *l, const grammar_vocab *v, gr_run *run,
                             gr_head head) {
    gr_places *p = run->p;
    size_t n_words = grammar_mask_words(l->n_vocab);
    uint64_t *bits = ctx_zero(l->ctx, n_words, sizeof *bits);
    walk w = {.run = run, .v = v, .bits = bits, .bottom = x->bottom};
    w.levels = ctx_array(l->ctx, (size_t)v->longest + 2, sizeof *w.levels);
    gr_run saved = *run; /* the text's own heads and frames stay below */
    jang_status status = JANG_OK;
    gr_run_init(run, p);
    if (!bits || !w.levels ||
        gr_grow(p->ctx, &run->frames, &run->frames_capacity, 0, sizeof *run->frames) != JANG_OK) {
        status = ctx_fail_memory(l->ctx, n_words * sizeof *bits);
    } else {
        run->frames[run->n_frames++] = (gr_frame){0, 0, 0, 0};
        head.frame = 0;
        gr_run_add(run, 0, head);
        w.levels[0] = (level){0, run->n_heads, run->n_frames};
        uint64_t n_plain = run->n_heads ? plain_room(p, &head) : 0;
        w.plain = n_plain > 0;
        if (w.plain) {
            gr_vocab_add_plain(v, n_plain, bits);
        }
        if (run->n_heads) {
            walk_below(&w, 0, NULL);
        }
        status = p->status;
    }
    gr_run_free(run);
    *run = saved;
    if (status == JANG_OK) {
        status = pack_bits(l, x, bits);
    }
    x->exits = w.exits;
    x->n_exits = (uint32_t)w.n_exits;
    l->n_bytes += w.exits_capacity * sizeof *w.exits;
    ctx_free(l->ctx, bits);
    ctx_free(l->ctx, w.levels);
    return status;
}

static jang_status get_local(const local **out, gr_locals *l, const grammar_vocab *v, gr_run *run,
                             gr_head head) {
    const gr_place_info *info = run->p->list[head.place];
    uint32_t far = v->longest + run->p->a->widest_guard + 1;
    far = far < v->longest ? GR_INF - 1 : far;
    head.need = head.need > far ? far : head.need;
    head.room = head.room > far ? GR_INF : head.room;
    local key = {.nodes = info->nodes, .n_nodes = info->n_nodes, .need = head.need};
    key.room = head.room;
    key.bottom = head.frame == 0;
    key.hash = hash_local(info, key.need, key.room, key.bottom);
    *out = find_local(l, &key);
    if (*out) {
        return JANG_OK;
    }
    if (l->n_bytes > MAX_LOCAL_BYTES) {
        forget(l);
    }
    jang_status status = grow_locals(l);
    if (status != JANG_OK) {
        return status;
    }
    local made = key;
    made.nodes = ctx_array(l->ctx, info->n_nodes, sizeof *made.nodes);
    if (!made.nodes) {
        return ctx_fail_memory(l->ctx, info->n_nodes * sizeof *made.nodes);
    }
    memcpy(made.nodes, info->nodes, info->n_nodes * sizeof *made.nodes);
    status = find_bits(&made, l, v, run, head);
    if (status != JANG_OK) {
        free_local(l->ctx, &made);
        return status;
    }
    l->n_bytes += sizeof made + made.n_nodes * sizeof *made.nodes;
    size_t slot = made.hash & (l->n_slots - 1);
    while (l->slots[slot]) {
        slot = (slot + 1) & (l->n_slots - 1);
    }
    l->list[l->n++] = made;
    l->slots[slot] = (uint32_t)l->n;
    *out = &l->list[l->n - 1];
    return JANG_OK;
}

/* ---- Masks ---- */

static void add_local(const local *x, uint64_t *bits, size_t n_words) {
    for (size_t i = 0; x->bits && i < n_words; i++) {
        bits[i] |= x->bits[i];
    }
    for (uint32_t i = 0; i < x->n_ids; i++) {
        bits[x->ids[i] >> 6] |= (uint64_t)1 << (x->ids[i] & 63);
    }
}

/* The bytes that some of the n heads from first on can take. */
static void find_alive(const gr_run *r, size_t first, size_t n, bool alive[256]) {
    int change[257] = {0}; /* of how many ranges hold a byte, from the byte before */
    for (size_t i = first; i < first + n; i++) {
        const gr_place_info *info = r->p->list[r->heads[i].place];
        for (uint32_t k = 0; k < info->n_ranges; k++) {
            const gr_node *node = &r->p->a->nodes[info->nodes[k]];
            change[node->lo]++;
            change[node->hi + 1]--;
        }
    }
    int n_holding = 0;
    for (unsigned b = 0; b < 256; b++) {
        n_holding += change[b];
        alive[b] = n_holding > 0;
    }
}

/* Goes on after a return from head's rule, below each of the exits. */
static jang_status walk_exits(walk *w, const local *x, gr_head head) {
    gr_run *r = w->run;
    size_t first = r->n_heads, n_frames = r->n_frames;
    gr_frame f = r->frames[head.frame];
    gr_run_add(r, first, (gr_head){f.place, f.need, f.room, f.parent});
    gr_run_close(r, first);
    w->levels[0] = (level){first, r->n_heads - first, r->n_frames};
    bool alive[256];
    find_alive(r, first, w->levels[0].n, alive);
    for (uint32_t i = 0; i < x->n_exits && w->levels[0].n; i++) {
        walk_below(w, x->exits[i], alive);
    }
    r->n_heads = first;
    r->n_frames = n_frames;
    return r->p->status;
}

static bool is_common(const gr_auto *a, const gr_place_info *info) {
    uint32_t last = info->nodes[info->n_nodes - 1];
    uint32_t last_range = info->n_ranges ? info->nodes[info->n_ranges - 1] : 0;
    return last < a->n_common && last_range < a->n_common;
}

jang_status gr_mask_heads(gr_run *run, size_t first, size_t n, grammar_vocab *v, gr_locals *own,
                          uint64_t *bits) {
    jang_status status = JANG_OK;
    walk w = {.run = run, .v = v, .bits = bits, .bottom = true};
    w.levels = ctx_array(v->ctx, (size_t)v->longest + 2, sizeof *w.levels);
    if (!w.levels) {
        return ctx_fail_memory(v->ctx, v->longest * sizeof *w.levels);
    }
    for (size_t i = first; i < first + n && status == JANG_OK; i++) {
        gr_head head = run->heads[i];
        bool common = is_common(run->p->a, run->p->list[head.place]);
        if (common) {
            pthread_mutex_lock(&v->lock);
        }
        const local *x;
        status = get_local(&x, common ? v->common : own, v, run, head);
        if (status == JANG_OK) {
            add_local(x, bits, grammar_mask_words(v->n_vocab));
            if (head.frame && x->n_exits) {
                status = walk_exits(&w, x, head);
            }
        }
        if (common) {
            pthread_mutex_unlock(&v->lock);
        }
    }
    ctx_free(v->ctx, w.levels);
    return status;
}
