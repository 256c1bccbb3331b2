/* cmd_serve.c - jang serve: a model behind OpenAI's and Anthropic's HTTP interfaces. */
#ifdef JANG_HAVE_SERVER
#include "command.h"
#include "jang.h"
#include "open_model.h"
#include "read_input.h"
#include "server/serve.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct serve_arguments {
    text_list models, aliases;
    const char *embedding_model, *host, *key, *key_file, *cors, *tool_format, *reasoning_format;
    const char *disk_cache, *kv_budget, *disk_size, *draft, *affinity;
    int64_t port, parallel, queue, n_context, chunk, n_threads, body, connections, rate, n_draft;
    double timeout, grace, head_time, idle_time;
    int reasoning, kv_type;
    bool strict_model, keep_volatile, exact, no_cache, no_lookup;
} serve_arguments;

static const serve_arguments serve_defaults = {.host = "127.0.0.1",
                                               .port = 8080,
                                               .parallel = 16,
                                               .queue = 256,
                                               .chunk = 512,
                                               .body = 32 << 20,
                                               .connections = 1024,
                                               .n_draft = 8,
                                               .timeout = 600,
                                               .grace = 10,
                                               .head_time = 15,
                                               .idle_time = 60,
                                               .kv_type = KV_TYPE_F16};

static const char *const reasoning_places[] = {"separate", "inline", NULL};

#define TEXT_ROW(NAME, MEMBER, VALUE, HELP)                                                        \
    {                                                                                              \
        .name = NAME, .kind = OPT_TEXT, .value = VALUE,                                            \
        .target = offsetof(serve_arguments, MEMBER), .help = HELP                                  \
    }
#define INT_ROW(NAME, MEMBER, MIN, MAX, HELP)                                                      \
    {                                                                                              \
        .name = NAME, .kind = OPT_INT, .value = "N", .target = offsetof(serve_arguments, MEMBER),  \
        .min = MIN, .max = MAX, .help = HELP                                                       \
    }
#define FLAG_ROW(NAME, MEMBER, HELP)                                                               \
    { .name = NAME, .kind = OPT_FLAG, .target = offsetof(serve_arguments, MEMBER), .help = HELP }

#define REAL_ROW(NAME, MEMBER, LEAST, MOST, HELP)                                                  \
    {                                                                                              \
        .name = NAME, .kind = OPT_REAL, .value = "S", .target = offsetof(serve_arguments, MEMBER), \
        .min = (LEAST), .max = (MOST), .help = HELP                                                \
    }

