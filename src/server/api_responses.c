/* api_responses.c - POST /v1/responses and what belongs to it: OpenAI's newer dialect, whose
 * answers are lists of items, and which remembers them. */
#include "openai_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORED_MAX 256

/* ---- What is remembered ---- */

typedef struct stored {
    char id[48];
    char *json;       /* the response */
    json_t *messages; /* the conversation with the answer, in chat's form */
} stored;

struct stored_responses {
    stored rows[STORED_MAX];
    size_t n_ever; /* the next goes to n_ever % STORED_MAX */
};

static void forget(stored *row) {
    free(row->json);
    json_decref(row->messages);
    *row = (stored){0};
}

void stored_responses_free(server *s) {
    for (size_t i = 0; s->stored && i < STORED_MAX; i++) {
        forget(&s->stored->rows[i]);
    }
    free(s->stored);
}

static stored *find_stored(const server *s, const char *id) {
    for (size_t i = 0; s->stored && i < STORED_MAX; i++) {
        if (s->stored->rows[i].json && !strcmp(s->stored->rows[i].id, id)) {
            return &s->stored->rows[i];
        }
    }
    return NULL;
}

static void remember(server *s, const char *id, const char *json, json_t *messages) {
    s->stored = s->stored ? s->stored : calloc(1, sizeof *s->stored);
    if (!s->stored) {
        json_decref(messages);
        return;
    }
    stored *row = &s->stored->rows[s->stored->n_ever++ % STORED_MAX];
    forget(row);
    snprintf(row->id, sizeof row->id, "%s", id);
    row->json = strdup(json);
    row->messages = messages;
}

/* ---- Reading ---- */

/* Appends to the last message if it is an assistant's: its text, reasoning and calls are items of
 * their own here. */
static json_t *assistant(json_t *out) {
    size_t n = json_array_size(out);
    json_t *last = n ? json_array_get(out, n - 1) : NULL;
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant")) {
        last = json_pack("{s:s,s:s}", "role", "assistant", "content", "");
        json_array_append_new(out, last);
    }
    return last;
}

static void read_call(json_t *out, json_t *item) {
    json_t *m = assistant(out), *calls = json_object_get(m, "tool_calls");
    if (!calls) {
        calls = json_array();
        json_object_set_new(m, "tool_calls", calls);
    }
    json_t *arguments = json_object_get(item, "arguments");
    json_array_append_new(calls, json_pack("{s:O?,s:s,s:{s:O?,s:O?}}", "id",
                                           json_object_get(item, "call_id"), "type", "function",
                                           "function", "name", json_object_get(item, "name"),
                                           "arguments", arguments));
}

static void read_reasoning(json_t *out, json_t *item) {
    tbuf text = {0};
    json_t *content = json_object_get(item, "content");
    for (size_t i = 0; i < json_array_size(content); i++) {
        const char *one = json_string_value(json_object_get(json_array_get(content, i), "text"));
        tbuf_puts(&text, one ? one : "");
    }
    if (text.n) {
        json_object_set_new(assistant(out), "reasoning_content", json_string(text.data));
    }
    tbuf_free(&text);
}

static bool read_item(json_t *out, const json_in *in, json_t *item, size_t index) {
    const char *type = json_string_value(json_object_get(item, "type"));
    char path[48];
    snprintf(path, sizeof path, "input[%zu]", index);
    if (!json_is_object(item)) {
        return in_wrong(in, path, "an item", item);
    }
    if (!type || !strcmp(type, "message")) {
        const char *role = json_string_value(json_object_get(item, "role"));
        size_t n = json_array_size(out);
        json_t *last = n ? json_array_get(out, n - 1) : NULL;
        bool joins = role && !strcmp(role, "assistant") && last &&
                     json_object_get(last, "reasoning_content") &&
                     !json_object_get(last, "tool_calls");
        if (joins) { /* reasoning and then text: one message */
            json_object_set(last, "content", json_object_get(item, "content"));
        } else {
            json_array_append_new(out,
                                  json_pack("{s:O?,s:O?}", "role", json_object_get(item, "role"),
                                            "content", json_object_get(item, "content")));
        }
    } else if (!strcmp(type, "function_call")) {
        read_call(out, item);
    } else if (!strcmp(type, "function_call_output")) {
        json_array_append_new(out, json_pack("{s:s,s:O?,s:O?}", "role", "tool", "tool_call_id",
                                             json_object_get(item, "call_id"), "content",
                                             json_object_get(item, "output")));
    } else if (!strcmp(type, "reasoning")) {
        read_reasoning(out, item);
    } else {
        return in_wrong(in, path, "a message, function_call, function_call_output or reasoning",
                        json_object_get(item, "type"));
    }
    return true;
}

