/* schema_object.c - objects: the named members in the order of the schema, then others.
 *
 * first(i): no member yet, i is the next that may come      = key i | first(i + 1) if i is optional
 * key i   : "name": value, then after(i + 1)
 * after(i): a comma and first(i), or the end if nothing required is left
 *
 * so that the automaton is as long as the list of members, whichever of them are optional. Other
 * members come last; their names are none of the named ones. */
#include "grammar/schema.h"

#include "grammar/gr_dfa.h"

#include <string.h>

#define MAX_PATTERNS 5u
#define MAX_MEMBERS 50000u

typedef struct named {
    const char *name;
    size_t n_bytes;
    bool required;
    gr_ref value;
} named;

typedef struct object {
    sc *s;
    const sc_facts *f;
    named *list;
    size_t n;
    sc_list patterns; /* json_t strings: keys of patternProperties, each once */
} object;

/* ---- Which schemas a member must satisfy ---- */

static bool pattern_matches(sc *s, jang_status *status, const char *text, const char *name,
                            size_t n) {
    sc_pattern p = {text, s->path.data, strlen(text), false};
    sc_list one = {0};
    gr_dfa d;
    bool any = false;
    *status = sc_push(s, &one, &p);
    if (*status == JANG_OK) {
        *status = sc_patterns(s, &d, &one, &any);
    }
    if (*status != JANG_OK) {
        return false;
    }
    bool matches = any && gr_dfa_matches(&d, name, n);
    gr_dfa_free(&d);
    return matches;
}

/* What one schema's tables say of a name. */
static jang_status part_schemas(sc *s, sc_list *out, const sc_members *part, const char *name,
                                size_t n) {
    const json_t *schema = json_object_get(part->properties, name);
    bool known = schema != NULL;
    jang_status status = schema ? sc_push(s, out, schema) : JANG_OK;
    const char *pattern;
    json_t *value;
    json_object_foreach((json_t *)part->patterns, pattern, value) {
        if (status == JANG_OK && pattern_matches(s, &status, pattern, name, n)) {
            known = true;
            status = sc_push(s, out, value);
        }
    }
    if (status == JANG_OK && !known && part->additional) {
        status = sc_push(s, out, part->additional);
    }
    return status;
}

jang_status sc_member_schemas(sc *s, sc_list *out, const sc_facts *f, const char *name, size_t n,
                              bool *allowed) {
    jang_status status = JANG_OK;
    for (uint32_t i = 0; i < f->members.n && status == JANG_OK; i++) {
        status = part_schemas(s, out, f->members.items[i], name, n);
    }
    *allowed = true;
    for (uint32_t i = 0; i < out->n; i++) {
        *allowed &= !json_is_false((const json_t *)out->items[i]);
    }
    return status;
}

/* ---- The named members ---- */

static jang_status add_named(object *o, json_t *seen, const char *name, bool required) {
    sc *s = o->s;
    if (json_object_get(seen, name)) {
        return JANG_OK;
    }
    if (json_object_set_new(seen, name, json_true()) != 0) {
        return ctx_fail_memory(s->a->ctx, strlen(name));
    }
    sc_list schemas = {0};
    bool allowed;
    named one = {name, strlen(name), required, {s->json->value, 0, GR_INF}};
    size_t size = sc_enter(s, "properties");
    sc_enter(s, name);
    jang_status status = sc_member_schemas(s, &schemas, o->f, name, one.n_bytes, &allowed);
    if (status == JANG_OK && schemas.n) {
        status = sc_value(s, &one.value, &schemas);
    }
    sc_leave(s, size);
    if (status == JANG_OK && (one.value.rule || required)) {
        o->list[o->n++] = one;
    }
    return status;
}

