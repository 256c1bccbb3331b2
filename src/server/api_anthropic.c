/* api_anthropic.c - POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- Reading: into OpenAI's form, which messages_read takes further ---- */

/* Lines that a client puts into the system text and that change with each request. */
static bool is_volatile(const char *line, size_t n) {
    static const char *const beginnings[] = {"x-anthropic-billing-header:", "cch="};
    for (size_t i = 0; i < 2; i++) {
        size_t k = strlen(beginnings[i]);
        if (n >= k && !strncasecmp(line, beginnings[i], k)) {
            return true;
        }
    }
    return false;
}

static void add_stable(tbuf *out, const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        size_t whole = n + (text[n] == '\n');
        if (!is_volatile(text, n)) {
            tbuf_add(out, text, whole);
        }
        text += whole;
    }
}

/* Text blocks joined; the path is for errors. */
static bool read_text(server *s, const json_in *in, const char *key, json_t *value, tbuf *out) {
    bool keep = s->o->keep_volatile;
    if (json_is_string(value)) {
        (keep ? tbuf_puts : add_stable)(out, json_string_value(value));
        return true;
    }
    if (!json_is_array(value)) {
        return in_wrong(in, key, "a string or text blocks", value);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *text = json_string_value(json_object_get(json_array_get(value, i), "text"));
        if (!text) {
            char path[64];
            snprintf(path, sizeof path, "%.40s[%zu]", key, i);
            return in_wrong(in, path, "a text block", json_array_get(value, i));
        }
        if (out->n) {
            tbuf_putc(out, '\n');
        }
        (keep ? tbuf_puts : add_stable)(out, text);
    }
    return true;
}

/* One message of theirs may be several of ours: results of tools come before the rest. */
typedef struct turn {
    json_t *out; /* array */
    const char *role;
    tbuf text, thinking;
    json_t *calls;
} turn;

static bool read_result(server *s, turn *t, const json_in *in, json_t *block) {
    tbuf text = {0};
    json_t *content = in_get(block, "content"), *id = json_object_get(block, "tool_use_id");
    bool ok = json_is_string(id) || in_wrong(in, "tool_use_id", "a string", id);
    if (ok && content) {
        ok = read_text(s, in, "content", content, &text);
    }
    if (ok && json_is_true(json_object_get(block, "is_error"))) {
        tbuf marked = {0};
        tbuf_printf(&marked, "Error: %s", tbuf_text(&text));
        tbuf_free(&text);
        text = marked;
    }
    if (ok) {
        json_array_append_new(t->out, json_pack("{s:s,s:O,s:s}", "role", "tool", "tool_call_id", id,
                                                "content", tbuf_text(&text)));
    }
    tbuf_free(&text);
    return ok;
}

