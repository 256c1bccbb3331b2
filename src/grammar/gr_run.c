/* gr_run.c - the steps of a running grammar: bytes, calls, returns, counters. */
#include "grammar/gr_run.h"

#include <string.h>

void gr_run_init(gr_run *r, gr_places *p) {
    *r = (gr_run){.p = p};
}

void gr_run_free(gr_run *r) {
    if (r->p) {
        ctx_free(r->p->ctx, r->heads);
        ctx_free(r->p->ctx, r->frames);
    }
}

static bool same_head(const gr_head *a, const gr_head *b) {
    return a->place == b->place && a->frame == b->frame && a->need == b->need && a->room == b->room;
}

void gr_run_add(gr_run *r, size_t first, gr_head head) {
    if (head.place <= GR_NO_PLACE || r->p->status != JANG_OK) {
        return;
    }
    for (size_t i = first; i < r->n_heads; i++) {
        if (same_head(&r->heads[i], &head)) {
            return;
        }
    }
    if (r->n_heads - first >= GR_MAX_HEADS) {
        r->p->limited = true;
        return;
    }
    r->p->status = gr_grow(r->p->ctx, &r->heads, &r->heads_capacity, r->n_heads, sizeof *r->heads);
    if (r->p->status == JANG_OK) {
        r->heads[r->n_heads++] = head;
    }
}

/* Finds or makes a frame; 0 if there is no room for it. */
static uint32_t push_frame(gr_run *r, gr_frame frame) {
    for (size_t i = r->n_frames; i > 1; i--) {
        const gr_frame *f = &r->frames[i - 1];
        if (f->place == frame.place && f->parent == frame.parent && f->need == frame.need &&
            f->room == frame.room) {
            return (uint32_t)i - 1;
        }
    }
    if (r->n_frames >= GR_MAX_FRAMES || r->p->status != JANG_OK) {
        r->p->limited = true;
        return 0;
    }
    r->p->status =
        gr_grow(r->p->ctx, &r->frames, &r->frames_capacity, r->n_frames, sizeof *r->frames);
    if (r->p->status != JANG_OK) {
        return 0;
    }
    r->frames[r->n_frames] = frame;
    return (uint32_t)r->n_frames++;
}

static void follow_call(gr_run *r, size_t first, gr_head head, const gr_place_call *call) {
    uint32_t frame = head.frame;
    if (!gr_place_is_end(r->p, call->back)) { /* otherwise the callee may return for us */
        frame = push_frame(r, (gr_frame){call->back, head.need, head.room, head.frame});
        if (!frame) {
            return;
        }
    }
    uint32_t entry = gr_place_of(r->p, r->p->a->rules[call->ref.rule]);
    gr_run_add(r, first, (gr_head){entry, call->ref.min, call->ref.max, frame});
}

static void follow_count(gr_run *r, size_t first, gr_head head, const gr_node *node) {
    gr_guard guard = r->p->a->guards[node->arg];
    if (guard.counts) {
        if (head.room == 0) {
            return;
        }
        head.room -= head.room != GR_INF;
        head.need -= head.need != 0;
    }
    if (head.room >= guard.least && head.need <= guard.most) {
        head.place = gr_place_of(r->p, node->next);
        gr_run_add(r, first, head);
    }
}

static void follow(gr_run *r, size_t first, gr_head head, const gr_node *node) {
    switch (node->kind) {
    case GR_CALL: /* among those of the place */
        break;
    case GR_COUNT:
        follow_count(r, first, head, node);
        break;
    case GR_CHECK:
        if (head.need == 0) {
            head.place = gr_place_of(r->p, node->next);
            gr_run_add(r, first, head);
        }
        break;
    default: /* final */
        if (head.frame == 0) {
            r->ended = true;
        } else {
            gr_frame f = r->frames[head.frame];
            gr_run_add(r, first, (gr_head){f.place, f.need, f.room, f.parent});
        }
    }
}

void gr_run_close(gr_run *r, size_t first) {
    r->ended = false;
    for (size_t i = first; i < r->n_heads; i++) {
        gr_head head = r->heads[i];
        gr_place_info *info = r->p->list[head.place];
        if (!info->calls && info->n_nodes > info->n_ranges) {
            gr_place_find_calls(r->p, info);
        }
        for (uint32_t k = info->n_ranges; k < info->n_nodes; k++) {
            follow(r, first, head, &r->p->a->nodes[info->nodes[k]]);
        }
        for (uint32_t k = 0; k < info->n_calls; k++) { /* what goes deeper last: room is limited */
            follow_call(r, first, head, &info->calls[k]);
        }
    }
    size_t n = first;
    for (size_t i = first; i < r->n_heads; i++) {
        if (r->p->list[r->heads[i].place]->n_ranges) {
            r->heads[n++] = r->heads[i];
        }
    }
    r->n_heads = n;
}

size_t gr_run_step(gr_run *r, size_t first, size_t n, uint8_t byte) {
    size_t to = r->n_heads;
    for (size_t i = first; i < first + n; i++) {
        gr_head head = r->heads[i];
        head.place = gr_place_after(r->p, head.place, byte);
        gr_run_add(r, to, head);
    }
    gr_run_close(r, to);
    return r->n_heads - to;
}
