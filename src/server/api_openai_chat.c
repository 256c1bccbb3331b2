/* api_openai_chat.c - POST /v1/chat/completions: OpenAI's chat dialect. */
#include "openai_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Reading ---- */

/* functions and function_call, as tools were called before. */
static void read_old_functions(json_t *body) {
    json_t *functions = in_get(body, "functions"), *choice = in_get(body, "function_call");
    if (json_is_array(functions) && !in_get(body, "tools")) {
        json_t *tools = json_array();
        for (size_t i = 0; i < json_array_size(functions); i++) {
            json_array_append_new(tools, json_pack("{s:s,s:O}", "type", "function", "function",
                                                   json_array_get(functions, i)));
        }
        json_object_set_new(body, "tools", tools);
    }
    if (choice && !in_get(body, "tool_choice")) {
        json_object_set_new(body, "tool_choice",
                            json_is_object(choice)
                                ? json_pack("{s:s,s:O}", "type", "function", "function", choice)
                                : json_incref(choice));
    }
}

static void read_tools(gen_request *g, const json_in *in, json_t *body) {
    json_t *tools = in_array(in, body, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        const char *type = json_string_value(json_object_get(tool, "type"));
        char where[64];
        snprintf(where, sizeof where, "tools[%zu].function", i);
        if (!type || !strcmp(type, "function")) { /* hosted tools are not ours */
            gen_add_tool(g, in, where, json_object_get(tool, "function"), json_incref(tool));
        }
    }
}

static void read_limits(gen_request *g, const json_in *in, json_t *body) {
    int64_t n = -1;
    in_int(in, body, "max_tokens", 1, INT32_MAX, &n);
    in_int(in, body, "max_completion_tokens", 1, INT32_MAX, &n);
    g->r.n_max = (int32_t)n;
    in_bool(in, body, "logprobs", &g->logprobs);
    int64_t top = 0;
    if (in_int(in, body, "top_logprobs", 0, 20, &top) && top && !g->logprobs) {
        api_fail(in->error, 400, "invalid_value", "top_logprobs",
                 "top_logprobs: needs \"logprobs\": true");
    }
    g->r.n_logprobs = g->logprobs ? (int32_t)top : -1;
}

static void read_switches(gen_request *g, const json_in *in, json_t *body) {
    json_t *kwargs = in_object(in, body, "chat_template_kwargs");
    gen_read_effort(g, in, body, "reasoning_effort");
    bool thinking;
    if (in_bool(in, body, "enable_thinking", &thinking)) {
        gen_set_kwarg(g, "enable_thinking", json_boolean(thinking));
        gen_set_kwarg(g, "thinking", json_boolean(thinking));
    }
    json_object_update(g->kwargs, kwargs);
    in_bool(in, body, "continue_final_message", &g->continue_final);
    in_bool(in, body, "parallel_tool_calls", &g->parallel_tools);
}

bool openai_chat_read(gen_request *g, api_error *e) {
    json_in in = {e, ""};
    json_t *body = g->body;
    g->is_chat = true;
    if (e->status) {
        return false;
    }
    g->messages = messages_read(e, in_get(body, "messages"));
    read_old_functions(body);
    read_tools(g, &in, body);
    gen_read_sampling(g, &in, body);
    read_limits(g, &in, body);
    read_switches(g, &in, body);
    gen_read_tool_choice(g, &in, in_get(body, "tool_choice"));
    gen_read_format(g, &in, in_get(body, "response_format"), "response_format");
    const char *grammar = NULL;
    if (in_text(&in, body, "grammar", &grammar) && !g->has_grammar) {
        tbuf_puts(&g->grammar_text, grammar);
        g->grammar_kind = JANG_GRAMMAR_GBNF;
        g->has_grammar = true;
    }
    return !e->status;
}

/* ---- Writing ---- */

static void write_logprobs(jw *w, const answer *a, bool wanted) {
    if (!wanted) {
        jw_null(w, "logprobs");
        return;
    }
    jw_open(w, "logprobs", '{');
    jw_open(w, "content", '[');
    if (a->logprobs.n) {
        jw_raw(w, NULL, a->logprobs.data, a->logprobs.n);
    }
    jw_close(w);
    jw_null(w, "refusal");
    jw_close(w);
}

/* ---- Streaming ---- */

static jw begin_chunk(reply *r) {
    return openai_begin(r, &r->out, "chat.completion.chunk");
}

/* Opens choices[0].delta. */
static jw begin_delta(answer *a) {
    jw w = begin_chunk(a->reply);
    jw_open(&w, "choices", '[');
    jw_open(&w, NULL, '{');
    jw_int(&w, "index", a->index);
    jw_open(&w, "delta", '{');
    return w;
}

/* Closes the delta; the log-probabilities that wait go with it. */
static void end_delta(answer *a, jw *w, const char *finish) {
    jw_close(w);
    write_logprobs(w, a, a->logprobs.n > 0);
    tbuf_clear(&a->logprobs);
    jw_text(w, "finish_reason", finish);
    jw_close(w);
    jw_close(w);
    jw_close(w);
    sse_send(a->reply, NULL);
}

