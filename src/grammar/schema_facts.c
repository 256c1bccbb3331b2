/* schema_facts.c - gathering the keywords of schemas. */
#include "grammar/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_REFS 100
#define MAX_STEPS 2000000u

void sc_facts_init(sc_facts *f) {
    *f = (sc_facts){.types = SC_ANY};
    f->max_length = f->max_items = f->max_members = GR_INF;
}

sc_facts sc_facts_copy(const sc_facts *f) {
    sc_facts copy = *f;
    sc_list *lists[] = {&copy.values, &copy.branches, &copy.multiples, &copy.patterns,
                        &copy.items,  &copy.members,  &copy.required};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        lists[i]->capacity = lists[i]->n; /* the next push makes an array of its own */
    }
    return copy;
}

/* ---- Paths and messages ---- */

size_t sc_enter(sc *s, const char *name) {
    size_t size = s->path.size;
    buf_putc(&s->path, '.');
    buf_puts(&s->path, name);
    return size;
}

size_t sc_enter_index(sc *s, size_t index) {
    size_t size = s->path.size;
    buf_printf(&s->path, "[%zu]", index);
    return size;
}

void sc_leave(sc *s, size_t size) {
    s->path.size = size;
    s->path.data[size] = 0;
}

jang_status sc_fail(sc *s, jang_status status, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ctx_fail(s->a->ctx, status, "%.300s: %s", s->path.data, text);
}

void sc_note(sc *s, const char *why) {
    if (!s->why[0]) {
        snprintf(s->why, sizeof s->why, "%.200s: %.100s", s->path.data, why);
    }
}

/* ---- Keywords ---- */

typedef struct keyword keyword;
typedef jang_status (*gather_fn)(sc *s, sc_facts *f, const json_t *schema, const json_t *value);

static jang_status wrong(sc *s, const char *expected) {
    return sc_fail(s, JANG_ERR_FORMAT, "expected %s", expected);
}

static unsigned type_bit(const char *name) {
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {{"null", SC_NULL},       {"boolean", SC_BOOLEAN},
                 {"integer", SC_INTEGER}, {"number", SC_INTEGER | SC_FRACTION},
                 {"string", SC_STRING},   {"array", SC_ARRAY},
                 {"object", SC_OBJECT},   {"any", SC_ANY}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return types[i].bits;
        }
    }
    return 0;
}

static jang_status on_type(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    unsigned types = 0;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        unsigned bits = json_is_string(one) ? type_bit(json_string_value(one)) : 0;
        if (!bits) {
            return wrong(s, "null, boolean, integer, number, string, array, object or a list");
        }
        types |= bits;
    }
    if (json_is_true(json_object_get(schema, "nullable"))) {
        types |= SC_NULL;
    }
    if (!(f->types & types)) {
        sc_note(s, "no type satisfies all that is asked");
    }
    f->types &= types;
    return JANG_OK;
}

static jang_status narrow_values(sc *s, sc_facts *f, const json_t *const *values, size_t n) {
    sc_list kept = {0};
    for (size_t i = 0; i < n; i++) {
        bool in = !f->has_values;
        for (uint32_t k = 0; k < f->values.n && !in; k++) {
            in = json_equal((json_t *)f->values.items[k], (json_t *)values[i]);
        }
        jang_status status = in ? sc_push(s, &kept, values[i]) : JANG_OK;
        if (status != JANG_OK) {
            return status;
        }
    }
    f->values = kept;
    f->has_values = true;
    if (kept.n == 0) {
        sc_note(s, "no value satisfies all that is asked");
    }
    return JANG_OK;
}

static jang_status on_enum(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    size_t n = json_array_size(value);
    if (!json_is_array(value)) {
        return wrong(s, "a list");
    }
    bool null = json_is_true(json_object_get(schema, "nullable"));
    const json_t **all = sc_alloc(s, (n + 1) * sizeof *all);
    if (!all) {
        return JANG_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        all[i] = json_array_get(value, i);
        null &= !json_is_null(all[i]);
    }
    all[n] = json_null();
    return narrow_values(s, f, all, n + null);
}

static jang_status on_const(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return narrow_values(s, f, &value, 1);
}

/* A whole number that is not negative, also as 3.0. */
static jang_status get_size(sc *s, const json_t *value, uint32_t *out) {
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= 0) || x != (double)(uint64_t)(x < 1e18 ? x : 1e18)) {
        return wrong(s, "a whole number from 0 on");
    }
    *out = x >= GR_INF ? GR_INF - 1 : (uint32_t)x;
    return JANG_OK;
}

