/* pretok_load.c - the "pre_tokenizer" object as a chain of steps. */
#include "tokenizer/pretok.h"
#include "tokenizer/unicode.h"

#include <string.h>

typedef struct reader {
    pre_chain *chain;
    ctx_t *ctx;
    const char *what;
    int depth;
} reader;

static jang_status add_step(reader *r, pre_step step) {
    if (r->chain->n_steps == PRE_MAX_STEPS) {
        tok_regex_close(step.regex);
        ctx_free(r->ctx, step.text);
        return ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: more than %d pre-tokenizer steps",
                        r->what, PRE_MAX_STEPS);
    }
    r->chain->steps[r->chain->n_steps++] = step;
    return JANG_OK;
}

static json_at at_of(const reader *r, const json_t *json) {
    return (json_at){r->ctx, r->what, json};
}

/* ---- Splits ---- */

static const char *const behavior_names[] = {[PRE_ISOLATED] = "Isolated",
                                             [PRE_REMOVED] = "Removed",
                                             [PRE_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                             [PRE_MERGED_WITH_NEXT] = "MergedWithNext",
                                             [PRE_CONTIGUOUS] = "Contiguous"};

static jang_status read_behavior(reader *r, const json_t *json, const char *fallback,
                                 pre_behavior *out) {
    const char *name = NULL;
    jang_status status = json_get_string(&name, at_of(r, json), "behavior", fallback);
    if (status != JANG_OK) {
        return status;
    }
    for (int i = 0; i <= PRE_CONTIGUOUS; i++) {
        if (name && strcmp(name, behavior_names[i]) == 0) {
            *out = (pre_behavior)i;
            return JANG_OK;
        }
    }
    return ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: split behavior '%s' is unknown", r->what,
                    name ? name : "null");
}

static jang_status add_split_regex(reader *r, const char *pattern, size_t n, pre_behavior behavior,
                                   bool invert) {
    pre_step step = {.kind = PRE_SPLIT, .behavior = behavior, .invert = invert};
    step.scan = scan_of_pattern(pattern, n, &step.parameter);
    if (step.scan) {
        return add_step(r, step);
    }
    jang_status status = tok_regex_open(&step.regex, r->ctx, r->what, pattern, n);
    return status == JANG_OK ? add_step(r, step) : status;
}

static jang_status add_split_string(reader *r, const char *text, size_t n, pre_behavior behavior,
                                    bool invert) {
    pre_step step = {.kind = PRE_SPLIT, .behavior = behavior, .invert = invert};
    step.text = ctx_strndup(r->ctx, text, n);
    step.n_text = n;
    return step.text ? add_step(r, step) : ctx_fail_memory(r->ctx, n);
}

static jang_status add_split_is(reader *r, pre_is is, pre_behavior behavior) {
    return add_step(r, (pre_step){.kind = PRE_SPLIT, .is = is, .behavior = behavior});
}

static jang_status read_split(reader *r, const json_t *json) {
    pre_behavior behavior = PRE_ISOLATED;
    bool invert;
    jang_status status = read_behavior(r, json, NULL, &behavior);
    if (status == JANG_OK) {
        status = json_get_bool(&invert, at_of(r, json), "invert", false);
    }
    if (status != JANG_OK) {
        return status;
    }
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *text = json_object_get(pattern, "String");
    const json_t *regex = json_object_get(pattern, "Regex");
    if (json_is_string(text)) {
        return add_split_string(r, json_string_value(text), json_string_length(text), behavior,
                                invert);
    }
    if (json_is_string(regex)) {
        return add_split_regex(r, json_string_value(regex), json_string_length(regex), behavior,
                               invert);
    }
    return ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: a Split needs a pattern, String or Regex",
                    r->what);
}

static bool is_numeric(uint32_t c) {
    return unicode_byte(c) & UNICODE_NUMERIC;
}

