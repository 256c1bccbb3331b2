/* gr_run.h - running a compiled grammar: sets of places in rules, over a stack of calls.
 *
 * Within one rule the automaton is made deterministic as far as it is visited: a `place` is a set
 * of nodes, with a table that tells the place after each byte. A `head` is a place with its counter
 * and the frame to return to; frames form a tree that shares the stacks of all heads. A text is at
 * a set of heads, which is mostly one.
 *
 * Places are kept in the grammar under its lock, and are the same for all texts. */
#ifndef JANG_GRAMMAR_GR_RUN_H
#define JANG_GRAMMAR_GR_RUN_H

#include "grammar/gr_auto.h"

/* What a running text may hold; the way that needs more is forbidden. */
#define GR_MAX_HEADS 192u
#define GR_MAX_FRAMES 4096u
#define GR_MAX_PLACES 40000u

#define GR_NO_PLACE 1u /* place 0: not known yet; place 1: nothing can follow */

typedef struct gr_head {
    uint32_t place, need, room, frame;
} gr_head;

/* Where a call returns to. Frame 0 is the bottom; a parent comes before its children. */
typedef struct gr_frame {
    uint32_t place, need, room, parent;
} gr_frame;

/* A call from a place, and where it returns to: calls of one rule from one place are one, which
 * returns to the union of what follows them; but for those that end the caller, which come first.
 */
typedef struct gr_place_call {
    gr_ref ref;
    uint32_t back;
} gr_place_call;

typedef struct gr_place_info {
    uint32_t *nodes; /* ranges first, then the others; sorted */
    uint32_t n_nodes, n_ranges;
    uint32_t hash;
    uint32_t *after;      /* [256] places; NULL until needed */
    gr_place_call *calls; /* [n_calls], NULL until needed */
    uint32_t n_calls;
    uint64_t turning; /* classes of bytes (gr_byte_class) that may lead elsewhere than here */
    bool plain;       /* holds the beginning of any character of a JSON string */
    uint8_t closed;   /* see gr_place_closed; 0: not known yet, 1: no, 2: yes */
    bool ends;        /* holds a final node, and no other but ranges */
} gr_place_info;

/* The places of a grammar that were visited. */
typedef struct gr_places {
    const gr_auto *a;
    ctx_t *ctx;
    gr_place_info **list;
    size_t n, capacity;
    uint32_t *slots; /* hash table over places; 0: free */
    size_t n_slots;
    uint32_t *of_node;                /* [n_nodes] the place of a node alone; 0: not known */
    uint32_t *scratch, *stack, *seen; /* for closures: [n_nodes] each, seen by stamp */
    uint32_t stamp;
    uint32_t n_scratch;
    jang_status status; /* memory ran out */
    bool limited; /* a way was forbidden for one of the limits above; set, never cleared here */
} gr_places;

JANG_MUST_CHECK jang_status gr_places_init(gr_places *p, const gr_auto *a);
void gr_places_free(gr_places *p);

/* The place of one node with all that is reached from it for nothing. */
uint32_t gr_place_of(gr_places *p, uint32_t node);
/* Fills in a place's table. */
void gr_place_expand(gr_places *p, gr_place_info *info);
/* Whether nothing follows a place but the end of its rule. */
static inline bool gr_place_is_end(const gr_places *p, uint32_t place) {
    return p->list[place]->ends && p->list[place]->n_ranges == 0;
}

/* Fills in a place's calls. */
void gr_place_find_calls(gr_places *p, gr_place_info *info);

static inline uint32_t gr_place_after(gr_places *p, uint32_t place, uint8_t byte) {
    gr_place_info *info = p->list[place];
    if (!info->after) {
        gr_place_expand(p, info);
    }
    return info->after ? info->after[byte] : GR_NO_PLACE;
}

/* Whether every plain character (gr_plain.h) leads back to the place, without calls or counts. */
bool gr_place_closed(gr_places *p, uint32_t place);

/* One of 64 classes of bytes; what may come together in texts shares one. */
unsigned gr_byte_class(uint8_t byte);

/* Heads and frames, growing; sets of heads lie one after another in heads. */
typedef struct gr_run {
    gr_places *p;
    gr_head *heads;
    size_t n_heads, heads_capacity;
    gr_frame *frames;
    size_t n_frames, frames_capacity;
    bool ended; /* by the last step: the text of the bottom frame may end */
} gr_run;

void gr_run_init(gr_run *r, gr_places *p);
void gr_run_free(gr_run *r);

/* Adds a head to the set that begins at heads[first]; expanded by gr_run_close. */
void gr_run_add(gr_run *r, size_t first, gr_head head);
/* Follows calls, returns and counters from the heads of the set on, and leaves those that can take
 * a byte. Sets ended. */
void gr_run_close(gr_run *r, size_t first);
/* Makes a new set after the last: where the heads first .. first + n - 1 are after a byte. Returns
 * its size. */
size_t gr_run_step(gr_run *r, size_t first, size_t n, uint8_t byte);

#endif