static jang_status raise_size(sc *s, const json_t *value, uint32_t *min, const uint32_t *max) {
    uint32_t n = 0;
    jang_status status = get_size(s, value, &n);
    if (status == JANG_OK) {
        *min = n > *min ? n : *min;
        if (*min > *max) {
            sc_note(s, "the minimum is above the maximum");
        }
    }
    return status;
}

static jang_status lower_size(sc *s, const json_t *value, const uint32_t *min, uint32_t *max) {
    uint32_t n = 0;
    jang_status status = get_size(s, value, &n);
    if (status == JANG_OK) {
        *max = n < *max ? n : *max;
        if (*min > *max) {
            sc_note(s, "the maximum is below the minimum");
        }
    }
    return status;
}

static jang_status on_min_length(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return raise_size(s, value, &f->min_length, &f->max_length);
}

static jang_status on_max_length(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return lower_size(s, value, &f->min_length, &f->max_length);
}

static jang_status on_min_items(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return raise_size(s, value, &f->min_items, &f->max_items);
}

static jang_status on_max_items(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return lower_size(s, value, &f->min_items, &f->max_items);
}

static jang_status on_min_members(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return raise_size(s, value, &f->min_members, &f->max_members);
}

static jang_status on_max_members(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return lower_size(s, value, &f->min_members, &f->max_members);
}

/* sign 1: a lower bound, -1: an upper one; the tighter one stays. */
static jang_status narrow_bound(sc *s, sc_bound *bound, const json_t *value, int sign, bool open) {
    if (!json_is_number(value)) {
        return wrong(s, "a number");
    }
    const sc_decimal *at = sc_decimal_of(s, value);
    if (!at) {
        return s->a->status != JANG_OK
                   ? s->a->status
                   : sc_fail(s, JANG_ERR_UNSUPPORTED, "a number of over 400 digits");
    }
    int order = bound->at ? sc_decimal_compare(at, bound->at) * sign : 1;
    if (order > 0 || (order == 0 && open)) {
        *bound = (sc_bound){at, open};
    }
    return JANG_OK;
}

/* Draft 4 writes the open bound as "exclusiveMinimum": true beside "minimum". */
static jang_status on_minimum(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    bool open = json_is_true(json_object_get(schema, "exclusiveMinimum"));
    return narrow_bound(s, &f->least, value, 1, open);
}

static jang_status on_maximum(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    bool open = json_is_true(json_object_get(schema, "exclusiveMaximum"));
    return narrow_bound(s, &f->most, value, -1, open);
}

static jang_status on_above(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return json_is_boolean(value) ? JANG_OK : narrow_bound(s, &f->least, value, 1, true);
}

static jang_status on_below(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    return json_is_boolean(value) ? JANG_OK : narrow_bound(s, &f->most, value, -1, true);
}

static jang_status on_multiple(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    uint32_t shift;
    const sc_decimal *unit = json_is_number(value) ? sc_decimal_of(s, value) : NULL;
    if (s->a->status != JANG_OK) {
        return s->a->status;
    }
    if (!unit || unit->negative || (unit->n_fraction == 0 && unit->digits[0] == '0')) {
        return wrong(s, "a number above 0");
    }
    uint32_t scaled = sc_decimal_scaled(unit, &shift);
    if (!scaled || (uint64_t)scaled * (shift + 1) > 8000) {
        return s->loose ? JANG_OK
                        : sc_fail(s, JANG_ERR_UNSUPPORTED,
                                  "its digits, without the point, must be at most 8000");
    }
    return sc_push(s, &f->multiples, unit);
}

static jang_status add_pattern(sc *s, sc_facts *f, const char *text, size_t n, bool whole) {
    sc_pattern *p = sc_alloc(s, sizeof *p);
    char *path = sc_alloc(s, s->path.size + 1);
    if (!p || !path) {
        return JANG_ERR_MEMORY;
    }
    memcpy(path, s->path.data, s->path.size);
    *p = (sc_pattern){text, path, n, whole};
    uint32_t e;
    jang_status status = sc_pattern_expr(s, &e, p); /* tells now whether it can be read */
    if (status == JANG_ERR_UNSUPPORTED && s->loose) {
        return JANG_OK;
    }
    return status == JANG_OK ? sc_push(s, &f->patterns, p) : status;
}