static void read_input(server *s, gen_request *g, const json_in *in) {
    json_t *out = json_array(), *input = in_get(g->body, "input");
    const char *instructions = NULL, *previous = NULL;
    if (in_text(in, g->body, "instructions", &instructions)) {
        json_array_append_new(out,
                              json_pack("{s:s,s:s}", "role", "system", "content", instructions));
    }
    if (in_text(in, g->body, "previous_response_id", &previous)) {
        stored *row = find_stored(s, previous);
        if (!row) {
            api_fail(in->error, 404, "previous_response_not_found", "previous_response_id",
                     "previous_response_id: there is no response \"%.60s\"", previous);
        } else {
            json_array_extend(out, row->messages);
        }
    }
    if (json_is_string(input)) {
        json_array_append_new(out, json_pack("{s:s,s:O}", "role", "user", "content", input));
    } else if (!json_is_array(input)) {
        in_wrong(in, "input", "a string or a list of items", input);
    }
    for (size_t i = 0; json_is_array(input) && !in->error->status && i < json_array_size(input);
         i++) {
        read_item(out, in, json_array_get(input, i), i);
    }
    if (!in->error->status) {
        g->messages = messages_read(in->error, out);
    }
    json_decref(out);
}

/* A function's members stand in the tool itself here. */
static void read_tools(gen_request *g, const json_in *in) {
    json_t *tools = in_array(in, g->body, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        const char *type = json_string_value(json_object_get(tool, "type"));
        char where[48];
        if (!type || strcmp(type, "function")) {
            continue; /* hosted tools */
        }
        json_t *f = json_copy(tool);
        json_object_del(f, "type");
        snprintf(where, sizeof where, "tools[%zu]", i);
        gen_add_tool(g, in, where, tool, json_pack("{s:s,s:o}", "type", "function", "function", f));
    }
}

static bool read_request(server *s, gen_request *g, api_error *e) {
    json_in in = {e, ""};
    json_t *body = g->body;
    g->is_chat = true;
    if (e->status) {
        return false;
    }
    read_input(s, g, &in);
    int64_t n_max = -1;
    in_int(&in, body, "max_output_tokens", 1, INT32_MAX, &n_max);
    g->r.n_max = (int32_t)n_max;
    gen_read_sampling(g, &in, body);
    g->r.n = 1;
    in_bool(&in, body, "parallel_tool_calls", &g->parallel_tools);
    read_tools(g, &in);
    gen_read_tool_choice(g, &in, in_get(body, "tool_choice"));
    gen_read_format(g, &in, in_get(in_object(&in, body, "text"), "format"), "text.format");
    json_in inner = {e, "reasoning."};
    gen_read_effort(g, &inner, in_object(&in, body, "reasoning"), "effort");
    return !e->status;
}

/* ---- Items ---- */

enum { NO_ITEM, REASONING_ITEM, TEXT_ITEM, CALL_ITEM };

/* Items that are complete, as JSON divided by commas, and the one that is open. */
typedef struct items {
    tbuf done;
    char id[48];
    size_t call; /* which call the open item is */
    tbuf text;   /* of the open item */
} items;

static void write_item(jw *w, const answer *a, const items *it, const char *status) {
    jw_open(w, NULL, '{');
    if (a->part == REASONING_ITEM) {
        jw_text(w, "type", "reasoning");
        jw_text(w, "id", it->id);
        jw_open(w, "summary", '[');
        jw_close(w);
        jw_open(w, "content", '[');
        if (it->text.n) {
            jw_open(w, NULL, '{');
            jw_text(w, "type", "reasoning_text");
            jw_bytes(w, "text", it->text.data, it->text.n);
            jw_close(w);
        }
        jw_close(w);
    } else if (a->part == TEXT_ITEM) {
        jw_text(w, "type", "message");
        jw_text(w, "id", it->id);
        jw_text(w, "status", status);
        jw_text(w, "role", "assistant");
        jw_open(w, "content", '[');
        if (strcmp(status, "in_progress")) {
            jw_open(w, NULL, '{');
            jw_text(w, "type", "output_text");
            jw_bytes(w, "text", tbuf_text(&it->text), it->text.n);
            jw_raw(w, "annotations", "[]", 2);
            jw_raw(w, "logprobs", "[]", 2);
            jw_close(w);
        }
        jw_close(w);
    } else {
        const tool_call *call = &a->message.calls.calls[it->call];
        jw_text(w, "type", "function_call");
        jw_text(w, "id", it->id);
        jw_text(w, "call_id", tbuf_text(&call->id));
        jw_text(w, "name", tbuf_text(&call->name));
        jw_bytes(w, "arguments", tbuf_text(&it->text), it->text.n);
        jw_text(w, "status", status);
    }
    jw_close(w);
}

