/* eval_measure.h - several models on the same texts, token by token beside a reference. */
#ifndef JANG_CLI_EVAL_MEASURE_H
#define JANG_CLI_EVAL_MEASURE_H

#include "eval_logits.h"
#include "eval_stats.h"

#include <jansson.h>

/* What is gathered of one model on one set of texts. Without a reference kl, mse, n_same and
 * reference_nll stay empty. */
typedef struct eval_figures {
    eval_sample kl, mse;            /* of every token */
    eval_sample nll, reference_nll; /* of every token that another follows, in nats */
    size_t n_same;                  /* tokens whose likeliest successor is the reference's */
} eval_figures;

typedef struct eval_model {
    const char *path;
    jang_model *model;
    logit_source source;
    eval_figures *figures; /* [n_sets + 1]: of each set, and of all together */
} eval_model;

typedef struct eval_measure {
    jang_context *ctx;
    eval_texts texts;
    eval_model *models; /* [n_models] */
    size_t n_models;
    jang_model *reference_model; /* NULL: stored logits, or none */
    logit_source reference;
    bool has_reference;
    logit_store store;
    bool stores;
} eval_measure;

typedef struct eval_measure_options {
    const text_list *models, *texts;
    const char *reference;        /* a model; NULL: none */
    const char *reference_logits; /* a file of stored logits; NULL: none */
    const char *save_reference;   /* NULL: do not store */
    int64_t context, max_tokens, n_threads;
    bool exact;
    jang_kv_type kv_type;
} eval_measure_options;

/* Opens models and texts. The reference model's tokenizer reads the texts, or without one the first
 * model's. Each prints why it failed. */
bool measure_open(eval_measure *m, const eval_measure_options *options);
bool measure_run(eval_measure *m);
void measure_close(eval_measure *m);

/* Prints a table, a row for each model and set. */
bool measure_print(eval_measure *m);

/* All figures as JSON: an array of an object for each model. NULL when out of memory. */
json_t *measure_json(eval_measure *m);
/* The whole of a command that measures: opens, runs, prints, closes; returns its exit code. */
int measure_command(const eval_measure_options *options, bool json);

/* The options that ppl, kl and compare share; their structs have these fields. */
#define EVAL_TEXT_OPTIONS(type)                                                                    \
    {.name = "text",                                                                               \
     .kind = OPT_LIST,                                                                             \
     .required = true,                                                                             \
     .value = "FILE",                                                                              \
     .target = offsetof(type, texts),                                                              \
     .help = "Text to measure on; may be given several times. A .jsonl file holds a chat or text " \
             "a line: {\"messages\": [...]} or {\"text\": ...}."},                                 \
        {.name = "context",                                                                        \
         .kind = OPT_INT,                                                                          \
         .value = "N",                                                                             \
         .target = offsetof(type, context),                                                        \
         .min = 4,                                                                                 \
         .max = 1 << 20,                                                                           \
         .help = "Tokens in a window."},                                                           \
    {                                                                                              \
        .name = "max-tokens", .kind = OPT_INT, .value = "N", .target = offsetof(type, max_tokens), \
        .max = INT64_MAX, .help = "Stop after this many tokens of each text; 0: never."            \
    }

#define EVAL_EXACT_OPTION(type)                                                                    \
    {                                                                                              \
        .name = "exact", .kind = OPT_FLAG, .target = offsetof(type, exact),                        \
        .help =                                                                                    \
            "Keep activations in f32 inside quantized products, so that the weights alone are "    \
            "measured."                                                                            \
    }

#define EVAL_JSON_OPTION(type)                                                                     \
    {                                                                                              \
        .name = "json", .kind = OPT_FLAG, .target = offsetof(type, json),                          \
        .help = "Print JSON instead of a table."                                                   \
    }

#endif
