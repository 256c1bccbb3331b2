/* structure.c - grammars put together from parts; jang.h says how they are written. */
#include "base/json.h"
#include "grammar/gr_expr.h"
#include "grammar/gr_markers.h"
#include "grammar/grammar_impl.h"
#include "grammar/schema.h"

#include <string.h>

#define MAX_DEPTH 100
#define MAX_REPEAT 1000000

typedef struct definition {
    const char *name;
    uint32_t rule;
} definition;

typedef struct builder {
    gr_auto *a;
    buf path;
    int depth;
    gr_json python; /* written when first asked for */
    definition *definitions;
    size_t n_definitions, capacity;
    jang_status status;
} builder;

/* Each writes a part in front of next. */
typedef uint32_t (*part_fn)(builder *b, const json_t *part, const json_t *value, uint32_t next);

static uint32_t write_part(builder *b, const json_t *part, uint32_t next);

static uint32_t fail(builder *b, jang_status status, const char *why) {
    if (b->status == JANG_OK) {
        b->status = ctx_fail(b->a->ctx, status, "%.300s: %s", b->path.data, why);
    }
    return 0;
}

static uint32_t wrong(builder *b, const char *why) {
    return fail(b, JANG_ERR_FORMAT, why);
}

static size_t enter(builder *b, const char *name, size_t index) {
    size_t size = b->path.size;
    if (name) {
        buf_printf(&b->path, ".%s", name);
    } else {
        buf_printf(&b->path, "[%zu]", index);
    }
    return size;
}

static void leave(builder *b, size_t size) {
    b->path.size = size;
    b->path.data[size] = 0;
}

/* ---- Texts ---- */

static uint32_t on_literal(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    if (!json_is_string(value)) {
        return wrong(b, "expected a string");
    }
    return gr_text(b->a, json_string_value(value), json_string_length(value), next);
}

static uint32_t on_marker(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    if (!json_is_string(value) || !json_string_length(value)) {
        return wrong(b, "expected a string that is not empty");
    }
    return gr_marker(b->a, json_string_value(value), json_string_length(value), next);
}

static uint32_t on_regex(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    if (!json_is_string(value)) {
        return wrong(b, "expected a string");
    }
    gr_pool p;
    uint32_t e = 0, entry = 0;
    jang_status status = gr_pool_init(&p, b->a->ctx);
    if (status == JANG_OK) {
        status =
            gr_regex(&e, &p, b->path.data, json_string_value(value), json_string_length(value));
    }
    if (status == JANG_OK) {
        status = gr_expr_anchor(&e, &p, b->path.data, e, false);
    }
    if (status == JANG_OK) {
        entry = gr_expr_emit(b->a, &p, e, GR_SPELL_UTF8, next);
    }
    gr_pool_free(&p);
    b->status = b->status == JANG_OK ? status : b->status;
    return entry;
}

static uint32_t on_gbnf(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    gr_ref ref;
    if (!json_is_string(value)) {
        return wrong(b, "expected a string");
    }
    jang_status status =
        gr_gbnf_rules(b->a, &ref, json_string_value(value), json_string_length(value));
    if (status != JANG_OK) {
        b->status = b->status == JANG_OK ? ctx_prefix(b->a->ctx, status, "%.300s", b->path.data)
                                         : b->status;
        return 0;
    }
    return gr_call(b->a, ref, next);
}

/* ---- JSON ---- */

static const gr_json *style_of(builder *b, const json_t *part) {
    const json_t *style = json_object_get(part, "style");
    if (!style || (json_is_string(style) && !strcmp(json_string_value(style), "json"))) {
        return &b->a->json;
    }
    if (!json_is_string(style) || strcmp(json_string_value(style), "python") != 0) {
        (void)wrong(b, "style is \"json\" or \"python\"");
        return NULL;
    }
    if (!b->python.value) {
        gr_json_rules(b->a, &b->python, true);
    }
    return &b->python;
}

static uint32_t on_schema(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    const gr_json *json = style_of(b, part);
    bool loose = json_is_true(json_object_get(part, "loose"));
    gr_ref ref = {0, 0, 0};
    if (json && b->status == JANG_OK) {
        b->status = sc_compile(&ref, b->a, json, value, b->path.data, loose);
    }
    return gr_call(b->a, ref, next);
}

static uint32_t on_json(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    const gr_json *json = style_of(b, part);
    const char *what = json_is_string(value) ? json_string_value(value) : "";
    if (!json) {
        return 0;
    }
    if (strcmp(what, "value") != 0 && strcmp(what, "object") != 0) {
        return wrong(b, "expected \"value\" or \"object\"");
    }
    return gr_call_rule(b->a, what[0] == 'v' ? json->value : json->object, next);
}

/* ---- Free text ---- */

/* Reads a list of strings as markers that lead to then; false with the failure recorded. */
static bool read_markers(builder *b, gr_marked *markers, const json_t *list, uint32_t then) {
    if (!json_is_array(list) || json_array_size(list) > GR_MAX_MARKERS) {
        (void)wrong(b, "expected a list of at most 64 strings");
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (!json_is_string(one)) {
            (void)wrong(b, "expected a list of strings");
            return false;
        }
        markers[i] = (gr_marked){json_string_value(one), json_string_length(one), then};
    }
    return true;
}

