/* cmd_run.c - jang run: one prompt and its answer, or a chat on the terminal. */
#include "chat_loop.h"
#include "command.h"
#include "conversation.h"
#include "interrupt.h"
#include "open_model.h"
#include "read_input.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef struct run_arguments {
    const char *model, *prompt, *system, *affinity;
    int64_t n_max, n_context, n_threads;
    int kv_type;
    int64_t top_k, seed;       /* -1: not given */
    double temp, top_p, min_p; /* -1: not given */
    bool raw, exact, prefault, lock;
} run_arguments;

static const run_arguments run_defaults = {
    .kv_type = KV_TYPE_F16, .top_k = -1, .seed = -1, .temp = -1, .top_p = -1, .min_p = -1};

static const opt_spec run_options[] = {
    MODEL_OPTION(run_arguments),
    {.name = "prompt",
     .letter = 'p',
     .kind = OPT_ANY,
     .value = "TEXT",
     .target = offsetof(run_arguments, prompt),
     .help = "Answer this and end. Without it: a chat on a terminal, otherwise standard input is "
             "the prompt."},
    {.name = "max-tokens",
     .letter = 'n',
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(run_arguments, n_max),
     .max = INT32_MAX,
     .help = "Most tokens of an answer; 0: until the context is full."},
    {.name = "temp",
     .kind = OPT_REAL,
     .value = "T",
     .target = offsetof(run_arguments, temp),
     .max = 100,
     .help = "Temperature; 0 always takes the likeliest token. Default of this and the next three: "
             "the model's own."},
    {.name = "top-p",
     .kind = OPT_REAL,
     .value = "P",
     .target = offsetof(run_arguments, top_p),
     .max = 1,
     .help = "Keep the likeliest tokens whose probabilities sum to P; 1: all."},
    {.name = "top-k",
     .kind = OPT_INT,
     .value = "K",
     .target = offsetof(run_arguments, top_k),
     .max = INT32_MAX,
     .help = "Keep the K likeliest tokens; 0: all."},
    {.name = "min-p",
     .kind = OPT_REAL,
     .value = "P",
     .target = offsetof(run_arguments, min_p),
     .max = 1,
     .help = "Keep tokens at least P times as likely as the likeliest; 0: all."},
    {.name = "seed",
     .kind = OPT_INT,
     .value = "S",
     .target = offsetof(run_arguments, seed),
     .max = INT64_MAX,
     .help = "Makes the draws repeatable. Without it each run draws anew; the seed is among the "
             "figures."},
    {.name = "system",
     .letter = 's',
     .kind = OPT_TEXT,
     .value = "TEXT",
     .target = offsetof(run_arguments, system),
     .help = "System message."},
    {.name = "raw",
     .kind = OPT_FLAG,
     .target = offsetof(run_arguments, raw),
     .help = "No chat template: the model continues the prompt as it is."},
    {.name = "context",
     .letter = 'c',
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(run_arguments, n_context),
     .max = INT32_MAX,
     .help = "Most tokens to keep, prompt and answers; 0: the model's own limit."},
    {.name = "exact",
     .kind = OPT_FLAG,
     .target = offsetof(run_arguments, exact),
     .help = "Keep activations in f32 inside quantized products (slower)."},
    KV_TYPE_OPTION(run_arguments),
    THREADS_OPTION(run_arguments),
    AFFINITY_OPTION(run_arguments),
    PREFAULT_OPTION(run_arguments),
    LOCK_OPTION(run_arguments),
};

/* The model's own defaults, and over them what was given. */
static jang_sampling choose_sampling(const jang_model *model, const run_arguments *a) {
    jang_sampling s = jang_sampling_default(model);
    s.temperature = a->temp >= 0 ? (float)a->temp : s.temperature;
    s.top_p = a->top_p >= 0 ? (float)a->top_p : s.top_p;
    s.top_k = a->top_k >= 0 ? (int32_t)a->top_k : s.top_k;
    s.min_p = a->min_p >= 0 ? (float)a->min_p : s.min_p;
    uint32_t drawn = 0;
    if (a->seed >= 0) {
        s.seed = (uint64_t)a->seed;
    } else if (getentropy(&drawn, sizeof drawn) == 0) {
        s.seed = drawn;
    }
    return s;
}

static int answer_once(conversation *c, const char *text, size_t n_bytes) {
    if (!conversation_answer(c, text, n_bytes)) {
        return CLI_FAILED;
    }
    fputc('\n', c->out);
    fflush(c->out);
    conversation_print_stats(c, stderr);
    return c->stats.finish == JANG_FINISH_CANCELLED ? CLI_FAILED : CLI_DONE;
}

/* The prompt is what a pipe or file brings, less one line feed at its end. */
static int answer_input(conversation *c) {
    char *text = NULL;
    size_t n_bytes = 0;
    if (!read_whole(&text, &n_bytes, "-")) {
        return CLI_FAILED;
    }
    n_bytes -= n_bytes > 0 && text[n_bytes - 1] == '\n';
    int code = n_bytes ? answer_once(c, text, n_bytes)
                       : cli_failed("there is no prompt: standard input is empty");
    free(text);
    return code;
}

static int converse(conversation *c, const run_arguments *a) {
    if (!c->raw && !jang_model_get_info(c->model)->has_chat_template) {
        if (a->system) {
            return cli_failed("%s has no chat template, so --system cannot be used", a->model);
        }
        fputs("The model has no chat template: it continues each prompt as it is (--raw).\n",
              stderr);
        c->raw = true;
    }
    if (a->system && !conversation_set_system(c, a->system)) {
        return CLI_FAILED;
    }
    if (a->prompt) {
        return answer_once(c, a->prompt, strlen(a->prompt));
    }
    return is_terminal(stdin) ? chat_run(c) : answer_input(c);
}

static int run_run(const void *arguments) {
    const run_arguments *a = arguments;
    if (a->raw && a->system) {
        return cli_misused("run", "--system has no meaning with --raw");
    }
    conversation c = {.n_max = (size_t)a->n_max, .raw = a->raw, .out = stdout};
    int code = CLI_FAILED;
    c.ctx = open_context_on(a->n_threads, a->affinity);
    jang_model_options options = jang_model_options_default();
    options.exact = a->exact;
    options.prefault = a->prefault;
    options.lock = a->lock;
    c.model = c.ctx ? open_model_as(c.ctx, a->model, &options) : NULL;
    if (!c.model) {
        goto done;
    }
    print_model_line(c.model);
    if (!jang_model_tokenizer(c.model)) {
        code = cli_failed("%s has no tokenizer; jang logits works without one", a->model);
        goto done;
    }
    c.sampling = choose_sampling(c.model, a);
    interrupt_catch();
    if (conversation_start(&c, (int32_t)a->n_context, kv_types[a->kv_type])) {
        code = converse(&c, a);
    }
done:
    conversation_end(&c);
    jang_model_free(c.model);
    jang_context_free(c.ctx);
    return code;
}

const cli_command cmd_run = {
    .name = "run",
    .summary = "chat with a model, or answer one prompt",
    .details = "The answer goes to standard output and nothing else does; profile, average bits, "
               "size, load time and speed go to stderr. In the chat, /help lists its commands and "
               "Ctrl-C stops an answer.",
    .example = "  jang run --model smol-4m\n"
               "  jang run --model smol-4m -p 'What is the capital of France?' --temp 0\n",
    .options = run_options,
    .n_options = sizeof run_options / sizeof run_options[0],
    .defaults = &run_defaults,
    .n_default_bytes = sizeof run_defaults,
    .run = run_run,
};
