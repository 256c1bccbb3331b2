/* schema_const.c - values that a schema names: writing them, and whether they satisfy it. */
#include "grammar/schema.h"

#include "grammar/gr_dfa.h"

#include <math.h>
#include <string.h>

#define MAX_DEPTH 100

/* ---- Writing ---- */

static uint32_t emit_decimal(sc *s, const json_t *value, uint32_t next) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    const sc_decimal *d = sc_decimal_of(s, value);
    uint32_t all = 0;
    if (d && d->n_whole <= 21 &&
        d->n_fraction <= 21) { /* plain digits, a whole number also as 1.0 */
        uint32_t fraction = gr_text(s->a, d->digits + d->n_whole, d->n_fraction, next);
        if (d->n_fraction) {
            all = gr_range(s->a, '.', '.', fraction);
        } else {
            all = json_is_real(value) ? gr_split(s->a, next, gr_text(s->a, ".0", 2, next)) : next;
        }
        all = gr_text(s->a, d->digits, d->n_whole, all);
        all = d->negative ? gr_range(s->a, '-', '-', all) : all;
    } else if (text) {
        all = gr_text(s->a, text, strlen(text), next);
    }
    free(text);
    return all;
}

static uint32_t emit_array(sc *s, const json_t *value, uint32_t next) {
    uint32_t at = gr_call_rule(s->a, s->json->space, gr_range(s->a, ']', ']', next));
    for (size_t i = json_array_size(value); i-- > 0;) {
        at = sc_emit_value(s, json_array_get(value, i), at);
        if (i) {
            at = gr_range(s->a, ',', ',', gr_call_rule(s->a, s->json->space, at));
        } else {
            at = gr_call_rule(s->a, s->json->space, at);
        }
    }
    return gr_range(s->a, '[', '[', at);
}

static uint32_t emit_object(sc *s, const json_t *value, uint32_t next) {
    size_t n = json_object_size(value), i = 0;
    const char **names = sc_alloc(s, (n + 1) * sizeof *names);
    const char *name;
    json_t *member;
    if (!names) {
        gr_fail(s->a, JANG_ERR_MEMORY);
        return 0;
    }
    json_object_foreach((json_t *)value, name, member) {
        names[i++] = name;
    }
    uint32_t at = gr_call_rule(s->a, s->json->space, gr_range(s->a, '}', '}', next));
    while (i-- > 0) {
        at = sc_emit_value(s, json_object_get(value, names[i]), at);
        at = gr_range(s->a, ':', ':', gr_json_gap(s->a, at));
        at = gr_json_text(s->a, names[i], strlen(names[i]), at);
        at = gr_call_rule(s->a, s->json->space, at);
        at = i ? gr_range(s->a, ',', ',', at) : at;
    }
    return gr_range(s->a, '{', '{', at);
}

uint32_t sc_emit_value(sc *s, const json_t *value, uint32_t next) {
    bool python = s->json->python;
    uint32_t at = 0;
    if (++s->depth > MAX_DEPTH + 150) {
        gr_fail(s->a, sc_fail(s, JANG_ERR_UNSUPPORTED, "a value nested over %d deep", MAX_DEPTH));
    }
    switch (json_typeof(value)) {
    case JSON_NULL:
        at = gr_text(s->a, python ? "None" : "null", 4, next);
        break;
    case JSON_TRUE:
        at = gr_text(s->a, python ? "True" : "true", 4, next);
        break;
    case JSON_FALSE:
        at = gr_text(s->a, python ? "False" : "false", 5, next);
        break;
    case JSON_STRING:
        at = gr_json_text(s->a, json_string_value(value), json_string_length(value), next);
        break;
    case JSON_ARRAY:
        at = s->a->status == JANG_OK ? emit_array(s, value, next) : 0;
        break;
    case JSON_OBJECT:
        at = s->a->status == JANG_OK ? emit_object(s, value, next) : 0;
        break;
    default:
        at = emit_decimal(s, value, next);
    }
    s->depth--;
    return at;
}

/* ---- Checking ---- */

static unsigned type_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_NULL:
        return SC_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return SC_BOOLEAN;
    case JSON_INTEGER:
        return SC_INTEGER;
    case JSON_REAL:
        return json_real_value(value) == floor(json_real_value(value)) ? SC_INTEGER : SC_FRACTION;
    case JSON_STRING:
        return SC_STRING;
    case JSON_ARRAY:
        return SC_ARRAY;
    default:
        return SC_OBJECT;
    }
}

