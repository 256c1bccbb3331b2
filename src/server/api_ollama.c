/* api_ollama.c - /api/chat, /api/generate and what Ollama's clients ask about models. Lines of JSON
 * instead of events, arguments of calls as objects, times in nanoseconds. */
#include "openai_write.h"

#include "sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Reading ---- */

static void read_options(gen_request *g, const json_in *top, json_t *body) {
    json_in in = {top->error, "options."};
    json_t *o = in_object(top, body, "options");
    jang_sampling *p = &g->r.sampling;
    int64_t n;
    in_real(&in, o, "temperature", 0, 2, &p->temperature);
    in_real(&in, o, "top_p", 0, 1, &p->top_p);
    in_real(&in, o, "min_p", 0, 1, &p->min_p);
    in_real(&in, o, "typical_p", 0, 1, &p->typical_p);
    in_real(&in, o, "repeat_penalty", 0, 10, &p->repetition_penalty);
    in_real(&in, o, "frequency_penalty", -2, 2, &p->frequency_penalty);
    in_real(&in, o, "presence_penalty", -2, 2, &p->presence_penalty);
    if (in_int(&in, o, "top_k", -1, INT32_MAX, &n)) {
        p->top_k = n < 0 ? 0 : (int32_t)n;
    }
    if (in_int(&in, o, "repeat_last_n", -1, INT32_MAX, &n)) {
        p->repetition_context = n < 0 ? 0 : (int32_t)n;
        p->repetition_penalty = n == 0 ? 1 : p->repetition_penalty; /* none to look at */
    }
    if (in_int(&in, o, "seed", INT64_MIN, INT64_MAX, &n)) {
        p->seed = (uint64_t)n;
    }
    if (in_int(&in, o, "num_predict", -2, INT32_MAX, &n)) {
        g->r.n_max = n < 0 ? -1 : (int32_t)n;
    }
    if (in_int(&in, o, "num_ctx", 1, INT32_MAX, &n)) {
        g->max_context = (int32_t)n;
    }
    gen_read_stop(g, &in, o, "stop");
}

static void read_think(gen_request *g, const json_in *in, json_t *body) {
    static const char *const levels[] = {"low", "medium", "high", NULL};
    json_t *think = in_get(body, "think");
    int level = 0;
    if (json_is_string(think)) {
        if (in_choice(in, body, "think", levels, &level)) {
            gen_set_effort(g, levels[level]);
        }
    } else if (json_is_boolean(think)) {
        gen_set_kwarg(g, "enable_thinking", json_boolean(json_is_true(think)));
        gen_set_kwarg(g, "thinking", json_boolean(json_is_true(think)));
    } else if (think) {
        in_wrong(in, "think", "true, false, \"low\", \"medium\" or \"high\"", think);
    }
}

static void read_format(gen_request *g, const json_in *in, json_t *body) {
    json_t *format = in_get(body, "format");
    const char *word = json_string_value(format);
    if (json_is_object(format)) {
        gen_set_schema(g, format);
    } else if (word && !strcmp(word, "json")) {
        g->grammar_kind = JANG_GRAMMAR_JSON_OBJECT;
        g->has_grammar = true;
    } else if (format && !(word && !*word)) {
        in_wrong(in, "format", "\"json\" or a schema", format);
    }
}

/* Their messages have no ids for calls, and call a tool's result by the tool's name. */
static json_t *adapt_message(json_t *m) {
    json_t *out = json_copy(m), *name = in_get(m, "tool_name"), *thinking = in_get(m, "thinking");
    if (name) {
        json_object_set(out, "name", name);
        json_object_set(out, "tool_call_id", name);
    }
    if (thinking) {
        json_object_set(out, "reasoning_content", thinking);
    }
    return out;
}

static void read_messages(gen_request *g, const json_in *in, json_t *list) {
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *m = json_array_get(list, i);
        if (json_array_size(json_object_get(m, "images"))) {
            char param[48];
            snprintf(param, sizeof param, "messages[%zu].images", i);
            api_fail(in->error, 422, "unsupported", param, "%s: this model reads text only", param);
        }
        json_array_append_new(out, json_is_object(m) ? adapt_message(m) : json_incref(m));
    }
    if (!in->error->status) {
        g->messages = messages_read(in->error, out);
    }
    json_decref(out);
}

