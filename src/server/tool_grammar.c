/* tool_grammar.c - the grammar that makes a model call tools in its family's own format: required
 * calls from the first token on, optional ones from the family's opening marker on. */
#include "api.h"

#include <string.h>

#define GEMMA_DEPTH 16

/* Arguments as a JSON object, tags around each, Python's keywords, or Gemma's bare keys. */
typedef enum args_kind { ARGS_JSON, ARGS_TAGS, ARGS_PYTHON, ARGS_GEMMA } args_kind;

/* How a format's calls are put together:
 * begin (before name after ARGUMENTS close) divided by separator, end. */
typedef struct call_shape {
    const char *format;
    const char *begin, *before, *after, *close, *separator, *end;
    args_kind kind;
    /* ARGS_TAGS; param_after_text where the value is text, if that differs. ARGS_GEMMA: param is
     * the quote mark. */
    const char *param, *param_after, *param_close, *param_after_text;
    const char *marker; /* what optional calls begin with, if not the format's first opening */
    bool may_have_id;   /* an id of nine letters and after, or after, or neither */
} call_shape;

static const call_shape shapes[] = {
    {"hermes", "", "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>", "\n", "",
     .kind = ARGS_JSON},
    {"qwen3_coder", "", "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>", "\n", "",
     ARGS_TAGS, "<parameter=", ">\n", .param_close = "\n</parameter>\n"},
    {"seed", "", "<seed:tool_call>\n<function=", ">\n", "</function>\n</seed:tool_call>", "\n", "",
     ARGS_TAGS, "<parameter=", ">", .param_close = "</parameter>\n"},
    {"glm", "", "<tool_call>", "\n", "</tool_call>", "\n", "", ARGS_TAGS, "<arg_key>",
     "</arg_key>\n<arg_value>", .param_close = "</arg_value>\n"},
    {"minimax", "<minimax:tool_call>\n", "<invoke name=\"", "\">\n", "</invoke>\n", "",
     "</minimax:tool_call>", ARGS_TAGS, "<parameter name=\"", "\">",
     .param_close = "</parameter>\n"},
    {"llama3", "", "{\"name\": \"", "\", \"parameters\": ", "}", "; ", "", .kind = ARGS_JSON},
    {"mistral", "[TOOL_CALLS][", "{\"name\": \"", "\", \"arguments\": ", "}", ", ", "]",
     .kind = ARGS_JSON},
    {"mistral_v11", "", "[TOOL_CALLS]", "[ARGS]", "", "", "", .kind = ARGS_JSON,
     .may_have_id = true},
    {"mistral_v13", "", "[TOOL_CALLS]", "[ARGS]", "", "", "", .kind = ARGS_JSON},
    {"deepseek_v3", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
     "\n```json\n", "\n```<｜tool▁call▁end｜>", "\n", "<｜tool▁calls▁end｜>", .kind = ARGS_JSON},
    {"deepseek_v31", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
     "<｜tool▁call▁end｜>", "", "<｜tool▁calls▁end｜>", .kind = ARGS_JSON},
    {"kimi", "<|tool_calls_section_begin|>", "<|tool_call_begin|>functions.",
     ":0<|tool_call_argument_begin|>", "<|tool_call_end|>", "", "<|tool_calls_section_end|>",
     .kind = ARGS_JSON},
    {"phi", "functools[", "{\"name\": \"", "\", \"arguments\": ", "}", ", ", "]",
     .kind = ARGS_JSON},
    {"granite", "<|tool_call|>[", "{\"name\": \"", "\", \"arguments\": ", "}", ", ", "]",
     .kind = ARGS_JSON},
    {"apriel", "<tool_calls>[", "{\"name\": \"", "\", \"arguments\": ", "}", ", ", "]</tool_calls>",
     .kind = ARGS_JSON},
    {"cohere", "<|START_ACTION|>[\n    ", "{\"tool_name\": \"", "\", \"parameters\": ", "}",
     ",\n    ", "\n]<|END_ACTION|>", .kind = ARGS_JSON},
    {"harmony", "", "<|channel|>commentary to=functions.", " <|constrain|>json<|message|>",
     "<|call|>", "<|start|>assistant", "", .kind = ARGS_JSON},
    {"dsml", "<｜DSML｜function_calls>\n", "<｜DSML｜invoke name=\"", "\">\n",
     "</｜DSML｜invoke>\n", "", "</｜DSML｜function_calls>", ARGS_TAGS,
     "<｜DSML｜parameter name=\"", "\" string=\"false\">", "</｜DSML｜parameter>\n",
     .param_after_text = "\" string=\"true\">"},
    {"pythonic", "[", "", "(", ")", ", ", "]", .kind = ARGS_PYTHON},
    {"gemma3", "", "<start_function_call>call:", "{", "}<end_function_call>", "", "", ARGS_GEMMA,
     .param = "<escape>", .marker = "<start_function_call>"},
    {"gemma4", "", "<|tool_call>call:", "{", "}<tool_call|>", "", "", ARGS_GEMMA,
     .param = "<|\"|>"},
};