static jang_status on_pattern(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    if (!json_is_string(value)) {
        return wrong(s, "a string");
    }
    return add_pattern(s, f, json_string_value(value), json_string_length(value), false);
}

static jang_status on_format(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    static const char *const refused[] = {"idn-email",     "idn-hostname",          "iri",
                                          "iri-reference", "uri-template",          "uri-reference",
                                          "json-pointer",  "relative-json-pointer", "regex"};
    (void)schema;
    if (!json_is_string(value)) {
        return wrong(s, "a string");
    }
    const char *name = json_string_value(value), *regex = sc_format(name);
    if (regex) {
        return add_pattern(s, f, regex, strlen(regex), true);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused && !s->loose; i++) {
        if (strcmp(refused[i], name) == 0) {
            return sc_fail(s, JANG_ERR_UNSUPPORTED, "format %s cannot be enforced", name);
        }
    }
    return JANG_OK; /* int32, password and the like say nothing that a schema enforces */
}

static jang_status on_items(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    const json_t *prefix = json_object_get(schema, "prefixItems");
    if (json_is_array(value)) { /* as before 2020 */
        prefix = value;
        value = json_object_get(schema, "additionalItems");
    }
    if (prefix && !json_is_array(prefix)) {
        return wrong(s, "prefixItems to be a list");
    }
    sc_items *part = sc_alloc(s, sizeof *part);
    if (!part) {
        return JANG_ERR_MEMORY;
    }
    *part = (sc_items){prefix, value};
    return sc_push(s, &f->items, part);
}

static jang_status on_prefix(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)value;
    const json_t *rest = json_object_get(schema, "items");
    return json_object_get(schema, "items") ? JANG_OK : on_items(s, f, schema, rest);
}

static jang_status on_members(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)value;
    sc_members *part = sc_alloc(s, sizeof *part);
    if (!part) {
        return JANG_ERR_MEMORY;
    }
    *part = (sc_members){json_object_get(schema, "properties"),
                         json_object_get(schema, "patternProperties"),
                         json_object_get(schema, "additionalProperties")};
    if ((part->properties && !json_is_object(part->properties)) ||
        (part->patterns && !json_is_object(part->patterns))) {
        return wrong(s, "an object");
    }
    if (f->members.n) { /* several of the three keywords come here: once is enough */
        const sc_members *last = f->members.items[f->members.n - 1];
        if (memcmp(last, part, sizeof *part) == 0) {
            return JANG_OK;
        }
    }
    return sc_push(s, &f->members, part);
}

static jang_status on_required(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    if (json_is_boolean(value)) {
        return JANG_OK; /* draft 3, in a property; means nothing since */
    }
    size_t i;
    json_t *name;
    json_array_foreach(value, i, name) {
        if (!json_is_string(name)) {
            return wrong(s, "a list of strings");
        }
        jang_status status = sc_push(s, &f->required, name);
        if (status != JANG_OK) {
            return status;
        }
    }
    return json_is_array(value) ? JANG_OK : wrong(s, "a list of strings");
}

static jang_status on_branches(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    if (!json_is_array(value) || json_array_size(value) == 0) {
        return wrong(s, "a list of schemas");
    }
    return sc_push(s, &f->branches, value);
}

static jang_status on_all(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    if (!json_is_array(value)) {
        return wrong(s, "a list of schemas");
    }
    jang_status status = JANG_OK;
    size_t i;
    json_t *part;
    json_array_foreach(value, i, part) {
        size_t size = sc_enter_index(s, i);
        status = status == JANG_OK ? sc_gather(s, f, part) : status;
        sc_leave(s, size);
    }
    return status;
}

/* One step of a JSON pointer, ~0 and ~1 and %XX undone. NULL: there is no such thing. */
static const json_t *pointer_step(const json_t *at, const char *step, size_t n) {
    char name[512];
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        if (length + 1 >= sizeof name) {
            return NULL;
        }
        unsigned code = 0;
        if (step[i] == '~' && i + 1 < n && (step[i + 1] == '0' || step[i + 1] == '1')) {
            name[length++] = step[++i] == '0' ? '~' : '/';
        } else if (step[i] == '%' && i + 2 < n && sscanf(step + i + 1, "%2x", &code) == 1) {
            name[length++] = (char)code;
            i += 2;
        } else {
            name[length++] = step[i];
        }
    }
    name[length] = 0;
    if (json_is_array(at)) {
        size_t index = 0;
        for (size_t i = 0; i < length; i++) {
            if (name[i] < '0' || name[i] > '9' || index > 1000000) {
                return NULL;
            }
            index = index * 10 + (size_t)(name[i] - '0');
        }
        return length ? json_array_get(at, index) : NULL;
    }
    return json_object_get(at, name);
}