static bool number_fits(sc *s, const sc_facts *f, const json_t *value) {
    const sc_decimal *d = sc_decimal_of(s, value);
    if (!d) {
        return false;
    }
    int low = f->least.at ? sc_decimal_compare(d, f->least.at) : 1;
    int high = f->most.at ? sc_decimal_compare(f->most.at, d) : 1;
    bool fits = low + !f->least.open > 0 && high + !f->most.open > 0;
    for (uint32_t i = 0; i < f->multiples.n; i++) {
        fits &= sc_is_multiple(d, f->multiples.items[i]);
    }
    return fits;
}

static jang_status string_fits(sc *s, bool *fits, const sc_facts *f, const json_t *value) {
    const char *text = json_string_value(value);
    size_t n = json_string_length(value), n_chars = 0;
    for (size_t i = 0; i < n; i++) {
        n_chars += (text[i] & 0xc0) != 0x80;
    }
    *fits = n_chars >= f->min_length && n_chars <= f->max_length;
    if (!*fits || !f->patterns.n) {
        return JANG_OK;
    }
    gr_dfa d;
    bool any;
    jang_status status = sc_patterns(s, &d, &f->patterns, &any);
    if (status == JANG_OK) {
        *fits = any && gr_dfa_matches(&d, text, n);
        gr_dfa_free(&d);
    }
    return status;
}

/* One value against a list of schemas, of which branches need one each. */
static jang_status list_fits(sc *s, bool *fits, const sc_list *schemas, const json_t *value) {
    sc_facts f;
    sc_facts_init(&f);
    jang_status status = JANG_OK;
    for (uint32_t i = 0; i < schemas->n && status == JANG_OK; i++) {
        status = sc_gather(s, &f, schemas->items[i]);
    }
    return status == JANG_OK ? sc_fits(s, fits, &f, value) : status;
}

static jang_status array_fits(sc *s, bool *fits, const sc_facts *f, const json_t *value) {
    size_t n = json_array_size(value);
    *fits = n >= f->min_items && n <= f->max_items;
    for (size_t i = 0; i < n && *fits; i++) {
        sc_list schemas = {0};
        jang_status status = sc_item_schemas(s, &schemas, f, i);
        if (status == JANG_OK) {
            status = list_fits(s, fits, &schemas, json_array_get(value, i));
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

static jang_status object_fits(sc *s, bool *fits, const sc_facts *f, const json_t *value) {
    size_t n = json_object_size(value);
    *fits = n >= f->min_members && n <= f->max_members;
    for (uint32_t i = 0; i < f->required.n; i++) {
        *fits &= json_object_get(value, json_string_value(f->required.items[i])) != NULL;
    }
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)value, name, member) {
        sc_list schemas = {0};
        bool allowed;
        jang_status status = sc_member_schemas(s, &schemas, f, name, strlen(name), &allowed);
        bool one = allowed;
        if (status == JANG_OK && allowed) {
            status = list_fits(s, &one, &schemas, member);
        }
        if (status != JANG_OK) {
            return status;
        }
        *fits &= one;
    }
    return JANG_OK;
}

static jang_status branch_fits(sc *s, bool *fits, const sc_facts *f, const json_t *value) {
    sc_facts rest = sc_facts_copy(f);
    const json_t *list = rest.branches.items[--rest.branches.n];
    rest.branches.capacity = rest.branches.n;
    *fits = false;
    for (size_t i = 0; i < json_array_size(list) && !*fits; i++) {
        sc_facts both = sc_facts_copy(&rest);
        jang_status status = sc_gather(s, &both, json_array_get(list, i));
        if (status == JANG_OK) {
            status = sc_fits(s, fits, &both, value);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

static bool among(const sc_list *values, const json_t *value) {
    for (uint32_t i = 0; i < values->n; i++) {
        if (json_equal((json_t *)values->items[i], (json_t *)value)) {
            return true;
        }
    }
    return false;
}

jang_status sc_fits(sc *s, bool *fits, const sc_facts *f, const json_t *value) {
    unsigned type = type_of(value);
    *fits = (f->types & type) && (!f->has_values || among(&f->values, value));
    if (!*fits) {
        return JANG_OK;
    }
    if (s->depth > MAX_DEPTH + 150) {
        return sc_fail(s, JANG_ERR_UNSUPPORTED, "a value nested over %d deep", MAX_DEPTH);
    }
    jang_status status = JANG_OK;
    s->depth++;
    if (f->branches.n) {
        status = branch_fits(s, fits, f, value);
    } else if (type & (SC_INTEGER | SC_FRACTION)) {
        *fits = number_fits(s, f, value);
    } else if (type == SC_STRING) {
        status = string_fits(s, fits, f, value);
    } else if (type == SC_ARRAY) {
        status = array_fits(s, fits, f, value);
    } else if (type == SC_OBJECT) {
        status = object_fits(s, fits, f, value);
    }
    s->depth--;
    return status;
}
