/* gr_dfa.c - making deterministic automata, combining and writing them. */
#include "grammar/gr_dfa.h"

#include "grammar/gr_run.h"

#include <string.h>

void gr_dfa_init(gr_dfa *d, ctx_t *ctx) {
    *d = (gr_dfa){.ctx = ctx};
}

void gr_dfa_free(gr_dfa *d) {
    ctx_free(d->ctx, d->next);
    ctx_free(d->ctx, d->ends);
    d->next = NULL;
    d->ends = NULL;
    d->n = d->capacity = 0;
}

jang_status gr_dfa_state(gr_dfa *d, uint16_t *state) {
    if (d->n > GR_DFA_MAX) {
        return ctx_fail(d->ctx, JANG_ERR_UNSUPPORTED,
                        "a pattern or combination of patterns with "
                        "over %u states",
                        GR_DFA_MAX);
    }
    if (d->n >= d->capacity) {
        size_t more = d->capacity ? d->capacity * 2 : 16;
        void *next = ctx_realloc(d->ctx, d->next, more * sizeof *d->next);
        d->next = next ? next : d->next;
        void *ends = next ? ctx_realloc(d->ctx, d->ends, more) : NULL;
        d->ends = ends ? ends : d->ends;
        if (!next || !ends) {
            return ctx_fail_memory(d->ctx, more * sizeof *d->next);
        }
        d->capacity = more;
    }
    memset(d->next[d->n], 0, sizeof *d->next);
    d->ends[d->n] = 0;
    *state = (uint16_t)d->n++;
    return JANG_OK;
}

/* The dead state and the first. */
static jang_status begin(gr_dfa *d, ctx_t *ctx) {
    uint16_t state;
    gr_dfa_init(d, ctx);
    jang_status status = gr_dfa_state(d, &state);
    return status == JANG_OK ? gr_dfa_state(d, &state) : status;
}

/* ---- From nodes ---- */

jang_status gr_dfa_of_nodes(gr_dfa *out, const gr_auto *a, uint32_t entry) {
    gr_places p;
    gr_dfa d;
    gr_dfa_init(&d, a->ctx);
    jang_status status = gr_places_init(&p, a);
    if (status == JANG_OK) {
        (void)gr_place_of(&p, entry); /* place 2, or 1 if there is nothing */
        status = p.status == JANG_OK ? begin(&d, a->ctx) : p.status;
    }
    for (uint32_t i = 2; status == JANG_OK && i < p.n; i++) { /* state i - 1 */
        gr_place_info *info = p.list[i];
        uint16_t state;
        if (!info->after) {
            gr_place_expand(&p, info);
        }
        while (p.status == JANG_OK && status == JANG_OK && d.n < p.n - 1) {
            status = gr_dfa_state(&d, &state);
        }
        status = status == JANG_OK ? p.status : status;
        for (unsigned b = 0; status == JANG_OK && b < 256; b++) {
            d.next[i - 1][b] = (uint16_t)(info->after[b] - 1);
        }
        if (status == JANG_OK) {
            d.ends[i - 1] = info->ends;
        }
    }
    gr_places_free(&p);
    if (status != JANG_OK) {
        gr_dfa_free(&d);
        return status;
    }
    *out = d;
    return JANG_OK;
}

jang_status gr_dfa_of_expr(gr_dfa *out, gr_auto *a, const gr_pool *p, uint32_t e) {
    gr_auto scratch = {.ctx = a->ctx}; /* node numbers of its own: the nodes are not kept */
    (void)gr_place(&scratch);
    uint32_t entry = gr_expr_emit(&scratch, p, e, GR_SPELL_FLAT, gr_final(&scratch));
    jang_status status = scratch.status;
    if (status == JANG_OK) {
        status = gr_dfa_of_nodes(out, &scratch, entry);
    }
    gr_auto_free(&scratch);
    return status;
}

/* ---- Lengths ---- */