static void chat_begin(reply *r) {
    for (size_t i = 0; i < r->n_answers; i++) {
        jw w = begin_delta(&r->answers[i]);
        jw_text(&w, "role", "assistant");
        jw_text(&w, "content", "");
        end_delta(&r->answers[i], &w, NULL);
    }
}

static void chat_text(answer *a, msg_part part, const char *text, size_t n_bytes) {
    jw w = begin_delta(a);
    jw_bytes(&w, part == MSG_TEXT ? "content" : "reasoning_content", text, n_bytes);
    end_delta(a, &w, NULL);
}

static void chat_call(answer *a, size_t index) {
    const tool_call *call = &a->message.calls.calls[index];
    jw w = begin_delta(a);
    jw_open(&w, "tool_calls", '[');
    jw_open(&w, NULL, '{');
    jw_int(&w, "index", (int64_t)index);
    jw_text(&w, "id", tbuf_text(&call->id));
    jw_text(&w, "type", "function");
    jw_open(&w, "function", '{');
    jw_text(&w, "name", tbuf_text(&call->name));
    jw_text(&w, "arguments", "");
    jw_close(&w);
    jw_close(&w);
    jw_close(&w);
    end_delta(a, &w, NULL);
}

static void chat_args(answer *a, size_t index, const char *json, size_t n_bytes) {
    jw w = begin_delta(a);
    jw_open(&w, "tool_calls", '[');
    jw_open(&w, NULL, '{');
    jw_int(&w, "index", (int64_t)index);
    jw_open(&w, "function", '{');
    jw_bytes(&w, "arguments", json, n_bytes);
    jw_close(&w);
    jw_close(&w);
    jw_close(&w);
    end_delta(a, &w, NULL);
}

static void chat_token(answer *a, const jang_token *token, bool of_prompt) {
    if (!of_prompt) {
        openai_logprob(&a->logprobs, token);
    }
}

static void chat_end(answer *a) {
    jw w = begin_delta(a);
    end_delta(a, &w, openai_finish(a));
}

static void finish_stream(reply *r) {
    if (r->include_usage) {
        jw w = begin_chunk(r);
        jw_open(&w, "choices", '[');
        jw_close(&w);
        openai_usage(&w, r);
        openai_timings(&w, r);
        jw_close(&w);
        sse_send(r, NULL);
    }
    tbuf_puts(&r->out, "[DONE]");
    sse_send(r, NULL);
}

/* ---- One piece ---- */

static void write_choice(jw *w, const answer *a) {
    jw_open(w, NULL, '{');
    jw_int(w, "index", a->index);
    jw_open(w, "message", '{');
    message_write(&a->message, w);
    jw_close(w);
    write_logprobs(w, a, a->reply->g.logprobs);
    jw_text(w, "finish_reason", openai_finish(a));
    jw_close(w);
}

static void finish_whole(reply *r) {
    tbuf out = {0};
    jw w = openai_begin(r, &out, "chat.completion");
    jw_open(&w, "choices", '[');
    for (size_t i = 0; i < r->n_answers; i++) {
        write_choice(&w, &r->answers[i]);
    }
    jw_close(&w);
    openai_usage(&w, r);
    openai_timings(&w, r);
    jw_close(&w);
    api_reply_json(r->server, r->x, 200, &out);
}

static void chat_finish(reply *r) {
    if (r->streaming) {
        finish_stream(r);
    } else {
        finish_whole(r);
    }
}

static const dialect chat_dialect = {
    .family = API_OPENAI,
    .text = chat_text,
    .call = chat_call,
    .args = chat_args,
    .token = chat_token,
    .end = chat_end,
    .finish = chat_finish,
};

void openai_chat(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    gen_request g;
    if (!gen_request_open(&g, s, x, API_OPENAI, &e)) {
        return;
    }
    if (!openai_chat_read(&g, &e)) {
        gen_request_refuse(&g, s, x, API_OPENAI, &e);
        return;
    }
    bool usage = json_is_true(json_object_get(in_get(g.body, "stream_options"), "include_usage"));
    reply *r = gen_start(s, x, &chat_dialect, &g, "chatcmpl-");
    if (r && r->streaming) {
        r->include_usage = usage;
        http_stream_begin(x, 200, "text/event-stream");
        chat_begin(r);
    }
}

void openai_apply_template(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    gen_request g;
    if (!gen_request_open(&g, s, x, API_OPENAI, &e)) {
        return;
    }
    char *text = NULL;
    size_t n = 0;
    if (openai_chat_read(&g, &e) && prompt_render(s, &g, &e, &text, &n)) {
        tbuf out = {0};
        jw w = jw_start(&out);
        jw_open(&w, NULL, '{');
        jw_bytes(&w, "prompt", text, n);
        jw_close(&w);
        api_reply_json(s, x, 200, &out);
    } else {
        api_reply_error(s, x, API_OPENAI, &e);
    }
    free(text);
    gen_request_free(&g);
}
