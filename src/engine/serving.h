/* serving.h - what an engine of many requests is made of; seen by its own files only.
 *
 *     serving.c    options, life, submission, questions
 *     schedule.c   who runs: intake, admission, preemption, endings
 *     sequence.c   an answer's pages: found in the cache, taken, made known, given back
 *     step.c       one batch: who gets how many rows, and what comes of it
 *     saving.c     pages to and from the disk cache
 *     speculation.c  guesses at the next tokens, checked in one step
 *     events.c     what is told */
#ifndef JANG_ENGINE_SERVING_H
#define JANG_ENGINE_SERVING_H

#include "engine/answer.h"
#include "engine/disk_cache.h"
#include "engine/inbox.h"
#include "engine/page_pool.h"

/* Answers in the order of their turns. */
typedef struct answer_list {
    answer **items; /* [n] */
    size_t n, capacity;
} answer_list;

/* What steps cost, as seen lately, in seconds; 0: not seen yet. */
typedef struct step_costs {
    double decode;       /* a step of single tokens alone */
    double prompt_token; /* each token of a prompt in a step */
    /* Means over steps without prompts: of rows, seconds, rows squared, rows times seconds. */
    double rows, seconds, rows_rows, rows_seconds;
} step_costs;

/* A draw to be made from out rows [row, row + n_rows) of the step: logits [n_rows, n_vocab]. */
typedef struct draw_task {
    answer *a;
    float *logits;
    int32_t row, n_rows;
} draw_task;

struct jang_engine {
    ctx_t *ctx;
    jang_model *model;
    jang_engine_options o;
    int32_t n_context, n_vocab;
    inbox in;

    page_key secret;
    model_cache cache, draft_cache;
    page_pool pages;
    disk_cache *disk;    /* NULL: none */
    void *page_data;     /* a page on its way to or from it */
    int32_t save_next;   /* where the search for unsaved pages goes on */
    bool is_clearing;    /* what is forgotten is not saved first */
    int32_t *free_slots; /* [n_free_slots], room for n_parallel + max_snapshots */
    int32_t n_free_slots, n_slots;
    int32_t n_snapshots, max_snapshots; /* slots that pages hold */

    answer_list waiting, running; /* running has room for n_parallel */
    int32_t n_held;               /* places kept for answers that wait for their first's prompt */
    grammar_vocab *vocab;         /* made for the first grammar */

    /* A step: */
    int32_t *ids, *types, *out; /* [n_rows_max] */
    batch_seq *seqs;            /* [n_parallel] */
    answer **batch;             /* [n_parallel] whose they are */
    int32_t n_rows_max;
    batch_desc desc;
    float *logits; /* [n_logit_rows, n_vocab] */
    int32_t n_logit_rows;
    draw_task *draws; /* [n_parallel] to be made from them */
    int32_t n_draws, n_draw_rows;
    picker *pickers; /* one a thread */
    int n_pickers;
    step_costs costs;

    /* Events: */
    buf event_bytes;
    jang_token *event_tokens; /* [event_capacity] */
    jang_logprob *event_tops; /* [event_capacity, JANG_LOGPROBS_MAX] as needed */
    size_t tokens_capacity, tops_capacity;
    float *values; /* room for the longest result */

    jang_engine_stats stats;
    jang_slot *slots; /* what is shown */
    size_t slots_capacity;
};

/* ---- sequence.c ---- */

/* Finds how much of an answer's beginning the cache holds, and uses that. */
void sequence_match(jang_engine *e, answer *a);
/* How many of the next n tokens may be computed now: where the state has to be kept, at the last
 * border of a page before the end, a step ends. */
int32_t sequence_step(const jang_engine *e, const answer *a, int32_t n);
/* Keeps the state with the last full page, when that is where the sequence is. */
void sequence_snapshot(jang_engine *e, answer *a);
/* For page_pool's on_forget: gives back the slot of a page's snapshot. */
void sequence_forget_snapshot(void *user, int32_t page);
/* Takes pages for n tokens in all. JANG_ERR_FULL when there are none left. */
JANG_MUST_CHECK jang_status sequence_grow(jang_engine *e, answer *a, int32_t n_tok);
/* Makes the full pages known. */
void sequence_publish(jang_engine *e, answer *a);
/* Gives back pages and slot: nothing of it is computed any more. */
void sequence_release(jang_engine *e, answer *a);
/* Lets an answer that waits go on where another has come to at the end of their prompt. */
JANG_MUST_CHECK jang_status sequence_fork(jang_engine *e, const answer *from, answer *to);
/* Takes a slot of recurrent state, where the model has any. */
JANG_MUST_CHECK jang_status sequence_take_slot(jang_engine *e, answer *a);

/* ---- schedule.c ---- */

JANG_MUST_CHECK jang_status list_insert(answer_list *list, ctx_t *ctx, answer *a);
void list_remove(answer_list *list, const answer *a);

/* Takes in what other threads left; lets answers run as places are free. */
JANG_MUST_CHECK jang_status schedule_intake(jang_engine *e);
/* RoPE by length: the keys of an answer that has passed the border are of the other form; it goes
 * back to the queue and is computed again, once, as transformers does. */
void schedule_turn(jang_engine *e);
void schedule_admit(jang_engine *e);
/* Ends the answer: tells it, gives back what it holds, frees it. It may be in either list. */
void schedule_finish(jang_engine *e, answer *a);
/* Makes pages for n_tok tokens of a running answer, if need be by stopping younger ones. False: it
 * was stopped itself, or has ended. */
bool schedule_make_room(jang_engine *e, answer *a, int32_t n_tok);
/* Lets the other answers of a request run from where its first one has come to. */
void schedule_fork(jang_engine *e, answer *first);

/* ---- step.c ---- */

/* Computes one batch of the running answers. */
JANG_MUST_CHECK jang_status step_run(jang_engine *e);

/* ---- events.c ---- */

JANG_MUST_CHECK jang_status events_init(jang_engine *e);
void events_free(jang_engine *e);
void event_start(jang_engine *e, answer *a);
/* Tells what text may go out, and ends the answer where a stop string came. */
void event_text(jang_engine *e, answer *a);
/* Tells one token of the prompt. top [n_logprobs]. */
void event_prompt(jang_engine *e, answer *a, int32_t id, float logprob, const logprob_entry *top);
void event_result(jang_engine *e, answer *a, const float *values, size_t n);
void event_end(jang_engine *e, answer *a);

#endif
