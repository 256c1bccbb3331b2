/* prompt.c - from a conversation to the ids of a prompt, by the model's own template.
 *
 * Templates that know no tools get them in the system text, in the words of the Hermes format;
 * templates that refuse a system message get it in front of the first user message. */
#include "api.h"

#include <stdlib.h>
#include <string.h>

/* ---- Tools for templates that know none ---- */

static const char tools_head[] = "You may call functions to help with the user's request. Their "
                                 "signatures, one a line:\n<tools>\n";
static const char tools_tail[] =
    "</tools>\nFor each call write a JSON object with the function's name and its arguments "
    "between "
    "<tool_call> tags:\n<tool_call>\n{\"name\": NAME, \"arguments\": {...}}\n</tool_call>";

static void describe_tools(tbuf *out, json_t *tools) {
    tbuf_puts(out, tools_head);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        jw w = jw_start(out);
        jw_value(&w, NULL, json_array_get(tools, i));
        tbuf_putc(out, '\n');
    }
    tbuf_puts(out, tools_tail);
}

/* Calls of an assistant's message as the text they were. */
static void write_calls(tbuf *out, json_t *calls) {
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *f = json_object_get(json_array_get(calls, i), "function");
        tbuf_puts(out, out->n ? "\n<tool_call>\n{\"name\": " : "<tool_call>\n{\"name\": ");
        jw w = jw_start(out);
        jw_value(&w, NULL, json_object_get(f, "name"));
        tbuf_puts(out, ", \"arguments\": ");
        w = jw_start(out);
        jw_value(&w, NULL, json_object_get(f, "arguments"));
        tbuf_puts(out, "}\n</tool_call>");
    }
}

static json_t *plain_message(json_t *m) {
    const char *role = json_string_value(json_object_get(m, "role"));
    json_t *calls = json_object_get(m, "tool_calls");
    tbuf text = {0};
    tbuf_puts(&text, json_string_value(json_object_get(m, "content")));
    json_t *out = json_copy(m);
    if (!strcmp(role, "tool")) {
        tbuf_clear(&text);
        tbuf_printf(&text, "<tool_response>\n%s\n</tool_response>",
                    json_string_value(json_object_get(m, "content")));
        json_object_set_new(out, "role", json_string("user"));
    } else if (calls) {
        write_calls(&text, calls);
        json_object_del(out, "tool_calls");
    }
    json_object_set_new(out, "content", json_string(tbuf_text(&text)));
    tbuf_free(&text);
    return out;
}

static void put_in_front(json_t *m, const char *text) {
    const char *old = json_string_value(json_object_get(m, "content"));
    tbuf joined = {0};
    tbuf_printf(&joined, "%s%s%s", text, old && *old ? "\n\n" : "", old ? old : "");
    json_object_set_new(m, "content", json_string(tbuf_text(&joined)));
    tbuf_free(&joined);
}

static bool has_role(json_t *m, const char *role) {
    const char *got = json_string_value(json_object_get(m, "role"));
    return got && !strcmp(got, role);
}

/* The conversation with tools in words. */
static json_t *plain_messages(json_t *messages, json_t *tools) {
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_array_append_new(out, plain_message(json_array_get(messages, i)));
    }
    if (tools) {
        tbuf text = {0};
        describe_tools(&text, tools);
        if (!has_role(json_array_get(out, 0), "system")) {
            json_array_insert_new(out, 0, json_pack("{s:s,s:s}", "role", "system", "content", ""));
        }
        json_t *first = json_array_get(out, 0);
        tbuf joined = {0};
        const char *old = json_string_value(json_object_get(first, "content"));
        tbuf_printf(&joined, "%s%s%s", old, *old ? "\n\n" : "", tbuf_text(&text));
        json_object_set_new(first, "content", json_string(tbuf_text(&joined)));
        tbuf_free(&joined);
        tbuf_free(&text);
    }
    return out;
}

/* The conversation with the system's text in front of the first user's. NULL: there is none. */
static json_t *without_system(json_t *messages) {
    if (!has_role(json_array_get(messages, 0), "system") || json_array_size(messages) < 2 ||
        !has_role(json_array_get(messages, 1), "user")) {
        return NULL;
    }
    json_t *out = json_deep_copy(messages);
    const char *text = json_string_value(json_object_get(json_array_get(messages, 0), "content"));
    put_in_front(json_array_get(out, 1), text);
    json_array_remove(out, 0);
    return out;
}

/* ---- Rendering ---- */

/* gpt-oss calls past reasoning thinking, and takes it or a text beside calls, not both. */
static void adapt_reasoning(const hosted *h, json_t *messages) {
    bool channels = h->format && !h->format->scan;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        json_t *text = json_object_get(m, "reasoning_content");
        text = text ? text : json_object_get(m, "thinking");
        if (!text) {
            continue;
        }
        const char *content = json_string_value(json_object_get(m, "content"));
        if (channels && !(json_object_get(m, "tool_calls") && content && *content)) {
            json_object_set(m, "thinking", text);
        } else if (!channels) {
            json_object_set(m, "reasoning_content", text);
        }
        json_object_del(m, channels ? "reasoning_content" : "thinking");
    }
}

