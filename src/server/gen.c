/* gen.c - from a request to the engine and from its events to a dialect's reply. */
#include "api.h"

#include <stdlib.h>
#include <string.h>

#define PING_SECONDS 5.0

/* ---- Parts of an answer, on their way from the parser to message and dialect ---- */

static void part_text(void *user, msg_part part, const char *text, size_t n_bytes) {
    answer *a = user;
    tbuf_add(part == MSG_TEXT ? &a->message.text : &a->message.reasoning, text, n_bytes);
    const dialect *d = a->reply->dialect;
    if (a->reply->streaming && d->text) {
        d->text(a, part, text, n_bytes);
    }
}

static void part_call(void *user, size_t index, const char *name, const char *id) {
    answer *a = user;
    msg_sink sink = message_sink(&a->message);
    sink.call(&a->message, index, name, id);
    const dialect *d = a->reply->dialect;
    if (a->reply->streaming && d->call && index < a->message.calls.n) {
        d->call(a, index);
    }
}

static void part_args(void *user, size_t index, const char *json, size_t n_bytes) {
    answer *a = user;
    msg_sink sink = message_sink(&a->message);
    sink.args(&a->message, index, json, n_bytes);
    const dialect *d = a->reply->dialect;
    if (a->reply->streaming && d->args) {
        d->args(a, index, json, n_bytes);
    }
}

static bool make_parser(answer *a) {
    reply *r = a->reply;
    server *s = r->server;
    const hosted *h = r->g.model;
    msg_sink sink = {.user = a, .text = part_text, .call = part_call, .args = part_args};
    msg_options o = {.format = r->g.tools ? h->format : NULL,
                     .reasoning = h->reasoning,
                     .tools = &r->tools,
                     .reasoning_open = r->reasoning_open,
                     .reasoning_inline = s->o->inline_reasoning || r->g.inline_reasoning,
                     .forced = r->guards_calls};
    a->parser = msg_parser_new(&o, &sink);
    a->message.format = o.format;
    a->message.random = &s->random;
    return a->parser != NULL;
}

/* ---- Life ---- */

static void reply_free(reply *r) {
    server *s = r->server;
    *(r->previous ? &r->previous->next : &s->first) = r->next;
    if (r->next) {
        r->next->previous = r->previous;
    }
    s->n_replies--;
    for (size_t i = 0; i < r->n_answers; i++) {
        answer *a = &r->answers[i];
        msg_parser_free(a->parser);
        message_free(&a->message);
        tbuf_free(&a->logprobs);
        tbuf_free(&a->scratch);
        tbuf_free(&a->ids);
        for (size_t k = 0; k < 4; k++) {
            tbuf_free(&a->tokens[k]);
        }
    }
    if (r->own && r->dialect->release) {
        r->dialect->release(r);
    }
    jang_grammar_free(r->grammar);
    tool_set_free(&r->tools);
    gen_request_free(&r->g);
    json_decref(r->extra);
    tbuf_free(&r->out);
    free(r->answers);
    free(r->requests);
    free(r->own);
    free(r);
}

static void cancel_all(reply *r) {
    for (size_t i = 0; i < r->g.n_prompts; i++) {
        if (r->requests[i]) {
            jang_engine_cancel(r->g.model->engine, r->requests[i]);
        }
    }
    r->cancelled = true;
}

void gen_gone(server *s, http_exchange *x) {
    reply *r = http_get_user(x);
    if (r) {
        s->metrics.n_aborted++;
        r->x = NULL;
        cancel_all(r);
    }
}

void gen_end_all(server *s) {
    for (reply *r = s->first; r; r = r->next) {
        if (!r->cancelled) {
            r->timed_out = true;
            cancel_all(r);
        }
    }
}

/* ---- Starting ---- */

static bool compile(server *s, reply *r, api_error *e, jang_grammar_kind kind, const tbuf *text) {
    jang_status status = jang_grammar_new(&r->grammar, s->ctx, kind, tbuf_text(text), text->n);
    if (status == JANG_OK) {
        return true;
    }
    int code = status == JANG_ERR_UNSUPPORTED ? 422 : status == JANG_ERR_MEMORY ? 503 : 400;
    return api_fail(e, code, code == 422 ? "unsupported" : "invalid_value", "response_format", "%s",
                    jang_context_error(s->ctx));
}