static jang_status find_named(object *o, json_t *seen) {
    const sc_facts *f = o->f;
    size_t n = f->required.n;
    for (uint32_t i = 0; i < f->members.n; i++) {
        n += json_object_size(((const sc_members *)f->members.items[i])->properties);
    }
    if (n > MAX_MEMBERS) {
        return sc_fail(o->s, JANG_ERR_UNSUPPORTED, "over %u properties", MAX_MEMBERS);
    }
    o->list = sc_alloc(o->s, (n + 1) * sizeof *o->list);
    json_t *required = json_object(); /* as a set */
    jang_status status = o->list && required ? JANG_OK : ctx_fail_memory(o->s->a->ctx, n);
    for (uint32_t i = 0; i < f->required.n && status == JANG_OK; i++) {
        json_object_set_new(required, json_string_value(f->required.items[i]), json_true());
    }
    for (uint32_t i = 0; i < f->members.n && status == JANG_OK; i++) {
        const char *name;
        json_t *value;
        const sc_members *part = f->members.items[i];
        json_object_foreach((json_t *)part->properties, name, value) {
            if (status == JANG_OK) {
                status = add_named(o, seen, name, json_object_get(required, name) != NULL);
            }
        }
    }
    for (uint32_t i = 0; i < f->required.n && status == JANG_OK; i++) {
        status = add_named(o, seen, json_string_value(f->required.items[i]), true);
    }
    json_decref(required);
    return status;
}

/* ---- Other members ---- */

/* Whether names that no table knows are allowed: if the schema says so, or has no table at all. */
static bool is_open(const sc_facts *f) {
    bool said = false, tables = false;
    for (uint32_t i = 0; i < f->members.n; i++) {
        const sc_members *part = f->members.items[i];
        if (part->additional && json_is_false(part->additional)) {
            return false;
        }
        said |= part->additional != NULL;
        tables |= json_object_size(part->properties) || json_object_size(part->patterns);
    }
    return said || !tables;
}

static jang_status find_patterns(object *o) {
    for (uint32_t i = 0; i < o->f->members.n; i++) {
        const sc_members *part = o->f->members.items[i];
        const char *pattern;
        json_t *value;
        json_object_foreach((json_t *)part->patterns, pattern, value) {
            bool there = false;
            for (uint32_t k = 0; k < o->patterns.n; k++) {
                there |= strcmp(o->patterns.items[k], pattern) == 0;
            }
            jang_status status = there ? JANG_OK : sc_push(o->s, &o->patterns, pattern);
            if (status != JANG_OK) {
                return status;
            }
        }
    }
    return o->patterns.n <= MAX_PATTERNS
               ? JANG_OK
               : sc_fail(o->s, JANG_ERR_UNSUPPORTED, "over %u patternProperties", MAX_PATTERNS);
}