static bool read_use(turn *t, const json_in *in, json_t *block) {
    json_t *name = json_object_get(block, "name"), *id = json_object_get(block, "id");
    json_t *input = in_get(block, "input");
    if (!json_is_string(name)) {
        return in_wrong(in, "name", "a string", name);
    }
    char *arguments = input ? json_dumps(input, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("{}");
    t->calls = t->calls ? t->calls : json_array();
    json_array_append_new(t->calls, json_pack("{s:O,s:s,s:{s:O,s:s}}", "id", id ? id : name, "type",
                                              "function", "function", "name", name, "arguments",
                                              arguments ? arguments : "{}"));
    free(arguments);
    return true;
}

static bool read_block(server *s, turn *t, const json_in *in, json_t *block) {
    const char *type = json_string_value(json_object_get(block, "type"));
    if (!type) {
        return in_wrong(in, "type", "a string", json_object_get(block, "type"));
    }
    const char *text = json_string_value(json_object_get(block, "text"));
    const char *thinking = json_string_value(json_object_get(block, "thinking"));
    if (!strcmp(type, "text")) {
        if (!text) {
            return in_wrong(in, "text", "a string", json_object_get(block, "text"));
        }
        tbuf_puts(&t->text, text);
    } else if (!strcmp(type, "thinking")) {
        tbuf_puts(&t->thinking, thinking ? thinking : "");
    } else if (!strcmp(type, "tool_use")) {
        return read_use(t, in, block);
    } else if (!strcmp(type, "tool_result")) {
        return read_result(s, t, in, block);
    } else if (!strcmp(type, "image") || !strcmp(type, "document")) {
        char param[96];
        snprintf(param, sizeof param, "%.60stype", in->path);
        return api_fail(in->error, 422, "unsupported", param,
                        "%s: a block of type %s: this model reads text only", param, type);
    } else if (strcmp(type, "redacted_thinking")) {
        return in_wrong(in, "type", "a known type of block", json_object_get(block, "type"));
    }
    return true;
}

static void end_turn(turn *t, bool had_results) {
    bool empty = !t->text.n && !t->calls && !t->thinking.n;
    if (!(empty && had_results)) {
        json_t *m = json_pack("{s:s,s:s}", "role", t->role, "content", tbuf_text(&t->text));
        if (t->thinking.n) {
            json_object_set_new(m, "reasoning_content", json_string(tbuf_text(&t->thinking)));
        }
        if (t->calls) {
            json_object_set(m, "tool_calls", t->calls);
        }
        json_array_append_new(t->out, m);
    }
    tbuf_free(&t->text);
    tbuf_free(&t->thinking);
    json_decref(t->calls);
}

static bool read_turn(server *s, json_t *out, api_error *e, json_t *m, size_t index) {
    static const char *const roles[] = {"user", "assistant", "system", NULL};
    char path[64];
    int role = 0;
    snprintf(path, sizeof path, "messages[%zu].", index);
    json_in in = {e, path};
    if (!in_choice(&in, m, "role", roles, &role)) {
        return in_wrong(&in, "role", "a role", NULL);
    }
    turn t = {.out = out, .role = roles[role]};
    json_t *content = in_get(m, "content");
    size_t n_before = json_array_size(out);
    bool ok = true;
    if (json_is_string(content)) {
        tbuf_puts(&t.text, json_string_value(content));
    } else if (!json_is_array(content)) {
        ok = in_wrong(&in, "content", "a string or blocks", content);
    }
    for (size_t i = 0; ok && i < json_array_size(content); i++) {
        char inner_path[96];
        snprintf(inner_path, sizeof inner_path, "%scontent[%zu].", path, i);
        json_in inner = {e, inner_path};
        ok = read_block(s, &t, &inner, json_array_get(content, i));
    }
    end_turn(&t, json_array_size(out) > n_before);
    return ok;
}

static void read_messages(server *s, gen_request *g, const json_in *in) {
    json_t *list = in_get(g->body, "messages"), *out = json_array();
    json_t *system = in_get(g->body, "system");
    if (!json_is_array(list) || !json_array_size(list)) {
        in_wrong(in, "messages", "an array with at least one message", list);
    }
    tbuf text = {0};
    if (system && read_text(s, in, "system", system, &text) && text.n) {
        json_array_append_new(
            out, json_pack("{s:s,s:s}", "role", "system", "content", tbuf_text(&text)));
    }
    tbuf_free(&text);
    for (size_t i = 0; !in->error->status && i < json_array_size(list); i++) {
        read_turn(s, out, in->error, json_array_get(list, i), i);
    }
    const char *last =
        json_string_value(json_object_get(json_array_get(list, json_array_size(list) - 1), "role"));
    g->continue_final = last && !strcmp(last, "assistant");
    if (!in->error->status) {
        g->messages = messages_read(in->error, out);
    }
    json_decref(out);
}

static void read_tools(gen_request *g, const json_in *in) {
    json_t *tools = in_array(in, g->body, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i), *schema = in_get(tool, "input_schema");
        json_t *name = json_object_get(tool, "name"), *description = in_get(tool, "description");
        const char *type = json_string_value(json_object_get(tool, "type"));
        char path[64];
        if (type && strcmp(type, "custom")) {
            continue; /* the hosted tools of others */
        }
        if (!json_is_string(name) || (schema && !json_is_object(schema))) {
            bool bad_name = !json_is_string(name);
            snprintf(path, sizeof path, "tools[%zu].%s", i, bad_name ? "name" : "input_schema");
            in_wrong(in, path, bad_name ? "a string" : "an object", bad_name ? name : schema);
            return;
        }
        json_t *f = json_pack("{s:O}", "name", name);
        if (description) {
            json_object_set(f, "description", description);
        }
        json_object_set_new(f, "parameters",
                            schema ? json_incref(schema) : json_pack("{s:s}", "type", "object"));
        g->tools = g->tools ? g->tools : json_array();
        json_array_append_new(g->tools, json_pack("{s:s,s:o}", "type", "function", "function", f));
    }
}

