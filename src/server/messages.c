/* messages.c - a conversation as clients send it, made into what chat templates expect: texts
 * joined, arguments of calls as objects, roles by their old names. */
#include "api.h"

#include <stdio.h>
#include <string.h>

/* Part types that hold text, and under which key. */
static const char *text_of_part(json_t *part, const char *type) {
    static const char *const types[] = {"text", "input_text", "output_text", "refusal"};
    for (size_t i = 0; i < 4; i++) {
        if (!strcmp(type, types[i])) {
            return json_string_value(json_object_get(part, i == 3 ? "refusal" : "text"));
        }
    }
    return NULL;
}

static bool add_part(tbuf *out, const json_in *in, json_t *part, size_t index) {
    char path[96];
    const char *type = json_string_value(json_object_get(part, "type"));
    snprintf(path, sizeof path, "content[%zu]", index);
    if (json_is_string(part)) {
        tbuf_puts(out, json_string_value(part));
        return true;
    }
    if (!type) {
        return in_wrong(in, path, "a part with a type", part);
    }
    const char *text = text_of_part(part, type);
    if (text) {
        tbuf_puts(out, text);
        return true;
    }
    static const char *const media[] = {"image_url",   "input_image", "image",     "document",
                                        "input_audio", "file",        "input_file"};
    for (size_t i = 0; i < sizeof media / sizeof media[0]; i++) {
        if (!strcmp(type, media[i])) {
            char param[96];
            snprintf(param, sizeof param, "%.40s%.40s", in->path, path);
            return api_fail(in->error, 422, "unsupported", param,
                            "%s: a part of type %s: this model reads text only", param, type);
        }
    }
    return in_wrong(in, path, "a part of type \"text\"", json_object_get(part, "type"));
}

/* A content of text, parts or null as one text. */
static json_t *read_content(const json_in *in, json_t *m) {
    json_t *content = in_get(m, "content");
    if (!content) {
        return json_string("");
    }
    if (json_is_string(content)) {
        return json_incref(content);
    }
    if (!json_is_array(content)) {
        in_wrong(in, "content", "a string, an array of parts or null", content);
        return NULL;
    }
    tbuf text = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(content); i++) {
        ok = add_part(&text, in, json_array_get(content, i), i);
    }
    json_t *joined = ok ? json_stringn(tbuf_text(&text), text.n) : NULL;
    tbuf_free(&text);
    return joined;
}

/* Arguments as an object; as they came where they are none. */
static json_t *read_arguments(json_t *arguments) {
    const char *text = json_string_value(arguments);
    if (!text) {
        return arguments ? json_incref(arguments) : json_object();
    }
    json_t *object = *text ? json_loads(text, 0, NULL) : json_object();
    return json_is_object(object) ? object : (json_decref(object), json_incref(arguments));
}

static json_t *read_calls(const json_in *in, json_t *calls) {
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = json_array_get(calls, i), *function = json_object_get(call, "function");
        json_t *name = json_object_get(function, "name");
        if (!json_is_string(name)) {
            char path[64];
            snprintf(path, sizeof path, "tool_calls[%zu].function.name", i);
            in_wrong(in, path, "a string", name);
            json_decref(out);
            return NULL;
        }
        json_t *id = in_get(call, "id");
        json_array_append_new(out,
                              json_pack("{s:O,s:s,s:{s:O,s:o}}", "id", id ? id : name, "type",
                                        "function", "function", "name", name, "arguments",
                                        read_arguments(json_object_get(function, "arguments"))));
    }
    return out;
}

static json_t *read_message(const json_in *in, json_t *m) {
    static const char *const roles[] = {"system", "developer", "user", "assistant",
                                        "tool",   "function",  NULL};
    int role = -1;
    if (!json_is_object(m)) {
        in_wrong(in, "", "an object", m);
        return NULL;
    }
    if (!in_choice(in, m, "role", roles, &role)) {
        in_wrong(in, "role", "a role", NULL);
        return NULL;
    }
    json_t *content = read_content(in, m);
    if (!content) {
        return NULL;
    }
    json_t *out = json_object();
    json_object_set_new(out, "role",
                        json_string(role == 1   ? "system"
                                    : role == 5 ? "tool"
                                                : roles[role]));
    json_object_set_new(out, "content", content);
    static const char *const kept[] = {"name", "tool_call_id", "reasoning_content", "thinking"};
    for (size_t i = 0; i < 4; i++) {
        json_t *value = in_get(m, kept[i]);
        if (json_is_string(value)) {
            json_object_set(out, kept[i], value);
        }
    }
    json_t *calls = in_array(in, m, "tool_calls");
    if (json_array_size(calls) && !in->error->status) {
        json_object_set_new(out, "tool_calls", read_calls(in, calls));
    }
    return out;
}

json_t *messages_read(api_error *e, json_t *messages) {
    json_in top = {e, ""};
    if (!json_is_array(messages)) {
        in_wrong(&top, "messages", "an array", messages);
        return NULL;
    }
    if (!json_array_size(messages)) {
        api_fail(e, 400, "invalid_value", "messages", "messages: expected at least one message");
        return NULL;
    }
    json_t *out = json_array();
    for (size_t i = 0; !e->status && i < json_array_size(messages); i++) {
        char path[48];
        snprintf(path, sizeof path, "messages[%zu].", i);
        json_in in = {e, path};
        json_t *m = read_message(&in, json_array_get(messages, i));
        if (m) {
            json_array_append_new(out, m);
        }
    }
    if (e->status) {
        json_decref(out);
        return NULL;
    }
    return out;
}
