/* grammar_state.c - where a text is in its grammar: tokens in, masks out. */
#include "grammar/grammar_impl.h"

#include <string.h>

/* A state holds its set of heads and the frames they need, packed; running goes on in the grammar's
 * own scratch, under its lock. */
struct grammar_state {
    grammar *g;
    grammar_vocab *v;
    gr_head *heads;
    gr_frame *frames;
    size_t n_heads, heads_capacity, n_frames, frames_capacity;
    bool complete;
};

/* ---- Between a state and the scratch ---- */

static jang_status load(gr_run *r, const grammar_state *s) {
    r->p->status = JANG_OK;
    r->p->limited = false;
    r->n_heads = r->n_frames = 0;
    while (r->heads_capacity < s->n_heads && r->p->status == JANG_OK) {
        r->p->status =
            gr_grow(r->p->ctx, &r->heads, &r->heads_capacity, r->heads_capacity, sizeof *r->heads);
    }
    while (r->frames_capacity < s->n_frames && r->p->status == JANG_OK) {
        r->p->status = gr_grow(r->p->ctx, &r->frames, &r->frames_capacity, r->frames_capacity,
                               sizeof *r->frames);
    }
    if (r->p->status == JANG_OK) {
        if (s->n_heads) {
            memcpy(r->heads, s->heads, s->n_heads * sizeof *s->heads);
        }
        memcpy(r->frames, s->frames, s->n_frames * sizeof *s->frames);
        r->n_heads = s->n_heads;
        r->n_frames = s->n_frames;
        r->ended = s->complete;
    }
    return r->p->status;
}

/* Makes room in the state; on failure it is as before. */
static jang_status reserve(grammar_state *s, size_t n_heads, size_t n_frames) {
    ctx_t *ctx = s->g->ctx;
    if (n_heads > s->heads_capacity) {
        gr_head *heads = ctx_realloc(ctx, s->heads, n_heads * sizeof *heads);
        if (!heads) {
            return ctx_fail_memory(ctx, n_heads * sizeof *heads);
        }
        s->heads = heads;
        s->heads_capacity = n_heads;
    }
    if (n_frames > s->frames_capacity) {
        gr_frame *frames = ctx_realloc(ctx, s->frames, n_frames * sizeof *frames);
        if (!frames) {
            return ctx_fail_memory(ctx, n_frames * sizeof *frames);
        }
        s->frames = frames;
        s->frames_capacity = n_frames;
    }
    return JANG_OK;
}

/* Takes the set that begins at first, with those frames that it reaches. */
static jang_status store(grammar_state *s, gr_run *r, size_t first) {
    if (r->p->status != JANG_OK) {
        return r->p->status;
    }
    uint32_t map[GR_MAX_FRAMES + 1]; /* old number to new; 0: not reached */
    memset(map, 0, r->n_frames * sizeof *map);
    for (size_t i = first; i < r->n_heads; i++) {
        map[r->heads[i].frame] = 1;
    }
    for (size_t i = r->n_frames; i-- > 1;) {
        if (map[i]) {
            map[r->frames[i].parent] = 1;
        }
    }
    size_t n_frames = 1;
    for (size_t i = 1; i < r->n_frames; i++) {
        n_frames += map[i];
    }
    size_t n_heads = r->n_heads - first;
    jang_status status = reserve(s, n_heads, n_frames);
    if (status != JANG_OK) {
        return status;
    }
    map[0] = 0;
    s->frames[0] = (gr_frame){0, 0, 0, 0};
    s->n_frames = 1;
    for (size_t i = 1; i < r->n_frames; i++) {
        if (map[i]) {
            gr_frame f = r->frames[i];
            f.parent = map[f.parent];
            map[i] = (uint32_t)s->n_frames;
            s->frames[s->n_frames++] = f;
        }
    }
    for (size_t i = 0; i < n_heads; i++) {
        s->heads[i] = r->heads[first + i];
        s->heads[i].frame = map[s->heads[i].frame];
    }
    s->n_heads = n_heads;
    s->complete = r->ended;
    return JANG_OK;
}

