/* api.h - what the dialects share: the server, one internal request, one internal answer.
 *
 * A dialect (api_openai_chat.c, api_anthropic.c, ...) is a file with routes. A route reads the body
 * into a gen_request, and gives it to gen_start with a table of functions that turn the answer's
 * parts into the dialect's bytes. Everything here runs on the HTTP thread; the engine's thread only
 * leaves copies of its events (event_queue.c). */
#ifndef JANG_SERVER_API_H
#define JANG_SERVER_API_H

#include "http_server.h"
#include "jang.h"
#include "json_in.h"
#include "message.h"
#include "serve.h"

#include <pthread.h>

typedef enum api_family { API_OPENAI, API_ANTHROPIC, API_OLLAMA } api_family;

#define N_CODES 32
#define N_BUCKETS 14

typedef struct histogram {
    uint64_t buckets[N_BUCKETS], n;
    double sum;
} histogram;

typedef struct route route;

/* Counts for /metrics, of the HTTP thread. */
typedef struct metrics {
    uint64_t *codes; /* [routes][N_CODES]: replies by status, see api_routes.c */
    uint64_t n_aborted;
    histogram first_token, inter_token, request, queue;
} metrics;

typedef struct event_queue event_queue;
typedef struct reply reply;

/* Requests that may still come, filled up evenly over a minute. */
typedef struct rate_bucket {
    double tokens, time;
} rate_bucket;

/* A model that is served. */
typedef struct hosted {
    const char *path;
    char *id;                          /* its name in answers */
    const char *names[SERVE_LIST_MAX]; /* further ones, ended by NULL */
    bool embeds;                       /* --embedding-model: for vectors and scores */
    jang_tokenizer *tok;               /* of the HTTP thread's context */
    jang_engine *engine;               /* its own thread's; NULL while loading */
    jang_model *model;                 /* for its info and defaults only */
    const jang_model_info *info;
    jang_request defaults;
    int32_t n_context;
    const tool_format *format;         /* how it writes calls; NULL: none are read */
    const reasoning_format *reasoning; /* NULL: none */
    bool template_has_tools;
    const struct infill_marks *infill; /* how it fills in the middle; NULL: it does not */
    char fingerprint[64];
    int64_t created; /* seconds since 1970 */
} hosted;

typedef enum server_state { SERVER_LOADING, SERVER_READY, SERVER_STOPPING } server_state;

typedef struct server {
    const serve_options *o;
    http_server *http;
    jang_context *ctx; /* the HTTP thread's own, with the tokenizers */
    server_state state;
    hosted models[SERVE_LIST_MAX];
    size_t n_models;
    double started, load_seconds, stop_at;
    rate_bucket rates[SERVE_LIST_MAX + 1]; /* by key; the last: of those without one */
    uint64_t random;
    event_queue *events;
    reply *first;
    int n_replies;
    metrics metrics;
    struct stored_responses *stored;
} server;

/* ---- Errors and replies ---- */

/* Replies with an error in the dialect's form. */
void api_reply_error(server *s, http_exchange *x, api_family family, const api_error *e);
/* The error as JSON text, appended. */
void api_error_json(tbuf *out, api_family family, const api_error *e, const char *request_id);
/* Replies with JSON text, or 500 if memory ran out. Frees the text. */
void api_reply_json(server *s, http_exchange *x, int status, tbuf *json);
/* Reads the body; on failure the reply is given, and NULL returned. */
json_t *api_read_body(server *s, http_exchange *x, api_family family);
/* The model that a request means by a name (NULL: it gave none): by its id, another of its names,
 * or an ending that only one has; the only one of its kind for any name, unless --strict-model.
 * embeds: vectors or scores are wanted. NULL sets the error. */
hosted *hosted_pick(server *s, api_error *e, const char *name, bool embeds);
/* The model of exactly this name, without regard to a tag :latest; NULL: there is none. */
hosted *hosted_find(server *s, const char *name);
/* Opens a model's tokenizer and finds out what the model writes; on failure error takes a line. */
bool hosted_open(server *s, hosted *h, const char *path, char *error, size_t n_bytes);
/* What is known once its weights are there. */
void hosted_ready(server *s, hosted *h, jang_model *model);
/* Frees what hosted_open made. */
void hosted_close(hosted *h);
/* Draws an id: prefix and 24 letters. */
void api_make_id(server *s, char *out, size_t n_bytes, const char *prefix);
int64_t api_unix_time(void);

