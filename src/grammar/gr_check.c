/* gr_check.c - whether a compiled grammar can be run: each way has an end, none goes in circles.
 *
 * A node is looked at twice: while the counter's minimum is met (form 0), and while it is not yet
 * and nothing has been counted (form 1), where a check does not let through. One count is taken to
 * lead from form 1 to form 0: where one repetition can be made, so can the others. */
#include "grammar/gr_auto.h"

#include <string.h>

/* Node and form in one number. */
#define SPOT(node, form) ((node) << 1 | (form))

typedef struct checker {
    gr_auto *a;
    uint32_t n; /* spots */
    /* what leads to a spot for nothing or by a byte: before[from[spot] .. from[spot + 1]] */
    uint32_t *from, *before;
    uint32_t *calls_from, *calls; /* the same for the call nodes of each rule */
    uint8_t *good;                /* [n] an end can be reached */
    uint32_t *stack;
    size_t depth;
} checker;

static uint32_t form_of(const gr_ref *ref) {
    return ref->min > 0;
}

/* The spot that follows for next and, for a split, for arg; 0 if it does not let through. */
static uint32_t follower(const gr_node *node, uint32_t form) {
    switch (node->kind) {
    case GR_CHECK:
        return form ? 0 : SPOT(node->next, 0u);
    case GR_COUNT:
        return SPOT(node->next, 0u);
    case GR_FINAL:
    case GR_DEAD:
        return 0;
    default:
        return SPOT(node->next, form);
    }
}

static jang_status make_lists(checker *c) {
    gr_auto *a = c->a;
    ctx_t *ctx = a->ctx;
    c->n = (uint32_t)a->n_nodes * 2;
    c->from = ctx_zero(ctx, (size_t)c->n + 3, sizeof *c->from);
    c->before = ctx_array(ctx, (size_t)c->n * 2, sizeof *c->before);
    c->calls_from = ctx_zero(ctx, a->n_rules + 3, sizeof *c->calls_from);
    c->calls = ctx_array(ctx, a->n_calls, sizeof *c->calls);
    c->good = ctx_zero(ctx, c->n, sizeof *c->good);
    c->stack = ctx_array(ctx, c->n, sizeof *c->stack);
    if (!c->from || !c->before || !c->calls_from || !c->calls || !c->good || !c->stack) {
        return ctx_fail_memory(ctx, (size_t)c->n * 4 * sizeof(uint32_t));
    }
    for (int pass = 0; pass < 2; pass++) { /* count, then fill; starts end up one place back */
        for (uint32_t i = 1; i < a->n_nodes; i++) {
            const gr_node *node = &a->nodes[i];
            for (uint32_t form = 0; form < 2; form++) {
                uint32_t to[2] = {follower(node, form),
                                  node->kind == GR_SPLIT ? SPOT(node->arg, form) : 0};
                for (int k = 0; k < 2; k++) {
                    if (to[k] > 1 && pass == 0) {
                        c->from[to[k] + 2]++;
                    } else if (to[k] > 1) {
                        c->before[c->from[to[k] + 1]++] = SPOT(i, form);
                    }
                }
            }
            if (node->kind == GR_CALL && pass == 0) {
                c->calls_from[a->calls[node->arg].rule + 2]++;
            } else if (node->kind == GR_CALL) {
                c->calls[c->calls_from[a->calls[node->arg].rule + 1]++] = i;
            }
        }
        for (uint32_t i = 1; pass == 0 && i < c->n + 3; i++) {
            c->from[i] += c->from[i - 1];
        }
        for (size_t i = 1; pass == 0 && i < a->n_rules + 3; i++) {
            c->calls_from[i] += c->calls_from[i - 1];
        }
    }
    return JANG_OK;
}

/* ---- Ends ---- */

static void mark_good(checker *c, uint32_t spot) {
    if (!c->good[spot]) {
        c->good[spot] = 1;
        c->stack[c->depth++] = spot;
    }
}

static bool call_ends(const checker *c, const gr_node *node) {
    const gr_ref *ref = &c->a->calls[node->arg];
    return c->good[SPOT(c->a->rules[ref->rule], form_of(ref))];
}