static jang_status read_digits(reader *r, const json_t *json) {
    bool individual;
    jang_status status = json_get_bool(&individual, at_of(r, json), "individual_digits", true);
    return status == JANG_OK
               ? add_split_is(r, is_numeric, individual ? PRE_ISOLATED : PRE_CONTIGUOUS)
               : status;
}

static jang_status read_punctuation(reader *r, const json_t *json) {
    pre_behavior behavior = PRE_ISOLATED;
    jang_status status = read_behavior(r, json, "Isolated", &behavior);
    return status == JANG_OK ? add_split_is(r, unicode_is_punctuation, behavior) : status;
}

static jang_status read_whitespace_split(reader *r, const json_t *json) {
    (void)json;
    return add_split_is(r, unicode_space, PRE_REMOVED);
}

static jang_status read_bert(reader *r, const json_t *json) {
    jang_status status = read_whitespace_split(r, json);
    return status == JANG_OK ? add_split_is(r, unicode_is_punctuation, PRE_ISOLATED) : status;
}

static jang_status read_delimiter(reader *r, const json_t *json) {
    const json_t *text = json_object_get(json, "delimiter");
    if (!json_is_string(text) || json_string_length(text) == 0) {
        return ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: CharDelimiterSplit needs a delimiter",
                        r->what);
    }
    return add_split_string(r, json_string_value(text), json_string_length(text), PRE_REMOVED,
                            false);
}

/* Keeps what the scanner matches and nothing else. */
static jang_status add_scan(reader *r, scan_fn scan, size_t parameter) {
    return add_step(r, (pre_step){.kind = PRE_SPLIT,
                                  .scan = scan,
                                  .parameter = parameter,
                                  .behavior = PRE_REMOVED,
                                  .invert = true});
}

static jang_status read_whitespace(reader *r, const json_t *json) {
    (void)json;
    return add_scan(r, scan_words, 0);
}

static jang_status read_scripts(reader *r, const json_t *json) {
    (void)json;
    return add_scan(r, scan_scripts, 0);
}

static jang_status read_fixed_length(reader *r, const json_t *json) {
    int64_t length;
    jang_status status = json_get_int(&length, at_of(r, json), "length", 5, 1, INT32_MAX);
    return status == JANG_OK ? add_scan(r, scan_fixed, (size_t)length) : status;
}

/* ---- Rewriting ---- */

static jang_status read_byte_level(reader *r, const json_t *json) {
    bool prefix, regex;
    jang_status status = json_get_bool(&prefix, at_of(r, json), "add_prefix_space", true);
    if (status == JANG_OK) {
        status = json_get_bool(&regex, at_of(r, json), "use_regex", true);
    }
    if (status == JANG_OK && prefix) {
        status = add_step(r, (pre_step){.kind = PRE_PREFIX_SPACE});
    }
    if (status == JANG_OK && regex) {
        status =
            add_split_regex(r, SCAN_GPT2_PATTERN, strlen(SCAN_GPT2_PATTERN), PRE_ISOLATED, false);
    }
    return status == JANG_OK ? add_step(r, (pre_step){.kind = PRE_BYTE_CHARS}) : status;
}

static jang_status read_prepend(reader *r, const json_t *json, pre_prepend *out) {
    static const char *const names[] = {"always", "first", "never"};
    const char *name = NULL;
    bool old;
    jang_status status = json_get_string(&name, at_of(r, json), "prepend_scheme", NULL);
    if (status == JANG_OK) {
        status = json_get_bool(&old, at_of(r, json), "add_prefix_space", true);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!name) {
        *out = old ? PRE_PREPEND_ALWAYS : PRE_PREPEND_NEVER;
        return JANG_OK;
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (pre_prepend)i;
            return JANG_OK;
        }
    }
    return ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: prepend_scheme '%s' is unknown", r->what, name);
}

