/* jang_engine.h - the part of jang.h for many requests at once on one model.
 *
 * An engine computes many requests at once on one model, in batches, over one cache of keys and
 * values that they share: what one prompt has in common with an earlier one is not computed again.
 * What a request gets never depends on what else is running, on the cache, or on speculation: the
 * same request gives the same tokens and log-probabilities to the last bit.
 *
 *     jang_engine *e;  jang_engine_new(&e, model, &options);
 *     jang_engine_submit(&id, e, &request, NULL);           as many as wanted, at any time
 *     while (running) {
 *         jang_engine_step(&busy, e);                       calls options.on_event
 *         if (!busy) { jang_engine_wait(e, 1.0); }          until somebody submits
 *     }
 *
 * Threads: one thread, the engine's, makes, steps, waits and frees it, and nothing else may use the
 * model or its context meanwhile. jang_engine_submit, _cancel, _clear_cache, _wake and the
 * questions _get_stats and _get_slots may be called by any thread at any time, also from within
 * on_event. on_event is called by the engine's thread, from jang_engine_step only. */
#ifndef JANG_ENGINE_H
#define JANG_ENGINE_H

#include "jang.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct jang_engine jang_engine;

/* ---- Events ---------------------------------------------------------------------------------- */

#define JANG_LOGPROBS_MAX 100 /* most likely tokens that a request may ask for */

typedef struct jang_logprob {
    int32_t id;
    float logprob;     /* natural, of the model's own distribution; NAN: there is none */
    const char *bytes; /* the token's own text; may be part of a character */
    size_t n_bytes;
} jang_logprob;

typedef struct jang_token {
    jang_logprob chosen;     /* logprob is NAN unless logprobs were asked for */
    const jang_logprob *top; /* the likeliest, falling; n_logprobs of them */
    size_t n_top;
} jang_token;

typedef enum jang_event_kind {
    JANG_EVENT_START,  /* the request left the queue; stats say how much of it was cached */
    JANG_EVENT_PROMPT, /* tokens of the prompt, in order, where prompt_logprobs is set */
    JANG_EVENT_TEXT,   /* text and the tokens that begin in it */
    JANG_EVENT_RESULT, /* values: an embedding, or the probabilities of the choices */
    JANG_EVENT_END,    /* the last of its index */
} jang_event_kind;

typedef struct jang_request_stats {
    int32_t n_prompt;         /* tokens of the prompt */
    int32_t n_cached;         /* of these, not computed again */
    int32_t n_cached_disk;    /* of these, read from the disk cache */
    int32_t n_generated;      /* tokens handed out; the end token and stop strings not counted */
    int32_t n_thinking;       /* of these, spent on reasoning */
    int32_t n_draft;          /* tokens guessed ahead ... */
    int32_t n_draft_accepted; /* ... and found right */
    double queue_seconds;     /* from submission to the start */
    double prompt_seconds;    /* from the start to the first token */
    double generate_seconds;  /* from the first token to the end */
} jang_request_stats;

/* Everything in an event is borrowed for the time of the call. */
typedef struct jang_event {
    jang_event_kind kind;
    uint64_t request; /* as submit returned it */
    void *user;       /* the request's */
    int32_t index;    /* which of the request's n answers */
    bool last;        /* with END: no answer of this request is left */

    const char *text; /* whole characters; "" where tokens have no text of their own */
    size_t n_bytes;
    const jang_token *tokens;
    size_t n_tokens;
    const float *values;
    size_t n_values;

    jang_finish finish; /* with END, as the rest */
    int32_t stop;       /* JANG_FINISH_STOP: which stop string; else -1 */
    int32_t end_id;     /* JANG_FINISH_END: the token that ended it; -1: its grammar was complete */
    jang_status status; /* JANG_FINISH_ERROR: why, and a line about it; else JANG_OK and "" */
    const char *message;
    const jang_request_stats *stats; /* with START and END */
} jang_event;

typedef void (*jang_event_fn)(void *user, const jang_event *event);

/* ---- Life ------------------------------------------------------------------------------------ */

