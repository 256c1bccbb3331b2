/* tok_decode_load.c - the "decoder" object as a chain of filters. */
#include "tokenizer/tok_decode.h"

#include <string.h>

typedef struct reader {
    dec_chain *chain;
    ctx_t *ctx;
    const char *what;
    int depth;
} reader;

static json_at at_of(const reader *r, const json_t *json) {
    return (json_at){r->ctx, r->what, json};
}

static void free_step(ctx_t *ctx, dec_step *step) {
    tok_regex_close(step->regex);
    ctx_free(ctx, step->text);
    ctx_free(ctx, step->content);
}

/* Takes the step over, also on failure. */
static jang_status add_step(reader *r, dec_step step) {
    dec_chain *chain = r->chain;
    if (chain->n_steps == DEC_MAX_STEPS) {
        free_step(r->ctx, &step);
        return ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: more than %d decoder steps", r->what,
                        DEC_MAX_STEPS);
    }
    const dec_step *before = chain->n_steps ? &chain->steps[chain->n_steps - 1] : NULL;
    step.fragments =
        before && (before->fragments || before->kind == DEC_FUSE || before->kind == DEC_BYTE_LEVEL);
    chain->steps[chain->n_steps++] = step;
    return JANG_OK;
}

static jang_status copy_string(reader *r, const json_t *json, const char *key, const char *fallback,
                               char **out, size_t *n_out) {
    const char *text;
    jang_status status = json_get_string(&text, at_of(r, json), key, fallback);
    if (status != JANG_OK) {
        return status;
    }
    if (!text) {
        return ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: a decoder needs the string '%s'", r->what,
                        key);
    }
    const json_t *value = json_object_get(json, key);
    *n_out = json_is_string(value) ? json_string_length(value) : strlen(text);
    *out = ctx_strndup(r->ctx, text, *n_out);
    return *out ? JANG_OK : ctx_fail_memory(r->ctx, *n_out);
}

static jang_status read_replace(reader *r, const json_t *json, dec_step *step) {
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    jang_status status = copy_string(r, json, "content", NULL, &step->content, &step->n_content);
    if (status != JANG_OK) {
        return status;
    }
    return json_is_string(regex)
               ? tok_regex_open(&step->regex, r->ctx, r->what, json_string_value(regex),
                                json_string_length(regex))
               : copy_string(r, pattern, "String", NULL, &step->text, &step->n_text);
}

static jang_status read_strip(reader *r, const json_t *json, dec_step *step) {
    int64_t start = 0, stop = 0;
    jang_status status = json_get_int(&start, at_of(r, json), "start", 0, 0, INT32_MAX);
    if (status == JANG_OK) {
        status = json_get_int(&stop, at_of(r, json), "stop", 0, 0, INT32_MAX);
    }
    step->start = (size_t)start;
    step->stop = (size_t)stop;
    return status == JANG_OK ? copy_string(r, json, "content", NULL, &step->text, &step->n_text)
                             : status;
}

static jang_status read_metaspace(reader *r, const json_t *json, dec_step *step) {
    const char *scheme = NULL;
    bool old = true;
    jang_status status = json_get_string(&scheme, at_of(r, json), "prepend_scheme", NULL);
    if (status == JANG_OK) {
        status = json_get_bool(&old, at_of(r, json), "add_prefix_space", true);
    }
    step->flag = scheme ? strcmp(scheme, "never") != 0 : old;
    return status == JANG_OK
               ? copy_string(r, json, "replacement", "\xe2\x96\x81", &step->text, &step->n_text)
               : status;
}

static jang_status read_wordpiece(reader *r, const json_t *json, dec_step *step) {
    jang_status status = json_get_bool(&step->flag, at_of(r, json), "cleanup", true);
    return status == JANG_OK ? copy_string(r, json, "prefix", "##", &step->text, &step->n_text)
                             : status;
}

static jang_status read_bpe(reader *r, const json_t *json, dec_step *step) {
    return copy_string(r, json, "suffix", "</w>", &step->text, &step->n_text);
}

static jang_status read_ctc(reader *r, const json_t *json, dec_step *step) {
    jang_status status = json_get_bool(&step->flag, at_of(r, json), "cleanup", true);
    if (status == JANG_OK) {
        status = copy_string(r, json, "pad_token", "<pad>", &step->text, &step->n_text);
    }
    return status == JANG_OK
               ? copy_string(r, json, "word_delimiter_token", "|", &step->content, &step->n_content)
               : status;
}

static const struct {
    const char *type;
    dec_kind kind;
    jang_status (*read)(reader *r, const json_t *json, dec_step *step);
} kinds[] = {
    {"ByteLevel", DEC_BYTE_LEVEL, NULL},
    {"ByteFallback", DEC_BYTE_FALLBACK, NULL},
    {"Fuse", DEC_FUSE, NULL},
    {"Replace", DEC_REPLACE, read_replace},
    {"Strip", DEC_STRIP, read_strip},
    {"Metaspace", DEC_METASPACE, read_metaspace},
    {"BPEDecoder", DEC_BPE, read_bpe},
    {"WordPiece", DEC_WORDPIECE, read_wordpiece},
    {"CTC", DEC_CTC, read_ctc},
};

static jang_status read_any(reader *r, const json_t *json);

static jang_status read_sequence(reader *r, const json_t *json) {
    const json_t *list = NULL;
    jang_status status = json_get_array(&list, at_of(r, json), "decoders");
    size_t i;
    json_t *item;
    if (status == JANG_OK && ++r->depth > 16) {
        status = ctx_fail(r->ctx, JANG_ERR_FORMAT, "%s: decoders nested too deep", r->what);
    }
    json_array_foreach(list, i, item) {
        if (status == JANG_OK) {
            status = read_any(r, item);
        }
    }
    r->depth--;
    return status;
}

static jang_status read_any(reader *r, const json_t *json) {
    const char *type = NULL;
    jang_status status = json_get_string(&type, at_of(r, json), "type", NULL);
    if (status == JANG_OK && type && strcmp(type, "Sequence") == 0) {
        return read_sequence(r, json);
    }
    for (size_t i = 0; status == JANG_OK && type && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            dec_step step = {.kind = kinds[i].kind};
            status = kinds[i].read ? kinds[i].read(r, json, &step) : JANG_OK;
            if (status != JANG_OK) {
                free_step(r->ctx, &step);
                return status;
            }
            return add_step(r, step);
        }
    }
    return status != JANG_OK ? status
                             : ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: decoder '%s' is unknown",
                                        r->what, type ? type : "null");
}

jang_status dec_read(dec_chain *chain, ctx_t *ctx, const char *what, const json_t *json) {
    chain->ctx = ctx;
    reader r = {chain, ctx, what, 0};
    return json ? read_any(&r, json) : add_step(&r, (dec_step){.kind = DEC_JOIN});
}

void dec_free(dec_chain *chain) {
    for (int i = 0; i < chain->n_steps; i++) {
        free_step(chain->ctx, &chain->steps[i]);
    }
    chain->n_steps = 0;
}
