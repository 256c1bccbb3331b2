/* api_info.c - what is known of the server: models, health, slots, cache; tokens and text. */
#include "api.h"

#include "page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Models ---- */

static void write_model(jw *w, const hosted *h) {
    const jang_model_info *info = h->info;
    jw_open(w, NULL, '{');
    jw_text(w, "id", h->id);
    jw_text(w, "object", "model");
    jw_int(w, "created", h->created);
    jw_text(w, "owned_by", "jang");
    jw_int(w, "max_model_len", h->n_context);
    jw_open(w, "meta", '{');
    jw_int(w, "n_params", info->n_params);
    jw_int(w, "n_vocab", info->n_vocab);
    jw_int(w, "size_bytes", (int64_t)info->weight_bytes);
    jw_text(w, "quantization", info->profile);
    jw_real(w, "bits_per_weight", info->true_bits);
    jw_text(w, "family", info->family);
    jw_text(w, "backend", info->backend);
    jw_close(w);
    jw_close(w);
}

void info_models(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "object", "list");
    jw_open(&w, "data", '[');
    for (size_t i = 0; i < s->n_models; i++) {
        write_model(&w, &s->models[i]);
    }
    jw_close(&w);
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

void info_model(server *s, http_exchange *x, const char *rest) {
    const hosted *h = hosted_find(s, rest);
    if (!h) {
        api_error e = {0};
        api_fail(&e, 404, "model_not_found", "model", "there is no model \"%.80s\" here", rest);
        api_reply_error(s, x, http_header(x, "anthropic-version") ? API_ANTHROPIC : API_OPENAI, &e);
        return;
    }
    tbuf out = {0};
    jw w = jw_start(&out);
    write_model(&w, h);
    api_reply_json(s, x, 200, &out);
}

/* ---- Health ---- */

void info_health(server *s, http_exchange *x, const char *rest) {
    static const char *const words[] = {"loading", "ok", "stopping"};
    (void)rest;
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "status", words[s->state]);
    if (s->state != SERVER_LOADING) {
        jang_engine_stats stats;
        uint64_t page_bytes;
        server_stats(s, &stats, &page_bytes);
        int64_t n_slots = (int64_t)s->n_models * s->o->engine.n_parallel;
        jw_text(&w, "model", s->models[0].id);
        jw_int(&w, "slots_idle", n_slots - stats.n_running);
        jw_int(&w, "slots_busy", stats.n_running);
        jw_int(&w, "queue", stats.n_waiting);
    }
    jw_close(&w);
    api_reply_json(s, x, s->state == SERVER_READY ? 200 : 503, &out);
}

static void write_slots(jw *w, const hosted *h) {
    static const char *const states[] = {"waiting", "prompt", "generating"};
    jang_slot slots[256];
    size_t n = jang_engine_get_slots(slots, 256, h->engine);
    for (size_t i = 0; i < (n < 256 ? n : 256); i++) {
        jw_open(w, NULL, '{');
        jw_int(w, "id", (int64_t)slots[i].request);
        jw_int(w, "index", slots[i].index);
        jw_text(w, "model", h->id);
        jw_text(w, "state", states[slots[i].state]);
        jw_int(w, "n_prompt", slots[i].n_prompt);
        jw_int(w, "n_done", slots[i].n_done);
        jw_int(w, "n_generated", slots[i].n_generated);
        jw_int(w, "n_max", slots[i].n_max);
        jw_close(w);
    }
}

void info_slots(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '[');
    for (size_t i = 0; i < s->n_models; i++) {
        write_slots(&w, &s->models[i]);
    }
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

/* ---- Cache ---- */