static jang_status render(const gen_request *g, json_t *messages, bool add_prompt, char **text,
                          size_t *n_bytes) {
    json_t *context = json_object();
    json_object_set(context, "messages", messages);
    json_object_set_new(context, "add_generation_prompt", json_boolean(add_prompt));
    if (g->tools && g->tool_mode != TOOLS_NONE && g->model->template_has_tools) {
        json_object_set(context, "tools", g->tools);
        json_object_set(context, "xml_tools", g->tools); /* SmolLM3's name for it */
    }
    json_object_update(context, g->kwargs);
    char *json = json_dumps(context, JSON_COMPACT);
    json_decref(context);
    jang_status status =
        json ? jang_chat_prompt(text, n_bytes, g->model->tok, json) : JANG_ERR_MEMORY;
    free(json);
    return status;
}

static bool render_fail(server *s, api_error *e, jang_status status) {
    int code = status == JANG_ERR_MEMORY ? 503 : status == JANG_ERR_UNSUPPORTED ? 422 : 400;
    return api_fail(e, code, code == 422 ? "unsupported" : "invalid_value", "messages",
                    "messages: %s", jang_context_error(s->ctx));
}

/* The prompt in memory of its own; behind it what is there of an answer to be continued. */
static char *take_text(server *s, char *rendered, size_t *n_bytes, json_t *last) {
    const char *begun = last ? json_string_value(json_object_get(last, "content")) : "";
    size_t n = strlen(begun);
    while (n && strchr(" \n\t\r", begun[n - 1])) {
        n--;
    }
    char *own = malloc(*n_bytes + n + 1);
    if (own) {
        memcpy(own, rendered, *n_bytes);
        memcpy(own + *n_bytes, begun, n);
        *n_bytes += n;
        own[*n_bytes] = 0;
    }
    jang_free(s->ctx, rendered);
    return own;
}

bool prompt_render(server *s, gen_request *g, api_error *e, char **text, size_t *n_bytes) {
    bool plain = !g->model->template_has_tools;
    json_t *messages =
        plain ? plain_messages(g->messages, g->tool_mode != TOOLS_NONE ? g->tools : NULL)
              : json_deep_copy(g->messages);
    adapt_reasoning(g->model, messages);
    size_t n = json_array_size(messages);
    json_t *last = NULL;
    if (g->continue_final && n > 1 && has_role(json_array_get(messages, n - 1), "assistant")) {
        last = json_incref(json_array_get(messages, n - 1));
        json_array_remove(messages, n - 1);
    }
    bool add_prompt = true;
    json_t *asked = json_object_get(g->body, "add_generation_prompt");
    if (json_is_boolean(asked)) {
        add_prompt = json_is_true(asked);
    }
    char *rendered = NULL;
    jang_status status = render(g, messages, add_prompt, &rendered, n_bytes);
    json_t *joined = status == JANG_ERR_FORMAT ? without_system(messages) : NULL;
    if (joined) {
        status = render(g, joined, add_prompt, &rendered, n_bytes);
        json_decref(joined);
    }
    bool ok = status == JANG_OK || render_fail(s, e, status);
    char *own = ok ? take_text(s, rendered, n_bytes, last) : NULL;
    if (ok && !own) {
        ok = api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    json_decref(last);
    json_decref(messages);
    *text = own;
    return ok;
}

/* Whether an id is what begins a text, and nothing else is. */
static bool begins_text(const server *s, const gen_request *g, int32_t id) {
    int32_t *ids = NULL;
    size_t n = 0;
    if (jang_tokenize(&ids, &n, g->model->tok, "", 0, JANG_TOKENIZE_ADD_SPECIAL) != JANG_OK) {
        return false;
    }
    bool begins = n == 1 && ids[0] == id;
    jang_free(s->ctx, ids);
    return begins;
}

int32_t *prompt_ids(server *s, const gen_request *g, api_error *e, const char *text, size_t n_bytes,
                    unsigned flags, size_t *n_ids) {
    int32_t *ids = NULL;
    flags &= g->n_context ? ~JANG_TOKENIZE_ADD_SPECIAL : ~0u;
    jang_status status = jang_tokenize(&ids, n_ids, g->model->tok, text, n_bytes, flags);
    if (status != JANG_OK) {
        api_fail(e, 500, "internal", NULL, "%s", jang_context_error(s->ctx));
        return NULL;
    }
    size_t n = g->n_context, skip = n && *n_ids && begins_text(s, g, ids[0]);
    int32_t *own = *n_ids ? malloc((n + *n_ids) * sizeof *own) : NULL;
    if (own) {
        if (n) {
            memcpy(own, g->context, n * sizeof *own);
        }
        memcpy(own + n, ids + skip, (*n_ids - skip) * sizeof *own);
        *n_ids += n - skip;
    } else if (!*n_ids) {
        api_fail(e, 400, "invalid_value", "prompt", "prompt: expected at least one token");
    } else {
        api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    jang_free(s->ctx, ids);
    return own;
}

bool prompt_make(server *s, gen_request *g, api_error *e, bool *reasoning_open) {
    char *text = NULL;
    size_t n_bytes = 0;
    if (!prompt_render(s, g, e, &text, &n_bytes)) {
        return false;
    }
    *reasoning_open = reasoning_is_open(g->model->reasoning, text, n_bytes);
    size_t n_ids = 0;
    int32_t *ids = prompt_ids(s, g, e, text, n_bytes, 0, &n_ids);
    free(text);
    if (!ids) {
        return false;
    }
    g->prompts = calloc(1, sizeof *g->prompts);
    g->prompt_lengths = calloc(1, sizeof *g->prompt_lengths);
    if (!g->prompts || !g->prompt_lengths) {
        free(ids);
        return api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    g->prompts[0] = ids;
    g->prompt_lengths[0] = n_ids;
    g->n_prompts = 1;
    return true;
}
