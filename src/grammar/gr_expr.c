/* gr_expr.c - making expressions, their anchors, and the automata they become. */
#include "grammar/gr_expr.h"

#define LAST_CHAR 0x10ffffu
#define MAX_EXPRS ((size_t)1 << 22)
/* A repetition of at most so many nodes is written out, a larger one counted. */
#define WRITTEN_OUT 300u
#define MAX_FLAT 100000u

jang_status gr_pool_init(gr_pool *p, ctx_t *ctx) {
    *p = (gr_pool){.ctx = ctx};
    buf_init(&p->names, ctx, GR_MAX_TEXT);
    gr_expr_new(p, (gr_expr){GR_EXPR_NONE, 0, 0, 0, 0});
    gr_expr_new(p, (gr_expr){GR_EXPR_EMPTY, 0, 0, 0, 0});
    return p->status;
}

void gr_pool_free(gr_pool *p) {
    ctx_free(p->ctx, p->list);
    ctx_free(p->ctx, p->spans);
    buf_free(&p->names);
}

uint32_t gr_expr_new(gr_pool *p, gr_expr e) {
    if (p->status == JANG_OK && p->n >= MAX_EXPRS) {
        p->status = ctx_fail(p->ctx, JANG_ERR_UNSUPPORTED, "the grammar is too large");
    }
    if (p->status == JANG_OK) {
        p->status = gr_grow(p->ctx, &p->list, &p->capacity, p->n, sizeof *p->list);
    }
    if (p->status != JANG_OK) {
        return 0;
    }
    p->list[p->n] = e;
    return (uint32_t)p->n++;
}

uint32_t gr_expr_cat(gr_pool *p, uint32_t a, uint32_t b) {
    if (a == 0 || b == 0) {
        return 0;
    }
    if (a == 1 || b == 1) {
        return a == 1 ? b : a;
    }
    return gr_expr_new(p, (gr_expr){GR_EXPR_CAT, a, b, 0, 0});
}

uint32_t gr_expr_alt(gr_pool *p, uint32_t a, uint32_t b) {
    if (a == 0 || b == 0) {
        return a ? a : b;
    }
    return gr_expr_new(p, (gr_expr){GR_EXPR_ALT, a, b, 0, 0});
}

uint32_t gr_expr_repeat(gr_pool *p, uint32_t a, uint32_t min, uint32_t max) {
    if (max == 0 || a == 1 || (a == 0 && min == 0)) {
        return 1;
    }
    if (a == 0 || (min == 1 && max == 1)) {
        return a;
    }
    return gr_expr_new(p, (gr_expr){GR_EXPR_REPEAT, a, 0, min, max});
}

uint32_t gr_expr_set(gr_pool *p, gr_set *set, bool inverted) {
    gr_set_finish(set);
    if (inverted) {
        gr_set_invert(set);
    }
    uint32_t at = (uint32_t)p->n_spans, n = (uint32_t)set->n;
    if (p->status == JANG_OK) {
        p->status = set->status;
    }
    for (size_t i = 0; i < set->n && p->status == JANG_OK; i++) {
        p->status = gr_grow(p->ctx, &p->spans, &p->spans_capacity, p->n_spans, sizeof *p->spans);
        if (p->status == JANG_OK) {
            p->spans[p->n_spans++] = set->spans[i];
        }
    }
    gr_set_free(set);
    return n ? gr_expr_new(p, (gr_expr){GR_EXPR_CHARS, at, n, 0, 0}) : 0;
}

uint32_t gr_expr_char(gr_pool *p, uint32_t c) {
    gr_set set;
    gr_set_init(&set, p->ctx);
    gr_set_add(&set, c, c);
    return gr_expr_set(p, &set, false);
}

uint32_t gr_expr_any(gr_pool *p) {
    gr_set set;
    gr_set_init(&set, p->ctx);
    gr_set_add(&set, 0, LAST_CHAR);
    return gr_expr_set(p, &set, false);
}

/* ---- Anchors ---- */

static bool contains(const gr_pool *p, uint32_t e, gr_expr_kind kind) {
    for (;;) {
        const gr_expr *x = &p->list[e];
        if (x->kind == GR_EXPR_CAT || x->kind == GR_EXPR_ALT) {
            if (contains(p, x->b, kind)) {
                return true;
            }
            e = x->a;
        } else if (x->kind == GR_EXPR_REPEAT) {
            e = x->a;
        } else {
            return x->kind == kind;
        }
    }
}

