/* cmd_embed.c - jang embed: each line of standard input to a vector of unit length, or to the
 * scores of a classifier. */
#include "command.h"
#include "jang.h"
#include "open_model.h"
#include "terminal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE 64 /* lines that the engine has */

typedef struct embed_arguments {
    const char *model;
    int64_t n_threads;
    bool exact, labels;
} embed_arguments;

static const embed_arguments embed_defaults = {0};

static const opt_spec embed_options[] = {
    MODEL_OPTION(embed_arguments),
    {.name = "labels",
     .kind = OPT_FLAG,
     .target = offsetof(embed_arguments, labels),
     .help = "A classifier's scores instead, as they are; a tab in a line parts two texts that "
             "are judged together."},
    THREADS_OPTION(embed_arguments),
    {.name = "exact",
     .kind = OPT_FLAG,
     .target = offsetof(embed_arguments, exact),
     .help = "Dequantized weights, unrounded activations, keys and values in f32: slower."},
};

/* What comes of one line. */
typedef struct vector {
    float *values; /* [n] */
    size_t n;
    bool failed;
} vector;

typedef struct embed_job {
    jang_context *ctx;
    jang_model *model;
    jang_engine *engine;
    bool labels;
    vector vectors[AT_ONCE];
    size_t n;
} embed_job;

static void on_event(void *user, const jang_event *event) {
    (void)user;
    vector *v = event->user;
    if (event->kind == JANG_EVENT_RESULT) {
        v->values = malloc((event->n_values + 1) * sizeof *v->values);
        v->failed = v->failed || !v->values;
        if (v->values) {
            memcpy(v->values, event->values, event->n_values * sizeof *v->values);
            v->n = event->n_values;
        }
    } else if (event->kind == JANG_EVENT_END && event->finish == JANG_FINISH_ERROR) {
        v->failed = true;
        cli_failed("%s", event->message);
    }
}

/* The ids of a line, or of the two texts that a tab parts. */
static jang_status tokenize_line(int32_t **ids, int32_t **types, size_t *n, const embed_job *job,
                                 const char *line, size_t n_bytes) {
    jang_tokenizer *tok = jang_model_tokenizer(job->model);
    const char *tab = job->labels ? memchr(line, '\t', n_bytes) : NULL;
    size_t first = tab ? (size_t)(tab - line) : 0;
    return tab ? jang_tokenize_pair(ids, types, n, tok, line, first, tab + 1, n_bytes - first - 1,
                                    JANG_TOKENIZE_ADD_SPECIAL)
               : jang_tokenize(ids, n, tok, line, n_bytes, JANG_TOKENIZE_ADD_SPECIAL);
}

static int submit_line(embed_job *job, const char *line, size_t n_bytes, size_t number) {
    int32_t *ids = NULL, *types = NULL;
    jang_request r = jang_request_default(job->model);
    jang_message why = {""};
    uint64_t id;
    jang_status status = tokenize_line(&ids, &types, &r.n_prompt, job, line, n_bytes);
    if (status != JANG_OK) {
        return library_failed(job->ctx, status);
    }
    vector *v = &job->vectors[job->n++];
    *v = (vector){0};
    r.task = job->labels ? JANG_TASK_LABEL : JANG_TASK_EMBED;
    r.prompt = ids;
    r.types = types;
    r.user = v;
    status = jang_engine_submit(&id, job->engine, &r, &why);
    jang_free(job->ctx, ids);
    jang_free(job->ctx, types);
    return status == JANG_OK ? CLI_DONE
                             : cli_failed("standard input, line %zu: %s", number, why.text);
}

static int print_vectors(const embed_job *job) {
    for (size_t i = 0; i < job->n; i++) {
        const vector *v = &job->vectors[i];
        if (v->failed || !v->values) {
            return CLI_FAILED;
        }
        for (size_t k = 0; k < v->n; k++) {
            printf("%s%.9g", k ? "," : "[", (double)v->values[k]);
        }
        puts("]");
    }
    return CLI_DONE;
}

/* Computes what was submitted, prints it in the order of the lines, and forgets it. */
static int finish_lines(embed_job *job) {
    bool busy = job->n > 0;
    jang_status status = JANG_OK;
    while (busy && status == JANG_OK) {
        status = jang_engine_step(&busy, job->engine);
    }
    int code = status == JANG_OK ? print_vectors(job) : library_failed(job->ctx, status);
    for (size_t i = 0; i < job->n; i++) {
        free(job->vectors[i].values);
    }
    job->n = 0;
    return code;
}

static int embed_lines(embed_job *job) {
    char *line = NULL;
    size_t capacity = 0;
    int code = CLI_DONE;
    ssize_t n;
    for (size_t number = 1; code == CLI_DONE && (n = getline(&line, &capacity, stdin)) >= 0;
         number++) {
        size_t n_bytes = (size_t)n - (n > 0 && line[n - 1] == '\n');
        code = submit_line(job, line, n_bytes, number);
        if (code == CLI_DONE && job->n == AT_ONCE) {
            code = finish_lines(job);
        }
    }
    if (code == CLI_DONE && ferror(stdin)) {
        code = cli_failed("cannot read standard input: %s", strerror(errno));
    }
    if (code == CLI_DONE) {
        code = finish_lines(job);
    }
    free(line);
    return code;
}

static int embed_run(const void *arguments) {
    const embed_arguments *a = arguments;
    embed_job job = {.ctx = open_context(a->n_threads), .labels = a->labels};
    job.model = job.ctx ? open_model(job.ctx, a->model, a->exact) : NULL;
    int code = CLI_FAILED;
    if (job.model && !jang_model_tokenizer(job.model)) {
        code = cli_failed("%s: the model has no tokenizer", a->model);
    } else if (job.model && a->labels && jang_model_get_info(job.model)->n_label == 0) {
        code = cli_failed("%s: the model is no classifier; it has no labels", a->model);
    } else if (job.model) {
        jang_engine_options o = jang_engine_options_default();
        o.on_event = on_event;
        o.kv_type = a->exact ? JANG_KV_F32 : o.kv_type;
        jang_status status = jang_engine_new(&job.engine, job.model, &o);
        code = status == JANG_OK ? embed_lines(&job) : library_failed(job.ctx, status);
    }
    for (size_t i = 0; i < job.n; i++) {
        free(job.vectors[i].values);
    }
    jang_engine_free(job.engine);
    jang_model_free(job.model);
    jang_context_free(job.ctx);
    return code;
}

const cli_command cmd_embed = {
    .name = "embed",
    .summary = "turn lines of text into vectors or scores",
    .details = "Each line of standard input becomes one JSON array of unit length. Hidden states "
               "are pooled as the model's makers say (modules.json, 1_Pooling); where they say "
               "nothing, by the mean in encoders and by the last token in others. With --labels "
               "a classifier's scores stand there, one for each label of the config.",
    .example = "  printf 'a boat\\na ship\\n' | jang embed --model bge-6m\n"
               "  printf 'who sails?\\ta boat\\n' | jang embed --labels --model reranker-6m\n",
    .options = embed_options,
    .n_options = sizeof embed_options / sizeof embed_options[0],
    .defaults = &embed_defaults,
    .n_default_bytes = sizeof embed_defaults,
    .run = embed_run,
};