static void read_tools(gen_request *g, const json_in *in) {
    json_t *tools = in_array(in, g->body, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        char where[64];
        snprintf(where, sizeof where, "tools[%zu].function", i);
        gen_add_tool(g, in, where, json_object_get(tool, "function"), json_incref(tool));
    }
    gen_read_tool_choice(g, in, NULL);
}

static void read_logprobs(gen_request *g, const json_in *in) {
    int64_t top = 0;
    in_bool(in, g->body, "logprobs", &g->logprobs);
    in_int(in, g->body, "top_logprobs", 0, 20, &top);
    g->logprobs |= top > 0;
    g->r.n_logprobs = g->logprobs ? (int32_t)top : -1;
}

static void read_common(gen_request *g, const json_in *in) {
    g->stream = true;
    read_options(g, in, g->body);
    read_think(g, in, g->body);
    read_format(g, in, g->body);
    in_bool(in, g->body, "stream", &g->stream);
    read_logprobs(g, in);
}

/* ---- Writing ---- */

static void put_time(jw *w, const char *key, time_t seconds) {
    char text[40];
    struct tm tm;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
    jw_text(w, key, text);
}

static jw begin_line(reply *r) {
    tbuf_clear(&r->out);
    jw w = jw_start(&r->out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "model", r->g.model->id);
    put_time(&w, "created_at", (time_t)api_unix_time());
    return w;
}

static void send_line(reply *r, jw *w) {
    jw_close(w);
    tbuf_putc(&r->out, '\n');
    if (r->x && !r->out.failed) {
        http_stream_write(r->x, r->out.data, r->out.n);
    }
    tbuf_clear(&r->out);
}

static void put_logprobs(jw *w, answer *a) {
    if (a->logprobs.n) {
        jw_open(w, "logprobs", '[');
        jw_raw(w, NULL, a->logprobs.data, a->logprobs.n);
        jw_close(w);
        tbuf_clear(&a->logprobs);
    }
}

static void put_calls(jw *w, const chat_message *m, size_t from) {
    jw_open(w, "tool_calls", '[');
    for (size_t i = from; i < m->calls.n; i++) {
        tbuf args = {0};
        if (!json_compact(&args, tbuf_text(&m->calls.calls[i].args), m->calls.calls[i].args.n)) {
            tbuf_puts(&args, "{}");
        }
        jw_open(w, NULL, '{');
        jw_open(w, "function", '{');
        jw_text(w, "name", tbuf_text(&m->calls.calls[i].name));
        jw_raw(w, "arguments", tbuf_text(&args), args.n);
        jw_close(w);
        jw_close(w);
        tbuf_free(&args);
    }
    jw_close(w);
}

static bool is_generate(const reply *r) {
    return r->extra != NULL;
}

/* Text of one kind, in the place of the route: message.content or response. */
static void put_text(jw *w, const reply *r, msg_part part, const char *text, size_t n) {
    bool thinking = part == MSG_REASONING;
    if (is_generate(r)) {
        jw_bytes(w, "response", thinking ? "" : text, thinking ? 0 : n);
        if (thinking) {
            jw_bytes(w, "thinking", text, n);
        }
        return;
    }
    jw_open(w, "message", '{');
    jw_text(w, "role", "assistant");
    jw_bytes(w, "content", thinking ? "" : text, thinking ? 0 : n);
    if (thinking) {
        jw_bytes(w, "thinking", text, n);
    }
    jw_close(w);
}

static void on_text(answer *a, msg_part part, const char *text, size_t n_bytes) {
    jw w = begin_line(a->reply);
    put_text(&w, a->reply, part, text, n_bytes);
    put_logprobs(&w, a);
    jw_bool(&w, "done", false);
    send_line(a->reply, &w);
}