/* Steps over bytes as far as possible; the set is then at *first. Drops the sets gone past. */
static size_t step_bytes(gr_run *r, const char *bytes, size_t n) {
    size_t i = 0;
    for (; i < n; i++) {
        size_t n_heads = r->n_heads;
        bool ended = r->ended;
        size_t n_new = gr_run_step(r, 0, n_heads, (uint8_t)bytes[i]);
        if (n_new == 0 && !r->ended) {
            r->n_heads = n_heads;
            r->ended = ended;
            break;
        }
        memmove(r->heads, r->heads + n_heads, n_new * sizeof *r->heads);
        r->n_heads = n_new;
    }
    return i;
}

/* ---- Life ---- */

static jang_status start(grammar_state *s) {
    gr_run *r = &s->g->run;
    pthread_mutex_lock(&s->g->lock);
    r->p->status = JANG_OK;
    r->n_heads = r->n_frames = 0;
    jang_status status = gr_grow(r->p->ctx, &r->frames, &r->frames_capacity, 0, sizeof *r->frames);
    if (status == JANG_OK) {
        r->frames[r->n_frames++] = (gr_frame){0, 0, 0, 0};
        gr_ref root = s->g->a.root;
        gr_head head = {gr_place_of(r->p, s->g->a.rules[root.rule]), root.min, root.max, 0};
        gr_run_add(r, 0, head);
        gr_run_close(r, 0);
        status = store(s, r, 0);
    }
    pthread_mutex_unlock(&s->g->lock);
    return status;
}

static grammar_state *new_state(grammar *g, grammar_vocab *v) {
    grammar_state *s = ctx_zero(g->ctx, 1, sizeof *s);
    if (s) {
        s->g = grammar_ref(g);
        s->v = grammar_vocab_ref(v);
    }
    return s;
}

jang_status grammar_state_new(grammar_state **out, grammar *g, grammar_vocab *v) {
    grammar_state *s = new_state(g, v);
    if (!s) {
        return ctx_fail_memory(g->ctx, sizeof *s);
    }
    jang_status status = start(s);
    if (status != JANG_OK) {
        grammar_state_free(s);
        return status;
    }
    *out = s;
    return JANG_OK;
}

void grammar_state_free(grammar_state *s) {
    if (s) {
        ctx_t *ctx = s->g->ctx;
        ctx_free(ctx, s->heads);
        ctx_free(ctx, s->frames);
        grammar_vocab_unref(s->v);
        grammar_unref(s->g);
        ctx_free(ctx, s);
    }
}

jang_status grammar_state_copy(grammar_state *dst, const grammar_state *src) {
    if (dst->g != src->g) {
        return ctx_fail(dst->g->ctx, JANG_ERR_ARGUMENT, "states of two grammars");
    }
    jang_status status = reserve(dst, src->n_heads, src->n_frames);
    if (status == JANG_OK && dst != src) {
        if (src->n_heads) {
            memcpy(dst->heads, src->heads, src->n_heads * sizeof *src->heads);
        }
        memcpy(dst->frames, src->frames, src->n_frames * sizeof *src->frames);
        dst->n_heads = src->n_heads;
        dst->n_frames = src->n_frames;
        dst->complete = src->complete;
    }
    return status;
}

jang_status grammar_state_clone(grammar_state **out, const grammar_state *src) {
    grammar_state *s = new_state(src->g, src->v);
    if (!s) {
        return ctx_fail_memory(src->g->ctx, sizeof *s);
    }
    jang_status status = grammar_state_copy(s, src);
    if (status != JANG_OK) {
        grammar_state_free(s);
        return status;
    }
    *out = s;
    return JANG_OK;
}

jang_status grammar_state_reset(grammar_state *s) {
    return start(s);
}

/* ---- Questions ---- */

bool grammar_is_complete(const grammar_state *s) {
    return s->complete;
}

bool grammar_is_done(const grammar_state *s) {
    return s->complete && s->n_heads == 0;
}

/* The locals of this grammar for this vocabulary; those for another one are forgotten. */
static jang_status own_locals(grammar *g, grammar_vocab *v) {
    if (g->locals_of == v) {
        return JANG_OK;
    }
    gr_locals *fresh;
    jang_status status = gr_locals_new(&fresh, g->ctx, v->n_vocab);
    if (status == JANG_OK) {
        gr_locals_free(g->locals);
        grammar_vocab_unref(g->locals_of);
        g->locals = fresh;
        g->locals_of = grammar_vocab_ref(v);
    }
    return status;
}