static const call_shape *find_shape(const char *format) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (!strcmp(shapes[i].format, format)) {
            return &shapes[i];
        }
    }
    return NULL;
}

static bool is_allowed(const json_t *allowed, const char *name) {
    bool found = !allowed;
    for (size_t i = 0; i < json_array_size(allowed); i++) {
        found |= !strcmp(json_string_value(json_array_get(allowed, i)), name);
    }
    return found;
}

static json_t *loose_schema(json_t *schema, json_t *definitions) {
    json_t *copy = schema ? json_copy(schema) : json_pack("{s:s}", "type", "object");
    if (definitions && schema && !json_object_get(copy, "$defs")) {
        json_object_set(copy, "$defs", definitions);
    }
    return json_pack("{s:o,s:b}", "schema", copy, "loose", 1);
}

/* A parameter between tags: text up to the closing tag where the schema says string, else JSON. */
static json_t *tag_part(const call_shape *c, const char *name, json_t *schema,
                        json_t *definitions) {
    const char *type = json_string_value(json_object_get(schema, "type"));
    bool is_text = type && !strcmp(type, "string") && !json_object_get(schema, "enum");
    const char *after = is_text && c->param_after_text ? c->param_after_text : c->param_after;
    json_t *opening = json_pack("s+++", c->param, name, after, "");
    if (is_text) {
        return json_pack("[o,{s:[s]}]", opening, "any_until", c->param_close);
    }
    return json_pack("[o,o,s]", opening, loose_schema(schema, definitions), c->param_close);
}

static bool is_required(json_t *schema, const char *name) {
    json_t *required = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *one = json_string_value(json_array_get(required, i));
        if (one && !strcmp(one, name)) {
            return true;
        }
    }
    return false;
}

/* name=VALUE, with Python's literals. */
static json_t *python_part(const call_shape *c, const char *name, json_t *schema,
                           json_t *definitions) {
    (void)c;
    json_t *value = loose_schema(schema, definitions);
    json_object_set_new(value, "style", json_string("python"));
    return json_pack("[s+,o]", name, "=", value);
}

static json_t *gemma_fields(const call_shape *c, json_t *schema, int depth);

/* A value in Gemma's notation: texts between quote marks, nested objects with bare keys. What has
 * no type, or is nested too deep, is a text. */
static json_t *gemma_value(const call_shape *c, json_t *schema, int depth) {
    static const char *const as_json[] = {"integer", "number", "boolean", "null"};
    const char *type = json_string_value(json_object_get(schema, "type"));
    for (size_t i = 0; type && i < 4; i++) {
        if (!strcmp(type, as_json[i])) {
            return loose_schema(schema, NULL);
        }
    }
    if (type && depth < GEMMA_DEPTH && !strcmp(type, "object")) {
        return json_pack("[s,o,s]", "{", gemma_fields(c, schema, depth + 1), "}");
    }
    if (type && depth < GEMMA_DEPTH && !strcmp(type, "array")) {
        json_t *item = gemma_value(c, json_object_get(schema, "items"), depth + 1);
        return json_pack("[s,{s:o,s:s},s]", "[", "repeat", item, "separator", ",", "]");
    }
    json_t *known = json_object_get(schema, "enum"), *choice = json_array();
    for (size_t i = 0; i < json_array_size(known); i++) {
        const char *text = json_string_value(json_array_get(known, i));
        if (text) {
            json_array_append_new(choice, json_pack("s++", c->param, text, c->param));
        }
    }
    if (json_array_size(choice)) {
        return json_pack("{s:o}", "choice", choice);
    }
    json_decref(choice);
    return json_pack("[s,{s:[s]}]", c->param, "any_until", c->param);
}

static json_t *gemma_part(const call_shape *c, const char *name, json_t *schema, int depth) {
    return json_pack("[s+,o]", name, ":", gemma_value(c, schema, depth));
}

static json_t *gemma_fields(const call_shape *c, json_t *schema, int depth) {
    json_t *fields = json_array();
    const char *name;
    json_t *property;
    json_object_foreach(json_object_get(schema, "properties"), name, property) {
        json_array_append_new(fields,
                              json_pack("{s:o,s:b}", "part", gemma_part(c, name, property, depth),
                                        "required", is_required(schema, name)));
    }
    return json_pack("{s:o,s:s}", "fields", fields, "separator", ",");
}

