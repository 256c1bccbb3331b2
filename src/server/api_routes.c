/* api_routes.c - the table of routes, and what holds for all of them: prefixes, keys, origins,
 * rates, errors. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const route routes[] = {
    {"GET", "/", info_page, API_OPENAI, true, true},
    {"GET", "/health", info_health, API_OPENAI, true, true},
    {"GET", "/metrics", info_metrics, API_OPENAI, false, true},
    {"GET", "/models", info_models, API_OPENAI, false, false},
    {"GET", "/models/", info_model, API_OPENAI, false, false},
    {"GET", "/slots", info_slots, API_OPENAI, false, false},
    {"GET", "/cache", info_cache, API_OPENAI, false, false},
    {"DELETE", "/cache", info_cache_clear, API_OPENAI, false, false},
    {"POST", "/cache/warm", info_cache_warm, API_OPENAI, false, false},
    {"POST", "/chat/completions", openai_chat, API_OPENAI, false, false},
    {"POST", "/completions", openai_completions, API_OPENAI, false, false},
    {"POST", "/responses", responses_create, API_OPENAI, false, false},
    {"GET", "/responses/", responses_get, API_OPENAI, false, false},
    {"DELETE", "/responses/", responses_delete, API_OPENAI, false, false},
    {"POST", "/responses/", responses_cancel, API_OPENAI, false, false},
    {"POST", "/tokenize", info_tokenize, API_OPENAI, false, false},
    {"POST", "/detokenize", info_detokenize, API_OPENAI, false, false},
    {"GET", "/tokenizer_info", info_tokenizer, API_OPENAI, false, false},
    {"POST", "/apply-template", openai_apply_template, API_OPENAI, false, false},
    {"POST", "/messages", anthropic_messages, API_ANTHROPIC, false, false},
    {"POST", "/messages/count_tokens", anthropic_count_tokens, API_ANTHROPIC, false, false},
    {"POST", "/embeddings", embed_openai, API_OPENAI, false, false},
    {"POST", "/rerank", embed_rerank, API_OPENAI, false, false},
    {"POST", "/api/chat", ollama_chat, API_OLLAMA, false, false},
    {"POST", "/api/generate", ollama_generate, API_OLLAMA, false, false},
    {"POST", "/api/embed", embed_ollama, API_OLLAMA, false, false},
    {"POST", "/api/embeddings", embed_ollama_one, API_OLLAMA, false, false},
    {"GET", "/api/tags", ollama_tags, API_OLLAMA, false, false},
    {"GET", "/api/ps", ollama_ps, API_OLLAMA, false, false},
    {"GET", "/api/version", ollama_version, API_OLLAMA, false, true},
    {"POST", "/api/show", ollama_show, API_OLLAMA, false, false},
    {"POST", "/api/pull", ollama_pull, API_OLLAMA, false, false},
    {"POST", "/api/create", ollama_refuse, API_OLLAMA, false, false},
    {"POST", "/api/copy", ollama_refuse, API_OLLAMA, false, false},
    {"POST", "/api/push", ollama_refuse, API_OLLAMA, false, false},
    {"DELETE", "/api/delete", ollama_refuse, API_OLLAMA, false, false},
};
#define N_ROUTES (sizeof routes / sizeof routes[0])

const route *api_route_at(size_t i) {
    return i < N_ROUTES ? &routes[i] : NULL;
}

/* ---- Errors ---- */

static const char *openai_type(int status) {
    return status == 401                    ? "authentication_error"
           : status == 429                  ? "rate_limit_error"
           : status >= 500 && status != 501 ? "server_error"
                                            : "invalid_request_error";
}

static const char *anthropic_type(int status) {
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {401, "authentication_error"}, {404, "not_found_error"}, {413, "request_too_large"},
        {429, "rate_limit_error"},     {500, "api_error"},       {503, "overloaded_error"},
        {504, "timeout_error"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].status == status) {
            return types[i].type;
        }
    }
    return "invalid_request_error";
}

static void write_openai_error(jw *w, const api_error *e, const char *request_id) {
    jw_open(w, "error", '{');
    if (e->status == 500) {
        char text[640];
        snprintf(text, sizeof text, "%s (request %s)", e->message, request_id);
        jw_text(w, "message", text);
    } else {
        jw_text(w, "message", e->message);
    }
    jw_text(w, "type", openai_type(e->status));
    if (*e->param) {
        jw_text(w, "param", e->param);
    } else {
        jw_null(w, "param");
    }
    if (e->code) {
        jw_text(w, "code", e->code);
    } else {
        jw_null(w, "code");
    }
    jw_close(w);
}

