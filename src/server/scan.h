/* scan.h - reads the pieces of a tool call from text that may not be complete yet.
 *
 * A scanner stands at a place of a text. Every function reads one thing from there and says
 * whether it was all there (SCAN_OK, the scanner stands behind it), whether it may still become
 * that thing (SCAN_MORE), or never will (SCAN_BAD). A verdict never changes when text is added
 * behind, except SCAN_MORE. When the text is complete (final), what is missing is SCAN_BAD.
 *
 * What a function writes for an unfinished value is a beginning of what it writes for the finished
 * one, so that arguments can be passed on while they come. */
#ifndef JANG_SERVER_SCAN_H
#define JANG_SERVER_SCAN_H

#include "text_buf.h"

typedef enum scan_result { SCAN_OK, SCAN_MORE, SCAN_BAD } scan_result;

typedef struct scanner {
    const char *text;
    size_t n, at;
    bool final; /* nothing will be added */
} scanner;

/* Skips blanks and line ends. */
void scan_space(scanner *s);
/* What to say at the end of the text. */
scan_result scan_end(const scanner *s);
/* This very text. */
scan_result scan_literal(scanner *s, const char *literal);
/* This very text, which may also be missing at the end of a complete text. */
scan_result scan_closer(scanner *s, const char *literal);
/* Whether this text follows: OK, MORE (it may), BAD. Does not move. */
scan_result scan_peek(const scanner *s, const char *literal);
/* All up to needle, which is skipped; found is borrowed from the text. */
scan_result scan_until(scanner *s, const char *needle, const char **found, size_t *n_found);
/* A name of letters, digits and the characters of extra. */
scan_result scan_name(scanner *s, const char *extra, const char **name, size_t *n_name);

/* A JSON value, appended in compact form: white space outside strings taken out, control characters
 * inside strings escaped, the rest as it stands. At most 256 deep. */
scan_result scan_json(scanner *s, tbuf *out);
/* A JSON string, appended decoded. */
scan_result scan_json_text(scanner *s, tbuf *out);
/* A Python literal (or JSON), appended as JSON: None, True, 'text', (1, 2), {'a': 1}. */
scan_result scan_python(scanner *s, tbuf *out);
/* Python keyword arguments up to and with the closing parenthesis: x=1, y="a") -> {"x":1,"y":"a"}.
 */
scan_result scan_python_arguments(scanner *s, tbuf *out);
/* Gemma's notation: {key:value,...} with bare keys and text between quote marks that are a token
 * of their own, "<|\"|>". Appended as JSON. */
scan_result scan_gemma(scanner *s, const char *quote, tbuf *out);

/* Whether the whole text is one JSON value; appended compact. */
bool json_compact(tbuf *out, const char *text, size_t n_bytes);

#endif