/* ---- The internal request ---- */

typedef enum tool_mode { TOOLS_NONE, TOOLS_AUTO, TOOLS_REQUIRED } tool_mode;

#define STOP_MAX 16

typedef struct gen_request {
    hosted *model;
    jang_request r; /* prompt, grammar and stop are filled in by gen_start */
    json_t *body;   /* owned: all texts here are borrowed from it */
    bool is_chat;

    /* chat: what the template gets */
    json_t *messages; /* owned, as the template wants them */
    json_t *tools;    /* owned, [{type, function}]; NULL: none */
    json_t *kwargs;   /* owned, further variables of the template */
    bool continue_final;
    tool_mode tool_mode;
    json_t *allowed; /* owned, array of names that may be called; NULL: all */
    bool parallel_tools;
    bool inline_reasoning;

    /* completions: prompts as they are */
    int32_t **prompts;      /* [n_prompts], owned by gen_request_free */
    int32_t **prompt_types; /* [n_prompts] their token types, owned likewise; NULL: all 0 */
    size_t *prompt_lengths;
    size_t n_prompts;
    int32_t *context; /* ids of text that goes before the prompt, owned; NULL: none */
    size_t n_context;
    const char *suffix; /* what stands behind the gap that is to be filled; NULL: there is none */

    const char *stop[STOP_MAX];
    size_t n_stop;
    int32_t ends[8]; /* ids that end the answer besides the model's own */
    size_t n_ends;
    jang_grammar_kind grammar_kind; /* response_format */
    tbuf grammar_text;
    bool has_grammar;
    bool logprobs;  /* tell them */
    bool keeps_ids; /* of answers */
    double timeout;
    bool stream;
    int32_t max_context; /* the request's own limit; 0: the server's */
} gen_request;

/* Defaults of the model that the body names; takes over the body. Where there is no such model, e
 * is set, and the request may be read on but not started. */
void gen_request_init(gen_request *g, server *s, api_error *e, json_t *body, bool embeds);
/* The same of the exchange's body; false: there is none, and an error has been replied. */
bool gen_request_open(gen_request *g, server *s, http_exchange *x, api_family family, api_error *e);
void gen_request_free(gen_request *g);
/* Frees it and replies the error. */
void gen_request_refuse(gen_request *g, server *s, http_exchange *x, api_family family,
                        const api_error *e);
/* Text to ids in memory of malloc, behind the request's context; NULL sets the error. */
int32_t *prompt_ids(server *s, const gen_request *g, api_error *e, const char *text, size_t n_bytes,
                    unsigned flags, size_t *n_ids);

/* Reads the sampling fields under their OpenAI names, stop, seed, n, min_tokens, cache_salt and the
 * like. */
void gen_read_sampling(gen_request *g, const json_in *in, json_t *body);
/* Reads logit_bias into g. */
void gen_read_stop(gen_request *g, const json_in *in, json_t *body, const char *key);
/* response_format or its like: type text, json_object, json_schema, grammar, regex. */
void gen_read_format(gen_request *g, const json_in *in, json_t *format, const char *key);
void gen_set_schema(gen_request *g, const json_t *schema);
/* Adds a tool, which it takes over, if its function (the part with name and parameters, which an
 * error calls by where it stands: "tools[3].function") is well formed. */
void gen_add_tool(gen_request *g, const json_in *in, const char *where, json_t *function,
                  json_t *tool);
/* tool_choice in OpenAI's form, after the tools are set. */
void gen_read_tool_choice(gen_request *g, const json_in *in, json_t *choice);
/* Sets a variable of the template. */
void gen_set_kwarg(gen_request *g, const char *name, json_t *value);
/* reasoning effort: none, minimal, low, medium, high; switches thinking off or on. */
void gen_set_effort(gen_request *g, const char *effort);
/* The same from a member of OpenAI's; xhigh is high. */
void gen_read_effort(gen_request *g, const json_in *in, json_t *object, const char *key);