static void read_choice(gen_request *g, const json_in *in) {
    json_t *choice = in_object(in, g->body, "tool_choice");
    const char *type = json_string_value(json_object_get(choice, "type"));
    json_t *ours = NULL;
    if (choice && !type) {
        in_wrong(in, "tool_choice.type", "a string", json_object_get(choice, "type"));
        return;
    }
    if (choice) {
        bool named = !strcmp(type, "tool");
        json_t *name = json_object_get(choice, "name");
        ours = named ? json_pack("{s:O?}", "name", name) : json_string(type);
        in_bool(in, choice, "disable_parallel_tool_use", &g->parallel_tools);
        g->parallel_tools = !json_is_true(json_object_get(choice, "disable_parallel_tool_use"));
    }
    gen_read_tool_choice(g, in, ours);
    json_decref(ours);
}

static void read_thinking(gen_request *g, const json_in *in) {
    json_t *thinking = in_object(in, g->body, "thinking");
    const char *type = json_string_value(json_object_get(thinking, "type"));
    if (!type) {
        return;
    }
    bool on = !strcmp(type, "enabled") || !strcmp(type, "adaptive");
    gen_set_kwarg(g, "enable_thinking", json_boolean(on));
    gen_set_kwarg(g, "thinking", json_boolean(on));
    int64_t budget;
    json_in inner = {in->error, "thinking."};
    if (in_int(&inner, thinking, "budget_tokens", 1, INT32_MAX, &budget) && on &&
        g->model->reasoning) {
        g->r.thinking.budget = (int32_t)budget;
    }
}

static bool read_request(server *s, gen_request *g, api_error *e, bool count_only) {
    json_in in = {e, ""};
    json_t *body = g->body;
    g->is_chat = true;
    if (e->status) {
        return false;
    }
    int64_t n_max = -1;
    if (!count_only && !in_int(&in, body, "max_tokens", 1, INT32_MAX, &n_max)) {
        in_wrong(&in, "max_tokens", "an integer >= 1", NULL);
    }
    g->r.n_max = (int32_t)n_max;
    read_messages(s, g, &in);
    in_real(&in, body, "temperature", 0, 1, &g->r.sampling.temperature);
    in_real(&in, body, "top_p", 0, 1, &g->r.sampling.top_p);
    int64_t top_k;
    if (in_int(&in, body, "top_k", 0, INT32_MAX, &top_k)) {
        g->r.sampling.top_k = (int32_t)top_k;
    }
    gen_read_stop(g, &in, body, "stop_sequences");
    in_bool(&in, body, "stream", &g->stream);
    read_tools(g, &in);
    read_choice(g, &in);
    read_thinking(g, &in);
    gen_read_format(g, &in, in_get(in_object(&in, body, "output_config"), "format"), "format");
    return !e->status;
}

/* ---- Writing ---- */

enum { NO_BLOCK, TEXT_BLOCK, THINKING_BLOCK, TOOL_BLOCK };

static const char *stop_reason(const answer *a) {
    switch (a->finish) {
    case JANG_FINISH_LENGTH:
        return "max_tokens";
    case JANG_FINISH_STOP:
        return "stop_sequence";
    default:
        return a->message.calls.n ? "tool_use" : "end_turn";
    }
}

static void write_stop(jw *w, const answer *a) {
    jw_text(w, "stop_reason", stop_reason(a));
    if (a->stop_index >= 0) {
        jw_text(w, "stop_sequence", a->reply->g.stop[a->stop_index]);
    } else {
        jw_null(w, "stop_sequence");
    }
}

