/* normalize_load.c - the "normalizer" object as a chain of steps. */
#include "tokenizer/normalize.h"

#include "tokenizer/base64.h"
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

static jang_status read_strip(reader *r, const json_t *json) {
    bool left, right;
    jang_status status = json_get_bool(&left, at_of(r, json), "strip_left", false);
    if (status == JANG_OK) {
        status = json_get_bool(&right, at_of(r, json), "strip_right", false);
    }
    return status == JANG_OK ? add_step(r, (norm_step){.run = norm_strip,
                                                       .options = (left ? 1 : 0) + (right ? 2 : 0)})
                             : status;
}

static jang_status read_bert(reader *r, const json_t *json) {
    bool clean, chinese, lower, accents;
    jang_status status = json_get_bool(&clean, at_of(r, json), "clean_text", true);
    if (status == JANG_OK) {
        status = json_get_bool(&chinese, at_of(r, json), "handle_chinese_chars", true);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&lower, at_of(r, json), "lowercase", true);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&accents, at_of(r, json), "strip_accents", lower);
    }
    if (status == JANG_OK && clean) {
        status = add_step(r, (norm_step){.run = norm_bert_clean});
    }
    if (status == JANG_OK && chinese) {
        status = add_step(r, (norm_step){.run = norm_bert_chinese});
    }
    if (status == JANG_OK && accents) {
        status = add_step(r, (norm_step){.run = norm_form, .options = NORM_NFD});
        status = status == JANG_OK ? add_step(r, (norm_step){.run = norm_bert_marks}) : status;
    }
    return status == JANG_OK && lower ? add_step(r, (norm_step){.run = norm_lower}) : status;
}

static jang_status read_precompiled(reader *r, const json_t *json) {
    const json_t *text = json_object_get(json, "precompiled_charsmap");
    buf map;
    buf_init(&map, r->ctx, BUF_NO_LIMIT);
    jang_status status = JANG_OK;
    norm_step step = {.run = norm_precompiled};
    if (!json_is_string(text) ||
        !base64_decode(&map, json_string_value(text), json_string_length(text))) {
        status = ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: precompiled_charsmap is not base64 text",
                          r->what);
    }
    if (status == JANG_OK) {
        status = buf_status(&map);
    }
    if (status == JANG_OK) {
        status = norm_precompiled_init(&step, r->ctx, r->what, map.data, map.size);
    }
    buf_free(&map);
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
    {"Strip", read_strip, {0}},
    {"BertNormalizer", read_bert, {0}},
    {"Precompiled", read_precompiled, {0}},
    {"Lowercase", NULL, {.run = norm_lower}},
    {"StripAccents", NULL, {.run = norm_strip_accents}},
    {"Nmt", NULL, {.run = norm_nmt}},
    {"ByteLevel", NULL, {.run = norm_byte_level}},
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

jang_status norm_add_sentencepiece(norm_chain *chain, ctx_t *ctx, const char *what, const char *map,
                                   size_t n, bool collapse, bool escape) {
    chain->ctx = ctx;
    reader r = {chain, ctx, what, 0};
    norm_step step = {.run = norm_sentencepiece, .options = (collapse ? 1 : 0) + (escape ? 2 : 0)};
    jang_status status = n > 0 ? norm_precompiled_init(&step, ctx, what, map, n) : JANG_OK;
    return status == JANG_OK ? add_step(&r, step) : status;
}

void norm_free(norm_chain *chain) {
    for (int i = 0; i < chain->n_steps; i++) {
        free_step(chain->ctx, &chain->steps[i]);
    }
    chain->n_steps = 0;
}
