/* eval_shares.h - what evaluations that count print: shares in percent, each with its standard
 * error. */
#ifndef JANG_CLI_EVAL_SHARES_H
#define JANG_CLI_EVAL_SHARES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define SHARE_COLUMNS_MAX 4

/* A column: the keys of a share and of its error in a result, or, where error is NULL, that of an
 * object {mean, error}. share NULL, or a result without it: "-". */
typedef struct share_column {
    const char *title, *share, *error;
} share_column;

/* Prints results, each with "model" and a count under the key counted, as a table with the n
 * columns, or as JSON. */
void shares_print(const json_t *results, bool as_json, const char *counted,
                  const share_column *columns, size_t n);

#endif