static void write_usage(jw *w, int64_t n_prompt, int64_t n_cached, int64_t n_generated) {
    jw_open(w, "usage", '{');
    jw_int(w, "input_tokens", n_prompt - n_cached);
    jw_int(w, "cache_creation_input_tokens", 0);
    jw_int(w, "cache_read_input_tokens", n_cached);
    jw_int(w, "output_tokens", n_generated);
    jw_close(w);
}

static jw begin_event(reply *r, const char *type) {
    jw w = jw_start(&r->out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "type", type);
    return w;
}

static void end_event(reply *r, jw *w, const char *type) {
    jw_close(w);
    sse_send(r, type);
}

static void write_head(jw *w, const reply *r) {
    jw_text(w, "id", r->id);
    jw_text(w, "type", "message");
    jw_text(w, "role", "assistant");
    jw_text(w, "model", r->g.model->id);
}

/* The figures of the prompt are in the first event, which therefore waits for them. */
static void on_started(reply *r) {
    if (r->sent) {
        return;
    }
    jw w = begin_event(r, "message_start");
    jw_open(&w, "message", '{');
    write_head(&w, r);
    jw_open(&w, "content", '[');
    jw_close(&w);
    jw_null(&w, "stop_reason");
    jw_null(&w, "stop_sequence");
    write_usage(&w, r->stats.n_prompt, r->stats.n_cached, 0);
    jw_close(&w);
    end_event(r, &w, "message_start");
}

static void close_block(answer *a) {
    if (a->part != NO_BLOCK) {
        jw w = begin_event(a->reply, "content_block_stop");
        jw_int(&w, "index", (int64_t)a->block);
        end_event(a->reply, &w, "content_block_stop");
        a->block++;
        a->part = NO_BLOCK;
    }
}

static jw open_block(answer *a, int part) {
    close_block(a);
    a->part = part;
    jw w = begin_event(a->reply, "content_block_start");
    jw_int(&w, "index", (int64_t)a->block);
    jw_open(&w, "content_block", '{');
    return w;
}

static void end_open(answer *a, jw *w) {
    jw_close(w);
    end_event(a->reply, w, "content_block_start");
}

static void send_delta(answer *a, const char *type, const char *key, const char *text, size_t n) {
    jw w = begin_event(a->reply, "content_block_delta");
    jw_int(&w, "index", (int64_t)a->block);
    jw_open(&w, "delta", '{');
    jw_text(&w, "type", type);
    jw_bytes(&w, key, text, n);
    jw_close(&w);
    end_event(a->reply, &w, "content_block_delta");
}

static void on_text(answer *a, msg_part part, const char *text, size_t n_bytes) {
    bool thinking = part == MSG_REASONING;
    on_started(a->reply);
    if (a->part != (thinking ? THINKING_BLOCK : TEXT_BLOCK)) {
        jw w = open_block(a, thinking ? THINKING_BLOCK : TEXT_BLOCK);
        jw_text(&w, "type", thinking ? "thinking" : "text");
        jw_text(&w, thinking ? "thinking" : "text", "");
        if (thinking) {
            jw_text(&w, "signature", "");
        }
        end_open(a, &w);
    }
    send_delta(a, thinking ? "thinking_delta" : "text_delta", thinking ? "thinking" : "text", text,
               n_bytes);
}

/* call_XYZ is toolu_XYZ here. */
static void write_tool_id(jw *w, const tool_call *call) {
    const char *id = tbuf_text(&call->id);
    tbuf text = {0};
    tbuf_printf(&text, "%s%s", !strncmp(id, "call_", 5) ? "toolu_" : "",
                !strncmp(id, "call_", 5) ? id + 5 : id);
    jw_text(w, "id", tbuf_text(&text));
    tbuf_free(&text);
}

static void on_call(answer *a, size_t index) {
    const tool_call *call = &a->message.calls.calls[index];
    on_started(a->reply);
    jw w = open_block(a, TOOL_BLOCK);
    jw_text(&w, "type", "tool_use");
    write_tool_id(&w, call);
    jw_text(&w, "name", tbuf_text(&call->name));
    jw_open(&w, "input", '{');
    jw_close(&w);
    end_open(a, &w);
}