static uint32_t free_text(builder *b, const gr_marked *markers, size_t n, uint32_t end,
                          uint32_t begin) {
    jang_status status = gr_free_text(b->a, markers, n, end, begin);
    b->status = b->status == JANG_OK ? status : b->status;
    return begin;
}

static uint32_t on_until(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    gr_marked markers[GR_MAX_MARKERS];
    if (!read_markers(b, markers, value, next)) {
        return 0;
    }
    return free_text(b, markers, json_array_size(value), 0, gr_place(b->a));
}

static uint32_t on_except(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    gr_marked markers[GR_MAX_MARKERS];
    if (!read_markers(b, markers, value, 0)) {
        return 0;
    }
    return free_text(b, markers, json_array_size(value), next, gr_place(b->a));
}

/* The markers of a lazy part with their parts written, each going on with after. */
static bool lazy_markers(builder *b, gr_marked *markers, const json_t *list, uint32_t after) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const json_t *text = json_object_get(one, "marker"), *then = json_object_get(one, "then");
        size_t size = enter(b, NULL, i);
        if (!json_is_string(text) || !then) {
            (void)wrong(b, "expected {\"marker\": string, \"then\": part}");
        } else {
            markers[i] = (gr_marked){json_string_value(text), json_string_length(text),
                                     write_part(b, then, after)};
        }
        leave(b, size);
        if (b->status != JANG_OK) {
            return false;
        }
    }
    return true;
}

static uint32_t on_lazy(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    bool again = json_is_true(json_object_get(part, "again"));
    bool required = json_is_true(json_object_get(part, "required"));
    gr_marked markers[GR_MAX_MARKERS];
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n == 0 || n > GR_MAX_MARKERS) {
        return wrong(b, "expected a list of 1 to 64 objects");
    }
    uint32_t begin = gr_place(b->a);
    if (!lazy_markers(b, markers, value, again ? begin : next)) {
        return 0;
    }
    if (!(again && required)) {
        return free_text(b, markers, n, required ? 0 : next, begin);
    }
    free_text(b, markers, n, next, begin); /* after the first marker */
    return free_text(b, markers, n, 0, gr_place(b->a));
}

/* ---- Putting together ---- */

static uint32_t write_list(builder *b, const json_t *list, uint32_t next) {
    for (size_t i = json_array_size(list); i-- > 0 && b->status == JANG_OK;) {
        size_t size = enter(b, NULL, i);
        next = write_part(b, json_array_get(list, i), next);
        leave(b, size);
    }
    return next;
}

static uint32_t on_sequence(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    return json_is_array(value) ? write_list(b, value, next) : wrong(b, "expected a list");
}

static uint32_t on_choice(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    uint32_t all = 0;
    if (!json_is_array(value) || json_array_size(value) == 0) {
        return wrong(b, "expected a list that is not empty");
    }
    for (size_t i = 0; i < json_array_size(value) && b->status == JANG_OK; i++) {
        size_t size = enter(b, NULL, i);
        all = gr_split(b->a, write_part(b, json_array_get(value, i), next), all);
        leave(b, size);
    }
    return all;
}

static uint32_t on_optional(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    return gr_split(b->a, write_part(b, value, next), next);
}

static uint32_t get_count(builder *b, const json_t *part, const char *key, uint32_t fallback) {
    const json_t *value = json_object_get(part, key);
    if (!value || json_is_null(value)) {
        return fallback;
    }
    json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;
    if (n < 0 || n > MAX_REPEAT) {
        (void)wrong(b, "min and max are whole numbers from 0 to 1000000");
        return 0;
    }
    return (uint32_t)n;
}

static uint32_t on_repeat(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    uint32_t min = get_count(b, part, "min", 0), max = get_count(b, part, "max", GR_INF);
    const json_t *separator = json_object_get(part, "separator");
    gr_auto *a = b->a;
    if (min > max) {
        return wrong(b, "min is above max");
    }
    if (max == 0) {
        return next;
    }
    bool counted = min > 1 || max != GR_INF;
    uint32_t end = counted ? gr_check(a, gr_final(a)) : next;
    uint32_t after = gr_place(a);
    uint32_t one = write_part(b, value, after), more = one;
    if (separator && b->status == JANG_OK) {
        size_t size = enter(b, "separator", 0);
        more = write_part(b, separator, one);
        leave(b, size);
    }
    if (!counted) {
        gr_fill(a, after, more, end);
        return min ? one : gr_split(a, one, end);
    }
    gr_fill(a, after, gr_count(a, more), end);
    uint32_t rule = gr_rule_new(a);
    gr_rule_set(a, rule, gr_split(a, gr_count(a, one), end));
    return gr_call(a, (gr_ref){rule, min, max}, next);
}