/* The parameters one by one, in the order of the schema. */
static json_t *fields_part(const call_shape *c, json_t *schema) {
    bool python = c->kind == ARGS_PYTHON;
    json_t *fields = json_array(), *definitions = json_object_get(schema, "$defs");
    const char *name;
    json_t *property;
    json_object_foreach(json_object_get(schema, "properties"), name, property) {
        json_t *part = (python ? python_part : tag_part)(c, name, property, definitions);
        json_array_append_new(
            fields, json_pack("{s:o,s:b}", "part", part, "required", is_required(schema, name)));
    }
    return json_pack("{s:o,s:s}", "fields", fields, "separator", python ? ", " : "");
}

static json_t *args_part(const call_shape *c, json_t *schema) {
    return c->kind == ARGS_JSON    ? loose_schema(schema, NULL)
           : c->kind == ARGS_GEMMA ? gemma_fields(c, schema, 0)
                                   : fields_part(c, schema);
}

static json_t *call_part(const call_shape *c, const tool_def *tool) {
    if (c->may_have_id) {
        return json_pack("[s+,{s:[[s,{s:s},s],s,s]},o]", c->before, tool->name, "choice",
                         "[CALL_ID]", "regex", "[A-Za-z0-9]{9}", c->after, c->after, "",
                         args_part(c, tool->parameters));
    }
    return json_pack("[s++,o,s]", c->before, tool->name, c->after, args_part(c, tool->parameters),
                     c->close);
}

/* All calls, from the first marker on. */
static json_t *calls_part(const call_shape *c, const tool_set *tools, const json_t *allowed,
                          bool parallel) {
    json_t *choice = json_array();
    for (size_t i = 0; i < tools->n; i++) {
        if (is_allowed(allowed, tools->tools[i].name)) {
            json_array_append_new(choice, call_part(c, &tools->tools[i]));
        }
    }
    json_t *repeat = json_pack("{s:{s:o},s:i,s:s}", "repeat", "choice", choice, "min", 1,
                               "separator", c->separator);
    if (!parallel) {
        json_object_set_new(repeat, "max", json_integer(1));
    }
    return json_pack("[s,o,s]", c->begin, repeat, c->end);
}

/* The marker that starts calls, and the rest of a part's first text behind it. */
static bool cut_marker(json_t *part, const char *marker) {
    json_t *first = json_array_get(part, 0);
    while (json_is_array(first)) {
        part = first;
        first = json_array_get(part, 0);
    }
    const char *text = json_string_value(first);
    size_t n = strlen(marker);
    if (!text || strncmp(text, marker, n)) {
        return false;
    }
    json_t *rest = json_string(text + n);
    json_array_set_new(part, 0, rest);
    return true;
}

/* Free text; behind each marker one of the calls, or what belongs to the section. */
static json_t *lazy_part(const call_shape *c, const tool_format *format, const tool_set *tools,
                         const json_t *allowed, bool parallel) {
    const char *marker = c->marker ? c->marker : format->openings[0];
    if (!marker || (format->bare && !*c->begin)) {
        return NULL;
    }
    json_t *then;
    if (*c->begin) {
        then = calls_part(c, tools, allowed, parallel);
        if (!cut_marker(then, marker) && !format->section_close) {
            json_decref(then);
            return NULL;
        }
        if (strncmp(c->begin, marker, strlen(marker))) { /* the marker stands before the calls */
            then = json_pack("[o,{s:s}]", then, "marker", format->section_close);
        }
    } else {
        json_t *choice = json_array();
        for (size_t i = 0; i < tools->n; i++) {
            json_t *call =
                is_allowed(allowed, tools->tools[i].name) ? call_part(c, &tools->tools[i]) : NULL;
            if (call && cut_marker(call, marker)) {
                json_array_append_new(choice, call);
            } else {
                json_decref(call);
            }
        }
        if (!json_array_size(choice)) {
            json_decref(choice);
            return NULL;
        }
        then = json_pack("{s:o}", "choice", choice);
    }
    return json_pack("{s:[{s:s,s:o}],s:b}", "lazy", "marker", marker, "then", then, "again",
                     *c->begin ? 0 : parallel);
}

bool tool_grammar(tbuf *out, const tool_format *format, const tool_set *tools,
                  const json_t *allowed, tool_mode mode, bool parallel, json_t *otherwise) {
    const call_shape *c = find_shape(format->name);
    if (!c || !tools->n) {
        return false;
    }
    json_t *part = mode == TOOLS_REQUIRED || otherwise
                       ? calls_part(c, tools, allowed, parallel)
                       : lazy_part(c, format, tools, allowed, parallel);
    if (part && otherwise && mode != TOOLS_REQUIRED) {
        part = json_pack("{s:[o,O]}", "choice", part, otherwise);
    }
    if (!part) {
        return false;
    }
    jw w = jw_start(out);
    jw_value(&w, NULL, part);
    json_decref(part);
    return true;
}