/* A state's ways through one character of UTF-8 to another state. */
static jang_status add_char(gr_dfa *d, uint16_t from, uint16_t to) {
    uint16_t s[7]; /* before 1, 2, 3 bytes; after E0, ED, F0, F4 */
    for (int i = 0; i < 7; i++) {
        jang_status status = gr_dfa_state(d, &s[i]);
        if (status != JANG_OK) {
            return status;
        }
    }
    static const struct {
        uint8_t lo, hi, from, to; /* 7: the state before, 8: after the character */
    } rows[] = {{0x00, 0x7f, 7, 8}, {0xc2, 0xdf, 7, 0}, {0xe0, 0xe0, 7, 3}, {0xe1, 0xec, 7, 1},
                {0xed, 0xed, 7, 4}, {0xee, 0xef, 7, 1}, {0xf0, 0xf0, 7, 5}, {0xf1, 0xf3, 7, 2},
                {0xf4, 0xf4, 7, 6}, {0x80, 0xbf, 0, 8}, {0x80, 0xbf, 1, 0}, {0x80, 0xbf, 2, 1},
                {0xa0, 0xbf, 3, 0}, {0x80, 0x9f, 4, 0}, {0x90, 0xbf, 5, 1}, {0x80, 0x8f, 6, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint16_t a = rows[i].from == 7 ? from : s[rows[i].from];
        uint16_t b = rows[i].to == 8 ? to : s[rows[i].to];
        for (unsigned byte = rows[i].lo; byte <= rows[i].hi; byte++) {
            d->next[a][byte] = b;
        }
    }
    return JANG_OK;
}

jang_status gr_dfa_of_length(gr_dfa *out, ctx_t *ctx, uint32_t min, uint32_t max) {
    gr_dfa d;
    jang_status status = begin(&d, ctx);
    uint32_t last = max == GR_INF ? min : max;
    uint16_t at = 1;
    for (uint32_t n = 0; status == JANG_OK && n < last; n++) {
        uint16_t to = 0;
        d.ends[at] = n >= min;
        status = gr_dfa_state(&d, &to);
        if (status == JANG_OK) {
            status = add_char(&d, at, to);
        }
        at = to;
    }
    if (status == JANG_OK) {
        d.ends[at] = 1;
        status = max == GR_INF ? add_char(&d, at, at) : JANG_OK;
    }
    if (status != JANG_OK) {
        gr_dfa_free(&d);
        return status;
    }
    *out = d;
    return JANG_OK;
}

/* ---- Both, and this without that ---- */

typedef struct pairs {
    ctx_t *ctx;
    uint32_t *list; /* x << 16 | y of each state */
    size_t n, capacity;
    uint32_t *slots; /* hash table of states */
    size_t n_slots;
} pairs;

static jang_status pair_state(pairs *p, gr_dfa *d, uint16_t x, uint16_t y, uint16_t *state) {
    uint32_t key = (uint32_t)x << 16 | y;
    size_t slot = (key * 0x9e3779b1u) & (p->n_slots - 1);
    for (; p->slots[slot]; slot = (slot + 1) & (p->n_slots - 1)) {
        if (p->list[p->slots[slot]] == key) {
            *state = (uint16_t)p->slots[slot];
            return JANG_OK;
        }
    }
    jang_status status = gr_dfa_state(d, state);
    while (status == JANG_OK && p->capacity < d->n) {
        status = gr_grow(p->ctx, &p->list, &p->capacity, p->capacity, sizeof *p->list);
    }
    if (status == JANG_OK) {
        p->list[*state] = key;
        p->slots[slot] = *state;
    }
    return status;
}

static jang_status meet(pairs *p, gr_dfa *d, const gr_dfa *x, const gr_dfa *y, bool without) {
    uint16_t state;
    jang_status status = gr_dfa_state(d, &state);
    if (status == JANG_OK) {
        status = pair_state(p, d, 1, 1, &state);
    }
    for (size_t i = 1; status == JANG_OK && i < d->n; i++) {
        uint16_t a = (uint16_t)(p->list[i] >> 16), b = (uint16_t)p->list[i];
        d->ends[i] = x->ends[a] && (without ? !y->ends[b] : y->ends[b]);
        uint16_t last_a = 0, last_b = 0, last = 0;
        for (unsigned c = 0; c < 256 && status == JANG_OK; c++) {
            uint16_t to_a = x->next[a][c], to_b = y->next[b][c];
            if (!to_a || (!to_b && !without)) {
                continue;
            }
            if (to_a != last_a || to_b != last_b) {
                status = pair_state(p, d, to_a, to_b, &last);
                last_a = to_a;
                last_b = to_b;
            }
            if (status == JANG_OK) {
                d->next[i][c] = last;
            }
        }
    }
    return status;
}

jang_status gr_dfa_meet(gr_dfa *out, const gr_dfa *x, const gr_dfa *y, bool without) {
    gr_dfa d;
    gr_dfa_init(&d, x->ctx);
    pairs p = {.ctx = x->ctx, .n_slots = 32768};
    p.slots = ctx_zero(x->ctx, p.n_slots, sizeof *p.slots);
    jang_status status = p.slots ? meet(&p, &d, x, y, without)
                                 : ctx_fail_memory(x->ctx, p.n_slots * sizeof *p.slots);
    ctx_free(x->ctx, p.list);
    ctx_free(x->ctx, p.slots);
    if (status != JANG_OK) {
        gr_dfa_free(&d);
        return status;
    }
    *out = d;
    return JANG_OK;
}

jang_status gr_dfa_narrow(gr_dfa *d, const gr_dfa *other, bool without) {
    gr_dfa narrow;
    jang_status status = gr_dfa_meet(&narrow, d, other, without);
    if (status == JANG_OK) {
        gr_dfa_free(d);
        *d = narrow;
    }
    return status;
}

jang_status gr_dfa_trim(gr_dfa *d, bool *any) {
    uint8_t *good = ctx_zero(d->ctx, d->n, 1);
    if (!good) {
        return ctx_fail_memory(d->ctx, d->n);
    }
    for (bool changed = true; changed;) { /* states mostly lead to later ones: few rounds */
        changed = false;
        for (size_t i = d->n; i-- > 1;) {
            bool leads = d->ends[i];
            for (unsigned c = 0; c < 256 && !leads && !good[i]; c++) {
                leads = good[d->next[i][c]];
            }
            if (leads && !good[i]) {
                good[i] = 1;
                changed = true;
            }
        }
    }
    for (size_t i = 1; i < d->n; i++) {
        for (unsigned c = 0; c < 256; c++) {
            if (!good[d->next[i][c]]) {
                d->next[i][c] = 0;
            }
        }
    }
    *any = good[1];
    ctx_free(d->ctx, good);
    return JANG_OK;
}

bool gr_dfa_matches(const gr_dfa *d, const char *text, size_t n) {
    uint16_t state = 1;
    for (size_t i = 0; i < n && state; i++) {
        state = d->next[state][(unsigned char)text[i]];
    }
    return d->ends[state];
}

/* ---- Writing ---- */

static uint32_t emit_byte_range(gr_auto *a, unsigned lo, unsigned hi, bool json, uint32_t next) {
    uint32_t all = 0;
    for (unsigned c = lo; json && c <= hi && c <= '\\'; c++) {
        if (c < 0x20 || c == '"' || c == '\\') {
            char text[8];
            all = gr_split(a, all, gr_text(a, text, gr_json_escape(text, (uint8_t)c), next));
        }
    }
    if (!json) {
        return gr_range(a, lo, hi, next);
    }
    const unsigned parts[][2] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0xff}};
    for (int i = 0; i < 3; i++) {
        unsigned from = lo > parts[i][0] ? lo : parts[i][0];
        unsigned to = hi < parts[i][1] ? hi : parts[i][1];
        all = gr_split(a, all, gr_range(a, from, to, next));
    }
    return all;
}

