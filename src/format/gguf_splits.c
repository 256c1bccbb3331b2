/* gguf_splits.c - ways to cut text into words, between tokenizer.json and their names in GGUF. */
#include "format/gguf_splits.h"

#include <string.h>

/* ---- How the named splits are written in tokenizer.json ---- */

#define BYTE_LEVEL(regex)                                                                          \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"              \
    "regex\":" regex "}"
#define SEQUENCE(first)                                                                            \
    "{\"type\":\"Sequence\",\"pretokenizers\":[" first "," BYTE_LEVEL("false") "]}"
#define SPLIT(regex)                                                                               \
    SEQUENCE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                                 \
             "\"},\"behavior\":\"Isolated\",\"invert\":false}")

#define WORDS_GPT2 BYTE_LEVEL("true")
#define WORDS_DIGITS                                                                               \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}"   \
    "," BYTE_LEVEL("true") "]}"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORDS_LLAMA3                                                                               \
    SPLIT(CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|" REST)
#define WORDS_QWEN2 SPLIT(CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|" REST)

/* Words of letters by case: an upper part, then a lower one. */
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define BEFORE "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define REST_SLASH                                                                                 \
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORDS_TEKKEN                                                                               \
    SPLIT(BEFORE UPPER "*" LOWER "+|" BEFORE UPPER "+" LOWER "*|\\\\p{N}|" REST_SLASH)
#define WORDS_GPT4O                                                                                \
    SPLIT(BEFORE UPPER "*" LOWER "+" CONTRACTIONS "?|" BEFORE UPPER "+" LOWER "*" CONTRACTIONS     \
                       "?|\\\\p{N}{1,3}|" REST_SLASH)

/* Names and meanings as in llama.cpp, llama-vocab.cpp; the patterns are those of the models' own
 * tokenizer.json files. */
const gguf_split gguf_splits[] = {
    {"default", WORDS_GPT2, false, false, false, false},
    {"gpt-2", WORDS_GPT2, false, false, false, true},
    {"phi-2", WORDS_GPT2, false, false, false, false},
    {"olmo", WORDS_GPT2, false, false, false, false},
    {"mpt", WORDS_GPT2, false, false, false, false},
    {"jais", WORDS_GPT2, false, false, false, false},
    {"roberta-bpe", WORDS_GPT2, false, false, false, false},
    {"smollm", WORDS_DIGITS, false, false, false, true},
    {"starcoder", WORDS_DIGITS, false, false, false, false},
    {"refact", WORDS_DIGITS, false, false, false, false},
    {"codeshell", WORDS_DIGITS, false, false, false, false},
    {"command-r", WORDS_DIGITS, false, false, false, false},
    {"exaone", WORDS_DIGITS, false, false, false, false},
    {"llama3", WORDS_LLAMA3, false, true, true, false},
    {"llama-v3", WORDS_LLAMA3, false, true, true, false},
    {"llama-bpe", WORDS_LLAMA3, false, true, true, true},
    {"falcon3", WORDS_LLAMA3, false, true, true, false},
    {"dbrx", WORDS_LLAMA3, false, false, false, false},
    {"smaug-bpe", WORDS_LLAMA3, false, false, false, true},
    {"qwen2", WORDS_QWEN2, true, false, false, true},
    {"deepseek-r1-qwen", WORDS_QWEN2, true, false, false, false},
    {"stablelm2", WORDS_QWEN2, false, false, false, true},
    {"megrez", WORDS_QWEN2, true, false, false, false},
    {"tekken", WORDS_TEKKEN, false, true, true, true},
    {"gpt-4o", WORDS_GPT4O, false, false, false, true},
    {0},
};

const gguf_split *gguf_split_named(const char *name, size_t n) {
    for (const gguf_split *s = gguf_splits; s->name; s++) {
        if (strlen(s->name) == n && memcmp(s->name, name, n) == 0) {
            return s;
        }
    }
    return NULL;
}

/* ---- From tokenizer.json ---- */

static const char *text_at(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* Appends what a step does to the words, in a form that equal steps have alike. */
static void put_step(buf *key, const json_t *step) {
    const char *type = text_at(step, "type");
    if (strcmp(type, "Split") == 0) {
        const json_t *pattern = json_object_get(step, "pattern");
        buf_printf(key, "split %s %d regex %s text %s\n", text_at(step, "behavior"),
                   json_is_true(json_object_get(step, "invert")), text_at(pattern, "Regex"),
                   text_at(pattern, "String"));
    } else if (strcmp(type, "ByteLevel") == 0) {
        buf_printf(key, "bytes %d %d\n", !json_is_false(json_object_get(step, "use_regex")),
                   json_is_true(json_object_get(step, "add_prefix_space")));
    } else if (strcmp(type, "Digits") == 0) {
        buf_printf(key, "digits %d\n", json_is_true(json_object_get(step, "individual_digits")));
    } else {
        buf_printf(key, "%s\n", type);
    }
}

static void put_steps(buf *key, const json_t *pre_tokenizer) {
    const json_t *list = json_object_get(pre_tokenizer, "pretokenizers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        put_step(key, json_array_get(list, i));
    }
    if (!list) {
        put_step(key, pre_tokenizer);
    }
}

/* Whether a row of the table cuts as key says. */
static jang_status cuts_alike(bool *out, ctx_t *ctx, const gguf_split *s, const buf *key) {
    json_t *words = NULL;
    buf own;
    buf_init(&own, ctx, 1 << 16);
    jang_status status = json_parse(&words, ctx, s->name, s->words, strlen(s->words));
    if (status == JANG_OK) {
        put_steps(&own, words);
        status = buf_status(&own);
        *out = own.size == key->size && memcmp(own.data, key->data, own.size) == 0;
    }
    json_decref(words);
    buf_free(&own);
    return status;
}

jang_status gguf_split_of(const gguf_split **out, ctx_t *ctx, const json_t *tokenizer) {
    const json_t *model = json_object_get(tokenizer, "model");
    bool whole = json_is_true(json_object_get(model, "ignore_merges"));
    const char *normalizer = text_at(json_object_get(tokenizer, "normalizer"), "type");
    bool nfc = strcmp(normalizer, "NFC") == 0;
    const gguf_split *found = NULL;
    buf key;
    buf_init(&key, ctx, 1 << 16);
    put_steps(&key, json_object_get(tokenizer, "pre_tokenizer"));
    jang_status status = buf_status(&key);
    for (const gguf_split *s = gguf_splits; s->name && status == JANG_OK; s++) {
        bool alike = false;
        if (s->written) {
            status = cuts_alike(&alike, ctx, s, &key);
        }
        /* of several names that fit, the one that normalizes alike */
        if (alike && s->ignore_merges == whole &&
            (!found || (found->nfc != nfc && s->nfc == nfc))) {
            found = s;
        }
    }
    buf_free(&key);
    if (status == JANG_OK) {
        *out = found;
    }
    return status;
}
