/* eval_rows.h - files of JSON objects, one a line, as evaluations read them. */
#ifndef JANG_CLI_EVAL_ROWS_H
#define JANG_CLI_EVAL_ROWS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Reads all rows of a file into an array; at most `most` of them, 0: all. Owned by the caller; NULL
 * after having printed why: not JSON, not an object, nothing there. */
json_t *rows_read(const char *path, size_t most);

/* Member of a row that must be a string; NULL after having printed that it is none. */
const char *row_text(const json_t *row, const char *key, const char *path, size_t number);

#endif