void info_cache(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    jang_engine_stats stats;
    uint64_t page_bytes;
    server_stats(s, &stats, &page_bytes);
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "object", "cache");
    jw_int(&w, "entries", stats.n_pages_cached);
    jw_int(&w, "pages", stats.n_pages);
    jw_int(&w, "pages_used", stats.n_pages_used);
    jw_int(&w, "pages_max", stats.n_pages_max);
    jw_int(&w, "bytes", (int64_t)page_bytes);
    jw_int(&w, "hits", (int64_t)stats.n_hits);
    jw_int(&w, "misses", (int64_t)stats.n_misses);
    jw_int(&w, "evictions", (int64_t)stats.n_evictions);
    jw_int(&w, "disk_bytes", (int64_t)stats.disk_bytes);
    jw_int(&w, "disk_pages", (int64_t)stats.disk_pages);
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

void info_cache_clear(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    for (size_t i = 0; i < s->n_models; i++) {
        jang_engine_clear_cache(s->models[i].engine);
    }
    tbuf out = {0};
    tbuf_puts(&out, "{\"object\":\"cache\",\"cleared\":true}");
    api_reply_json(s, x, 200, &out);
}

static void warm_finish(reply *r) {
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "object", "cache");
    jw_int(&w, "prompt_tokens", r->n_prompt);
    jw_int(&w, "cached_tokens", r->n_cached);
    jw_close(&w);
    api_reply_json(r->server, r->x, 200, &out);
}

static const dialect warm_dialect = {.family = API_OPENAI, .finish = warm_finish};

