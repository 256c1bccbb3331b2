/* json_out.h - writes JSON piece by piece into a text: members in the order they are written,
 * non-ASCII characters as they are, no white space.
 *
 *     jw w = jw_start(&text);
 *     jw_open(&w, NULL, '{');  jw_text(&w, "id", id);  jw_int(&w, "n", 3);  jw_close(&w);
 *
 * A key of NULL writes a bare value: an element of an array, or the outermost one. */
#ifndef JANG_SERVER_JSON_OUT_H
#define JANG_SERVER_JSON_OUT_H

#include "text_buf.h"

#include <jansson.h>

#define JW_MAX_DEPTH 16

typedef struct jw {
    tbuf *out;
    int depth;
    bool has_member[JW_MAX_DEPTH + 1];
    char closer[JW_MAX_DEPTH + 1];
} jw;

jw jw_start(tbuf *out);
/* kind is '{' or '['. */
void jw_open(jw *w, const char *key, char kind);
void jw_close(jw *w);
/* NULL is null. */
void jw_text(jw *w, const char *key, const char *text);
void jw_bytes(jw *w, const char *key, const char *text, size_t n_bytes);
void jw_int(jw *w, const char *key, int64_t value);
/* Shortest of 9 significant digits; what JSON cannot say (infinite, not a number) is null. */
void jw_real(jw *w, const char *key, double value);
void jw_bool(jw *w, const char *key, bool value);
void jw_null(jw *w, const char *key);
/* JSON text that is written already. */
void jw_raw(jw *w, const char *key, const char *json, size_t n_bytes);
/* A jansson value; NULL is null. */
void jw_value(jw *w, const char *key, const json_t *value);

/* Appends a JSON string with its quotes. */
void json_quote(tbuf *out, const char *text, size_t n_bytes);
/* The same without quotes, for a string written in pieces. */
void json_escape(tbuf *out, const char *text, size_t n_bytes);

#endif