/* The answer's format as a part of a structure; NULL: none was asked for. */
static json_t *format_part(const gen_request *g) {
    static const char *const kinds[] = {[JANG_GRAMMAR_SCHEMA] = "schema",
                                        [JANG_GRAMMAR_GBNF] = "gbnf",
                                        [JANG_GRAMMAR_REGEX] = "regex"};
    if (!g->has_grammar) {
        return NULL;
    }
    if (g->grammar_kind == JANG_GRAMMAR_JSON_OBJECT) {
        return json_pack("{s:s}", "json", "object");
    }
    const char *text = tbuf_text(&g->grammar_text), *kind = kinds[g->grammar_kind];
    json_t *value =
        g->grammar_kind == JANG_GRAMMAR_SCHEMA ? json_loads(text, 0, NULL) : json_string(text);
    return json_pack("{s:o}", kind, value);
}

/* The answer's format, or calls of tools, or where both may be, either. */
static bool make_grammar(server *s, reply *r, api_error *e) {
    gen_request *g = &r->g;
    bool has_tools = g->tools && g->tool_mode != TOOLS_NONE;
    if (g->has_grammar && !compile(s, r, e, g->grammar_kind, &g->grammar_text)) {
        return false; /* the message names the place in it */
    }
    if (!has_tools) {
        return true;
    }
    const tool_format *f = g->model->format;
    if (!f) { /* --tool-format none */
        return g->tool_mode != TOOLS_REQUIRED ||
               api_fail(e, 422, "unsupported", "tool_choice",
                        "tool_choice: this server reads no tool calls (--tool-format none)");
    }
    json_t *otherwise = format_part(g);
    tbuf text = {0};
    bool ok = true;
    if (tool_grammar(&text, f, &r->tools, g->allowed, g->tool_mode, g->parallel_tools, otherwise)) {
        jang_grammar_free(r->grammar);
        r->grammar = NULL;
        r->guards_calls = true;
        ok = compile(s, r, e, JANG_GRAMMAR_STRUCTURE, &text);
    } else if (g->tool_mode == TOOLS_REQUIRED) {
        ok = api_fail(e, 422, "unsupported", "tool_choice",
                      "tool_choice: calls in the format %s cannot be enforced", f->name);
    }
    json_decref(otherwise);
    tbuf_free(&text);
    return ok;
}

static bool submit_error(api_error *e, jang_status status, const jang_message *why,
                         const reply *r) {
    if (status == JANG_ERR_BUSY) {
        return api_fail(e, 429, "queue_full", NULL,
                        "too many requests wait: the queue is full (%d)",
                        (int)r->server->o->engine.n_queue);
    }
    if (status == JANG_ERR_FULL) {
        const char *param = r->g.is_chat ? "messages" : "prompt";
        return api_fail(e, 400, "context_length_exceeded", param, "%s: %s", param, why->text);
    }
    if (status == JANG_ERR_UNSUPPORTED) {
        return api_fail(e, 422, "unsupported", NULL, "%s", why->text);
    }
    if (status == JANG_ERR_ARGUMENT) {
        return api_fail(e, 400, "invalid_value", NULL, "%s", why->text);
    }
    return api_fail(e, 503, "out_of_memory", NULL, "%s", why->text);
}