static const opt_spec serve_rows[] = {
    {.name = "model",
     .letter = 'm',
     .kind = OPT_LIST,
     .required = true,
     .value = "MODEL",
     .target = offsetof(serve_arguments, models),
     .help = "Model directory or .jang file; several serve several models."},
    TEXT_ROW("embedding-model", embedding_model, "MODEL",
             "A model for /embeddings and /rerank; without it the others do that as well."),
    INT_ROW("port", port, 0, 65535, "Port; 0: any that is free."),
    TEXT_ROW("host", host, "ADDRESS", "Address to listen on; 0.0.0.0 is every one."),
    TEXT_ROW("api-key", key, "KEY", "Key that requests must bring; several are divided by commas."),
    TEXT_ROW("api-key-file", key_file, "FILE", "The same from a file, one key a line."),
    {.name = "alias",
     .kind = OPT_LIST,
     .value = "NAME",
     .target = offsetof(serve_arguments, aliases),
     .help = "Name of the first model, or NAME=DIRECTORY of another; a model's first is the one in "
             "answers, without one the directory's."},
    FLAG_ROW("strict-model", strict_model, "Refuse requests that name another model."),
    TEXT_ROW("cors", cors, "ORIGINS",
             "Web origins that may ask, divided by commas, or *. http://localhost always may."),
    INT_ROW("parallel", parallel, 1, 1024, "Answers computed at once."),
    INT_ROW("queue", queue, 0, 100000, "Requests that may wait."),
    {.name = "context",
     .letter = 'c',
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(serve_arguments, n_context),
     .max = INT32_MAX,
     .help = "Longest sequence, prompt and answer; 0: the model's own limit."},
    INT_ROW("prefill-chunk", chunk, 1, 65536, "Most tokens of prompts in one step."),
    KV_TYPE_OPTION(serve_arguments),
    TEXT_ROW(
        "kv-budget", kv_budget, "SIZE",
        "Most memory for keys and values, as 4G, 512M or 30%; a quarter of the memory otherwise."),
    FLAG_ROW("no-cache", no_cache, "Keep nothing for later requests."),
    TEXT_ROW("disk-cache", disk_cache, "DIR", "Keep keys and values in this directory as well."),
    TEXT_ROW("disk-cache-size", disk_size, "SIZE", "Most bytes in it; 10G otherwise."),
    TEXT_ROW("draft", draft, "MODEL",
             "A small model of the same vocabulary that guesses ahead for the first."),
    INT_ROW("draft-n", n_draft, 1, 64, "Most tokens guessed at once."),
    FLAG_ROW("no-lookup", no_lookup, "Do not guess ahead from the text before."),
    TEXT_ROW("tool-format", tool_format, "NAME",
             "How the model writes tool calls, or none; found from its template otherwise."),
    TEXT_ROW("reasoning-format", reasoning_format, "NAME", "How it marks its reasoning, or none."),
    {.name = "reasoning",
     .kind = OPT_CHOICE,
     .value = "WHERE",
     .target = offsetof(serve_arguments, reasoning),
     .choices = reasoning_places,
     .help = "Where reasoning goes: into a field of its own, or into the content."},
    FLAG_ROW("keep-volatile", keep_volatile,
             "Keep lines of system texts that change with each request and defeat the cache."),
    INT_ROW("rate", rate, 0, 1000000, "Most requests a minute and key; 0: no limit."),
    INT_ROW("body-limit", body, 1024, (int64_t)1 << 40, "Most bytes of a request's body."),
    INT_ROW("connections", connections, 1, 65536, "Most connections."),
    REAL_ROW("head-time", head_time, 1, 3600, "Most seconds that a request's head may take."),
    REAL_ROW("idle-time", idle_time, 1, 86400,
             "Seconds after which a silent connection is closed."),
    REAL_ROW("timeout", timeout, 1, 86400, "Most seconds a request may take."),
    REAL_ROW("grace", grace, 0, 3600,
             "Seconds that running requests get when the server is stopped."),
    FLAG_ROW("exact", exact, "Keep activations in f32 inside quantized products (slower)."),
    THREADS_OPTION(serve_arguments),
    AFFINITY_OPTION(serve_arguments),
};

/* ---- Values ---- */

/* 512M, 4G, 1000000; with of_memory also 30%: of the machine's memory. */
static bool read_size(const char *name, const char *text, bool of_memory, uint64_t *out) {
    char *end;
    if (!text) {
        return true;
    }
    double value = strtod(text, &end), unit = 1;
    if (of_memory && end > text && !strcmp(end, "%") && value > 0 && value <= 100) {
        double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
        *out = (uint64_t)(value / 100 * memory);
        return true;
    }
    const char *units = "kMGT", *place = *end ? strchr(units, *end == 'K' ? 'k' : *end) : NULL;
    for (const char *u = units; place && u <= place; u++) {
        unit *= 1024;
    }
    bool ends = !*end || (place && (!end[1] || (end[1] == 'B' && !end[2])));
    if (end == text || !ends || !(value > 0) || value * unit > 1e18) {
        cli_misused("serve", "--%s %s: not a size such as 512M or 4G%s", name, text,
                    of_memory ? ", or 30%" : "");
        return false;
    }
    *out = (uint64_t)(value * unit);
    return true;
}

/* Keys in a text that this cuts up; SERVE_LIST_MAX - 1 at most. */
static bool take_keys(serve_options *o, char *text, const char *dividers) {
    size_t n = 0;
    while (n < SERVE_LIST_MAX && o->keys[n]) {
        n++;
    }
    for (char *at = text; at && *(at += strspn(at, dividers));) {
        size_t k = strcspn(at, dividers);
        bool more = at[k] != 0;
        at[k] = 0;
        if (n == SERVE_LIST_MAX - 1) {
            cli_misused("serve", "more than %d API keys", SERVE_LIST_MAX - 1);
            return false;
        }
        o->keys[n++] = at;
        at = more ? at + k + 1 : at + k;
    }
    return true;
}

static void log_to_stderr(const char *line) {
    cli_failed("%s", line);
}