/* Anchors of one side: kind is ^ or $, pad what may stand on that side of an open match. */
typedef struct anchoring {
    gr_pool *p;
    gr_expr_kind kind;
    uint32_t pad;
    bool bad;
} anchoring;

static uint32_t padded(anchoring *t, uint32_t e) {
    return t->kind == GR_EXPR_BEGIN ? gr_expr_cat(t->p, t->pad, e) : gr_expr_cat(t->p, e, t->pad);
}

static uint32_t anchor(anchoring *t, uint32_t e);

/* In a sequence the anchor belongs to the outer end; what lies before it must be empty. */
static uint32_t anchor_cat(anchoring *t, uint32_t e) {
    gr_expr x = t->p->list[e];
    bool left = t->kind == GR_EXPR_BEGIN;
    uint32_t outer = left ? x.a : x.b, inner = left ? x.b : x.a;
    gr_expr_kind kind = t->p->list[outer].kind;
    if (contains(t->p, inner, t->kind)) {
        if (kind != t->kind) { /* a^b: never, unless a may be empty, which we do not look into */
            t->bad = true;
            return 0;
        }
        return anchor(t, inner);
    }
    uint32_t done = anchor(t, outer);
    return left ? gr_expr_cat(t->p, done, inner) : gr_expr_cat(t->p, inner, done);
}

static uint32_t anchor(anchoring *t, uint32_t e) {
    if (!contains(t->p, e, t->kind)) {
        return padded(t, e);
    }
    gr_expr x = t->p->list[e];
    if (x.kind == t->kind) {
        return 1;
    }
    if (x.kind == GR_EXPR_CAT) {
        return anchor_cat(t, e);
    }
    if (x.kind == GR_EXPR_ALT) {
        uint32_t all = 0;
        while (x.kind == GR_EXPR_ALT) {
            all = gr_expr_alt(t->p, all, anchor(t, x.b));
            e = x.a;
            x = t->p->list[e];
        }
        return gr_expr_alt(t->p, all, anchor(t, e));
    }
    if (x.max != 1) {
        t->bad = true;
        return 0;
    }
    return gr_expr_alt(t->p, padded(t, 1), anchor(t, x.a));
}

jang_status gr_expr_anchor(uint32_t *out, gr_pool *p, const char *what, uint32_t e, bool search) {
    uint32_t pad = search ? gr_expr_repeat(p, gr_expr_any(p), 0, GR_INF) : 1;
    anchoring left = {p, GR_EXPR_BEGIN, pad, false};
    e = anchor(&left, e);
    anchoring right = {p, GR_EXPR_END, pad, false};
    e = anchor(&right, e);
    if (p->status != JANG_OK) {
        return p->status;
    }
    if (left.bad || right.bad) {
        return ctx_fail(p->ctx, JANG_ERR_UNSUPPORTED, "%s: ^ or $ in the middle of a match", what);
    }
    *out = e;
    return JANG_OK;
}

/* ---- Automata ---- */

typedef struct emitter {
    gr_auto *a;
    const gr_pool *p;
    gr_spelling spelling;
} emitter;

/* About how many nodes an expression takes, repetitions written out; at most MAX_FLAT + 1. */
static uint64_t size_of(const gr_pool *p, uint32_t e) {
    uint64_t total = 0;
    for (;;) {
        const gr_expr *x = &p->list[e];
        if (x->kind == GR_EXPR_CAT || x->kind == GR_EXPR_ALT) {
            total += size_of(p, x->b);
            e = x->a;
        } else {
            uint64_t times = x->max == GR_INF ? (uint64_t)x->min + 1 : x->max;
            total += x->kind == GR_EXPR_REPEAT  ? size_of(p, x->a) * times
                     : x->kind == GR_EXPR_CHARS ? x->b
                                                : 1;
            return total > MAX_FLAT ? MAX_FLAT + 1 : total;
        }
        if (total > MAX_FLAT) {
            return MAX_FLAT + 1;
        }
    }
}

static uint32_t emit(const emitter *m, uint32_t e, uint32_t next);

static bool escaped(uint32_t c) {
    return c < 0x20 || c == '"' || c == '\\';
}