static void on_token(answer *a, const jang_token *token, bool of_prompt) {
    if (!of_prompt) {
        openai_logprob(&a->logprobs, token);
    }
}

/* Calls go out together, when their arguments are whole. */
static void on_end(answer *a) {
    if (a->message.calls.n) {
        jw w = begin_line(a->reply);
        jw_open(&w, "message", '{');
        jw_text(&w, "role", "assistant");
        jw_text(&w, "content", "");
        put_calls(&w, &a->message, 0);
        jw_close(&w);
        jw_bool(&w, "done", false);
        send_line(a->reply, &w);
    }
}

static int64_t nanoseconds(double seconds) {
    return (int64_t)(seconds * 1e9);
}

/* The ids of the prompt and of the answer, to be given back with the next prompt. */
static void put_context(jw *w, const reply *r) {
    if (!r->g.keeps_ids) {
        return;
    }
    tbuf ids = {0};
    for (size_t i = 0; i < r->g.prompt_lengths[0]; i++) {
        tbuf_printf(&ids, "%s%d", i ? "," : "", (int)r->g.prompts[0][i]);
    }
    const tbuf *own = &r->answers[0].ids;
    tbuf_printf(&ids, "%s%s", own->n ? "," : "", tbuf_text(own));
    jw_open(w, "context", '[');
    jw_raw(w, NULL, ids.data, ids.n);
    jw_close(w);
    tbuf_free(&ids);
}

static void put_end(jw *w, const reply *r) {
    const answer *a = &r->answers[0];
    jw_bool(w, "done", true);
    jw_text(w, "done_reason", a->finish == JANG_FINISH_LENGTH ? "length" : "stop");
    jw_int(w, "total_duration", nanoseconds(http_now() - http_started(r->x)));
    jw_int(w, "load_duration", 0);
    jw_int(w, "prompt_eval_count", r->n_prompt);
    jw_int(w, "prompt_eval_duration", nanoseconds(r->stats.prompt_seconds));
    jw_int(w, "eval_count", r->n_generated);
    jw_int(w, "eval_duration", nanoseconds(r->stats.generate_seconds));
    put_context(w, r);
}

static void put_whole(jw *w, reply *r) {
    const chat_message *m = &r->answers[0].message;
    if (is_generate(r)) {
        jw_bytes(w, "response", tbuf_text(&m->text), m->text.n);
        if (m->reasoning.n) {
            jw_bytes(w, "thinking", m->reasoning.data, m->reasoning.n);
        }
    } else {
        jw_open(w, "message", '{');
        jw_text(w, "role", "assistant");
        jw_bytes(w, "content", tbuf_text(&m->text), m->text.n);
        if (m->reasoning.n) {
            jw_bytes(w, "thinking", m->reasoning.data, m->reasoning.n);
        }
        if (m->calls.n) {
            put_calls(w, m, 0);
        }
        jw_close(w);
    }
    put_logprobs(w, &r->answers[0]);
}

static void on_finish(reply *r) {
    jw w = begin_line(r);
    if (r->streaming) {
        put_text(&w, r, MSG_TEXT, "", 0);
        put_end(&w, r);
        send_line(r, &w);
        return;
    }
    put_whole(&w, r);
    put_end(&w, r);
    jw_close(&w);
    tbuf out = r->out;
    r->out = (tbuf){0};
    api_reply_json(r->server, r->x, 200, &out);
}

static void on_error(reply *r, const api_error *e) {
    tbuf_clear(&r->out);
    jw w = jw_start(&r->out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "error", e->message);
    send_line(r, &w);
}

/* A line has no comments: a client is left waiting. */
static void on_ping(reply *r) {
    (void)r;
}

static const dialect ollama_dialect = {
    .family = API_OLLAMA,
    .text = on_text,
    .token = on_token,
    .end = on_end,
    .finish = on_finish,
    .ping = on_ping,
    .error = on_error,
};

/* ---- Routes that generate ---- */

