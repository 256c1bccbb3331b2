/* session.h - a sequence as generate.c sees it. */
#ifndef JANG_ENGINE_SESSION_H
#define JANG_ENGINE_SESSION_H

#include "engine/engine.h"
#include "engine/snapshots.h"

struct jang_session {
    ctx_t *ctx;
    jang_model *model;
    int32_t n_context, n_batch;
    model_cache cache; /* slot 0 of its state is this sequence's */
    int32_t *pages;    /* [n_pages]: this sequence's pages in the cache */
    int32_t n_pages;
    int32_t *ids; /* [n_ids]: tokens held */
    size_t n_ids, ids_capacity;
    /* Tokens that are in the cache as they stand in ids. Behind n_ids after a return to a copy of
     * the recurrent state: the next append computes the rest first. Beyond it where the state is of
     * no use: the next append returns to a copy first. Equal to it without recurrent state. */
    size_t n_done;
    size_t n_known;      /* tokens of the sequence at hand, those to be computed included */
    bool is_long;        /* keys are those of a long sequence (RoPE by length) */
    snapshots snapshots; /* slots 1 and up of the cache */
    float *logits;       /* [n_vocab] after token number n_logits - 1 */
    size_t n_logits;     /* 0: none yet */
    int32_t *all_rows;   /* 0 .. n_batch-1, made when first wanted */
};

/* Called between the passes of a long input; false stops it there. */
typedef bool (*session_pause_fn)(void *user);

/* jang_session_append that can be stopped: JANG_ERR_CANCELLED then, and what was computed stays. */
JANG_MUST_CHECK jang_status session_append(jang_session *s, const int32_t *ids, size_t n_ids,
                                           float *logits, session_pause_fn pause, void *user);

#endif
