/* tool_set.c - the tools of a request: their names, and the types of their parameters. */
#include "json_out.h"
#include "tool_format.h"

#include <stdlib.h>
#include <string.h>

/* ---- The set ---- */

bool tool_set_read(tool_set *set, json_t *tools) {
    size_t n = json_array_size(tools);
    *set = (tool_set){0};
    set->tools = calloc(n + 1, sizeof *set->tools);
    if (!set->tools) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        json_t *tool = json_array_get(tools, i);
        json_t *inner = json_object_get(tool, "function");
        tool = json_is_object(inner) ? inner : tool;
        const char *name = json_string_value(json_object_get(tool, "name"));
        if (!name || !*name) {
            continue;
        }
        json_t *schema = json_object_get(tool, "parameters");
        set->tools[set->n++] = (tool_def){
            .name = name,
            .description = json_string_value(json_object_get(tool, "description")),
            .parameters = json_is_object(schema) ? schema : NULL,
            .strict = json_is_true(json_object_get(tool, "strict")),
        };
    }
    return true;
}

void tool_set_free(tool_set *set) {
    free(set->tools);
    *set = (tool_set){0};
}

const tool_def *tool_find(const tool_set *set, const char *name, size_t n_name) {
    for (size_t i = 0; set && i < set->n; i++) {
        if (strlen(set->tools[i].name) == n_name && !memcmp(set->tools[i].name, name, n_name)) {
            return &set->tools[i];
        }
    }
    return NULL;
}

/* ---- Types ---- */

enum {
    TYPE_STRING = 1,
    TYPE_INTEGER = 2,
    TYPE_NUMBER = 4,
    TYPE_BOOLEAN = 8,
    TYPE_OBJECT = 16,
    TYPE_ARRAY = 32,
    TYPE_NULL = 64,
    TYPE_ANY = 127,
};

#define MAX_SCHEMA_DEPTH 16

static unsigned type_by_name(const char *name) {
    static const struct {
        const char *name;
        unsigned type;
    } names[] = {
        {"string", TYPE_STRING},   {"integer", TYPE_INTEGER}, {"number", TYPE_NUMBER},
        {"boolean", TYPE_BOOLEAN}, {"object", TYPE_OBJECT},   {"array", TYPE_ARRAY},
        {"null", TYPE_NULL},
    };
    for (size_t i = 0; name && i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(names[i].name, name)) {
            return names[i].type;
        }
    }
    return 0;
}

static unsigned type_of_value(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return TYPE_OBJECT;
    case JSON_ARRAY:
        return TYPE_ARRAY;
    case JSON_STRING:
        return TYPE_STRING;
    case JSON_INTEGER:
        return TYPE_INTEGER;
    case JSON_REAL:
        return TYPE_NUMBER;
    case JSON_NULL:
        return TYPE_NULL;
    default:
        return TYPE_BOOLEAN;
    }
}

/* The schema that "#/$defs/NAME" names. */
static json_t *resolve(json_t *root, const char *reference) {
    if (!reference || strncmp(reference, "#/", 2)) {
        return NULL;
    }
    const char *at = reference + 2;
    json_t *found = root;
    while (found && *at) {
        size_t n = strcspn(at, "/");
        found = json_object_getn(found, at, n);
        at += n + (at[n] == '/');
    }
    return found;
}

static unsigned schema_types(json_t *root, json_t *schema, int depth);

static unsigned types_of_any(json_t *root, json_t *list, int depth) {
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        types |= schema_types(root, json_array_get(list, i), depth + 1);
    }
    return types;
}

static unsigned types_of_values(const json_t *list) {
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        types |= type_of_value(json_array_get(list, i));
    }
    return types;
}

/* The types a schema allows; 0 if it does not say. */
static unsigned schema_types(json_t *root, json_t *schema, int depth) {
    if (!json_is_object(schema) || depth > MAX_SCHEMA_DEPTH) {
        return 0;
    }
    json_t *type = json_object_get(schema, "type");
    unsigned types = type_by_name(json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++) {
        types |= type_by_name(json_string_value(json_array_get(type, i)));
    }
    if (types && json_is_true(json_object_get(schema, "nullable"))) {
        types |= TYPE_NULL;
    }
    const json_t *constant = json_object_get(schema, "const");
    if (!types && constant) {
        types = type_of_value(constant);
    }
    types = types ? types : types_of_values(json_object_get(schema, "enum"));
    static const char *const unions[] = {"anyOf", "oneOf", "allOf"};
    for (size_t i = 0; !types && i < 3; i++) {
        types = types_of_any(root, json_object_get(schema, unions[i]), depth);
    }
    if (!types) {
        const char *reference = json_string_value(json_object_get(schema, "$ref"));
        types = schema_types(root, resolve(root, reference), depth + 1);
    }
    return types;
}

static unsigned type_of_json(const char *json) {
    switch (json[0]) {
    case '{':
        return TYPE_OBJECT;
    case '[':
        return TYPE_ARRAY;
    case '"':
        return TYPE_STRING;
    case 't':
    case 'f':
        return TYPE_BOOLEAN;
    case 'n':
        return TYPE_NULL;
    default:
        return strpbrk(json, ".eE") ? TYPE_NUMBER : TYPE_INTEGER;
    }
}

/* Reads text as a whole value, JSON or Python. */
static bool read_value(tbuf *out, const char *text, size_t n_text) {
    if (json_compact(out, text, n_text)) {
        return true;
    }
    scanner s = {.text = text, .n = n_text, .final = true};
    size_t before = out->n;
    if (scan_python(&s, out) == SCAN_OK) {
        scan_space(&s);
        if (s.at == s.n) {
            return true;
        }
    }
    tbuf_cut(out, before);
    return false;
}

void tool_typed_value(tbuf *out, const tool_def *tool, const char *param, size_t n_param,
                      const char *text, size_t n_text, bool complete) {
    json_t *root = tool ? tool->parameters : NULL;
    json_t *schema = json_object_getn(json_object_get(root, "properties"), param, n_param);
    unsigned types = schema_types(root, schema, 0);
    types = types ? types : schema && json_object_size(schema) == 0 ? TYPE_ANY : TYPE_STRING;
    if (types == TYPE_STRING && !complete) {
        tbuf_putc(out, '"');
        json_escape(out, text, n_text);
        return;
    }
    size_t before = out->n;
    if (!complete) {
        return;
    }
    if (types != TYPE_STRING && read_value(out, text, n_text) && !out->failed) {
        types |= types & TYPE_NUMBER ? TYPE_INTEGER : 0;
        if (!(types & TYPE_STRING) || types & type_of_json(out->data + before)) {
            return;
        }
        tbuf_cut(out, before);
    }
    json_quote(out, text, n_text);
}

/* ---- Calls ---- */

tool_call *call_add(call_list *list) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        tool_call *more = realloc(list->calls, capacity * sizeof *more);
        if (!more) {
            list->failed = true;
            return NULL;
        }
        list->calls = more;
        list->capacity = capacity;
    }
    list->calls[list->n] = (tool_call){0};
    return &list->calls[list->n++];
}

void call_list_clear(call_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        tbuf_free(&list->calls[i].name);
        tbuf_free(&list->calls[i].args);
        tbuf_free(&list->calls[i].id);
    }
    list->n = 0;
}

void call_list_free(call_list *list) {
    call_list_clear(list);
    free(list->calls);
    *list = (call_list){0};
}
