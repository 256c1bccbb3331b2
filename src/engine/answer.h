/* answer.h - one sequence that an engine computes: its tokens, its pages, how it is drawn.
 *
 * ids[0 .. n_ids) are known; keys and values of ids[0 .. n_done) are in its pages. A step computes
 * some of what lies between, at least one; when nothing is left, the last row's logits give the
 * next id. So the beginning of a prompt, a single token, and a sequence that lost its pages and
 * starts anew are all the same case. */
#ifndef JANG_ENGINE_ANSWER_H
#define JANG_ENGINE_ANSWER_H

#include "engine/constraint.h"
#include "engine/page_key.h"
#include "engine/reasoning.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/text_out.h"

#define DRAFT_MAX 16 /* tokens guessed at once */

/* How lookup has gone lately: the share of its tokens that were right, and the first that it has
 * found for this step, whether guessed or not; -1: none. */
typedef struct look_record {
    double right;
    int32_t found;
} look_record;

/* How the draft model has gone lately: tokens to guess (0: not yet tried), guesses wrong from their
 * start one after another, tokens to wait before the next. */
typedef struct draft_record {
    int32_t n, n_misses, pause;
} draft_record;

typedef struct answer {
    request *r;
    int32_t index;
    double order;             /* the lower, the earlier its turn */
    double started, answered; /* times of the first start and of the first token; 0: not yet */

    int32_t *ids; /* [n_limit] */
    int32_t n_ids, n_done, n_prompt;
    int32_t n_form;  /* length by which the form of its RoPE is chosen (schedule_turn) */
    int32_t n_limit; /* tokens it may come to */

    int32_t *pages; /* [n_pages], room for n_limit tokens */
    int32_t n_pages;
    int32_t n_known; /* of its pages, full ones that the pool knows ... */
    page_key key;    /* ... and the key of the last of these */
    int32_t slot;    /* of recurrent state; -1: none */

    /* The step at hand: rows, first of them n_done's; rows wanted, from out row first_out on. */
    int32_t n_rows, n_out, first_out;
    int32_t draft[DRAFT_MAX]; /* rows n_rows - n_draft and up are guesses */
    int32_t n_draft, n_accepted;

    /* Guessing (speculation.h): what the draft model has computed, and in whole pages; how many
     * tokens are to be guessed by it now, and whether it can go on; how both kinds have done. */
    int32_t n_drafted_done, n_draft_pages, n_wanted;
    bool may_guess;
    look_record looking;
    draft_record drafting;

    reasoning thinking;
    const int32_t *forced; /* [n_forced] ids that come next, whatever the logits */
    size_t n_forced;
    bool is_opening; /* the rest of the marker that opens reasoning is being written */
    constraint constraint;
    text_out text;
    int32_t n_told; /* tokens of the prompt whose log-probabilities were told */
    double *pooled; /* [embedding_room] sum of hidden states; NULL: not wanted */
    int32_t n_pooled;

    bool has_ended;
    jang_finish finish;
    int32_t end_id, stop;
    jang_status status;
    char message[256];
    jang_request_stats stats;
} answer;

/* A thread's scratch for drawing. */
typedef struct picker {
    sampler *sampler;
    float *logits;      /* [n_vocab] */
    uint64_t *mask;     /* [n_vocab / 64, rounded up] */
    logprob_entry *top; /* [JANG_LOGPROBS_MAX] */
    int32_t n_vocab;
} picker;

JANG_MUST_CHECK jang_status picker_init(picker *p, const jang_model *m);
void picker_free(picker *p, ctx_t *ctx);

/* Makes answer number index of a request that begins with the prompt. n_context limits its length.
 * vocab is used where the request has a grammar. */
JANG_MUST_CHECK jang_status answer_new(answer **out, const jang_model *m, request *r, int32_t index,
                                       int32_t n_context, grammar_vocab *vocab);
/* The pages and the slot must have been given back. */
void answer_free(answer *a);

/* Tokens drawn so far. */
static inline int32_t answer_n_drawn(const answer *a) {
    return a->n_ids - a->n_prompt;
}

/* Ends it; the first end counts. */
void answer_end(answer *a, jang_finish finish);
void answer_fail(answer *a, jang_status status, const char *message);

/* Takes logits [n_rows, n_vocab] after its last token and after each of its guesses, draws tokens
 * until one differs from the guess, and ends the answer where it must. Sets n_accepted. Touches
 * only the answer and the picker. */
void answer_draw(answer *a, const jang_model *m, picker *p, float *logits, int32_t n_rows);

#endif
