/* request.h - a copy of what somebody asked of an engine.
 *
 * Everything a jang_request points to lies in the copy's own block, so that a request lives on
 * after submit has returned. Between threads it is guarded by the inbox's lock (inbox.h). */
#ifndef JANG_ENGINE_REQUEST_H
#define JANG_ENGINE_REQUEST_H

#include "engine/engine.h"

typedef struct request {
    jang_request d; /* pointers lead into this block; the grammar is held */
    ctx_t *ctx;
    uint64_t id;
    double submitted;        /* clock_seconds */
    const int32_t *open_ids; /* [n_open_ids] of the marker that opens reasoning */
    size_t n_open_ids;
    const int32_t *ends; /* [n_ends] the model's and the request's end tokens */
    size_t n_ends;
    bool is_cancelled; /* the inbox's lock guards this and next_live */
    struct request *next, *next_live;
    /* The engine's thread alone: */
    bool is_started;
    bool has_prompt; /* the first answer has computed the prompt */
    int32_t n_left;  /* answers that have not ended */
} request;

/* Sizes that a request must respect. */
typedef struct request_limits {
    const jang_model *model;
    int32_t n_context;
    int64_t n_tokens; /* that fit the memory of an engine */
} request_limits;

/* Whether a request can be served. Thread-safe; a line about what is wrong goes to message. */
jang_status request_check(const jang_request *r, const request_limits *limits,
                          jang_message *message);

/* Copies a request that was checked. Thread-safe. */
JANG_MUST_CHECK jang_status request_new(request **out, const jang_model *m, const jang_request *r);
void request_free(request *r);

#endif