/* All ways on from a state; targets tells the node of each state for a first byte c. */
static uint32_t emit_state(gr_auto *a, const gr_dfa *d, size_t state, bool json,
                           const uint32_t *targets) {
    uint32_t all = 0;
    for (unsigned c = 0; c < 256;) {
        unsigned last = c;
        while (last < 255 && d->next[state][last + 1] == d->next[state][c]) {
            last++;
        }
        if (d->next[state][c]) {
            uint32_t to = targets[d->next[state][c]];
            all = gr_split(a, all, emit_byte_range(a, c, last, json, to));
        }
        c = last + 1;
    }
    return all;
}

uint32_t gr_dfa_emit(gr_auto *a, const gr_dfa *d, bool json, uint32_t next) {
    uint32_t *places = ctx_array(a->ctx, d->n, sizeof *places);
    if (!places) {
        gr_fail(a, ctx_fail_memory(a->ctx, d->n * sizeof *places));
        return 0;
    }
    for (size_t i = 1; i < d->n; i++) {
        places[i] = gr_place(a);
    }
    for (size_t i = 1; i < d->n; i++) {
        gr_fill(a, places[i], emit_state(a, d, i, json, places), d->ends[i] ? next : 0);
    }
    uint32_t first = d->n > 1 ? places[1] : 0;
    ctx_free(a->ctx, places);
    return first;
}

/* ---- Counted ---- */

/* The least and greatest number of characters to an end; most GR_INF: any. */
typedef gr_dfa_reach reach;

#define MAX_COUNTED 300u