/* What is served, where, and what the usual clients need. */
static void print_ready(const char *url, const serve_model *models, size_t n_models) {
    const char *id = models[0].id;
    for (size_t i = 0; i < n_models; i++) {
        const jang_model_info *info = models[i].info;
        printf("%s: %s, %.2f bits per weight, %s, %s, context %d\n", models[i].id, info->profile,
               info->true_bits, human_bytes((double)info->weight_bytes).text, info->backend,
               (int)info->n_context);
    }
    printf("%s  (OpenAI: %s/v1)\n\n", url, url);
    printf("  aider        OPENAI_API_BASE=%s/v1 OPENAI_API_KEY=none aider --model openai/%s\n",
           url, id);
    printf("  Continue     provider: openai, model: %s, apiBase: %s/v1\n", id, url);
    printf("  Claude Code  ANTHROPIC_BASE_URL=%s ANTHROPIC_AUTH_TOKEN=none claude\n", url);
    fflush(stdout);
}

static void fill(serve_options *o, const serve_arguments *a) {
    jang_engine_options engine = jang_engine_options_default();
    *o = (serve_options){.embedding_model = a->embedding_model,
                         .host = a->host,
                         .port = a->port,
                         .cors = a->cors,
                         .tool_format = a->tool_format,
                         .reasoning_format = a->reasoning_format,
                         .strict_model = a->strict_model,
                         .inline_reasoning = a->reasoning == 1,
                         .keep_volatile = a->keep_volatile,
                         .body_max = a->body,
                         .n_connections = a->connections,
                         .rate = a->rate,
                         .timeout = a->timeout,
                         .grace = a->grace,
                         .head_time = a->head_time,
                         .idle_time = a->idle_time,
                         .n_threads = a->n_threads,
                         .affinity = a->affinity,
                         .exact = a->exact,
                         .draft = a->draft,
                         .engine = engine,
                         .log = log_to_stderr,
                         .ready = print_ready};
    for (size_t i = 0; i < a->models.n; i++) {
        o->models[o->n_models++] = a->models.items[i];
    }
    for (size_t i = 0; i < a->aliases.n; i++) {
        o->aliases[i] = a->aliases.items[i];
    }
    o->engine.n_parallel = (int32_t)a->parallel;
    o->engine.n_queue = (int32_t)a->queue;
    o->engine.n_context = (int32_t)a->n_context;
    o->engine.prefill_chunk = (int32_t)a->chunk;
    o->engine.kv_type = kv_types[a->kv_type];
    o->engine.no_cache = a->no_cache;
    o->engine.disk_cache = a->disk_cache;
    o->engine.lookup = !a->no_lookup;
    o->engine.n_draft = (int32_t)a->n_draft;
}

static bool is_local(const char *host) {
    return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost");
}

static int serve_main(const void *arguments) {
    const serve_arguments *a = arguments;
    serve_options o;
    char error[512], *keys = NULL, *file = NULL;
    size_t n_file = 0;
    int code = CLI_FAILED;
    if (a->models.n + (a->embedding_model != NULL) > SERVE_LIST_MAX ||
        a->aliases.n >= SERVE_LIST_MAX) {
        return cli_misused("serve", "at most %d models, and %d names", SERVE_LIST_MAX,
                           SERVE_LIST_MAX - 1);
    }
    fill(&o, a);
    if (!read_size("kv-budget", a->kv_budget, true, &o.engine.kv_budget) ||
        !read_size("disk-cache-size", a->disk_size, false, &o.engine.disk_cache_bytes)) {
        return CLI_MISUSED;
    }
    if (a->key_file && !read_whole(&file, &n_file, a->key_file)) {
        return CLI_FAILED;
    }
    keys = a->key ? strdup(a->key) : NULL;
    if (!take_keys(&o, keys, ", ") || !take_keys(&o, file, "\r\n")) {
        code = CLI_MISUSED;
    } else {
        if (!o.keys[0] && !is_local(a->host)) {
            cli_failed("warning: %s can be reached by others, and there is no --api-key", a->host);
        }
        code = serve_run(&o, error, sizeof error) ? CLI_DONE : cli_failed("%s", error);
    }
    free(keys);
    free(file);
    return code;
}

const cli_command cmd_serve = {
    .name = "serve",
    .summary = "serve a model over HTTP: OpenAI's and Anthropic's interfaces, and a page",
    .details = "Prints its address once the model answers. Ctrl-C stops it: requests that run get "
               "--grace seconds to end, a second Ctrl-C ends it at once.",
    .example = "  jang serve --model smol-4m\n"
               "  curl http://127.0.0.1:8080/v1/chat/completions \\\n"
               "      -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'\n",
    .options = serve_rows,
    .n_options = sizeof serve_rows / sizeof serve_rows[0],
    .defaults = &serve_defaults,
    .n_default_bytes = sizeof serve_defaults,
    .run = serve_main,
};
#endif