/* empty: only what takes no byte. */
static void spread(checker *c, uint32_t spot, bool empty) {
    const gr_auto *a = c->a;
    for (uint32_t i = c->from[spot]; i < c->from[spot + 1]; i++) {
        uint32_t before = c->before[i];
        const gr_node *node = &a->nodes[before >> 1];
        bool passes = node->kind == GR_CALL ? call_ends(c, node) : !empty || node->kind != GR_RANGE;
        if (passes) {
            mark_good(c, before);
        }
    }
}

/* A rule whose entry is good makes those calls good that go on well. */
static void spread_rule(checker *c, uint32_t rule) {
    const gr_auto *a = c->a;
    for (uint32_t i = c->calls_from[rule]; i < c->calls_from[rule + 1]; i++) {
        const gr_node *node = &a->nodes[c->calls[i]];
        for (uint32_t form = 0; form < 2; form++) {
            if (call_ends(c, node) && c->good[SPOT(node->next, form)]) {
                mark_good(c, SPOT(c->calls[i], form));
            }
        }
    }
}

/* Marks the spots from which the end of their rule is reached; with empty, without a byte. */
static jang_status find_good(checker *c, bool empty) {
    gr_auto *a = c->a;
    memset(c->good, 0, c->n);
    uint32_t *rule_at = ctx_zero(a->ctx, a->n_nodes, sizeof *rule_at); /* that begins with a node */
    uint32_t *same = ctx_zero(a->ctx, a->n_rules, sizeof *same);       /* next one that does */
    if (!rule_at || !same) {
        ctx_free(a->ctx, rule_at);
        ctx_free(a->ctx, same);
        return ctx_fail_memory(a->ctx, a->n_nodes * sizeof *rule_at);
    }
    for (uint32_t rule = 1; rule < a->n_rules; rule++) {
        same[rule] = rule_at[a->rules[rule]];
        rule_at[a->rules[rule]] = rule;
    }
    for (uint32_t i = 1; i < a->n_nodes; i++) {
        if (a->nodes[i].kind == GR_FINAL) {
            mark_good(c, SPOT(i, 0));
            mark_good(c, SPOT(i, 1));
        }
    }
    while (c->depth) {
        uint32_t spot = c->stack[--c->depth];
        spread(c, spot, empty);
        for (uint32_t rule = rule_at[spot >> 1]; rule; rule = same[rule]) {
            spread_rule(c, rule);
        }
    }
    ctx_free(a->ctx, rule_at);
    ctx_free(a->ctx, same);
    return JANG_OK;
}

static void mark_lost(checker *c) {
    for (uint32_t i = 1; i < c->a->n_nodes; i++) {
        if (!c->good[SPOT(i, 0)]) {
            c->a->nodes[i].flags |= GR_LOST;
        }
    }
}

/* ---- Circles ---- */

/* The rules that a rule may begin with, as lists; then a search for a circle among rules. */
static void first_calls(const checker *c, uint32_t entry, uint32_t stamp, uint32_t *stamps,
                        uint32_t *stack, uint32_t *found, size_t *n_found) {
    const gr_auto *a = c->a;
    size_t depth = 0;
    stack[depth++] = entry;
    stamps[entry] = stamp;
    while (depth) {
        uint32_t spot = stack[--depth];
        const gr_node *node = &a->nodes[spot >> 1];
        uint32_t to[2] = {0, 0};
        if (node->flags & GR_LOST || node->kind == GR_RANGE) {
            continue;
        }
        if (node->kind == GR_CALL) {
            const gr_ref *ref = &a->calls[node->arg];
            found[(*n_found)++] = ref->rule << 1 | form_of(ref);
            to[0] = call_ends(c, node) ? SPOT(node->next, spot & 1) : 0;
        } else {
            to[0] = follower(node, spot & 1);
            to[1] = node->kind == GR_SPLIT ? SPOT(node->arg, spot & 1) : 0;
        }
        for (int k = 0; k < 2; k++) {
            if (to[k] > 1 && stamps[to[k]] != stamp) {
                stamps[to[k]] = stamp;
                stack[depth++] = to[k];
            }
        }
    }
}

