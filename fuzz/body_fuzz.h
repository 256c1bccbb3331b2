/* body_fuzz.h - a request's body through a dialect: read, templated, run by a tiny model, answered.
 *
 * Everything is the server's own but the sockets: the functions of http_server.h are here, and
 * check what a client would see. Each request gets one reply; a reply's JSON, and that of each
 * event of a stream, can be read; nothing is an error of ours (500).
 *
 * Input: a byte that chooses the route, one for flags, one for the tool format, one for the
 * reasoning format, then the body. */
#ifndef FUZZ_BODY_FUZZ_H
#define FUZZ_BODY_FUZZ_H

#include "server/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEPS 12 /* of the engine, before the client goes or the server ends the request */

enum { FLAG_GONE = 1, FLAG_TOOLS = 2, FLAG_LATE = 4, FLAG_INLINE = 8 };

struct http_exchange {
    const char *body, *path;
    size_t n_body;
    void *user;
    int status, n_replies;
    bool streaming, ended;
    bool is_sse;
};

/* ---- What the server sees of HTTP ---- */

static void check(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void check_json(const char *text, size_t n) {
    json_error_t where;
    json_t *root = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (!root) {
        fprintf(stderr, "%s in: %.*s\n", where.text, (int)n, text);
    }
    check(root != NULL, "what was written is not JSON");
    json_decref(root);
}

const char *http_method(const http_exchange *x) {
    (void)x;
    return "POST";
}

const char *http_path(const http_exchange *x) {
    return x->path;
}

const char *http_header(const http_exchange *x, const char *name) {
    (void)x;
    (void)name;
    return NULL;
}

const char *http_body(const http_exchange *x, size_t *n_bytes) {
    *n_bytes = x->n_body;
    return x->body;
}

const char *http_id(const http_exchange *x) {
    (void)x;
    return "req_0";
}

double http_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double http_started(const http_exchange *x) {
    (void)x;
    return http_now();
}

int http_status(const http_exchange *x) {
    return x->status;
}

void http_set_user(http_exchange *x, void *user) {
    x->user = user;
}

void *http_get_user(const http_exchange *x) {
    return x->user;
}

void http_add_header(http_exchange *x, const char *name, const char *value) {
    check(!x->n_replies && *name && value, "a header after the head");
}

void http_reply(http_exchange *x, int status, const char *type, const char *body, size_t n_bytes) {
    check(!x->n_replies++, "two replies");
    check(status >= 200 && status < 600 && status != 500, "an error of ours");
    x->status = status;
    x->ended = true;
    if (type && !strcmp(type, "application/json")) {
        check_json(body, n_bytes);
    }
}

void http_stream_begin(http_exchange *x, int status, const char *type) {
    check(!x->n_replies++ && status == 200, "a stream after a reply");
    x->status = status;
    x->streaming = true;
    x->is_sse = !strcmp(type, "text/event-stream");
}

/* One event or more: lines of "data: JSON", "event: NAME" and comments; or lines of JSON. */
void http_stream_write(http_exchange *x, const char *data, size_t n_bytes) {
    check(x->streaming && !x->ended, "a piece outside a stream");
    for (const char *end = data + n_bytes, *line = data, *next; line < end; line = next + 1) {
        next = memchr(line, '\n', (size_t)(end - line));
        check(next != NULL, "a line without an end");
        bool is_data = next - line > 6 && !memcmp(line, "data: ", 6);
        if (!x->is_sse) {
            check_json(line, (size_t)(next - line));
        } else if (is_data && memcmp(line + 6, "[DONE]", 6)) {
            check_json(line + 6, (size_t)(next - line) - 6);
        }
    }
}

void http_stream_end(http_exchange *x) {
    check(x->streaming && !x->ended, "a stream ends twice");
    x->ended = true;
}

double http_last_write(const http_exchange *x) {
    (void)x;
    return http_now();
}

void http_server_wake(http_server *s) {
    (void)s;
}

/* ---- The server ---- */

static jang_context *fuzz_new_context(void) {
    jang_context *ctx = NULL;
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    check(jang_context_new(&ctx, &options) == JANG_OK, "no context");
    return ctx;
}

/* A server on a tiny model, made once; the engine is stepped by hand. */
static inline server *fuzz_server(void) {
    static server s;
    static serve_options o = {.host = "127.0.0.1", .timeout = 600};
    hosted *h = &s.models[0];
    if (h->engine) {
        return &s;
    }
    static jang_context *ctx;
    ctx = fuzz_new_context();
    jang_model_options model = jang_model_options_default();
    h->path = JANG_FUZZ_MODEL;
    o.engine = jang_engine_options_default();
    o.engine.n_parallel = 4;
    o.engine.n_queue = 8;
    o.engine.kv_budget = 4 << 20;
    o.engine.on_event = event_queue_put;
    o.engine.user = &s;
    s.o = &o;
    h->id = "tiny";
    s.n_models = 1;
    s.events = event_queue_new();
    s.ctx = fuzz_new_context();
    s.state = SERVER_READY;
    check(jang_tokenizer_open(&h->tok, s.ctx, h->path) == JANG_OK &&
              jang_model_open(&h->model, ctx, h->path, &model) == JANG_OK,
          "the model cannot be opened");
    check(jang_engine_new(&h->engine, h->model, &o.engine) == JANG_OK, "no engine");
    hosted_ready(&s, h, h->model);
    return &s;
}

static inline void fuzz_step(server *s) {
    bool busy;
    check(jang_engine_step(&busy, s->models[0].engine) == JANG_OK, "the engine failed");
    gen_take_events(s);
}

#ifdef JANG_FUZZ_MUTATES
#include "json_mutator.h"

/* ---- Inputs ---- */

/* Names and words of the interfaces. */
static const char *const fuzz_keys[] = {"model",
                                        "messages",
                                        "role",
                                        "content",
                                        "type",
                                        "text",
                                        "name",
                                        "tool_calls",
                                        "tool_call_id",
                                        "function",
                                        "arguments",
                                        "id",
                                        "tools",
                                        "tool_choice",
                                        "parameters",
                                        "properties",
                                        "required",
                                        "system",
                                        "developer",
                                        "user",
                                        "assistant",
                                        "tool",
                                        "stream",
                                        "stream_options",
                                        "include_usage",
                                        "max_tokens",
                                        "max_completion_tokens",
                                        "max_output_tokens",
                                        "num_predict",
                                        "temperature",
                                        "top_p",
                                        "top_k",
                                        "min_p",
                                        "typical_p",
                                        "seed",
                                        "stop",
                                        "stop_sequences",
                                        "n",
                                        "logprobs",
                                        "top_logprobs",
                                        "logit_bias",
                                        "echo",
                                        "best_of",
                                        "suffix",
                                        "prompt",
                                        "response_format",
                                        "json_schema",
                                        "schema",
                                        "json_object",
                                        "grammar",
                                        "regex",
                                        "format",
                                        "input",
                                        "instructions",
                                        "previous_response_id",
                                        "reasoning",
                                        "effort",
                                        "summary",
                                        "metadata",
                                        "function_call",
                                        "function_call_output",
                                        "call_id",
                                        "output",
                                        "input_text",
                                        "output_text",
                                        "tool_use",
                                        "tool_result",
                                        "tool_use_id",
                                        "input_schema",
                                        "thinking",
                                        "redacted_thinking",
                                        "budget_tokens",
                                        "enabled",
                                        "any",
                                        "auto",
                                        "none",
                                        "allowed_tools",
                                        "mode",
                                        "output_config",
                                        "options",
                                        "template",
                                        "raw",
                                        "context",
                                        "keep_alive",
                                        "images",
                                        "think",
                                        "tool_name",
                                        "query",
                                        "documents",
                                        "top_n",
                                        "return_documents",
                                        "encoding_format",
                                        "base64",
                                        "dimensions",
                                        "truncate",
                                        "tokens",
                                        "add_special",
                                        "reasoning_content",
                                        "chat_template_kwargs",
                                        "continue_final_message",
                                        "add_generation_prompt",
                                        "enum",
                                        "const",
                                        "anyOf",
                                        "$ref",
                                        "items",
                                        "ignore_eos",
                                        "min_tokens",
                                        "cache_prompt",
                                        "cache_salt",
                                        "timeout",
                                        "functions",
                                        "strict",
                                        "repetition_penalty",
                                        "frequency_penalty",
                                        "presence_penalty",
                                        "reasoning_effort",
                                        "disable_parallel_tool_use",
                                        "parallel_tool_calls",
                                        "store",
                                        "image_url",
                                        "is_error"};

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    if (size < 6 || max_size < 6 || seed % 8 == 0) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    if (seed % 8 == 1) {
        LLVMFuzzerMutate(data, 4, 4);
        return size;
    }
    size_t n = mutate_json((char *)data + 4, size - 4, max_size - 4, seed, fuzz_keys,
                           sizeof fuzz_keys / sizeof fuzz_keys[0]);
    return n ? n + 4 : LLVMFuzzerMutate(data, size, max_size);
}
#endif