static bool warm_prompt(server *s, gen_request *g, api_error *e) {
    json_in in = {e, ""};
    const char *text = NULL;
    if (e->status) {
        return false;
    }
    if (!in_text(&in, g->body, "prompt", &text)) {
        return in_wrong(&in, "prompt", "messages, or a prompt", NULL);
    }
    g->prompts = calloc(1, sizeof *g->prompts);
    g->prompt_lengths = calloc(1, sizeof *g->prompt_lengths);
    if (!g->prompts || !g->prompt_lengths) {
        return api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    g->prompts[0] =
        prompt_ids(s, g, e, text, strlen(text), JANG_TOKENIZE_ADD_SPECIAL, g->prompt_lengths);
    g->n_prompts = g->prompts[0] != NULL;
    return g->n_prompts > 0;
}

void info_cache_warm(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    gen_request g;
    if (!gen_request_open(&g, s, x, API_OPENAI, &e)) {
        return;
    }
    bool ok = in_get(g.body, "messages") ? openai_chat_read(&g, &e) : warm_prompt(s, &g, &e);
    g.stream = false;
    g.r.n_max = 0;
    g.r.n = 1;
    if (!ok) {
        gen_request_refuse(&g, s, x, API_OPENAI, &e);
        return;
    }
    gen_start(s, x, &warm_dialect, &g, "warm-");
}

/* ---- Tokens ---- */

/* The model that a body names, the first otherwise; an unknown name sets the error. */
static const hosted *body_model(server *s, const json_in *in, json_t *body) {
    const char *name = NULL;
    in_text(in, body, "model", &name);
    const hosted *h = in->error->status ? NULL : hosted_pick(s, in->error, name, false);
    return h ? h : &s->models[0];
}

static void reply_tokens(server *s, http_exchange *x, const hosted *h, const int32_t *ids,
                         size_t n) {
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_open(&w, "tokens", '[');
    for (size_t i = 0; i < n; i++) {
        jw_int(&w, NULL, ids[i]);
    }
    jw_close(&w);
    jw_int(&w, "count", (int64_t)n);
    jw_int(&w, "max_model_len", h->n_context);
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

void info_tokenize(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    json_in in = {&e, ""};
    json_t *body = api_read_body(s, x, API_OPENAI);
    if (!body) {
        return;
    }
    const char *content = NULL;
    bool add_special = false;
    const hosted *h = body_model(s, &in, body);
    in_bool(&in, body, "add_special", &add_special);
    in_bool(&in, body, "add_special_tokens", &add_special);
    if (!in_text(&in, body, "content", &content) && !in_text(&in, body, "prompt", &content)) {
        in_wrong(&in, "content", "a string", NULL);
    }
    int32_t *ids = NULL;
    size_t n = 0;
    unsigned flags = add_special ? JANG_TOKENIZE_ADD_SPECIAL : 0;
    if (!e.status && jang_tokenize(&ids, &n, h->tok, content, strlen(content), flags) != JANG_OK) {
        api_fail(&e, 500, "internal", NULL, "%s", jang_context_error(s->ctx));
    }
    if (e.status) {
        api_reply_error(s, x, API_OPENAI, &e);
    } else {
        reply_tokens(s, x, h, ids, n);
    }
    jang_free(s->ctx, ids);
    json_decref(body);
}

void info_detokenize(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    json_in in = {&e, ""};
    json_t *body = api_read_body(s, x, API_OPENAI);
    if (!body) {
        return;
    }
    const hosted *h = body_model(s, &in, body);
    json_t *tokens = in_array(&in, body, "tokens");
    size_t n = json_array_size(tokens), n_text = 0;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    char *text = NULL;
    for (size_t i = 0; ids && i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(tokens, i));
        if (!json_is_integer(json_array_get(tokens, i)) || id < 0 ||
            id >= jang_tokenizer_size(h->tok)) {
            in_wrong(&in, "tokens", "token ids of this model", json_array_get(tokens, i));
        }
        ids[i] = (int32_t)id;
    }
    if (!tokens) {
        in_wrong(&in, "tokens", "an array of token ids", NULL);
    }
    if (!e.status && (!ids || jang_detokenize(&text, &n_text, h->tok, ids, n, 0) != JANG_OK)) {
        api_fail(&e, 500, "internal", NULL, "%s", jang_context_error(s->ctx));
    }
    if (e.status) {
        api_reply_error(s, x, API_OPENAI, &e);
    } else {
        tbuf out = {0};
        jw w = jw_start(&out);
        jw_open(&w, NULL, '{');
        jw_bytes(&w, "content", text, n_text);
        jw_bytes(&w, "prompt", text, n_text);
        jw_close(&w);
        api_reply_json(s, x, 200, &out);
    }
    jang_free(s->ctx, text);
    free(ids);
    json_decref(body);
}

/* A token's text as a member; nothing if there is none. */
static void put_token(server *s, jw *w, const hosted *h, const char *key, int32_t id) {
    char *text = NULL;
    size_t n = 0;
    if (id >= 0 && jang_detokenize(&text, &n, h->tok, &id, 1, 0) == JANG_OK) {
        jw_bytes(w, key, text, n);
        jang_free(s->ctx, text);
    }
}

/* What clients need that count and cut tokens here, as vLLM tells it; lm-eval's are such. */
void info_tokenizer(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    const hosted *h = &s->models[0];
    const char *text = jang_chat_template(h->tok);
    int32_t *ids = NULL, bos = -1, eos = 0;
    size_t n = 0;
    if (jang_tokenize(&ids, &n, h->tok, "", 0, JANG_TOKENIZE_ADD_SPECIAL) == JANG_OK && n) {
        bos = ids[0];
    }
    jang_free(s->ctx, ids);
    while (eos < h->info->n_vocab && !jang_model_is_end(h->model, eos)) {
        eos++;
    }
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "tokenizer_class", "jang");
    put_token(s, &w, h, "bos_token", bos);
    put_token(s, &w, h, "eos_token", eos < h->info->n_vocab ? eos : -1);
    if (text) {
        jw_text(&w, "chat_template", text);
    }
    jw_int(&w, "max_model_len", h->n_context);
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

/* ---- The page ---- */

/* Browsers get the page; Ollama's clients look for its word. */
void info_page(server *s, http_exchange *x, const char *rest) {
    static const char word[] = "Ollama is running";
    (void)rest;
    const char *accept = http_header(x, "accept");
    metrics_count(s, "/", 200);
    if (accept && strstr(accept, "text/html")) {
        http_add_header(x, "Cache-Control", "no-cache");
        http_add_header(
            x, "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'");
        http_reply(x, 200, "text/html; charset=utf-8", (const char *)page_html, page_html_bytes);
    } else {
        http_reply(x, 200, "text/plain; charset=utf-8", word, sizeof word - 1);
    }
}