/* Nothing to answer: the model is loaded, as ever; a keep_alive of 0 would unload it elsewhere. */
static void reply_loaded(server *s, http_exchange *x, json_t *body, bool generate) {
    api_error e = {0};
    gen_request g;
    gen_request_init(&g, s, &e, body, false);
    if (e.status) {
        gen_request_refuse(&g, s, x, API_OLLAMA, &e);
        return;
    }
    json_t *keep = in_get(body, "keep_alive");
    bool unload = json_is_integer(keep) && json_integer_value(keep) == 0;
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "model", g.model->id);
    put_time(&w, "created_at", (time_t)api_unix_time());
    if (generate) {
        jw_text(&w, "response", "");
    } else {
        jw_open(&w, "message", '{');
        jw_text(&w, "role", "assistant");
        jw_text(&w, "content", "");
        jw_close(&w);
    }
    jw_bool(&w, "done", true);
    jw_text(&w, "done_reason", unload ? "unload" : "load");
    jw_close(&w);
    gen_request_free(&g);
    api_reply_json(s, x, 200, &out);
}

static void start(server *s, http_exchange *x, gen_request *g, api_error *e, bool generate) {
    if (e->status) {
        gen_request_refuse(g, s, x, API_OLLAMA, e);
        return;
    }
    reply *r = gen_start(s, x, &ollama_dialect, g, "ollama-");
    if (!r) {
        return;
    }
    r->extra = generate ? json_true() : NULL;
    if (r->streaming) {
        http_stream_begin(x, 200, "application/x-ndjson");
    }
}

void ollama_chat(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    json_in in = {&e, ""};
    json_t *body = api_read_body(s, x, API_OLLAMA);
    if (!body) {
        return;
    }
    json_t *list = in_array(&in, body, "messages");
    if (!e.status && !json_array_size(list)) {
        reply_loaded(s, x, body, false);
        return;
    }
    gen_request g;
    gen_request_init(&g, s, &e, body, false);
    g.is_chat = true;
    read_common(&g, &in);
    read_tools(&g, &in);
    read_messages(&g, &in, list);
    start(s, x, &g, &e, false);
}

/* What an answer before gave as its context: ids that go before this prompt. */
static void read_context(gen_request *g, const json_in *in) {
    json_t *list = in_array(in, g->body, "context");
    size_t n = json_array_size(list);
    if (in->error->status || n == 0) {
        return;
    }
    g->context = malloc(n * sizeof *g->context);
    if (!g->context) {
        api_fail(in->error, 503, "out_of_memory", NULL, "out of memory");
        return;
    }
    for (; g->n_context < n; g->n_context++) {
        json_t *id = json_array_get(list, g->n_context);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= jang_tokenizer_size(g->model->tok)) {
            in_wrong(in, "context", "token ids of this model", id);
            return;
        }
        g->context[g->n_context] = (int32_t)value;
    }
}

/* A raw prompt is all there is; templates are the model's own. */
static void check_form(const json_in *in, json_t *body, bool raw, const char *system) {
    const char *template = "";
    in_text(in, body, "template", &template);
    bool has_system = system && *system, has_context = json_array_size(in_get(body, "context")) > 0;
    if (*template) {
        api_fail(in->error, 422, "unsupported", "template",
                 "template: Go's templates are not rendered here; the model's own is used, or none "
                 "with raw");
    } else if (raw && (has_system || has_context)) {
        const char *name = has_system ? "system" : "context";
        api_fail(in->error, 400, "invalid_value", name,
                 "%s: not with raw, which takes the prompt as it is", name);
    }
}

static void raw_prompt(server *s, gen_request *g, api_error *e, const char *prompt) {
    g->prompts = calloc(1, sizeof *g->prompts);
    g->prompt_lengths = calloc(1, sizeof *g->prompt_lengths);
    if (!g->prompts || !g->prompt_lengths) {
        api_fail(e, 503, "out_of_memory", NULL, "out of memory");
        return;
    }
    g->prompts[0] =
        prompt_ids(s, g, e, prompt, strlen(prompt), JANG_TOKENIZE_ADD_SPECIAL, g->prompt_lengths);
    g->n_prompts = g->prompts[0] != NULL;
}