typedef struct circles {
    checker *c;
    uint32_t *stamps;         /* [spots] */
    uint32_t *found;          /* callees of the rules on the way down, one after another */
    uint8_t *state;           /* [2 * rules] 0 new, 1 open, 2 done */
    uint32_t *way, *at, *end; /* the rules on the way down, and their part of found */
} circles;

static uint32_t search(circles *s, uint32_t start) {
    const gr_auto *a = s->c->a;
    size_t depth = 0, n_found = 0;
    uint32_t next = start;
    for (;;) {
        if (next) {
            s->state[next] = 1;
            s->way[depth] = next;
            s->at[depth] = (uint32_t)n_found;
            uint32_t entry = SPOT(a->rules[next >> 1], next & 1);
            first_calls(s->c, entry, next, s->stamps, s->c->stack, s->found, &n_found);
            s->end[depth++] = (uint32_t)n_found;
            next = 0;
        }
        size_t top = depth - 1;
        if (s->at[top] == s->end[top]) {
            s->state[s->way[top]] = 2;
            if (--depth == 0) {
                return 0;
            }
            n_found = s->end[depth - 1];
            continue;
        }
        uint32_t callee = s->found[s->at[top]++];
        if (s->state[callee] == 1) {
            return callee >> 1;
        }
        next = s->state[callee] == 0 ? callee : 0;
    }
}

static jang_status find_circles(checker *c, uint32_t *rule) {
    ctx_t *ctx = c->a->ctx;
    size_t n = c->a->n_rules * 2;
    circles s = {.c = c};
    s.stamps = ctx_zero(ctx, c->n, sizeof *s.stamps);
    s.found = ctx_array(ctx, c->a->n_calls * 2 + 1, sizeof *s.found);
    s.state = ctx_zero(ctx, n, 1);
    s.way = ctx_array(ctx, n, 3 * sizeof *s.way);
    jang_status status = JANG_OK;
    if (!s.stamps || !s.found || !s.state || !s.way) {
        status = ctx_fail_memory(ctx, (c->n + n * 3) * sizeof(uint32_t));
    } else {
        s.at = s.way + n;
        s.end = s.at + n;
        *rule = 0;
        for (uint32_t i = 2; i < n && !*rule; i++) {
            *rule = s.state[i] == 0 && c->a->rules[i >> 1] ? search(&s, i) : 0;
        }
    }
    ctx_free(ctx, s.stamps);
    ctx_free(ctx, s.found);
    ctx_free(ctx, s.state);
    ctx_free(ctx, s.way);
    return status;
}

static void free_lists(checker *c) {
    ctx_t *ctx = c->a->ctx;
    ctx_free(ctx, c->from);
    ctx_free(ctx, c->before);
    ctx_free(ctx, c->calls_from);
    ctx_free(ctx, c->calls);
    ctx_free(ctx, c->good);
    ctx_free(ctx, c->stack);
}

jang_status gr_check_rules(gr_auto *a, gr_name_fn name, const void *user, const char *what) {
    if (a->status != JANG_OK) {
        return a->status;
    }
    checker c = {.a = a};
    uint32_t circle = 0;
    jang_status status = make_lists(&c);
    if (status == JANG_OK) {
        status = find_good(&c, false);
    }
    if (status == JANG_OK) {
        mark_lost(&c);
    }
    if (status == JANG_OK &&
        (!a->root.rule || !c.good[SPOT(a->rules[a->root.rule], form_of(&a->root))])) {
        status = ctx_fail(a->ctx, JANG_ERR_FORMAT, "%s: no finite text can satisfy it", what);
    }
    if (status == JANG_OK) {
        status = find_good(&c, true);
    }
    if (status == JANG_OK) {
        status = find_circles(&c, &circle);
    }
    if (status == JANG_OK && circle) {
        size_t n = 1;
        const char *rule = name ? name(user, circle, &n) : NULL;
        status = ctx_fail(a->ctx, JANG_ERR_UNSUPPORTED,
                          "%s: rule %.*s begins with itself (left recursion)", what,
                          (int)(n < 100 ? n : 100), rule ? rule : "?");
    }
    free_lists(&c);
    return status;
}
