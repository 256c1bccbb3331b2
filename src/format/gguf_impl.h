/* gguf_impl.h - what the parts of gguf share; nobody else includes it. */
#ifndef JANG_FORMAT_GGUF_IMPL_H
#define JANG_FORMAT_GGUF_IMPL_H

#include "base/strmap.h"
#include "format/gguf.h"

/* Types of metadata values, as the format numbers them. */
typedef enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
    GGUF_N_TYPES
} gguf_type;

/* A value where it lies in the file: a number, the bytes of a string, or the items of an array (of
 * strings: each with its u64 length before it). All within the file; strings are valid UTF-8. */
typedef struct gguf_value {
    gguf_type type, item_type; /* item_type: of an array */
    uint64_t n_items;          /* of an array */
    const uint8_t *data;
    size_t n_bytes; /* of a string */
} gguf_value;

struct gguf_file {
    ctx_t *ctx;
    char *path;
    file_map map;
    gguf_value *values;
    size_t n_values;
    strmap by_key;
    tensor_view *tensors;
    size_t n_tensors;
    strmap by_name;
    char *names; /* of the tensors, each ended by a 0 byte */

    json_t *config, *generation_config, *tokenizer_config;
    char *tokenizer_json;
    size_t n_tokenizer_json;
};

/* ---- Metadata (gguf_meta.c). All fail naming file and key when the type is wrong. ---- */

/* Bytes of a number or bool; 0 for strings and arrays. */
size_t gguf_type_bytes(gguf_type type);
const gguf_value *gguf_find(const gguf_file *g, const char *key);
/* Any integer type from min to max; fallback when the key is missing. */
JANG_MUST_CHECK jang_status gguf_get_int(int64_t *out, const gguf_file *g, const char *key,
                                         int64_t fallback, int64_t min, int64_t max);
/* A finite number; fallback when the key is missing. */
JANG_MUST_CHECK jang_status gguf_get_float(double *out, const gguf_file *g, const char *key,
                                           double fallback);
JANG_MUST_CHECK jang_status gguf_get_bool(bool *out, const gguf_file *g, const char *key,
                                          bool fallback);
/* *text is NULL when the key is missing; it is not ended by a 0 byte. */
JANG_MUST_CHECK jang_status gguf_get_string(const char **text, size_t *n_bytes, const gguf_file *g,
                                            const char *key);
/* *out is NULL when the key is missing; item_type as wanted. */
JANG_MUST_CHECK jang_status gguf_get_array(const gguf_value **out, const gguf_file *g,
                                           const char *key, gguf_type item_type);
/* Item i of an array of numbers; strings are walked with gguf_next_string. */
double gguf_item_number(const gguf_value *array, uint64_t i);
/* Returns the string at *at within an array of strings and moves *at to the next; begin with 0. */
const char *gguf_next_string(const gguf_value *array, size_t *at, size_t *n_bytes);

const tensor_view *gguf_tensor(const gguf_file *g, const char *name);

/* ---- Family (gguf_config.c) ---- */

/* The architecture's name as a text of at most 31 bytes, "" if there is none. */
void gguf_architecture(char out[32], const gguf_file *g);
/* A token's text from its id key ("tokenizer.ggml.bos_token_id"); *text NULL when missing. */
JANG_MUST_CHECK jang_status gguf_special_token(const char **text, size_t *n_bytes, int64_t *id,
                                               const gguf_file *g, const char *key);

#endif
