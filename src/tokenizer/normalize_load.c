/* normalize_load.c - the "normalizer" object as a chain of steps. */
#include "tokenizer/normalize.h"
#include "tokenizer/normalize_steps.h"

#include <string.h>

typedef struct reader {
    norm_chain *chain;
    ctx_t *ctx;
    const char *what;
    int depth;
} reader;

static json_at at_of(const reader *r, const json_t *json) {
    return (json_at){r->ctx, r->what, json};
}

static void free_step(ctx_t *ctx, norm_step *step) {
    tok_regex_close(step->regex);
    ctx_free(ctx, step->text);
    ctx_free(ctx, step->content);
}

/* Takes the step over, also on failure. */
static jang_status add_step(reader *r, norm_step step) {
    if (r->chain->n_steps == NORM_MAX_STEPS) {
        free_step(r->ctx, &step);
        return ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: more than %d normalizer steps", r->what,
                        NORM_MAX_STEPS);
    }
    r->chain->steps[r->chain->n_steps++] = step;
    return JANG_OK;
}

/* Copies a JSON string member; fails if it is missing. */
static jang_status copy_string(reader *r, const json_t *json, const char *key, char **out,
                               size_t *n_out) {
    const json_t *value = json_object_get(json, key);
    if (!json_is_string(value)) {
        return ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: a normalizer needs the string '%s'", r->what,
                        key);
    }
    *n_out = json_string_length(value);
    *out = ctx_strndup(r->ctx, json_string_value(value), *n_out);
    return *out ? JANG_OK : ctx_fail_memory(r->ctx, *n_out);
}

static jang_status read_replace(reader *r, const json_t *json) {
    norm_step step = {.run = norm_replace};
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    jang_status status = copy_string(r, json, "content", &step.content, &step.n_content);
    if (status == JANG_OK) {
        status = json_is_string(regex)
                     ? tok_regex_open(&step.regex, r->ctx, r->what, json_string_value(regex),
                                      json_string_length(regex))
                     : copy_string(r, pattern, "String", &step.text, &step.n_text);
    }
    if (status != JANG_OK) {
        free_step(r->ctx, &step);
        return status;
    }
    return add_step(r, step);
}

static jang_status read_prepend(reader *r, const json_t *json) {
    norm_step step = {.run = norm_prepend};
    jang_status status = copy_string(r, json, "prepend", &step.text, &step.n_text);
    return status == JANG_OK ? add_step(r, step) : status;
}

static jang_status read_append(reader *r, const json_t *json) {
    norm_step step = {.run = norm_append};
    jang_status status = copy_string(r, json, "append", &step.text, &step.n_text);
    return status == JANG_OK ? add_step(r, step) : status;
}

static jang_status read_any(reader *r, const json_t *json);

static jang_status read_sequence(reader *r, const json_t *json) {
    const json_t *list = NULL;
    jang_status status = json_get_array(&list, at_of(r, json), "normalizers");
    size_t i;
    json_t *item;
    if (status == JANG_OK && ++r->depth > 16) {
        status = ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: normalizers nested too deep", r->what);
    }
    json_array_foreach(list, i, item) {
        if (status == JANG_OK) {
            status = read_any(r, item);
        }
    }
    r->depth--;
    return status;
}

/* Either a reader or, for kinds without parameters, the step itself. */
static const struct {
    const char *type;
    jang_status (*read)(reader *r, const json_t *json);
    norm_step step;
} kinds[] = {
    {"Sequence", read_sequence, {0}},
    {"Replace", read_replace, {0}},
    {"Prepend", read_prepend, {0}},
    {"Append", read_append, {0}},
    {"NFC", NULL, {.run = norm_form, .options = NORM_NFC}},
    {"NFD", NULL, {.run = norm_form, .options = NORM_NFD}},
    {"NFKC", NULL, {.run = norm_form, .options = NORM_NFKC}},
    {"NFKD", NULL, {.run = norm_form, .options = NORM_NFKD}},
};

static jang_status read_any(reader *r, const json_t *json) {
    const char *type = NULL;
    jang_status status = json_get_string(&type, at_of(r, json), "type", NULL);
    for (size_t i = 0; status == JANG_OK && type && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            return kinds[i].read ? kinds[i].read(r, json) : add_step(r, kinds[i].step);
        }
    }
    return status != JANG_OK
               ? status
               : ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: normalizer '%s' is unknown", r->what,
                          type ? type : "null");
}

jang_status norm_read(norm_chain *chain, ctx_t *ctx, const char *what, const json_t *json) {
    chain->ctx = ctx;
    reader r = {chain, ctx, what, 0};
    return json ? read_any(&r, json) : JANG_OK;
}

void norm_free(norm_chain *chain) {
    for (int i = 0; i < chain->n_steps; i++) {
        free_step(chain->ctx, &chain->steps[i]);
    }
    chain->n_steps = 0;
}