typedef struct jang_engine_options {
    int32_t n_parallel;    /* answers computed at once (16) */
    int32_t n_queue;       /* requests that may wait (256) */
    int32_t n_context;     /* longest sequence; 0: the model's own limit */
    int32_t prefill_chunk; /* most tokens of prompts in a step (512) */
    jang_kv_type kv_type;  /* storage of keys and values */
    uint64_t kv_budget;    /* most bytes of keys, values and states; 0: a quarter of the memory */
    bool no_cache;         /* keep nothing for later requests */
    /* Of an encoder, whose texts are computed at once, whatever the chunk, and have keys and values
     * for one step only, kv_type and no_cache, disk_cache and lookup have no meaning. */

    const char *disk_cache;    /* directory, made if missing; NULL: none */
    uint64_t disk_cache_bytes; /* most bytes in it (10 GiB) */

    bool lookup;       /* guess tokens by repeating what stood in the text before (true) */
    jang_model *draft; /* a small model of the same vocabulary that guesses; NULL: none. It
                        * must be of the same context and outlive the engine */
    int32_t n_draft;   /* most tokens guessed at once (8) */

    jang_event_fn on_event;
    void *user;
} jang_engine_options;

JANG_API jang_engine_options jang_engine_options_default(void);

/* Makes an engine; the model must outlive it. JANG_ERR_ARGUMENT: an option out of range, a draft
 * model that does not fit; JANG_ERR_IO: the disk cache. */
JANG_API JANG_MUST_CHECK jang_status jang_engine_new(jang_engine **out, jang_model *model,
                                                     const jang_engine_options *options);

/* Ends all requests without events, and writes what is left for the disk cache. */
JANG_API void jang_engine_free(jang_engine *engine);

/* ---- Requests -------------------------------------------------------------------------------- */

typedef enum jang_task {
    JANG_TASK_GENERATE,
    JANG_TASK_EMBED, /* one RESULT: the pooled hidden state of unit length, n_embedding numbers */
    JANG_TASK_SCORE, /* one RESULT: softmax over the logits of choices after the prompt */
    JANG_TASK_LABEL, /* one RESULT: the classifier's n_label scores, neither softmax nor sigmoid; a
                        decoder's are those of the last token that is not config.json's padding */
} jang_task;

/* Reasoning, told by its markers in the text (special tokens included). */
typedef struct jang_thinking {
    const char *open, *close; /* "<think>", "</think>"; NULL: no reasoning is looked for */
    bool is_open;             /* the prompt ends inside it */
    int32_t budget;           /* most tokens of it; -1: no limit */
    const int32_t *close_ids; /* written in its place when that is used up; NULL: close as ids */
    size_t n_close_ids;
} jang_thinking;

typedef struct jang_request {
    jang_task task;
    const int32_t *prompt; /* [n_prompt] >= 1 */
    const int32_t *types;  /* [n_prompt] token types, as jang_tokenize_pair gives them, for models
                              that tell them apart; NULL: all 0 */
    size_t n_prompt;
    int32_t n; /* answers to make from one prompt, 1 to 64; number i draws with seed + i */

    jang_sampling sampling;
    int32_t n_max;          /* most tokens to generate; -1: until the context is full; 0: none */
    int32_t min_tokens;     /* the end token and stop strings wait for so many */
    bool ignore_eos;        /* the end token is never drawn */
    const int32_t *end_ids; /* further ids that end the answer, as the model's own do */
    size_t n_end_ids;
    const char *const *stop; /* [n_stop] texts that end it; nothing of them is handed out */
    size_t n_stop;
    bool special_text; /* special tokens appear in the text; else they are left out of it */

    int32_t n_logprobs;   /* likeliest tokens told with each; 0: the chosen one's alone; -1: none */
    bool prompt_logprobs; /* the same for the prompt: PROMPT events; the first has none */

    /* NULL: none. It holds from the start of the answer, or, where the prompt ends inside reasoning
     * (or reasoning is what comes first), from its end. The request keeps it: its maker may free it
     * once it is submitted, though not its context. A complete text ends the answer. */
    jang_grammar *grammar;
    jang_thinking thinking;

    bool cache_prompt;      /* reuse what is cached (true) */
    const char *cache_salt; /* shares the cache with requests of the same salt only; NULL: "" */

    jang_pooling pooling;   /* JANG_TASK_EMBED (the model's) */
    const int32_t *choices; /* JANG_TASK_SCORE: [n_choices] ids */
    size_t n_choices;

    void *user; /* comes back with each event */
} jang_request;