/* How a model fills a gap, found from its tokenizer's special tokens (infill.c); NULL: not at all.
 */
typedef struct infill_marks infill_marks;
const infill_marks *infill_detect(jang_context *ctx, jang_tokenizer *tok);
/* Adds a prompt for what belongs between two texts, as text with the model's marks. */
void infill_prompt(tbuf *out, const infill_marks *marks, const char *before, const char *behind);
/* Makes the marks that end a file end the answer too. */
void infill_ends(server *s, gen_request *g);
/* Checks a suffix (NULL or "": none) against the model; false sets the error if it cannot fill in.
 */
bool infill_check(const gen_request *g, api_error *e, const char *suffix);

/* OpenAI's messages, as the template wants them: texts joined, arguments as objects. */
json_t *messages_read(api_error *e, json_t *messages);
/* Renders the chat template. The text is freed with free. */
bool prompt_render(server *s, gen_request *g, api_error *e, char **text, size_t *n_bytes);
/* Renders and tokenizes; the ids become g's only prompt. */
bool prompt_make(server *s, gen_request *g, api_error *e, bool *reasoning_open);

/* The grammar that makes tool calls, as a structure for jang_grammar_new; false: this format has
 * none. otherwise: where calls are optional, the part that an answer without calls must fit; NULL:
 * any text. */
bool tool_grammar(tbuf *out, const tool_format *format, const tool_set *tools,
                  const json_t *allowed, tool_mode mode, bool parallel, json_t *otherwise);

/* ---- The internal answer ---- */

typedef struct answer {
    reply *reply;
    int index; /* among all answers of the reply, prompt-major */
    msg_parser *parser;
    chat_message message; /* all so far */
    tbuf logprobs;        /* entries not written yet, JSON objects divided by commas */
    tbuf ids;             /* of its tokens, where they are kept, divided by commas */
    tbuf tokens[4];       /* completions: tokens, token_logprobs, top_logprobs, text_offset */
    size_t text_offset;
    bool begun, ended;
    bool in_args;
    jang_finish finish;
    int stop_index; /* which stop string ended it; -1 */
    double last_token;
    int part;     /* dialect's own: which kind of block is open */
    size_t block; /* dialect's own: its number */
    tbuf scratch; /* dialect's own */
} answer;

/* How a dialect writes. Any function may be NULL. */
typedef struct dialect {
    api_family family;
    const char *stream_type;
    void (*begin)(reply *r);   /* streams: once, when the head is sent */
    void (*started)(reply *r); /* the prompt's figures are known */
    void (*text)(answer *a, msg_part part, const char *text, size_t n_bytes);
    void (*call)(answer *a, size_t index);
    void (*args)(answer *a, size_t index, const char *json, size_t n_bytes);
    void (*token)(answer *a, const jang_token *token, bool of_prompt);
    void (*values)(answer *a, const float *values, size_t n); /* of an embedding, or scores */
    void (*end)(answer *a);
    void (*finish)(reply *r); /* streams: the last bytes; otherwise the whole reply */
    void (*ping)(reply *r);
    void (*release)(reply *r);                   /* frees what is in r->own */
    void (*error)(reply *r, const api_error *e); /* NULL: data: {"error": ...} */
} dialect;

struct reply {
    server *server;
    http_exchange *x; /* NULL: the client has gone */
    const dialect *dialect;
    reply *previous, *next;
    gen_request g;
    tool_set tools;
    jang_grammar *grammar;
    bool guards_calls;  /* the grammar has the calls of tools in it */
    uint64_t *requests; /* [g.n_prompts] the engine's ids */
    size_t n_submitted; /* prompts that the engine has; embeddings and scores wait their turn */
    answer *answers;    /* [n_answers] */
    size_t n_answers, n_running;
    bool sent; /* some byte of the answer is out */
    bool failed, cancelled, timed_out;
    bool streaming;
    char id[48];
    int64_t created;
    double deadline, first_token;
    bool reasoning_open;
    jang_request_stats stats; /* sums over all answers */
    int64_t n_prompt, n_cached, n_generated, n_thinking;
    tbuf out;  /* the piece being written */
    void *own; /* dialect's, freed with free */
    bool include_usage;
    json_t *extra; /* dialect's, owned */
    size_t sequence;
};

