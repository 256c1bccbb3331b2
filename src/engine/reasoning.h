/* reasoning.h - whether a sequence is inside its reasoning, told by markers in its tokens' text. */
#ifndef JANG_ENGINE_REASONING_H
#define JANG_ENGINE_REASONING_H

#include "engine/engine.h"

typedef struct reasoning {
    const jang_thinking *d; /* borrowed */
    bool is_open, was_open; /* now; ever */
    bool at_start;          /* nothing but white space, or the opening marker's beginning, came */
    int32_t n_inside;       /* tokens since it was opened */
    buf tail;               /* the last bytes, fewer than the longer marker has */
} reasoning;

void reasoning_init(reasoning *r, ctx_t *ctx, const jang_thinking *d);
void reasoning_free(reasoning *r);

/* Takes in a token. may_open: an opening marker counts wherever it is, not at the start alone. */
JANG_MUST_CHECK jang_status reasoning_push(reasoning *r, const tok *t, int32_t id, bool may_open);

/* Whether its tokens are used up and the end must be written. */
bool reasoning_is_over(const reasoning *r);

#endif