static void on_args(answer *a, size_t index, const char *json, size_t n_bytes) {
    (void)index;
    send_delta(a, "input_json_delta", "partial_json", json, n_bytes);
}

static void on_end(answer *a) {
    on_started(a->reply);
    close_block(a);
}

/* Arguments that were cut off are no JSON: then there are none. */
static void write_input(jw *w, const tool_call *call) {
    tbuf args = {0};
    if (!json_compact(&args, tbuf_text(&call->args), call->args.n)) {
        tbuf_puts(&args, "{}");
    }
    jw_raw(w, "input", tbuf_text(&args), args.n);
    tbuf_free(&args);
}

static void write_content(jw *w, const chat_message *m) {
    jw_open(w, "content", '[');
    if (m->reasoning.n) {
        jw_open(w, NULL, '{');
        jw_text(w, "type", "thinking");
        jw_bytes(w, "thinking", m->reasoning.data, m->reasoning.n);
        jw_text(w, "signature", "");
        jw_close(w);
    }
    if (m->text.n) {
        jw_open(w, NULL, '{');
        jw_text(w, "type", "text");
        jw_bytes(w, "text", m->text.data, m->text.n);
        jw_close(w);
    }
    for (size_t i = 0; i < m->calls.n; i++) {
        jw_open(w, NULL, '{');
        jw_text(w, "type", "tool_use");
        write_tool_id(w, &m->calls.calls[i]);
        jw_text(w, "name", tbuf_text(&m->calls.calls[i].name));
        write_input(w, &m->calls.calls[i]);
        jw_close(w);
    }
    jw_close(w);
}

static void finish_stream(reply *r) {
    jw w = begin_event(r, "message_delta");
    jw_open(&w, "delta", '{');
    write_stop(&w, &r->answers[0]);
    jw_close(&w);
    write_usage(&w, r->n_prompt, r->n_cached, r->n_generated);
    end_event(r, &w, "message_delta");
    w = begin_event(r, "message_stop");
    end_event(r, &w, "message_stop");
}

static void on_finish(reply *r) {
    if (r->streaming) {
        finish_stream(r);
        return;
    }
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    write_head(&w, r);
    write_content(&w, &r->answers[0].message);
    write_stop(&w, &r->answers[0]);
    write_usage(&w, r->n_prompt, r->n_cached, r->n_generated);
    jw_close(&w);
    api_reply_json(r->server, r->x, 200, &out);
}

static void on_ping(reply *r) {
    static const char ping[] = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    http_stream_write(r->x, ping, sizeof ping - 1);
}

static void on_error(reply *r, const api_error *e) {
    tbuf_clear(&r->out);
    api_error_json(&r->out, API_ANTHROPIC, e, http_id(r->x));
    sse_send(r, "error");
}

static const dialect anthropic_dialect = {
    .family = API_ANTHROPIC,
    .started = on_started,
    .text = on_text,
    .call = on_call,
    .args = on_args,
    .end = on_end,
    .finish = on_finish,
    .ping = on_ping,
    .error = on_error,
};

void anthropic_messages(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    gen_request g;
    if (!gen_request_open(&g, s, x, API_ANTHROPIC, &e)) {
        return;
    }
    if (!read_request(s, &g, &e, false)) {
        gen_request_refuse(&g, s, x, API_ANTHROPIC, &e);
        return;
    }
    reply *r = gen_start(s, x, &anthropic_dialect, &g, "msg_");
    if (r && r->streaming) {
        http_stream_begin(x, 200, "text/event-stream");
    }
}

void anthropic_count_tokens(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    bool open;
    gen_request g;
    if (!gen_request_open(&g, s, x, API_ANTHROPIC, &e)) {
        return;
    }
    if (read_request(s, &g, &e, true) && prompt_make(s, &g, &e, &open)) {
        tbuf out = {0};
        jw w = jw_start(&out);
        jw_open(&w, NULL, '{');
        jw_int(&w, "input_tokens", (int64_t)g.prompt_lengths[0]);
        jw_close(&w);
        api_reply_json(s, x, 200, &out);
    } else {
        api_reply_error(s, x, API_ANTHROPIC, &e);
    }
    gen_request_free(&g);
}