static uint32_t emit_json_chars(const emitter *m, const gr_span *spans, size_t n, uint32_t next) {
    gr_auto *a = m->a;
    uint32_t all = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = spans[i].first;
        for (; c <= spans[i].last && c <= '\\'; c++) {
            if (escaped(c)) {
                char text[8];
                size_t length = gr_json_escape(text, (unsigned char)c);
                all = gr_split(a, all, gr_text(a, text, length, next));
                continue;
            }
            uint32_t to = c;
            while (to < spans[i].last && to < '\\' && !escaped(to + 1)) {
                to++;
            }
            all = gr_split(a, all, gr_range(a, c, to, next));
            c = to;
        }
        if (c <= spans[i].last) {
            gr_span rest = {c, spans[i].last};
            all = gr_split(a, all, gr_utf8(a, &rest, 1, next));
        }
    }
    return all;
}

/* A rule of its own whose counter counts the repetitions. */
static uint32_t emit_counted(const emitter *m, const gr_expr *x, uint32_t next) {
    gr_auto *a = m->a;
    uint32_t rule = gr_rule_new(a), loop = gr_place(a);
    gr_fill(a, loop, gr_count(a, emit(m, x->a, loop)), gr_check(a, gr_final(a)));
    gr_rule_set(a, rule, loop);
    return gr_call(a, (gr_ref){rule, x->min, x->max}, next);
}

static uint32_t emit_repeat(const emitter *m, const gr_expr *x, uint32_t next) {
    uint64_t times = x->max == GR_INF ? x->min : x->max;
    if (m->spelling != GR_SPELL_FLAT && times > 1 && size_of(m->p, x->a) * times > WRITTEN_OUT) {
        return emit_counted(m, x, next);
    }
    uint32_t at = next;
    if (x->max == GR_INF) {
        uint32_t loop = gr_place(m->a);
        gr_fill(m->a, loop, emit(m, x->a, loop), next);
        at = loop;
    } else {
        for (uint32_t i = x->min; i < x->max && at; i++) {
            at = gr_split(m->a, next, emit(m, x->a, at));
        }
    }
    for (uint32_t i = 0; i < x->min && at; i++) {
        at = emit(m, x->a, at);
    }
    return at;
}

static uint32_t emit(const emitter *m, uint32_t e, uint32_t next) {
    uint32_t others = 0; /* of the alternatives gone past */
    while (next && m->a->status == JANG_OK) {
        const gr_expr *x = &m->p->list[e];
        switch (x->kind) {
        case GR_EXPR_CAT:
            next = emit(m, x->b, next);
            if (m->p->list[x->a].kind == GR_EXPR_ALT) {
                return gr_split(m->a, emit(m, x->a, next), others);
            }
            e = x->a;
            continue;
        case GR_EXPR_ALT:
            others = gr_split(m->a, emit(m, x->b, next), others);
            e = x->a;
            continue;
        case GR_EXPR_CHARS: {
            const gr_span *spans = m->p->spans + x->a;
            next = m->spelling == GR_SPELL_JSON ? emit_json_chars(m, spans, x->b, next)
                                                : gr_utf8(m->a, spans, x->b, next);
            break;
        }
        case GR_EXPR_REPEAT:
            next = emit_repeat(m, x, next);
            break;
        case GR_EXPR_RULE:
            next = gr_call_rule(m->a, x->a, next);
            break;
        case GR_EXPR_MARK:
            next = gr_marker(m->a, m->p->names.data + x->a, x->b, next);
            break;
        case GR_EXPR_EMPTY:
            break;
        default:
            next = 0;
        }
        break;
    }
    return gr_split(m->a, next, others);
}

uint32_t gr_expr_emit(gr_auto *a, const gr_pool *p, uint32_t e, gr_spelling spelling,
                      uint32_t next) {
    if (p->status != JANG_OK) {
        gr_fail(a, p->status);
        return 0;
    }
    if (spelling == GR_SPELL_FLAT && size_of(p, e) > MAX_FLAT) {
        gr_fail(a, ctx_fail(a->ctx, JANG_ERR_UNSUPPORTED,
                            "a pattern whose repetitions are too large to be combined"));
        return 0;
    }
    const emitter m = {a, p, spelling};
    return emit(&m, e, next);
}