/* A request with the model's own sampling, and defaults for the rest. */
JANG_API jang_request jang_request_default(const jang_model *model);

/* One line, for calls by any thread, which must not share the context's. */
typedef struct jang_message {
    char text[256];
} jang_message;

/* Takes in a copy of a request and wakes the engine. *id, never 0, names it from now on; its events
 * end with one END for each answer. JANG_ERR_ARGUMENT: a setting out of range, ids that the model
 * lacks; JANG_ERR_FULL: the prompt does not fit the context (or, ever, the budget);
 * JANG_ERR_BUSY: the queue is full. message may be NULL. */
JANG_API JANG_MUST_CHECK jang_status jang_engine_submit(uint64_t *id, jang_engine *engine,
                                                        const jang_request *request,
                                                        jang_message *message);

/* Stops a request before the next step; its answers end with JANG_FINISH_CANCELLED. An id that is
 * no longer known is ignored. */
JANG_API void jang_engine_cancel(jang_engine *engine, uint64_t id);

/* Forgets what no running request uses, in memory and on disk, before the next step. */
JANG_API void jang_engine_clear_cache(jang_engine *engine);

/* Ends the present jang_engine_wait, or the next. */
JANG_API void jang_engine_wake(jang_engine *engine);

/* ---- Work ------------------------------------------------------------------------------------ */

/* Does one step of work: takes in what was submitted and cancelled, computes one batch, calls
 * on_event for what came of it. *busy tells whether there is more to do. What goes wrong with a
 * request ends that request; an error here is the engine's own (JANG_ERR_MEMORY for good). */
JANG_API JANG_MUST_CHECK jang_status jang_engine_step(bool *busy, jang_engine *engine);

/* Waits until there is something to do, or so many seconds. True: there is. */
JANG_API bool jang_engine_wait(jang_engine *engine, double seconds);

/* ---- Questions ------------------------------------------------------------------------------- */

/* Counts since the start, unless told otherwise; as of the last step. */
typedef struct jang_engine_stats {
    int32_t n_running, n_waiting; /* now: answers and requests */
    uint64_t n_requests, n_cancelled, n_failed, n_preempted;
    uint64_t n_prompt, n_cached, n_cached_disk, n_generated; /* tokens */
    uint64_t n_draft, n_draft_accepted;
    uint64_t n_steps, n_step_answers, n_step_tokens; /* steps; answers and tokens in them */
    uint64_t batch_sizes[8];      /* steps of 1 answer, 2, up to 4, 8, 16, 32, 64, and of more */
    int32_t n_pages, n_pages_max; /* now: pages that exist; may exist */
    int32_t n_pages_used, n_pages_cached; /* now: held by answers; kept for later */
    uint64_t page_bytes, state_bytes;     /* of a page of 64 tokens, of a recurrent state */
    uint64_t open_bytes;                  /* that a page takes besides while it is written to */
    uint64_t n_evictions;                 /* pages dropped for others */
    uint64_t n_hits, n_misses;            /* pages of prompts found, and not */
    uint64_t disk_bytes, disk_pages;      /* now */
    uint64_t disk_errors;                 /* damaged or unwritable files */
} jang_engine_stats;

JANG_API void jang_engine_get_stats(jang_engine_stats *out, jang_engine *engine);

typedef enum jang_slot_state {
    JANG_SLOT_WAITING, /* in the queue, or put back there for lack of memory */
    JANG_SLOT_PROMPT,
    JANG_SLOT_GENERATING,
} jang_slot_state;

/* What one answer is doing. */
typedef struct jang_slot {
    uint64_t request;
    int32_t index;
    jang_slot_state state;
    int32_t n_prompt, n_done; /* tokens of the prompt; of these, computed or cached */
    int32_t n_generated, n_max;
} jang_slot;

/* Writes up to n_max answers that run or wait; returns their number, which may be larger. */
JANG_API size_t jang_engine_get_slots(jang_slot *out, size_t n_max, jang_engine *engine);

#ifdef __cplusplus
}
#endif
#endif