/* As the members of an object: first are the ways before any field, after those after one. */
static uint32_t on_fields(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    const json_t *separator = json_object_get(part, "separator");
    gr_auto *a = b->a;
    uint32_t first = 0, more = 0, after = next;
    bool required = false;
    if (!json_is_array(value)) {
        return wrong(b, "expected a list");
    }
    for (size_t i = json_array_size(value); i-- > 0 && b->status == JANG_OK;) {
        const json_t *field = json_array_get(value, i), *inner = json_object_get(field, "part");
        size_t size = enter(b, NULL, i);
        if (!inner) {
            leave(b, size);
            return wrong(b, "expected {\"part\": part, \"required\": true or false}");
        }
        uint32_t one = write_part(b, inner, after);
        uint32_t another = separator ? write_part(b, separator, one) : one;
        leave(b, size);
        bool needed = json_is_true(json_object_get(field, "required"));
        first = needed ? one : gr_split(a, one, first);
        more = needed ? another : gr_split(a, another, more);
        required |= needed;
        after = gr_split(a, more, required ? 0 : next);
    }
    return required ? first : gr_split(a, first, next);
}

/* ---- Names ---- */

static uint32_t rule_named(const builder *b, const char *name) {
    for (size_t i = b->n_definitions; i-- > 0;) {
        if (strcmp(b->definitions[i].name, name) == 0) {
            return b->definitions[i].rule;
        }
    }
    return 0;
}

static uint32_t on_define(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    const json_t *in = json_object_get(part, "in");
    size_t before = b->n_definitions;
    const char *name;
    json_t *body;
    if (!json_is_object(value) || !in) {
        return wrong(b, "expected {\"define\": {name: part}, \"in\": part}");
    }
    json_object_foreach((json_t *)value, name, body) {
        if (b->status == JANG_OK) {
            b->status = gr_grow(b->a->ctx, &b->definitions, &b->capacity, b->n_definitions,
                                sizeof *b->definitions);
        }
        if (b->status == JANG_OK) {
            b->definitions[b->n_definitions++] = (definition){name, gr_rule_new(b->a)};
        }
    }
    json_object_foreach((json_t *)value, name, body) {
        if (b->status == JANG_OK) {
            size_t size = enter(b, name, 0);
            uint32_t rule = rule_named(b, name);
            gr_rule_set(b->a, rule, write_part(b, body, gr_final(b->a)));
            leave(b, size);
        }
    }
    uint32_t entry = b->status == JANG_OK ? write_part(b, in, next) : 0;
    b->n_definitions = before;
    return entry;
}

static uint32_t on_use(builder *b, const json_t *part, const json_t *value, uint32_t next) {
    (void)part;
    uint32_t rule = json_is_string(value) ? rule_named(b, json_string_value(value)) : 0;
    return rule ? gr_call_rule(b->a, rule, next) : wrong(b, "no part of this name is defined");
}

/* ---- Parts ---- */

static const struct {
    const char *key;
    part_fn write;
} kinds[] = {
    {"literal", on_literal},   {"marker", on_marker},     {"regex", on_regex},
    {"gbnf", on_gbnf},         {"schema", on_schema},     {"json", on_json},
    {"any_until", on_until},   {"any_except", on_except}, {"lazy", on_lazy},
    {"sequence", on_sequence}, {"choice", on_choice},     {"optional", on_optional},
    {"repeat", on_repeat},     {"fields", on_fields},     {"define", on_define},
    {"use", on_use},
};

static uint32_t write_object_part(builder *b, const json_t *part, uint32_t next) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const json_t *value = json_object_get(part, kinds[i].key);
        if (value) {
            size_t size = enter(b, kinds[i].key, 0);
            uint32_t entry = kinds[i].write(b, part, value, next);
            leave(b, size);
            return entry;
        }
    }
    return wrong(b, "no such part");
}

static uint32_t write_part(builder *b, const json_t *part, uint32_t next) {
    if (b->status != JANG_OK || b->a->status != JANG_OK) {
        return 0;
    }
    if (++b->depth > MAX_DEPTH) {
        return fail(b, JANG_ERR_UNSUPPORTED, "parts nested over 100 deep");
    }
    uint32_t entry = json_is_string(part)   ? on_literal(b, NULL, part, next)
                     : json_is_array(part)  ? write_list(b, part, next)
                     : json_is_object(part) ? write_object_part(b, part, next)
                                            : wrong(b, "a part is a string, a list or an object");
    b->depth--;
    return entry;
}

jang_status gr_compile_structure(gr_auto *a, const char *text, size_t n) {
    json_t *doc;
    jang_status status = json_parse(&doc, a->ctx, "structure", text, n);
    if (status != JANG_OK) {
        return status;
    }
    builder b = {.a = a};
    buf_init(&b.path, a->ctx, (size_t)1 << 20);
    buf_puts(&b.path, "structure");
    a->root = (gr_ref){gr_rule_new(a), 0, GR_INF};
    gr_rule_set(a, a->root.rule, write_part(&b, doc, gr_final(a)));
    status = b.status != JANG_OK ? b.status : a->status;
    ctx_free(a->ctx, b.definitions);
    buf_free(&b.path);
    json_decref(doc);
    return status == JANG_OK ? gr_check_rules(a, NULL, NULL, "structure") : status;
}