/* Starts to generate; takes over g. On failure the error is replied and NULL returned. */
reply *gen_start(server *s, http_exchange *x, const dialect *d, gen_request *g,
                 const char *id_prefix);
/* The client of x has gone. */
void gen_gone(server *s, http_exchange *x);
/* Hands events to their replies; keep-alives and timeouts. */
void gen_take_events(server *s);
void gen_tick(server *s, double now);
/* Ends all that still run, with what they have. */
void gen_end_all(server *s);

/* Streams: writes "data: TEXT\n\n" from r->out and empties it; event may be NULL. */
void sse_send(reply *r, const char *event);

/* ---- Events between the threads ---- */

event_queue *event_queue_new(void);
void event_queue_free(event_queue *q);
/* For jang_engine_options; user is the server. */
void event_queue_put(void *user, const jang_event *event);
/* Calls take for each event that waits. */
void event_queue_drain(event_queue *q, void (*take_event)(void *user, const jang_event *event),
                       void *user);

/* ---- Routes ---- */

typedef void (*route_fn)(server *s, http_exchange *x, const char *rest);

struct route {
    const char *method, *path; /* a path that ends in / takes a rest */
    route_fn run;
    api_family family;
    bool open; /* needs no key */
    bool while_loading;
};

const route *api_route_at(size_t i); /* NULL after the last */
void api_handle(server *s, http_exchange *x);
void api_refused(server *s, http_exchange *x, int status, const char *message);
/* The engines' counts added up; page_bytes takes the bytes of all pages. */
void server_stats(const server *s, jang_engine_stats *out, uint64_t *page_bytes);
void metrics_observe(histogram *h, double seconds);
void metrics_count(server *s, const char *path, int status);

void openai_chat(server *s, http_exchange *x, const char *rest);
void openai_apply_template(server *s, http_exchange *x, const char *rest);
void openai_completions(server *s, http_exchange *x, const char *rest);
void responses_create(server *s, http_exchange *x, const char *rest);
void responses_get(server *s, http_exchange *x, const char *rest);
void responses_delete(server *s, http_exchange *x, const char *rest);
void responses_cancel(server *s, http_exchange *x, const char *rest);
void stored_responses_free(server *s);
void anthropic_messages(server *s, http_exchange *x, const char *rest);
void anthropic_count_tokens(server *s, http_exchange *x, const char *rest);
void ollama_chat(server *s, http_exchange *x, const char *rest);
void ollama_generate(server *s, http_exchange *x, const char *rest);
void ollama_tags(server *s, http_exchange *x, const char *rest);
void ollama_ps(server *s, http_exchange *x, const char *rest);
void ollama_version(server *s, http_exchange *x, const char *rest);
void ollama_show(server *s, http_exchange *x, const char *rest);
void ollama_pull(server *s, http_exchange *x, const char *rest);
void ollama_refuse(server *s, http_exchange *x, const char *rest);
void embed_openai(server *s, http_exchange *x, const char *rest);
void embed_ollama(server *s, http_exchange *x, const char *rest);
void embed_ollama_one(server *s, http_exchange *x, const char *rest);
void embed_rerank(server *s, http_exchange *x, const char *rest);
void info_models(server *s, http_exchange *x, const char *rest);
void info_model(server *s, http_exchange *x, const char *rest);
void info_health(server *s, http_exchange *x, const char *rest);
void info_metrics(server *s, http_exchange *x, const char *rest);
void info_slots(server *s, http_exchange *x, const char *rest);
void info_cache(server *s, http_exchange *x, const char *rest);
void info_cache_clear(server *s, http_exchange *x, const char *rest);
void info_cache_warm(server *s, http_exchange *x, const char *rest);
void info_tokenize(server *s, http_exchange *x, const char *rest);
void info_detokenize(server *s, http_exchange *x, const char *rest);
void info_tokenizer(server *s, http_exchange *x, const char *rest);
void info_page(server *s, http_exchange *x, const char *rest);

/* Reads a chat body (also for apply-template). */
bool openai_chat_read(gen_request *g, api_error *e);
/* OpenAI's usage object. */
void openai_usage(jw *w, const reply *r);

#endif
