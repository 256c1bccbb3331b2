/* json.h - JSON documents: jansson, with limits and one-line errors.
 *
 * The typed getters treat null as absent, so that "key": null means the default, and fail with
 * the name of the file and key when the type or range is wrong. */
#ifndef JANG_BASE_JSON_H
#define JANG_BASE_JSON_H

#include "base/buf.h"

#include <jansson.h>

/* Parses text. what stands in messages (a file name). Duplicate keys, depth over jansson's limit,
 * invalid UTF-8 and trailing text are errors. What Python writes into such files beyond JSON is
 * read: Infinity as the largest double, NaN as null, an integer past 64 bits as a real number.
 * Released with json_decref. */
JANG_MUST_CHECK jang_status json_parse(json_t **out, ctx_t *ctx, const char *what, const char *text,
                                       size_t n_bytes);
/* Reads and parses a file of at most 256 MiB. */
JANG_MUST_CHECK jang_status json_read(json_t **out, ctx_t *ctx, const char *path);
/* Appends JSON text, keys in insertion order. indent 0: on one line. */
void json_write(buf *out, const json_t *value, int indent);
/* Likewise as Python writes it: the largest double, as which it was read, is Infinity again. */
void json_write_python(buf *out, const json_t *value, int indent);
/* Appends text, which is valid UTF-8, as a JSON string with its quotes. */
void json_write_string(buf *out, const char *text, size_t n);

/* A new string of any text, bad UTF-8 replaced by U+FFFD: for names of files. NULL: no memory. */
json_t *json_repaired(ctx_t *ctx, const char *text);

/* What a getter's messages name: the file and the object within it ("quantization"). */
typedef struct json_at {
    ctx_t *ctx;
    const char *what;
    const json_t *object; /* NULL counts as an empty object */
} json_at;

/* Each sets *out to the key's value, or to fallback when the key is absent or null. */
JANG_MUST_CHECK jang_status json_get_int(int64_t *out, json_at at, const char *key,
                                         int64_t fallback, int64_t min, int64_t max);
JANG_MUST_CHECK jang_status json_get_double(double *out, json_at at, const char *key,
                                            double fallback);
JANG_MUST_CHECK jang_status json_get_bool(bool *out, json_at at, const char *key, bool fallback);
/* Borrowed from the document. */
JANG_MUST_CHECK jang_status json_get_string(const char **out, json_at at, const char *key,
                                            const char *fallback);
/* *out is NULL when absent. */
JANG_MUST_CHECK jang_status json_get_object(const json_t **out, json_at at, const char *key);
JANG_MUST_CHECK jang_status json_get_array(const json_t **out, json_at at, const char *key);

/* Whether the key is there and not null. */
bool json_has(const json_t *object, const char *key);

#endif