void ollama_generate(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    json_in in = {&e, ""};
    json_t *body = api_read_body(s, x, API_OLLAMA);
    if (!body) {
        return;
    }
    const char *prompt = "", *system = NULL, *suffix = NULL;
    bool raw = false;
    in_text(&in, body, "prompt", &prompt);
    in_text(&in, body, "system", &system);
    in_bool(&in, body, "raw", &raw);
    in_text(&in, body, "suffix", &suffix);
    if (json_array_size(in_get(body, "images"))) {
        api_fail(&e, 422, "unsupported", "images", "images: this model reads text only");
    }
    check_form(&in, body, raw, system);
    if (!e.status && !*prompt) {
        reply_loaded(s, x, body, true);
        return;
    }
    gen_request g;
    gen_request_init(&g, s, &e, body, false);
    bool fills = suffix && *suffix && infill_check(&g, &e, suffix);
    g.is_chat = !raw && !fills && g.model->info->has_chat_template;
    g.keeps_ids = !raw && !fills;
    read_common(&g, &in);
    if (!e.status && !fills) {
        read_context(&g, &in);
    }
    if (fills) {
        tbuf whole = {0};
        infill_prompt(&whole, g.model->infill, prompt, suffix);
        infill_ends(s, &g);
        raw_prompt(s, &g, &e, tbuf_text(&whole));
        tbuf_free(&whole);
    } else if (!g.is_chat) {
        raw_prompt(s, &g, &e, prompt);
    } else {
        g.messages = json_array();
        if (system) {
            json_array_append_new(g.messages,
                                  json_pack("{s:s,s:s}", "role", "system", "content", system));
        }
        json_array_append_new(g.messages,
                              json_pack("{s:s,s:s}", "role", "user", "content", prompt));
    }
    start(s, x, &g, &e, true);
}

/* ---- Models ---- */

static void put_details(jw *w, const hosted *h) {
    char size[32];
    double n = (double)h->info->n_params;
    snprintf(size, sizeof size, n >= 1e9 ? "%.1fB" : "%.0fM", n >= 1e9 ? n / 1e9 : n / 1e6);
    jw_open(w, "details", '{');
    jw_text(w, "parent_model", "");
    jw_text(w, "format", "jang");
    jw_text(w, "family", h->info->family);
    jw_open(w, "families", '[');
    jw_text(w, NULL, h->info->family);
    jw_close(w);
    jw_text(w, "parameter_size", size);
    jw_text(w, "quantization_level", h->info->profile);
    jw_close(w);
}

static bool hash_file(const char *path, const char *name, char digest[65]) {
    char full[4096];
    unsigned char block[16384];
    snprintf(full, sizeof full, "%s%s%s", path, *name ? "/" : "", name);
    FILE *f = fopen(full, "rb");
    if (!f) {
        return false;
    }
    sha256 h;
    sha256_init(&h);
    size_t n, total = 0;
    while (total < (size_t)64 << 20 && (n = fread(block, 1, sizeof block, f)) > 0) {
        sha256_add(&h, block, n);
        total += n;
    }
    bool ok = !ferror(f) && total > 0;
    fclose(f);
    sha256_hex(&h, digest);
    return ok;
}

/* SHA-256 of the list of weights; of the config where there is none, of the beginning where the
 * model is one file. */
static void put_digest(jw *w, const hosted *h) {
    static const char *const names[] = {"model.safetensors.index.json", "config.json", ""};
    char digest[65] = "";
    for (size_t i = 0; i < 3 && !hash_file(h->info->path, names[i], digest); i++) {
        digest[0] = 0;
    }
    jw_text(w, "digest", digest);
}

