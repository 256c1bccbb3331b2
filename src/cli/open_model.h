/* open_model.h - the context and the model of a command, with the errors printed. */
#ifndef JANG_CLI_OPEN_MODEL_H
#define JANG_CLI_OPEN_MODEL_H

#include "jang.h"
#include "options.h"

/* Makes the context whose messages go to stderr. n_threads 0: one per core. NULL after having
 * printed why. Freed with jang_context_free. */
jang_context *open_context(int64_t n_threads);
/* The same with threads bound to cores (jang_context_options.affinity; NULL: not bound). */
jang_context *open_context_on(int64_t n_threads, const char *affinity);

/* Opens a model. NULL after having printed why. */
jang_model *open_model(jang_context *ctx, const char *path, bool exact);
jang_model *open_model_as(jang_context *ctx, const char *path, const jang_model_options *options);

/* Prints the context's last error; returns CLI_FAILED. */
int library_failed(jang_context *ctx, jang_status status);

/* Prints to stderr one line: name, profile, average bits, size, load time, backend. */
void print_model_line(const jang_model *model);

/* The option of every command that computes; its struct has int64_t n_threads. */
#define THREADS_OPTION(type)                                                                       \
    {                                                                                              \
        .name = "threads", .letter = 't', .kind = OPT_INT, .value = "N",                           \
        .target = offsetof(type, n_threads), .max = 256,                                           \
        .help = "Threads to compute with; 0: one per core."                                        \
    }

/* Of those whose speed counts; the struct has const char *affinity. */
#define AFFINITY_OPTION(type)                                                                      \
    {                                                                                              \
        .name = "affinity", .kind = OPT_TEXT, .value = "CORES",                                    \
        .target = offsetof(type, affinity),                                                        \
        .help = "Cores to bind the threads to, one each: 0-3,8."                                   \
    }

/* The options of commands that run a model long enough; their structs have bool prefault, lock. */
#define PREFAULT_OPTION(type)                                                                      \
    {                                                                                              \
        .name = "prefault", .kind = OPT_FLAG, .target = offsetof(type, prefault),                  \
        .help = "Read all weights before the start, not as they are needed."                       \
    }
#define LOCK_OPTION(type)                                                                          \
    {                                                                                              \
        .name = "mlock", .kind = OPT_FLAG, .target = offsetof(type, lock),                         \
        .help = "The same, and keep them in memory; fails where ulimit -l forbids it."             \
    }

/* Names of the ways to store keys and values, ended by NULL, and what they stand for. */
extern const char *const kv_type_names[];
extern const jang_kv_type kv_types[];
#define KV_TYPE_F16 1 /* the default of commands that answer; that of those that measure is f32 */

/* The option: an index into both; its struct has int kv_type. */
#define KV_TYPE_OPTION(type)                                                                       \
    {                                                                                              \
        .name = "kv-type", .kind = OPT_CHOICE, .value = "TYPE", .target = offsetof(type, kv_type), \
        .choices = kv_type_names, .help = "How keys and values are stored; see docs/engine.md."    \
    }

#define MODEL_OPTION(type)                                                                         \
    {                                                                                              \
        .name = "model", .letter = 'm', .kind = OPT_TEXT, .required = true, .value = "MODEL",      \
        .target = offsetof(type, model), .help = "Model directory or .jang file."                  \
    }

#endif