static jang_status read_metaspace(reader *r, const json_t *json) {
    pre_step step = {.kind = PRE_METASPACE};
    const char *replacement;
    bool split;
    jang_status status = read_prepend(r, json, &step.prepend);
    if (status == JANG_OK) {
        status = json_get_string(&replacement, at_of(r, json), "replacement", "\xe2\x96\x81");
    }
    if (status == JANG_OK) {
        status = json_get_bool(&split, at_of(r, json), "split", true);
    }
    if (status != JANG_OK) {
        return status;
    }
    step.n_text = strlen(replacement);
    step.text = ctx_strdup(r->ctx, replacement);
    if (!step.text) {
        return ctx_fail_memory(r->ctx, step.n_text);
    }
    status = add_step(r, step);
    return status == JANG_OK && split
               ? add_split_string(r, replacement, strlen(replacement), PRE_MERGED_WITH_NEXT, false)
               : status;
}

/* ---- Kinds ---- */

static jang_status read_any(reader *r, const json_t *json);

static jang_status read_sequence(reader *r, const json_t *json) {
    const json_t *list = NULL;
    jang_status status = json_get_array(&list, at_of(r, json), "pretokenizers");
    size_t i;
    json_t *item;
    if (status == JANG_OK && ++r->depth > 16) {
        status = ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: pre-tokenizers nested too deep", r->what);
    }
    json_array_foreach(list, i, item) {
        if (status == JANG_OK) {
            status = read_any(r, item);
        }
    }
    r->depth--;
    return status;
}

static const struct {
    const char *type;
    jang_status (*read)(reader *r, const json_t *json);
} kinds[] = {
    {"Sequence", read_sequence},
    {"Split", read_split},
    {"Digits", read_digits},
    {"Punctuation", read_punctuation},
    {"WhitespaceSplit", read_whitespace_split},
    {"BertPreTokenizer", read_bert},
    {"CharDelimiterSplit", read_delimiter},
    {"Delimiter", read_delimiter},
    {"Whitespace", read_whitespace},
    {"UnicodeScripts", read_scripts},
    {"FixedLength", read_fixed_length},
    {"ByteLevel", read_byte_level},
    {"Metaspace", read_metaspace},
};

static jang_status read_any(reader *r, const json_t *json) {
    const char *type = NULL;
    jang_status status = json_get_string(&type, at_of(r, json), "type", NULL);
    for (size_t i = 0; status == JANG_OK && type && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            return kinds[i].read(r, json);
        }
    }
    return status != JANG_OK
               ? status
               : ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: pre-tokenizer '%s' is unknown",
                          r->what, type ? type : "null");
}

jang_status pre_read(pre_chain *chain, ctx_t *ctx, const char *what, const json_t *json) {
    chain->ctx = ctx;
    reader r = {chain, ctx, what, 0};
    return json ? read_any(&r, json) : JANG_OK;
}

jang_status pre_add_dummy_prefix(pre_chain *chain, ctx_t *ctx, const char *text) {
    chain->ctx = ctx;
    reader r = {chain, ctx, "", 0};
    pre_step step = {.kind = PRE_DUMMY_PREFIX, .n_text = strlen(text)};
    step.text = ctx_strdup(ctx, text);
    return step.text ? add_step(&r, step) : ctx_fail_memory(ctx, step.n_text);
}

jang_status pre_add_pattern(pre_chain *chain, ctx_t *ctx, const char *what, const char *pattern) {
    chain->ctx = ctx;
    reader r = {chain, ctx, what, 0};
    return add_split_regex(&r, pattern, strlen(pattern), PRE_ISOLATED, false);
}

jang_status pre_add_byte_chars(pre_chain *chain, ctx_t *ctx) {
    chain->ctx = ctx;
    reader r = {chain, ctx, "", 0};
    return add_step(&r, (pre_step){.kind = PRE_BYTE_CHARS});
}

void pre_free(pre_chain *chain) {
    for (int i = 0; i < chain->n_steps; i++) {
        tok_regex_close(chain->steps[i].regex);
        ctx_free(chain->ctx, chain->steps[i].text);
    }
    chain->n_steps = 0;
}