static void reply_list(server *s, http_exchange *x, bool running) {
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_open(&w, "models", '[');
    for (const hosted *h = s->models; h < s->models + s->n_models; h++) {
        jw_open(&w, NULL, '{');
        jw_text(&w, "name", h->id);
        jw_text(&w, "model", h->id);
        put_time(&w, "modified_at", (time_t)h->created);
        jw_int(&w, "size", (int64_t)h->info->weight_bytes);
        put_digest(&w, h);
        put_details(&w, h);
        if (running) {
            put_time(&w, "expires_at", (time_t)api_unix_time() + 365 * 86400);
            jw_int(&w, "size_vram", 0);
            jw_int(&w, "context_length", h->n_context);
        }
        jw_close(&w);
    }
    jw_close(&w);
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

void ollama_tags(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    reply_list(s, x, false);
}

void ollama_ps(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    reply_list(s, x, true);
}

void ollama_version(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    tbuf out = {0};
    tbuf_printf(&out, "{\"version\":\"%s\"}", jang_version());
    api_reply_json(s, x, 200, &out);
}

static const hosted *known_model(server *s, http_exchange *x, json_t *body) {
    api_error e = {0};
    json_in in = {&e, ""};
    const char *name = "";
    if (!in_text(&in, body, "model", &name)) {
        in_text(&in, body, "name", &name);
    }
    const hosted *h = e.status ? NULL : hosted_find(s, name);
    if (h) {
        return h;
    }
    api_fail(&e, 404, "model_not_found", "model", "model '%.80s' not found", name);
    api_reply_error(s, x, API_OLLAMA, &e);
    return NULL;
}

static void put_parameters(jw *w, const hosted *h) {
    const jang_sampling *p = &h->defaults.sampling;
    tbuf file = {0}, text = {0};
    tbuf_printf(&file, "FROM %s\n", h->id);
    tbuf_printf(&text, "temperature %g\ntop_k %d\ntop_p %g\nmin_p %g", (double)p->temperature,
                (int)p->top_k, (double)p->top_p, (double)p->min_p);
    jw_text(w, "modelfile", tbuf_text(&file));
    jw_text(w, "parameters", tbuf_text(&text));
    tbuf_free(&file);
    tbuf_free(&text);
}

void ollama_show(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    json_t *body = api_read_body(s, x, API_OLLAMA);
    const hosted *h = body ? known_model(s, x, body) : NULL;
    if (!h) {
        json_decref(body);
        return;
    }
    char key[128];
    tbuf out = {0};
    jw w = jw_start(&out);
    const char *text = jang_chat_template(h->tok);
    jw_open(&w, NULL, '{');
    put_parameters(&w, h);
    jw_text(&w, "template", text ? text : "");
    put_details(&w, h);
    jw_open(&w, "model_info", '{');
    jw_text(&w, "general.architecture", h->info->family);
    jw_int(&w, "general.parameter_count", h->info->n_params);
    snprintf(key, sizeof key, "%.80s.context_length", h->info->family);
    jw_int(&w, key, h->n_context);
    snprintf(key, sizeof key, "%.80s.embedding_length", h->info->family);
    jw_int(&w, key, h->info->n_embedding);
    jw_close(&w);
    jw_open(&w, "capabilities", '[');
    if (h->info->writes) {
        jw_text(&w, NULL, "completion");
    }
    if (h->info->has_chat_template) {
        jw_text(&w, NULL, "tools");
    }
    if (h->reasoning) {
        jw_text(&w, NULL, "thinking");
    }
    if (h->infill) {
        jw_text(&w, NULL, "insert");
    }
    jw_text(&w, NULL, "embedding");
    jw_close(&w);
    put_time(&w, "modified_at", (time_t)h->created);
    jw_close(&w);
    json_decref(body);
    api_reply_json(s, x, 200, &out);
}

void ollama_pull(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    json_t *body = api_read_body(s, x, API_OLLAMA);
    if (body && known_model(s, x, body)) {
        tbuf out = {0};
        tbuf_puts(&out, "{\"status\":\"success\"}");
        api_reply_json(s, x, 200, &out);
    }
    json_decref(body);
}

void ollama_refuse(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    api_fail(&e, 501, "not_implemented", NULL,
             "models are not changed through the server: see jang convert");
    api_reply_error(s, x, API_OLLAMA, &e);
}
