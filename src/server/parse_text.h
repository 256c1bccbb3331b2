/* parse_text.h - what the server would make of a model's text, for the command line. */
#ifndef JANG_SERVER_PARSE_TEXT_H
#define JANG_SERVER_PARSE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct parse_job {
    const char *format, *reasoning; /* names, or NULL: none */
    const char *tools_json;         /* an array of tools, or NULL */
    size_t n_tools_json;
    const char *text;
    size_t n_text;
    size_t chunk; /* bytes a piece; 0: all at once */
    bool open;    /* the text begins inside reasoning */
    bool forced;  /* calls are made by a grammar */
} parse_job;

/* Writes the assistant's message as one line of JSON, which the caller frees. NULL: error takes why
 * not. */
char *parse_text(const parse_job *job, char *error, size_t error_bytes);

#endif