static bool submit(reply *r, api_error *e) {
    const hosted *h = r->g.model;
    jang_request q = r->g.r;
    bool marked = r->g.is_chat && (h->reasoning || (r->g.tools && r->g.tool_mode != TOOLS_NONE));
    q.special_text = marked;
    q.stop = r->g.stop;
    q.n_stop = r->g.n_stop;
    q.end_ids = r->g.ends;
    q.n_end_ids = r->g.n_ends;
    q.grammar = r->grammar;
    q.user = r;
    if (r->g.is_chat && h->reasoning && h->reasoning->open) {
        q.thinking.open = h->reasoning->open;
        q.thinking.close = h->reasoning->close;
        q.thinking.is_open = r->reasoning_open;
    }
    for (size_t i = r->n_submitted; i < r->g.n_prompts; i++) {
        jang_message why = {""};
        q.prompt = r->g.prompts[i];
        q.types = r->g.prompt_types ? r->g.prompt_types[i] : NULL;
        q.n_prompt = r->g.prompt_lengths[i];
        jang_status status = JANG_ERR_FULL;
        int32_t own = r->g.max_context, limit = own && own < h->n_context ? own : h->n_context;
        if (q.n_prompt + (q.task == JANG_TASK_GENERATE) > (size_t)limit) {
            snprintf(why.text, sizeof why.text,
                     "the prompt has %zu tokens, and the context %s is %d", q.n_prompt,
                     limit == h->n_context ? "of the model" : "asked for", (int)limit);
        } else {
            int32_t room = limit - (int32_t)q.n_prompt;
            q.n_max = r->g.r.n_max;
            if (own && q.task == JANG_TASK_GENERATE && (q.n_max < 0 || q.n_max > room)) {
                q.n_max = room;
            }
            status = jang_engine_submit(&r->requests[i], h->engine, &q, &why);
            if (status == JANG_ERR_UNSUPPORTED && r->g.tool_mode == TOOLS_AUTO &&
                !r->g.has_grammar) {
                q.grammar = NULL; /* calls that nobody demands may also go unguarded */
                status = jang_engine_submit(&r->requests[i], h->engine, &q, &why);
            }
        }
        if (status == JANG_ERR_BUSY && r->n_running && q.task != JANG_TASK_GENERATE) {
            return true; /* the others follow as these end */
        }
        if (status != JANG_OK) {
            return submit_error(e, status, &why, r);
        }
        r->n_running += (size_t)q.n;
        r->n_submitted = i + 1;
    }
    return true;
}