/* A member of the request as it came, or what stands for it. */
static void echo(jw *w, const reply *r, const char *key, const char *otherwise) {
    json_t *value = in_get(r->g.body, key);
    if (value) {
        jw_value(w, key, value);
    } else {
        jw_raw(w, key, otherwise, strlen(otherwise));
    }
}

static void write_response(jw *w, const reply *r, const char *status, const items *it) {
    bool incomplete = !strcmp(status, "incomplete");
    jw_text(w, "id", r->id);
    jw_text(w, "object", "response");
    jw_int(w, "created_at", r->created);
    jw_text(w, "status", status);
    jw_text(w, "model", r->g.model->id);
    jw_open(w, "output", '[');
    if (it && it->done.n) {
        jw_raw(w, NULL, it->done.data, it->done.n);
    }
    jw_close(w);
    if (strcmp(status, "in_progress")) {
        jw_open(w, "usage", '{');
        jw_int(w, "input_tokens", r->n_prompt);
        jw_open(w, "input_tokens_details", '{');
        jw_int(w, "cached_tokens", r->n_cached);
        jw_close(w);
        jw_int(w, "output_tokens", r->n_generated);
        jw_open(w, "output_tokens_details", '{');
        jw_int(w, "reasoning_tokens", r->n_thinking);
        jw_close(w);
        jw_int(w, "total_tokens", r->n_prompt + r->n_generated);
        jw_close(w);
    } else {
        jw_null(w, "usage");
    }
    if (incomplete) {
        jw_open(w, "incomplete_details", '{');
        jw_text(w, "reason", "max_output_tokens");
        jw_close(w);
    } else {
        jw_null(w, "incomplete_details");
    }
    jw_null(w, "error");
    echo(w, r, "previous_response_id", "null");
    echo(w, r, "instructions", "null");
    echo(w, r, "tools", "[]");
    echo(w, r, "tool_choice", "\"auto\"");
    jw_bool(w, "parallel_tool_calls", r->g.parallel_tools);
    jw_real(w, "temperature", (double)r->g.r.sampling.temperature);
    jw_real(w, "top_p", (double)r->g.r.sampling.top_p);
    echo(w, r, "max_output_tokens", "null");
    echo(w, r, "reasoning", "{\"effort\":null,\"summary\":null}");
    echo(w, r, "text", "{\"format\":{\"type\":\"text\"}}");
    echo(w, r, "truncation", "\"disabled\"");
    echo(w, r, "store", "true");
    echo(w, r, "metadata", "{}");
}

/* ---- The stream: events are written only if there is one, the items always ---- */

static jw begin_event(reply *r, const char *type) {
    tbuf_clear(&r->out);
    jw w = jw_start(&r->out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "type", type);
    jw_int(&w, "sequence_number", (int64_t)r->sequence);
    return w;
}

static void end_event(reply *r, jw *w, const char *type) {
    jw_close(w);
    if (r->streaming) {
        r->sequence++;
        sse_send(r, type);
    }
    tbuf_clear(&r->out);
}

static void response_event(reply *r, const char *type, const char *status) {
    jw w = begin_event(r, type);
    jw_open(&w, "response", '{');
    write_response(&w, r, status, r->own);
    jw_close(&w);
    end_event(r, &w, type);
}

/* An event about the open item. */
static jw begin_item_event(answer *a, const char *type) {
    const items *it = a->reply->own;
    jw w = begin_event(a->reply, type);
    jw_text(&w, "item_id", it->id);
    jw_int(&w, "output_index", (int64_t)a->block);
    return w;
}

static void item_event(answer *a, const char *type, const char *status) {
    jw w = begin_event(a->reply, type);
    jw_int(&w, "output_index", (int64_t)a->block);
    tbuf item = {0};
    jw inner = jw_start(&item);
    write_item(&inner, a, a->reply->own, status);
    jw_raw(&w, "item", tbuf_text(&item), item.n);
    tbuf_free(&item);
    end_event(a->reply, &w, type);
}