static const json_t *resolve(const sc *s, const char *ref) {
    const json_t *at = s->root;
    if (ref[0] != '#') {
        return NULL;
    }
    for (ref++; *ref && at; ref += strcspn(ref, "/")) {
        if (*ref != '/') {
            return NULL;
        }
        ref++;
        at = pointer_step(at, ref, strcspn(ref, "/"));
    }
    return at;
}

static jang_status on_ref(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)schema;
    const json_t *target = json_is_string(value) ? resolve(s, json_string_value(value)) : NULL;
    if (!target) {
        return sc_fail(s, JANG_ERR_FORMAT, "nothing is at \"%.100s\" within the schema",
                       json_is_string(value) ? json_string_value(value) : "?");
    }
    if (++s->refs > MAX_REFS) {
        return sc_fail(s, JANG_ERR_FORMAT, "a reference that leads back to itself");
    }
    jang_status status = sc_gather(s, f, target);
    s->refs--;
    return status;
}

/* What restricts a value but is not enforced. */
static jang_status on_refused(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    (void)f;
    (void)schema;
    (void)value;
    return s->loose ? JANG_OK : sc_fail(s, JANG_ERR_UNSUPPORTED, "this keyword cannot be enforced");
}

static jang_status on_unique(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    return json_is_false(value) ? JANG_OK : on_refused(s, f, schema, value);
}

static jang_status on_unevaluated(sc *s, sc_facts *f, const json_t *schema, const json_t *value) {
    return json_is_true(value) ? JANG_OK : on_refused(s, f, schema, value);
}

struct keyword {
    const char *name;
    gather_fn gather;
};

static const keyword keywords[] = {
    {"type", on_type},
    {"enum", on_enum},
    {"const", on_const},
    {"properties", on_members},
    {"patternProperties", on_members},
    {"additionalProperties", on_members},
    {"required", on_required},
    {"minProperties", on_min_members},
    {"maxProperties", on_max_members},
    {"items", on_items},
    {"prefixItems", on_prefix},
    {"minItems", on_min_items},
    {"maxItems", on_max_items},
    {"minLength", on_min_length},
    {"maxLength", on_max_length},
    {"pattern", on_pattern},
    {"format", on_format},
    {"minimum", on_minimum},
    {"maximum", on_maximum},
    {"exclusiveMinimum", on_above},
    {"exclusiveMaximum", on_below},
    {"multipleOf", on_multiple},
    {"anyOf", on_branches},
    {"oneOf", on_branches},
    {"allOf", on_all},
    {"$ref", on_ref},
    {"not", on_refused},
    {"if", on_refused},
    {"contains", on_refused},
    {"uniqueItems", on_unique},
    {"propertyNames", on_refused},
    {"dependentRequired", on_refused},
    {"dependentSchemas", on_refused},
    {"dependencies", on_refused},
    {"unevaluatedProperties", on_unevaluated},
    {"unevaluatedItems", on_unevaluated},
    {"$dynamicRef", on_refused},
    {"$recursiveRef", on_refused},
};

static const keyword *find_keyword(const char *name) {
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        if (strcmp(keywords[i].name, name) == 0) {
            return &keywords[i];
        }
    }
    return NULL;
}

jang_status sc_gather(sc *s, sc_facts *f, const json_t *schema) {
    if (++s->n_steps > MAX_STEPS) {
        return sc_fail(s, JANG_ERR_UNSUPPORTED, "the schema is too entangled: over %u steps",
                       MAX_STEPS);
    }
    if (json_is_boolean(schema)) {
        if (json_is_false(schema)) {
            sc_note(s, "false allows no value");
            f->types = 0;
        }
        return JANG_OK;
    }
    if (!json_is_object(schema)) {
        return wrong(s, "a schema: an object, true or false");
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)schema, name, value) {
        const keyword *k = find_keyword(name);
        if (k) {
            size_t size = sc_enter(s, name);
            jang_status status = k->gather(s, f, schema, value);
            sc_leave(s, size);
            if (status != JANG_OK) {
                return status;
            }
        }
    }
    return JANG_OK;
}