static bool prepare(server *s, reply *r, api_error *e) {
    if (r->g.is_chat && !prompt_make(s, &r->g, e, &r->reasoning_open)) {
        return false;
    }
    r->n_answers = r->g.n_prompts * (size_t)r->g.r.n;
    r->answers = calloc(r->n_answers + 1, sizeof *r->answers);
    r->requests = calloc(r->g.n_prompts + 1, sizeof *r->requests);
    if (!r->answers || !r->requests || (r->g.tools && !tool_set_read(&r->tools, r->g.tools))) {
        return api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    if (!make_grammar(s, r, e)) {
        return false;
    }
    for (size_t i = 0; i < r->n_answers; i++) {
        r->answers[i].reply = r;
        r->answers[i].index = (int)i;
        r->answers[i].stop_index = -1;
        if (r->g.is_chat && !make_parser(&r->answers[i])) {
            return api_fail(e, 503, "out_of_memory", NULL, "out of memory");
        }
    }
    return submit(r, e);
}

reply *gen_start(server *s, http_exchange *x, const dialect *d, gen_request *g,
                 const char *id_prefix) {
    api_error e = {0};
    reply *r = calloc(1, sizeof *r);
    if (!r) {
        gen_request_free(g);
        api_fail(&e, 503, "out_of_memory", NULL, "out of memory");
        api_reply_error(s, x, d->family, &e);
        return NULL;
    }
    r->server = s;
    r->g = *g;
    *g = (gen_request){0};
    r->dialect = d;
    r->created = api_unix_time();
    r->streaming = r->g.stream;
    r->next = s->first;
    if (s->first) {
        s->first->previous = r;
    }
    s->first = r;
    s->n_replies++;
    r->deadline = http_started(x) + r->g.timeout;
    api_make_id(s, r->id, sizeof r->id, id_prefix);
    if (!prepare(s, r, &e)) {
        if (r->n_running) { /* some of several prompts run already */
            cancel_all(r);
        } else {
            reply_free(r);
        }
        api_reply_error(s, x, d->family, &e);
        return NULL;
    }
    r->x = x;
    http_set_user(x, r);
    return r;
}

/* ---- Events ---- */

static answer *find_answer(reply *r, const jang_event *e) {
    for (size_t i = 0; i < r->g.n_prompts; i++) {
        if (r->requests[i] == e->request) {
            size_t at = i * (size_t)r->g.r.n + (size_t)e->index;
            return at < r->n_answers ? &r->answers[at] : NULL;
        }
    }
    return NULL;
}

static void keep_id(answer *a, int32_t id) {
    tbuf_printf(&a->ids, "%s%d", a->ids.n ? "," : "", (int)id);
}

static void take_tokens(answer *a, const jang_event *e, bool of_prompt) {
    const dialect *d = a->reply->dialect;
    for (size_t i = 0; a->reply->g.keeps_ids && !of_prompt && i < e->n_tokens; i++) {
        keep_id(a, e->tokens[i].chosen.id);
    }
    for (size_t i = 0; a->reply->g.logprobs && d->token && i < e->n_tokens; i++) {
        d->token(a, &e->tokens[i], of_prompt);
    }
}

static void take_text(answer *a, const jang_event *e) {
    reply *r = a->reply;
    double now = http_now();
    if (r->first_token <= 0) {
        r->first_token = now;
        if (r->x) {
            metrics_observe(&r->server->metrics.first_token, now - http_started(r->x));
        }
    }
    if (a->last_token > 0) {
        metrics_observe(&r->server->metrics.inter_token, now - a->last_token);
    }
    a->last_token = now;
    take_tokens(a, e, false);
    if (a->parser) {
        msg_parser_feed(a->parser, e->text, e->n_bytes);
    } else if (e->n_bytes) {
        part_text(a, MSG_TEXT, e->text, e->n_bytes);
    }
}

static void add_stats(reply *r, const jang_event *e) {
    const jang_request_stats *s = e->stats;
    if (!s) {
        return;
    }
    r->stats = *s;
    if (e->last) { /* each prompt counts once, each answer's tokens all */
        r->n_prompt += s->n_prompt;
        r->n_cached += s->n_cached;
    }
    r->n_generated += s->n_generated;
    r->n_thinking += s->n_thinking;
}

static void engine_error(api_error *out, const jang_event *e) {
    int status = e->status == JANG_ERR_MEMORY ? 503 : e->status == JANG_ERR_FULL ? 400 : 500;
    const char *code = status == 503   ? "out_of_memory"
                       : status == 400 ? "context_length_exceeded"
                                       : "internal";
    api_fail(out, status, code, NULL, "%s", e->message);
}

/* An error when the reply has begun, or before. */
static void reply_fail(reply *r, const api_error *e) {
    if (!r->x || r->failed) {
        return;
    }
    r->failed = true;
    http_exchange *x = r->x;
    if (!r->streaming) {
        r->x = NULL;
        http_set_user(x, NULL);
        api_reply_error(r->server, x, r->dialect->family, e);
    } else if (r->dialect->error) {
        r->dialect->error(r, e);
    } else {
        tbuf_clear(&r->out);
        api_error_json(&r->out, r->dialect->family, e, http_id(x));
        sse_send(r, NULL);
    }
    cancel_all(r);
}

static void end_answer(answer *a, const jang_event *e) {
    reply *r = a->reply;
    a->ended = true;
    a->finish = e->finish == JANG_FINISH_CANCELLED ? JANG_FINISH_LENGTH : e->finish;
    a->stop_index = e->finish == JANG_FINISH_STOP ? e->stop : -1;
    take_tokens(a, e, false);
    if (r->g.keeps_ids && e->finish == JANG_FINISH_END && e->end_id >= 0) {
        keep_id(a, e->end_id);
    }
    if (e->n_bytes) {
        take_text(a, e);
    }
    if (a->parser) {
        msg_parser_finish(a->parser);
    }
    add_stats(r, e);
    if (e->finish == JANG_FINISH_ERROR) {
        api_error error = {0};
        engine_error(&error, e);
        reply_fail(r, &error);
    } else if (message_failed(&a->message) || (a->parser && msg_parser_failed(a->parser))) {
        api_error error = {0};
        api_fail(&error, 503, "out_of_memory", NULL, "out of memory");
        reply_fail(r, &error);
    } else if (r->x && r->streaming && !r->failed && r->dialect->end) {
        r->dialect->end(a);
    }
}

static void fail_late(reply *r) {
    api_error e = {0};
    bool stopping = r->server->state == SERVER_STOPPING;
    api_fail(&e, stopping ? 503 : 504, stopping ? "shutting_down" : "timeout", NULL,
             stopping ? "the server is shutting down"
                      : "the request took longer than its limit of %g s",
             r->g.timeout);
    reply_fail(r, &e);
}

static void end_reply(reply *r) {
    server *s = r->server;
    if (r->x && r->timed_out && r->first_token <= 0) {
        fail_late(r);
    }
    http_exchange *x = r->x;
    if (x) {
        metrics_observe(&s->metrics.request, http_now() - http_started(x));
        metrics_observe(&s->metrics.queue, r->stats.queue_seconds);
        r->x = NULL;
        if (!r->streaming) {
            http_set_user(x, NULL);
            r->x = x;
            r->dialect->finish(r);
        } else {
            r->x = x;
            if (!r->failed && r->dialect->finish) {
                r->dialect->finish(r);
            }
            http_set_user(x, NULL);
            http_stream_end(x);
        }
    }
    reply_free(r);
}

/* Gives the engine the prompts that its queue had no room for. */
static void submit_more(reply *r) {
    api_error e = {0};
    if (r->n_submitted < r->g.n_prompts && r->x && !r->failed && !r->cancelled && !submit(r, &e)) {
        reply_fail(r, &e);
    }
}

static void take_event(void *user, const jang_event *e) {
    (void)user;
    reply *r = e->user;
    answer *a = find_answer(r, e);
    if (!a) {
        return;
    }
    bool live = r->x && !r->failed;
    switch (e->kind) {
    case JANG_EVENT_START:
        if (e->stats) {
            r->stats = *e->stats;
        }
        if (live && r->streaming && r->dialect->started) {
            r->dialect->started(r);
        }
        break;
    case JANG_EVENT_PROMPT:
        if (live) {
            take_tokens(a, e, true);
        }
        break;
    case JANG_EVENT_TEXT:
        if (live) {
            take_text(a, e);
        }
        break;
    case JANG_EVENT_RESULT:
        if (live && r->own && r->dialect->values) {
            r->dialect->values(a, e->values, e->n_values);
        }
        break;
    case JANG_EVENT_END:
        if (!a->ended) {
            end_answer(a, e);
            r->n_running--;
            submit_more(r);
        }
        break;
    }
    if (!r->n_running) {
        end_reply(r);
    }
}

void gen_take_events(server *s) {
    event_queue_drain(s->events, take_event, s);
}

void gen_tick(server *s, double now) {
    for (reply *r = s->first; r; r = r->next) {
        if (!r->cancelled && now > r->deadline) {
            r->timed_out = true;
            if (!r->streaming) {
                fail_late(r);
            } else {
                cancel_all(r);
            }
        }
        if (r->x && r->streaming && now - http_last_write(r->x) >= PING_SECONDS) {
            if (r->dialect->ping) {
                r->dialect->ping(r);
            } else {
                http_stream_write(r->x, ": keep-alive\n\n", 14);
            }
        }
    }
}

/* ---- Streams ---- */

void sse_send(reply *r, const char *event) {
    tbuf line = {0};
    if (event) {
        tbuf_printf(&line, "event: %s\n", event);
    }
    tbuf_puts(&line, "data: ");
    tbuf_add(&line, tbuf_text(&r->out), r->out.n);
    tbuf_puts(&line, "\n\n");
    if (r->x && !line.failed && !r->out.failed) {
        http_stream_write(r->x, line.data, line.n);
        r->sent = true;
    }
    tbuf_free(&line);
    tbuf_clear(&r->out);
}