/* Runs a body through one of n routes. */
static inline int fuzz_body(const char *const *paths, size_t n, const uint8_t *data, size_t size) {
    if (size < 4 || size > 1 << 16) {
        return 0;
    }
    static serve_options o;
    static bool again;
    server *s = fuzz_server();
    const route *r = NULL;
    const char *path = paths[data[0] % n];
    for (size_t i = 0; !r || strcmp(r->path, path) || strcmp(r->method, "POST"); i++) {
        r = api_route_at(i);
        check(r != NULL, "no such route");
    }
    o = again ? o : *s->o;
    again = true;
    o.inline_reasoning = data[1] & FLAG_INLINE;
    s->o = &o;
    hosted *h = &s->models[0];
    h->template_has_tools = data[1] & FLAG_TOOLS;
    size_t n_formats = 0, n_reasoning = 0;
    while (tool_format_at(n_formats)) {
        n_formats++;
    }
    while (reasoning_at(n_reasoning)) {
        n_reasoning++;
    }
    h->format = tool_format_at(data[2] % (n_formats + 1));
    h->reasoning = reasoning_at(data[3] % (n_reasoning + 1));
    s->random = 1;
    /* a copy of its own, so that what is read behind its end is seen */
    char *body = malloc(size - 4 + (size == 4));
    check(body != NULL, "no memory");
    memcpy(body, data + 4, size - 4);
    http_exchange x = {.body = body, .n_body = size - 4, .path = path};
    r->run(s, &x, "");
    for (int i = 0; i < STEPS && s->n_replies; i++) {
        fuzz_step(s);
    }
    if (s->n_replies && data[1] & FLAG_LATE) {
        gen_tick(s, http_now() + 1e6);
    } else if (s->n_replies && data[1] & FLAG_GONE && !x.ended) {
        gen_gone(s, &x);
        x.ended = true;
        x.n_replies = 1;
    } else {
        gen_end_all(s);
    }
    for (int i = 0; s->n_replies; i++) {
        check(i < 1000, "a request does not end");
        fuzz_step(s);
    }
    check(x.ended && x.n_replies == 1, "no reply");
    free(body);
    return 0;
}

#endif
