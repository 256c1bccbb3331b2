/* gr_markers.c - free text up to markers: the automaton of Aho and Corasick.
 *
 * "Efficient string matching: an aid to bibliographic search", CACM 18 (1975). States are the
 * beginnings of markers; each byte leads to the longest beginning that the text then ends with. */
#include "grammar/gr_markers.h"

#include <string.h>

typedef struct state {
    uint16_t next[256]; /* 0: not in the trie, until links are followed */
    uint16_t link;      /* the longest other state that ends the same way */
    int marker;         /* completed here, or by a link; -1 */
} state;

typedef struct finder {
    state *states;
    size_t n;
} finder;

static void add_marker(finder *f, const gr_marked *m, int index) {
    uint16_t at = 0;
    for (size_t i = 0; i < m->n_bytes; i++) {
        unsigned char c = (unsigned char)m->text[i];
        if (!f->states[at].next[c]) {
            f->states[f->n].marker = -1;
            f->states[at].next[c] = (uint16_t)f->n++;
        }
        at = f->states[at].next[c];
    }
    if (f->states[at].marker < 0) {
        f->states[at].marker = index;
    }
}

/* Follows links in the order of lengths, so that each state's link is done before it. */
static void follow_links(finder *f, uint16_t *queue) {
    size_t n = 0;
    for (unsigned c = 0; c < 256; c++) {
        if (f->states[0].next[c]) {
            queue[n++] = f->states[0].next[c];
        }
    }
    for (size_t i = 0; i < n; i++) {
        state *s = &f->states[queue[i]];
        const state *link = &f->states[s->link];
        s->marker = s->marker < 0 ? link->marker : s->marker;
        for (unsigned c = 0; c < 256; c++) {
            uint16_t to = s->next[c];
            if (to) {
                f->states[to].link = link->next[c];
                queue[n++] = to;
            } else {
                s->next[c] = link->next[c];
            }
        }
    }
}

/* The node that a state stands for. */
static uint32_t node_of(const finder *f, const gr_marked *markers, const uint32_t *places,
                        uint16_t s) {
    return f->states[s].marker >= 0 ? markers[f->states[s].marker].then : places[s];
}

static void write_states(gr_auto *a, const finder *f, const gr_marked *markers, size_t n,
                         uint32_t end, const uint32_t *places) {
    uint32_t tokens = 0;
    for (size_t i = 0; i < n; i++) {
        tokens =
            gr_split(a, gr_text(a, markers[i].text, markers[i].n_bytes, markers[i].then), tokens);
    }
    tokens = gr_range(a, GR_MARK, GR_MARK, tokens);
    for (size_t i = 0; i < f->n; i++) {
        uint32_t all = gr_split(a, tokens, end);
        for (unsigned c = 0; f->states[i].marker < 0 && c < GR_MARK;) {
            unsigned last = c;
            while (last + 1 < GR_MARK && f->states[i].next[last + 1] == f->states[i].next[c]) {
                last++;
            }
            uint32_t to = node_of(f, markers, places, f->states[i].next[c]);
            all = gr_split(a, all, gr_range(a, c, last, to));
            c = last + 1;
        }
        gr_fill(a, places[i], all, 0);
    }
}

jang_status gr_free_text(gr_auto *a, const gr_marked *markers, size_t n, uint32_t end,
                         uint32_t begin) {
    size_t n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        n_bytes += markers[i].n_bytes;
        if (markers[i].n_bytes == 0) {
            return ctx_fail(a->ctx, JANG_ERR_FORMAT, "structure: an empty marker");
        }
    }
    if (n > GR_MAX_MARKERS || n_bytes > GR_MAX_MARKER_BYTES) {
        return ctx_fail(a->ctx, JANG_ERR_UNSUPPORTED, "structure: over %u markers or %u bytes",
                        GR_MAX_MARKERS, GR_MAX_MARKER_BYTES);
    }
    finder f = {ctx_zero(a->ctx, n_bytes + 1, sizeof(state)), 1};
    uint16_t *queue = ctx_array(a->ctx, n_bytes + 1, sizeof *queue);
    uint32_t *places = ctx_array(a->ctx, n_bytes + 1, sizeof *places);
    jang_status status = JANG_OK;
    if (!f.states || !queue || !places) {
        status = ctx_fail_memory(a->ctx, (n_bytes + 1) * sizeof(state));
    } else {
        f.states[0].marker = -1;
        for (size_t i = 0; i < n; i++) {
            add_marker(&f, &markers[i], (int)i);
        }
        follow_links(&f, queue);
        for (size_t i = 0; i < f.n; i++) {
            places[i] = i ? gr_place(a) : begin;
        }
        write_states(a, &f, markers, n, end, places);
        status = a->status;
    }
    ctx_free(a->ctx, f.states);
    ctx_free(a->ctx, queue);
    ctx_free(a->ctx, places);
    return status;
}