static void part_event(answer *a, const char *type) {
    const items *it = a->reply->own;
    jw w = begin_item_event(a, type);
    jw_int(&w, "content_index", 0);
    jw_open(&w, "part", '{');
    jw_text(&w, "type", "output_text");
    jw_bytes(&w, "text", tbuf_text(&it->text), it->text.n);
    jw_raw(&w, "annotations", "[]", 2);
    jw_close(&w);
    end_event(a->reply, &w, type);
}

static void text_event(answer *a, const char *type, const char *key, const char *text, size_t n) {
    jw w = begin_item_event(a, type);
    if (a->part != CALL_ITEM) {
        jw_int(&w, "content_index", 0);
    }
    jw_bytes(&w, key, text, n);
    if (a->part == TEXT_ITEM) {
        jw_raw(&w, "logprobs", "[]", 2);
    }
    end_event(a->reply, &w, type);
}

static void close_item(answer *a, const char *status) {
    items *it = a->reply->own;
    const char *text = tbuf_text(&it->text);
    if (a->part == NO_ITEM) {
        return;
    }
    if (a->part == TEXT_ITEM) {
        text_event(a, "response.output_text.done", "text", text, it->text.n);
        part_event(a, "response.content_part.done");
    } else if (a->part == REASONING_ITEM) {
        text_event(a, "response.reasoning_text.done", "text", text, it->text.n);
    } else {
        text_event(a, "response.function_call_arguments.done", "arguments", text, it->text.n);
    }
    item_event(a, "response.output_item.done", status);
    if (it->done.n) {
        tbuf_putc(&it->done, ',');
    }
    jw w = jw_start(&it->done);
    write_item(&w, a, it, status);
    tbuf_clear(&it->text);
    a->part = NO_ITEM;
    a->block++;
}

static void open_item(answer *a, int part) {
    static const char *const prefixes[] = {"", "rs_", "msg_", "fc_"};
    items *it = a->reply->own;
    close_item(a, "completed");
    a->part = part;
    api_make_id(a->reply->server, it->id, sizeof it->id, prefixes[part]);
    item_event(a, "response.output_item.added", "in_progress");
    if (part == TEXT_ITEM) {
        part_event(a, "response.content_part.added");
    }
}

static void on_text(answer *a, msg_part part, const char *text, size_t n_bytes) {
    items *it = a->reply->own;
    int wanted = part == MSG_TEXT ? TEXT_ITEM : REASONING_ITEM;
    if (a->part != wanted) {
        open_item(a, wanted);
    }
    tbuf_add(&it->text, text, n_bytes);
    text_event(a,
               wanted == TEXT_ITEM ? "response.output_text.delta" : "response.reasoning_text.delta",
               "delta", text, n_bytes);
}

static void on_call(answer *a, size_t index) {
    items *it = a->reply->own;
    close_item(a, "completed");
    it->call = index;
    open_item(a, CALL_ITEM);
}

static void on_args(answer *a, size_t index, const char *json, size_t n_bytes) {
    items *it = a->reply->own;
    (void)index;
    tbuf_add(&it->text, json, n_bytes);
    text_event(a, "response.function_call_arguments.delta", "delta", json, n_bytes);
}

/* The answer as a message of the conversation that a later request goes on with. */
static json_t *answer_message(const reply *r) {
    tbuf text = {0};
    jw w = jw_start(&text);
    jw_open(&w, NULL, '{');
    message_write(&r->answers[0].message, &w);
    jw_close(&w);
    json_t *m = json_loadb(tbuf_text(&text), text.n, 0, NULL);
    tbuf_free(&text);
    return m;
}

static void store(reply *r, const char *json) {
    json_t *asked = in_get(r->g.body, "store");
    if (json_is_false(asked)) {
        return;
    }
    json_t *messages = json_deep_copy(r->g.messages);
    const char *role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    if (in_get(r->g.body, "instructions") && role && !strcmp(role, "system")) {
        json_array_remove(messages, 0); /* instructions are of their own request alone */
    }
    json_array_append_new(messages, answer_message(r));
    remember(r->server, r->id, json, messages);
}

/* Items are made by the parts of a stream; of an answer in one piece they are made at its end. */
static void make_items(reply *r) {
    answer *a = &r->answers[0];
    const chat_message *m = &a->message;
    if (m->reasoning.n) {
        on_text(a, MSG_REASONING, m->reasoning.data, m->reasoning.n);
    }
    if (m->text.n) {
        on_text(a, MSG_TEXT, m->text.data, m->text.n);
    }
    for (size_t i = 0; i < m->calls.n; i++) {
        on_call(a, i);
        on_args(a, i, tbuf_text(&m->calls.calls[i].args), m->calls.calls[i].args.n);
    }
}

