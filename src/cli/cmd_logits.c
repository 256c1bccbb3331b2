/* cmd_logits.c - jang logits: the logits after each of the given tokens, as a .npy file. */
#include "command.h"
#include "interrupt.h"
#include "jang.h"
#include "npy_write.h"
#include "open_model.h"
#include "read_input.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

/* Rows held in memory at a time; as many tokens go through the model in one pass. */
#define CHUNK_TOKENS 512

typedef struct logits_arguments {
    const char *model, *ids, *ids_file, *output;
    bool exact, step;
    int kv_type;
    int64_t n_threads;
} logits_arguments;

static const logits_arguments logits_defaults = {0};

static const opt_spec logits_options[] = {
    MODEL_OPTION(logits_arguments),
    {.name = "ids",
     .kind = OPT_TEXT,
     .value = "ID,ID,...",
     .target = offsetof(logits_arguments, ids),
     .help = "Token ids, separated by commas."},
    {.name = "ids-file",
     .kind = OPT_TEXT,
     .value = "FILE",
     .target = offsetof(logits_arguments, ids_file),
     .help = "File with the ids instead, separated by commas or white space; - is standard input."},
    {.name = "output",
     .letter = 'o',
     .kind = OPT_TEXT,
     .required = true,
     .value = "FILE.npy",
     .target = offsetof(logits_arguments, output),
     .help = "File to write: f32 [number of ids, vocabulary]. It is replaced if it exists."},
    {.name = "exact",
     .kind = OPT_FLAG,
     .target = offsetof(logits_arguments, exact),
     .help = "Keep activations in f32 inside quantized products."},
    {.name = "step",
     .kind = OPT_FLAG,
     .target = offsetof(logits_arguments, step),
     .help = "One token at a time, as text is generated, instead of up to 512 in a pass."},
    KV_TYPE_OPTION(logits_arguments),
    THREADS_OPTION(logits_arguments),
};

/* Reads the ids from the command line (a mistake there is wrong usage) or from the file. */
static int read_ids(id_list *list, const logits_arguments *a) {
    char error[256];
    if (!a->ids == !a->ids_file) {
        return cli_misused("logits", a->ids ? "--ids and --ids-file exclude each other"
                                            : "--ids ID,ID,... or --ids-file FILE is missing");
    }
    if (a->ids) {
        return id_list_parse(list, a->ids, true, error, sizeof error)
                   ? CLI_DONE
                   : cli_misused("logits", "--ids: %s", error);
    }
    char *text = NULL;
    size_t n_bytes = 0;
    int code = CLI_DONE;
    if (!read_whole(&text, &n_bytes, a->ids_file)) {
        return CLI_FAILED;
    }
    if (strlen(text) != n_bytes) {
        code = cli_failed("%s: no list of ids: it has a 0 byte", a->ids_file);
    } else if (!id_list_parse(list, text, false, error, sizeof error)) {
        code = cli_failed("%s: %s", a->ids_file, error);
    } else if (list->n == 0) {
        code = cli_failed("%s: there are no ids in it", a->ids_file);
    }
    free(text);
    return code;
}

/* Computes chunk after chunk into rows [chunk, n_vocab] and writes them. */
static int write_logits(jang_context *ctx, jang_session *session, const id_list *list, size_t chunk,
                        size_t n_vocab, float *rows, npy_file *npy) {
    for (size_t at = 0; at < list->n; at += chunk) {
        size_t n = list->n - at < chunk ? list->n - at : chunk;
        jang_status status = jang_session_append(session, list->ids + at, n, rows);
        if (status != JANG_OK) {
            return library_failed(ctx, status);
        }
        if (interrupt_seen()) {
            return cli_failed("stopped; nothing was written");
        }
        if (!npy_write_rows(npy, rows, n * n_vocab)) {
            return CLI_FAILED;
        }
    }
    return npy_finish(npy) ? CLI_DONE : CLI_FAILED;
}

static int logits_of(jang_context *ctx, jang_model *model, const id_list *list,
                     const logits_arguments *a) {
    size_t n_vocab = (size_t)jang_model_get_info(model)->n_vocab;
    size_t chunk = a->step ? 1 : list->n < CHUNK_TOKENS ? list->n : CHUNK_TOKENS;
    jang_session_options options = jang_session_options_default();
    options.kv_type = kv_types[a->kv_type];
    options.n_batch = CHUNK_TOKENS;
    npy_file npy = {0};
    int code = CLI_FAILED;
    jang_session *session = NULL;
    float *rows = calloc(chunk * n_vocab, sizeof *rows);
    if (!rows) {
        code = cli_failed("out of memory: %zu rows of %zu logits do not fit", chunk, n_vocab);
        goto done;
    }
    jang_status status = jang_session_new(&session, model, &options);
    if (status != JANG_OK) {
        code = library_failed(ctx, status);
        goto done;
    }
    if (npy_open(&npy, a->output, list->n, n_vocab)) {
        code = write_logits(ctx, session, list, chunk, n_vocab, rows, &npy);
    }
done:
    npy_close(&npy);
    jang_session_free(session);
    free(rows);
    return code;
}

static int logits_run(const void *arguments) {
    const logits_arguments *a = arguments;
    id_list list = {0};
    jang_context *ctx = NULL;
    jang_model *model = NULL;
    int code = read_ids(&list, a);
    if (code != CLI_DONE) {
        goto done;
    }
    interrupt_catch();
    code = CLI_FAILED;
    ctx = open_context(a->n_threads);
    model = ctx ? open_model(ctx, a->model, a->exact) : NULL;
    if (model) {
        code = logits_of(ctx, model, &list, a);
    }
done:
    jang_model_free(model);
    jang_context_free(ctx);
    free(list.ids);
    return code;
}

const cli_command cmd_logits = {
    .name = "logits",
    .summary = "write the logits of given token ids as a .npy file",
    .details = "The first token is taken as it is: no begin-of-text is added.",
    .example = "  jang logits --model smol-4m --ids 1,504,2367 --output logits.npy\n"
               "  jang tokenize --model smol-4m < text | jang logits --model smol-4m --ids-file - "
               "--output logits.npy\n",
    .options = logits_options,
    .n_options = sizeof logits_options / sizeof logits_options[0],
    .defaults = &logits_defaults,
    .n_default_bytes = sizeof logits_defaults,
    .run = logits_run,
};
