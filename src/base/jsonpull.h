/* jsonpull.h - a pull reader for large JSON texts: one pass, no tree.
 *
 * The caller walks the document in its own order and takes what it wants:
 *
 *     jsonpull p;  jsonpull_init(&p, ctx, "tokenizer.json", text, n_bytes);
 *     status = jsonpull_enter(&p, '{');
 *     while (status == JANG_OK && jsonpull_next(&p, &status)) {
 *         if (jsonpull_key_is(&p, "vocab")) status = read_vocab(&p); else status =
 * jsonpull_skip(&p);
 *     }
 *
 * Strings without escapes are handed out as they lie in the text; others are decoded into a
 * buffer of the reader. Input is not trusted: depth is limited, strings must be valid UTF-8
 * (a lone surrogate escape becomes U+FFFD), and every error names the byte offset. Stricter than
 * nothing in RFC 8259 except the depth; duplicate keys are handed out as they come. */
#ifndef JANG_BASE_JSONPULL_H
#define JANG_BASE_JSONPULL_H

#include "base/buf.h"

#define JSONPULL_MAX_DEPTH 64

/* A string of the document, valid until the next call that reads a string or key. */
typedef struct jsonpull_str {
    const char *data;
    size_t n_bytes;
} jsonpull_str;

typedef struct jsonpull {
    ctx_t *ctx;
    const char *what;
    const char *text;
    size_t n_bytes, at;
    jsonpull_str key; /* of the member that jsonpull_next went to; valid as any string */
    buf scratch, key_scratch;
    int depth;
    char close[JSONPULL_MAX_DEPTH]; /* '}' or ']' per open container */
    bool any[JSONPULL_MAX_DEPTH];   /* whether it has had a member */
} jsonpull;

/* text is borrowed until jsonpull_free. what stands in messages. */
void jsonpull_init(jsonpull *p, ctx_t *ctx, const char *what, const char *text, size_t n_bytes);
void jsonpull_free(jsonpull *p);

/* Returns the first character of the coming value: { [ " t f n, a digit or -; 0 at the end. */
char jsonpull_peek(jsonpull *p);

/* Enters an object ('{') or an array ('['). */
JANG_MUST_CHECK jang_status jsonpull_enter(jsonpull *p, char open);
/* Goes to the next member of the innermost container, reading the key in an object. Returns false
 * when the container has ended (it is then left) or on an error, which goes to *status. */
bool jsonpull_next(jsonpull *p, jang_status *status);
bool jsonpull_key_is(const jsonpull *p, const char *key);

/* Each reads the coming value, or fails if it is of another type. */
JANG_MUST_CHECK jang_status jsonpull_string(jsonpull *p, jsonpull_str *out);
JANG_MUST_CHECK jang_status jsonpull_int(jsonpull *p, int64_t *out);
JANG_MUST_CHECK jang_status jsonpull_double(jsonpull *p, double *out);
JANG_MUST_CHECK jang_status jsonpull_bool(jsonpull *p, bool *out);
/* Passes over null and returns true; leaves anything else alone. */
bool jsonpull_null(jsonpull *p);

/* Passes over a value of any type, checking its nesting and strings' ends but not their UTF-8. */
JANG_MUST_CHECK jang_status jsonpull_skip(jsonpull *p);
/* Same, and tells where its text lies, for a second reader or json_parse. */
JANG_MUST_CHECK jang_status jsonpull_raw(jsonpull *p, jsonpull_str *out);
/* Fails unless only white space is left. */
JANG_MUST_CHECK jang_status jsonpull_end(jsonpull *p);

/* Records "what: byte N: message" as JANG_ERR_FORMAT. */
JANG_MUST_CHECK jang_status jsonpull_fail(jsonpull *p, const char *message);

#endif