void api_error_json(tbuf *out, api_family family, const api_error *e, const char *request_id) {
    jw w = jw_start(out);
    jw_open(&w, NULL, '{');
    if (family == API_OPENAI) {
        write_openai_error(&w, e, request_id);
    } else if (family == API_OLLAMA) {
        jw_text(&w, "error", e->message);
    } else {
        jw_text(&w, "type", "error");
        jw_open(&w, "error", '{');
        jw_text(&w, "type", anthropic_type(e->status));
        jw_text(&w, "message", e->message);
        jw_close(&w);
        jw_text(&w, "request_id", request_id);
    }
    jw_close(&w);
}

void api_reply_error(server *s, http_exchange *x, api_family family, const api_error *e) {
    tbuf out = {0};
    api_error_json(&out, family, e, http_id(x));
    if (e->status == 429 || e->status == 503) {
        http_add_header(x, "Retry-After", "1");
    }
    if (e->status == 401) {
        http_add_header(x, "WWW-Authenticate", "Bearer");
    }
    api_reply_json(s, x, e->status, &out);
}

void api_reply_json(server *s, http_exchange *x, int status, tbuf *json) {
    static const char no_memory[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\","
        "\"param\":null,\"code\":\"out_of_memory\"}}";
    metrics_count(s, http_path(x), json->failed ? 503 : status);
    if (json->failed) {
        http_reply(x, 503, "application/json", no_memory, sizeof no_memory - 1);
    } else {
        http_reply(x, status, "application/json", tbuf_text(json), json->n);
    }
    tbuf_free(json);
}

json_t *api_read_body(server *s, http_exchange *x, api_family family) {
    api_error e = {0};
    size_t n;
    const char *text = http_body(x, &n);
    json_t *body = in_body(&e, text, n);
    if (!body) {
        api_reply_error(s, x, family, &e);
    }
    return body;
}

void api_make_id(server *s, char *out, size_t n_bytes, const char *prefix) {
    tbuf id = {0};
    tbuf_puts(&id, prefix);
    random_letters(&id, &s->random, 24);
    snprintf(out, n_bytes, "%s", tbuf_text(&id));
    tbuf_free(&id);
}

int64_t api_unix_time(void) {
    return (int64_t)time(NULL);
}

/* ---- Origins ---- */

static bool is_local(const char *origin) {
    static const char *const local[] = {"http://localhost", "http://127.0.0.1"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(local[i]);
        if (!strncmp(origin, local[i], n) && (!origin[n] || origin[n] == ':')) {
            return true;
        }
    }
    return false;
}

static bool is_listed(const char *list, const char *origin) {
    size_t n = strlen(origin);
    while (list && *list) {
        size_t k = strcspn(list, ",");
        if (k == n && !memcmp(list, origin, n)) {
            return true;
        }
        list += k + (list[k] == ',');
    }
    return false;
}

static void allow_origin(server *s, http_exchange *x) {
    const char *origin = http_header(x, "origin");
    const char *cors = s->o->cors;
    if (!origin) {
        return;
    }
    bool any = cors && !strcmp(cors, "*");
    if (any || is_local(origin) || is_listed(cors, origin)) {
        http_add_header(x, "Access-Control-Allow-Origin", any ? "*" : origin);
        http_add_header(x, "Vary", "Origin");
        http_add_header(x, "Access-Control-Expose-Headers", "x-request-id");
    }
}

static void preflight(http_exchange *x) {
    const char *headers = http_header(x, "access-control-request-headers");
    http_add_header(x, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    http_add_header(x, "Access-Control-Allow-Headers", headers ? headers : "*");
    http_add_header(x, "Access-Control-Max-Age", "86400");
    http_reply(x, 204, NULL, "", 0);
}

/* ---- Keys ---- */

/* Compares in a time that depends on the lengths alone. */
static bool same_key(const char *a, const char *b) {
    size_t n_a = strlen(a), n_b = strlen(b);
    unsigned char differs = n_a != n_b;
    for (size_t i = 0; i < n_a; i++) {
        differs |= (unsigned char)(a[i] ^ b[n_b ? i % n_b : 0]);
    }
    return !differs;
}

static const char *sent_key(const http_exchange *x) {
    const char *bearer = http_header(x, "authorization");
    if (bearer && !strncasecmp(bearer, "bearer ", 7)) {
        return bearer + 7 + strspn(bearer + 7, " ");
    }
    return http_header(x, "x-api-key");
}

/* Which key came; SERVE_LIST_MAX: none of ours. */
static size_t key_index(const server *s, const http_exchange *x) {
    const char *key = sent_key(x);
    size_t found = SERVE_LIST_MAX;
    for (size_t i = 0; key && i < SERVE_LIST_MAX && s->o->keys[i]; i++) {
        found = same_key(key, s->o->keys[i]) ? i : found;
    }
    return found;
}

static bool has_key(const server *s, const http_exchange *x) {
    return !s->o->keys[0] || key_index(s, x) < SERVE_LIST_MAX;
}

static bool is_loopback(const char *host) {
    return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost");
}

/* ---- Finding ---- */

/* /v1/x, /v1/v1/x and x are one route. */
static const char *strip_prefix(const char *path) {
    while (!strncmp(path, "/v1/", 4)) {
        path += 3;
    }
    return path;
}

static bool path_fits(const route *r, const char *path, const char **rest) {
    size_t n = strlen(r->path);
    bool takes_rest = n > 1 && r->path[n - 1] == '/';
    if (takes_rest) {
        *rest = path + n;
        return !strncmp(path, r->path, n) && path[n];
    }
    *rest = "";
    return !strcmp(path, r->path);
}

static const route *find(const char *method, const char *path, const char **rest, bool *other) {
    *other = false;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (path_fits(&routes[i], path, rest)) {
            bool head = !strcmp(method, "HEAD") && !strcmp(routes[i].method, "GET");
            if (head || !strcmp(method, routes[i].method)) {
                return &routes[i];
            }
            *other = true;
        }
    }
    return NULL;
}

/* A request's dialect, before its route is known. */
static api_family family_of(const http_exchange *x, const char *path) {
    if (!strncmp(path, "/api/", 5)) {
        return API_OLLAMA;
    }
    return !strncmp(path, "/messages", 9) || http_header(x, "anthropic-version") ? API_ANTHROPIC
                                                                                 : API_OPENAI;
}

/* A bucket of tokens for each key: one minute's worth, filled evenly. */
static bool within_rate(server *s, const http_exchange *x) {
    double now = http_now(), per_second = (double)s->o->rate / 60;
    if (!s->o->rate) {
        return true;
    }
    rate_bucket *b = &s->rates[key_index(s, x)];
    double most = (double)s->o->rate;
    b->tokens = b->time > 0 ? b->tokens + (now - b->time) * per_second : most;
    b->tokens = b->tokens > most ? most : b->tokens;
    b->time = now;
    bool ok = b->tokens >= 1;
    b->tokens -= ok ? 1 : 0;
    return ok;
}

static bool admit(server *s, http_exchange *x, const route *r, const char *path, bool other,
                  api_error *e) {
    bool public_metrics = r && r->run == info_metrics && s->o->host && is_loopback(s->o->host);
    if (!(r && (r->open || public_metrics)) && !has_key(s, x)) {
        return api_fail(e, 401, "invalid_api_key", NULL,
                        sent_key(x)
                            ? "the API key is not one of this server's"
                            : "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY");
    }
    if (!r) {
        return other ? api_fail(e, 405, "method_not_allowed", NULL, "%s is not for %s",
                                http_method(x), path)
                     : api_fail(e, 404, "not_found", NULL, "there is no %s %.200s here",
                                http_method(x), http_path(x));
    }
    if (s->state == SERVER_LOADING && !r->while_loading) {
        return api_fail(e, 503, "loading", NULL, "the model is still being loaded");
    }
    if (s->state == SERVER_STOPPING && !r->while_loading) {
        return api_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
    }
    if (!r->open && !within_rate(s, x)) {
        return api_fail(e, 429, "rate_limit", NULL, "more than %d requests a minute",
                        (int)s->o->rate);
    }
    return true;
}

void api_handle(server *s, http_exchange *x) {
    const char *path = strip_prefix(http_path(x)), *rest = "";
    api_error e = {0};
    bool other;
    allow_origin(s, x);
    if (!strcmp(http_method(x), "OPTIONS")) {
        preflight(x);
        return;
    }
    const route *r = find(http_method(x), path, &rest, &other);
    if (!admit(s, x, r, path, other, &e)) {
        api_reply_error(s, x, r ? r->family : family_of(x, path), &e);
        return;
    }
    r->run(s, x, rest);
}

void api_refused(server *s, http_exchange *x, int status, const char *line) {
    api_error e = {0};
    api_fail(&e, status, "invalid_request", NULL, "%s", line);
    api_reply_error(s, x, family_of(x, strip_prefix(http_path(x))), &e);
}