static bool any_bit(const uint64_t *bits, size_t n_words) {
    for (size_t i = 0; i < n_words; i++) {
        if (bits[i]) {
            return true;
        }
    }
    return false;
}

jang_status grammar_mask(grammar_state *s, uint64_t *bits) {
    grammar *g = s->g;
    if (!s->v) {
        return ctx_fail(g->ctx, JANG_ERR_ARGUMENT, "a grammar state without a vocabulary");
    }
    size_t n_words = grammar_mask_words(s->v->n_vocab);
    memset(bits, 0, n_words * sizeof *bits);
    pthread_mutex_lock(&g->lock);
    jang_status status = own_locals(g, s->v);
    if (status == JANG_OK) {
        status = load(&g->run, s);
    }
    if (status == JANG_OK) {
        status = gr_mask_heads(&g->run, 0, s->n_heads, s->v, g->locals, bits);
    }
    pthread_mutex_unlock(&g->lock);
    for (size_t i = 0; s->complete && i < s->v->n_end_ids; i++) {
        int32_t id = s->v->end_ids[i];
        bits[id >> 6] |= (uint64_t)1 << (id & 63);
    }
    if (status == JANG_OK && !s->complete && !any_bit(bits, n_words)) {
        status = ctx_fail(g->ctx, JANG_ERR_FORMAT,
                          "no token can go on with the text: it met a limit of the grammar, or "
                          "the vocabulary lacks the bytes");
    }
    return status;
}

jang_status grammar_accept_bytes(grammar_state *s, const char *bytes, size_t n, size_t *n_ok) {
    grammar *g = s->g;
    pthread_mutex_lock(&g->lock);
    jang_status status = load(&g->run, s);
    size_t done = 0;
    if (status == JANG_OK) {
        done = step_bytes(&g->run, bytes, n);
        status = store(s, &g->run, 0);
    }
    pthread_mutex_unlock(&g->lock);
    if (status == JANG_OK) {
        *n_ok = done;
    }
    return status;
}

jang_status grammar_accept(grammar_state *s, int32_t id, bool *ok) {
    grammar *g = s->g;
    if (s->v && gr_vocab_is_end(s->v, id)) {
        *ok = s->complete;
        return JANG_OK;
    }
    size_t n = 0;
    const char *bytes = s->v ? gr_vocab_token(s->v, id, &n) : NULL;
    bool good = false;
    jang_status status = JANG_OK;
    if (n) {
        pthread_mutex_lock(&g->lock);
        status = load(&g->run, s);
        good = status == JANG_OK && step_bytes(&g->run, bytes, n) == n;
        status = good ? store(s, &g->run, 0) : g->run.p->status;
        if (status == JANG_OK && !good && g->run.p->limited) {
            status = ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                              "the text can be read in too many ways at once: the grammar's limit "
                              "is %u places and %u calls",
                              GR_MAX_HEADS, GR_MAX_FRAMES);
        }
        pthread_mutex_unlock(&g->lock);
    }
    if (status == JANG_OK) {
        *ok = good;
    }
    return status;
}

/* The one byte that all heads go on with, or -1. */
static int only_byte(gr_run *r) {
    int only = -1;
    for (size_t i = 0; i < r->n_heads; i++) {
        const gr_place_info *info = r->p->list[r->heads[i].place];
        for (uint32_t k = 0; k < info->n_ranges; k++) {
            const gr_node *node = &r->p->a->nodes[info->nodes[k]];
            if (node->lo != node->hi || (only >= 0 && only != node->lo)) {
                return -1;
            }
            only = node->lo;
        }
    }
    return only;
}

jang_status grammar_forced(const grammar_state *s, char *bytes, size_t max, size_t *n_bytes) {
    grammar *g = s->g;
    pthread_mutex_lock(&g->lock);
    jang_status status = load(&g->run, s);
    size_t n = 0;
    while (status == JANG_OK && n < max && !g->run.ended) {
        int byte = only_byte(&g->run);
        if (byte < 0) {
            break;
        }
        bytes[n] = (char)byte;
        if (step_bytes(&g->run, &bytes[n], 1) == 0) {
            break;
        }
        n++;
    }
    status = status == JANG_OK ? g->run.p->status : status;
    pthread_mutex_unlock(&g->lock);
    if (status == JANG_OK) {
        *n_bytes = n;
    }
    return status;
}