/* The schemas for names that match just those patterns whose bits are set. */
static jang_status class_schemas(object *o, sc_list *out, unsigned set) {
    for (uint32_t i = 0; i < o->f->members.n; i++) {
        const sc_members *part = o->f->members.items[i];
        bool known = false;
        jang_status status = JANG_OK;
        for (uint32_t k = 0; k < o->patterns.n && status == JANG_OK; k++) {
            const json_t *schema = json_object_get(part->patterns, o->patterns.items[k]);
            if (schema && (set >> k & 1)) {
                known = true;
                status = sc_push(o->s, out, schema);
            }
        }
        if (status == JANG_OK && !known && part->additional) {
            status = sc_push(o->s, out, part->additional);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

/* The names that tables know, as one automaton. */
static jang_status names_dfa(object *o, gr_dfa *out) {
    gr_auto scratch = {.ctx = o->s->a->ctx};
    (void)gr_place(&scratch);
    uint32_t end = gr_final(&scratch), all = 0;
    for (uint32_t i = 0; i < o->f->members.n; i++) {
        const sc_members *part = o->f->members.items[i];
        const char *name;
        json_t *value;
        json_object_foreach((json_t *)part->properties, name, value) {
            all = gr_split(&scratch, gr_text(&scratch, name, strlen(name), end), all);
        }
    }
    for (uint32_t i = 0; i < o->f->required.n; i++) {
        const char *name = json_string_value(o->f->required.items[i]);
        all = gr_split(&scratch, gr_text(&scratch, name, strlen(name), end), all);
    }
    jang_status status = scratch.status;
    if (status == JANG_OK) {
        status = gr_dfa_of_nodes(out, &scratch, all);
    }
    gr_auto_free(&scratch);
    return status;
}

/* The names of one class: none of the known ones, these patterns and not those. */
static jang_status class_names(object *o, gr_dfa *d, const gr_dfa *base, const gr_dfa *patterns,
                               unsigned set, bool *any) {
    gr_dfa all;
    jang_status status = gr_dfa_of_length(&all, base->ctx, 0, GR_INF);
    if (status != JANG_OK) {
        return status;
    }
    status = gr_dfa_meet(d, &all, base, true);
    gr_dfa_free(&all);
    for (uint32_t k = 0; k < o->patterns.n && status == JANG_OK; k++) {
        status = gr_dfa_narrow(d, &patterns[k], !(set >> k & 1));
    }
    return status == JANG_OK ? gr_dfa_trim(d, any) : status;
}

/* One class of other members: "name": value, then after. *entry gets one more way. */
static jang_status write_class(object *o, const gr_dfa *base, const gr_dfa *patterns, unsigned set,
                               uint32_t after, uint32_t *entry) {
    sc *s = o->s;
    sc_list schemas = {0};
    gr_ref value = {s->json->value, 0, GR_INF};
    jang_status status = class_schemas(o, &schemas, set);
    size_t size = sc_enter(s, set ? "patternProperties" : "additionalProperties");
    if (status == JANG_OK && schemas.n) {
        status = sc_value(s, &value, &schemas);
    }
    sc_leave(s, size);
    if (status != JANG_OK || !value.rule) {
        return status;
    }
    gr_dfa d;
    gr_dfa_init(&d, s->a->ctx);
    bool any = false;
    status = class_names(o, &d, base, patterns, set, &any);
    if (status == JANG_OK && any) {
        uint32_t then = gr_json_gap(s->a, gr_call(s->a, value, after));
        then = gr_range(s->a, '"', '"', gr_range(s->a, ':', ':', then));
        then = gr_range(s->a, '"', '"', gr_dfa_emit(s->a, &d, true, then));
        *entry = gr_split(s->a, then, *entry);
    }
    gr_dfa_free(&d);
    return status == JANG_OK ? s->a->status : status;
}

static jang_status write_classes(object *o, const gr_dfa *patterns, bool open, uint32_t after,
                                 uint32_t *entry) {
    gr_dfa base;
    jang_status status = names_dfa(o, &base);
    if (status != JANG_OK) {
        return status;
    }
    for (unsigned set = open ? 0 : 1; set < 1u << o->patterns.n && status == JANG_OK; set++) {
        status = write_class(o, &base, patterns, set, after, entry);
    }
    gr_dfa_free(&base);
    return status;
}

/* Any name and a value that satisfies what is said of others: where no name is known. */
static jang_status write_any(object *o, uint32_t after, uint32_t *entry) {
    sc *s = o->s;
    sc_list schemas = {0};
    gr_ref value = {s->json->value, 0, GR_INF};
    jang_status status = class_schemas(o, &schemas, 0);
    size_t size = sc_enter(s, "additionalProperties");
    if (status == JANG_OK && schemas.n) {
        status = sc_value(s, &value, &schemas);
    }
    sc_leave(s, size);
    if (status == JANG_OK && value.rule) {
        uint32_t then = gr_json_gap(s->a, gr_call(s->a, value, after));
        *entry = gr_call_rule(s->a, s->json->string, gr_range(s->a, ':', ':', then));
    }
    return status;
}

/* One other member, then after; *entry 0 if there can be none. */
static jang_status write_others(object *o, uint32_t after, uint32_t *entry) {
    *entry = 0;
    bool open = is_open(o->f);
    bool tables = o->f->required.n > 0;
    for (uint32_t i = 0; i < o->f->members.n; i++) {
        tables |= json_object_size(((const sc_members *)o->f->members.items[i])->properties) > 0;
    }
    if (o->patterns.n == 0) {
        return !open    ? JANG_OK
               : tables ? write_classes(o, NULL, true, after, entry)
                        : write_any(o, after, entry);
    }
    gr_dfa patterns[MAX_PATTERNS];
    uint32_t n = 0;
    jang_status status = JANG_OK;
    for (; n < o->patterns.n && status == JANG_OK; n++) {
        size_t size = sc_enter(o->s, "patternProperties");
        sc_pattern p = {o->patterns.items[n], o->s->path.data, strlen(o->patterns.items[n]), false};
        sc_list one = {0};
        bool any;
        gr_dfa_init(&patterns[n], o->s->a->ctx);
        status = sc_push(o->s, &one, &p);
        if (status == JANG_OK) {
            status = sc_patterns(o->s, &patterns[n], &one, &any);
        }
        sc_leave(o->s, size);
    }
    if (status == JANG_OK) {
        status = write_classes(o, patterns, open, after, entry);
    }
    while (n-- > 0) {
        gr_dfa_free(&patterns[n]);
    }
    return status;
}

/* ---- Writing ---- */

/* Counting a member in front of its comma: as many as are still required must have room. */
static uint32_t count_member(const object *o, bool counted, size_t n_required, uint32_t most,
                             uint32_t next) {
    if (!counted) {
        return next;
    }
    gr_guard guard = {(uint32_t)n_required, most, true};
    return gr_count_guarded(o->s->a, guard, next);
}

static jang_status write_object(object *o, gr_ref *out) {
    sc *s = o->s;
    gr_auto *a = s->a;
    const sc_facts *f = o->f;
    bool counted = f->min_members > 0 || f->max_members != GR_INF;
    uint32_t close = gr_range(a, '}', '}', gr_final(a));
    uint32_t space_close = gr_call_rule(a, s->json->space, close);
    if (counted) { /* checked in front of the space: it must not lead where nothing can follow */
        close = gr_check(a, close);
        space_close = gr_check(a, space_close);
    }
    uint32_t after = gr_place(a), others;
    jang_status status = write_others(o, after, &others);
    if (status != JANG_OK) {
        return status;
    }
    uint32_t most = others ? GR_INF : 0; /* members that may still come */
    size_t n_required = 0;
    uint32_t first = count_member(o, counted, 0, most, others);
    uint32_t commas = gr_range(a, ',', ',', gr_call_rule(a, s->json->space, others));
    commas = count_member(o, counted, 0, most, commas);
    gr_fill(a, after, commas, space_close);
    /* A guard is passed in front of the comma, but which member comes is known after it; so each
     * member brings its own comma. */
    uint32_t next_after = after;
    for (size_t i = o->n; i-- > 0;) {
        const named *m = &o->list[i];
        uint32_t key = gr_json_gap(a, gr_call(a, m->value, next_after));
        key = gr_json_text(a, m->name, m->n_bytes, gr_range(a, ':', ':', key));
        uint32_t with_comma = gr_range(a, ',', ',', gr_call_rule(a, s->json->space, key));
        uint32_t here = count_member(o, counted, n_required, most, key);
        uint32_t here_comma = count_member(o, counted, n_required, most, with_comma);
        first = m->required ? here : gr_split(a, here, first);
        commas = m->required ? here_comma : gr_split(a, here_comma, commas);
        n_required += m->required;
        most = most == GR_INF ? GR_INF : most + 1;
        next_after = gr_split(a, commas, n_required ? 0 : space_close);
    }
    if (!n_required) {
        first = gr_split(a, first, close);
    }
    *out = (gr_ref){gr_rule_new(a), f->min_members, f->max_members};
    gr_rule_set(a, out->rule, gr_range(a, '{', '{', gr_call_rule(a, s->json->space, first)));
    return a->status;
}

jang_status sc_object(sc *s, gr_ref *out, const sc_facts *f) {
    *out = (gr_ref){0, 0, 0};
    if (!f->members.n && !f->required.n && !f->min_members && f->max_members == GR_INF) {
        *out = (gr_ref){s->json->object, 0, GR_INF};
        return JANG_OK;
    }
    object o = {.s = s, .f = f};
    json_t *seen = json_object();
    jang_status status = seen ? find_patterns(&o) : ctx_fail_memory(s->a->ctx, 1);
    if (status == JANG_OK) {
        status = find_named(&o, seen);
    }
    json_decref(seen);
    size_t n_required = 0;
    for (size_t i = 0; i < o.n && status == JANG_OK; i++) {
        n_required += o.list[i].required;
        if (o.list[i].required && !o.list[i].value.rule) {
            sc_note(s, "a required property can have no value");
            return JANG_OK;
        }
    }
    if (status == JANG_OK && (n_required > f->max_members || f->min_members > f->max_members)) {
        sc_note(s, "there are more required properties than maxProperties");
        return JANG_OK;
    }
    if (status == JANG_OK && !is_open(f) && o.patterns.n == 0 && f->min_members > o.n) {
        sc_note(s, "there are fewer properties than minProperties");
        return JANG_OK;
    }
    return status == JANG_OK ? write_object(&o, out) : status;
}
