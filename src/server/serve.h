/* serve.h - the server as the command line sees it: options in, exit code out. */
#ifndef JANG_SERVER_SERVE_H
#define JANG_SERVER_SERVE_H

#include "jang.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVE_LIST_MAX 16

typedef struct serve_model {
    const char *id;
    const jang_model_info *info;
} serve_model;

typedef struct serve_options {
    const char *models[SERVE_LIST_MAX]; /* [n_models] >= 1 */
    size_t n_models;
    const char *embedding_model; /* for vectors and scores; NULL: the others make them */
    const char *host;
    int64_t port;
    const char *keys[SERVE_LIST_MAX];    /* ended by NULL; none: no key is needed */
    const char *aliases[SERVE_LIST_MAX]; /* NAME or NAME=MODEL, ended by NULL; a model's first is
                                          * the name shown, without one the directory's */
    const char *cors;                    /* origins divided by commas, or *; NULL: localhost only */
    const char *tool_format, *reasoning_format; /* NULL: found out */
    bool strict_model, inline_reasoning, keep_volatile;
    int64_t body_max, n_connections, rate;       /* rate: requests a minute and key; 0: no limit */
    double timeout, grace, head_time, idle_time; /* seconds */
    int64_t n_threads;
    const char *affinity; /* cores of the threads that compute; NULL: not bound */
    bool exact;
    const char *draft;          /* a model that guesses ahead for the first; NULL: none */
    jang_engine_options engine; /* on_event and user are the server's own */
    /* Called on the thread of serve_run. */
    void (*log)(const char *line);
    void (*ready)(const char *url, const serve_model *models, size_t n_models);
} serve_options;

/* Serves until SIGINT or SIGTERM. False: error takes one line. */
bool serve_run(const serve_options *options, char *error, size_t error_bytes);

/* Writes the names and versions of the libraries behind it. */
void serve_libraries(char *text, size_t n_bytes);

#endif