static void on_finish(reply *r) {
    answer *a = &r->answers[0];
    const char *status = a->finish == JANG_FINISH_LENGTH ? "incomplete" : "completed";
    if (!r->streaming) {
        make_items(r);
    }
    close_item(a, status);
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    write_response(&w, r, status, r->own);
    jw_close(&w);
    if (!out.failed) {
        store(r, tbuf_text(&out));
    }
    if (r->streaming) {
        response_event(
            r, !strcmp(status, "completed") ? "response.completed" : "response.incomplete", status);
        tbuf_free(&out);
    } else {
        api_reply_json(r->server, r->x, 200, &out);
    }
}

static void release(reply *r) {
    items *it = r->own;
    tbuf_free(&it->done);
    tbuf_free(&it->text);
}

static void on_error(reply *r, const api_error *e) {
    jw w = begin_event(r, "response.failed");
    jw_open(&w, "response", '{');
    jw_text(&w, "id", r->id);
    jw_text(&w, "object", "response");
    jw_text(&w, "status", "failed");
    jw_open(&w, "error", '{');
    jw_text(&w, "code", e->code ? e->code : "server_error");
    jw_text(&w, "message", e->message);
    jw_close(&w);
    jw_close(&w);
    end_event(r, &w, "response.failed");
}

static const dialect responses_dialect = {
    .family = API_OPENAI,
    .text = on_text,
    .call = on_call,
    .args = on_args,
    .finish = on_finish,
    .release = release,
    .error = on_error,
};

void responses_create(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    gen_request g;
    if (!gen_request_open(&g, s, x, API_OPENAI, &e)) {
        return;
    }
    if (!read_request(s, &g, &e)) {
        gen_request_refuse(&g, s, x, API_OPENAI, &e);
        return;
    }
    reply *r = gen_start(s, x, &responses_dialect, &g, "resp_");
    if (!r) {
        return;
    }
    r->own = calloc(1, sizeof(items));
    if (!r->own) {
        api_fail(&e, 503, "out_of_memory", NULL, "out of memory");
        gen_gone(s, x);
        http_set_user(x, NULL);
        api_reply_error(s, x, API_OPENAI, &e);
        return;
    }
    if (r->streaming) {
        http_stream_begin(x, 200, "text/event-stream");
        response_event(r, "response.created", "in_progress");
        response_event(r, "response.in_progress", "in_progress");
    }
}

/* ---- Stored ones ---- */

static void not_found(server *s, http_exchange *x, const char *id) {
    api_error e = {0};
    api_fail(&e, 404, "not_found", NULL, "there is no response \"%.60s\"", id);
    api_reply_error(s, x, API_OPENAI, &e);
}

void responses_get(server *s, http_exchange *x, const char *rest) {
    stored *row = find_stored(s, rest);
    if (!row) {
        not_found(s, x, rest);
        return;
    }
    tbuf out = {0};
    tbuf_puts(&out, row->json);
    api_reply_json(s, x, 200, &out);
}

void responses_delete(server *s, http_exchange *x, const char *rest) {
    stored *row = find_stored(s, rest);
    if (!row) {
        not_found(s, x, rest);
        return;
    }
    forget(row);
    tbuf out = {0};
    jw w = jw_start(&out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "id", rest);
    jw_text(&w, "object", "response");
    jw_bool(&w, "deleted", true);
    jw_close(&w);
    api_reply_json(s, x, 200, &out);
}

/* POST /responses/ID/cancel: ends one that runs; one that has ended stays as it is. */
void responses_cancel(server *s, http_exchange *x, const char *rest) {
    static const char suffix[] = "/cancel";
    size_t n = strlen(rest), k = sizeof suffix - 1;
    char id[64];
    if (n <= k || strcmp(rest + n - k, suffix) || n - k >= sizeof id) {
        not_found(s, x, rest);
        return;
    }
    memcpy(id, rest, n - k);
    id[n - k] = 0;
    for (reply *r = s->first; r; r = r->next) {
        if (!strcmp(r->id, id)) {
            for (size_t i = 0; i < r->g.n_prompts; i++) {
                jang_engine_cancel(r->g.model->engine, r->requests[i]);
            }
            tbuf out = {0};
            jw w = jw_start(&out);
            jw_open(&w, NULL, '{');
            write_response(&w, r, "cancelled", NULL);
            jw_close(&w);
            api_reply_json(s, x, 200, &out);
            return;
        }
    }
    responses_get(s, x, id);
}