static bool begins_char(unsigned byte) {
    return (byte & 0xc0) != 0x80;
}

/* Finds them by going round until nothing changes: least from above, most along the longest way,
 * which is endless where it has more steps than there are states. */
static void find_reach(const gr_dfa *d, reach *r) {
    for (size_t i = 0; i < d->n; i++) {
        r[i] = (reach){d->ends[i] ? 0 : GR_INF, 0};
    }
    bool changed = true;
    for (size_t round = 0; changed && round < 2 * d->n + 2; round++) {
        changed = false;
        for (size_t i = d->n; i-- > 1;) {
            for (unsigned c = 0; c < 256; c++) {
                const reach *to = &r[d->next[i][c]];
                if (!d->next[i][c] || to->least == GR_INF) {
                    continue;
                }
                uint32_t step = begins_char(c), least = to->least + step;
                uint32_t most =
                    to->most == GR_INF || to->most + step > d->n ? GR_INF : to->most + step;
                changed |= least < r[i].least || most > r[i].most;
                r[i].least = least < r[i].least ? least : r[i].least;
                r[i].most = most > r[i].most ? most : r[i].most;
            }
        }
    }
}

/* Whether the lengths from each state have no gaps: each length from least to most is reached by
 * some way whose rest has none. */
static bool no_gaps(const gr_dfa *d, const reach *r) {
    for (size_t i = 1; i < d->n; i++) {
        if (r[i].least == GR_INF) {
            continue;
        }
        uint64_t covered = d->ends[i] ? 1 : r[i].least; /* all below it from least on */
        bool grows = true;
        while (grows && covered <= r[i].most && covered != GR_INF) {
            grows = false;
            for (unsigned c = 0; c < 256; c++) {
                const reach *to = &r[d->next[i][c]];
                uint64_t step = begins_char(c);
                if (d->next[i][c] && to->least != GR_INF && to->least + step <= covered) {
                    uint64_t end = to->most == GR_INF ? GR_INF : to->most + step + 1;
                    grows |= end > covered;
                    covered = end > covered ? end : covered;
                }
            }
        }
        if (covered <= r[i].most && covered != GR_INF) {
            return false;
        }
    }
    return true;
}

static uint32_t guarded(gr_auto *a, reach r, bool counts, uint32_t next) {
    return gr_count_guarded(a, (gr_guard){r.least, r.most, counts}, next);
}

static jang_status emit_counted(gr_auto *a, const gr_dfa *d, const reach *r, uint32_t *rule) {
    uint32_t *places = ctx_array(a->ctx, d->n, sizeof *places);
    if (!places) {
        return ctx_fail_memory(a->ctx, d->n * sizeof *places);
    }
    uint32_t close = gr_check(a, gr_range(a, '"', '"', gr_final(a)));
    for (size_t i = 1; i < d->n; i++) {
        places[i] = gr_place(a);
    }
    for (size_t i = 1; i < d->n; i++) { /* each way on is counted and guarded before its byte */
        uint32_t all = d->ends[i] ? close : 0;
        for (unsigned c = 0; c < 256;) {
            uint16_t to = d->next[i][c];
            unsigned last = c;
            while (last < 255 && d->next[i][last + 1] == to &&
                   begins_char(last + 1) == begins_char(c)) {
                last++;
            }
            if (to) {
                uint32_t way = emit_byte_range(a, c, last, true, places[to]);
                all = gr_split(a, all, guarded(a, r[to], begins_char(c), way));
            }
            c = last + 1;
        }
        gr_fill(a, places[i], all, 0);
    }
    *rule = gr_rule_new(a);
    gr_rule_set(a, *rule, gr_range(a, '"', '"', d->n > 1 ? places[1] : 0));
    ctx_free(a->ctx, places);
    return a->status;
}

jang_status gr_dfa_emit_counted(gr_auto *a, const gr_dfa *d, uint32_t *rule, gr_dfa_reach *lengths,
                                bool *possible) {
    if (d->n > MAX_COUNTED) {
        *possible = false;
        return JANG_OK;
    }
    reach *r = ctx_array(a->ctx, d->n, sizeof *r);
    if (!r) {
        return ctx_fail_memory(a->ctx, d->n * sizeof *r);
    }
    find_reach(d, r);
    *possible = no_gaps(d, r);
    *lengths = r[1];
    jang_status status = *possible ? emit_counted(a, d, r, rule) : JANG_OK;
    ctx_free(a->ctx, r);
    return status;
}
