/* eval_rows.c - reads files of JSON lines. */
#include "eval_rows.h"

#include "read_input.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

static bool add_row(json_t *rows, const char *path, const char *line, size_t n_bytes,
                    size_t number) {
    json_error_t error;
    json_t *row = json_loadb(line, n_bytes, 0, &error);
    if (!row || !json_is_object(row)) {
        cli_failed("%s, line %zu: %s", path, number, row ? "not a JSON object" : error.text);
        json_decref(row);
        return false;
    }
    return json_array_append_new(rows, row) == 0;
}

json_t *rows_read(const char *path, size_t most) {
    char *text = NULL;
    size_t n_bytes = 0;
    if (!read_whole(&text, &n_bytes, path)) {
        return NULL;
    }
    json_t *rows = json_array();
    bool ok = rows != NULL;
    size_t number = 1;
    for (size_t at = 0; ok && at < n_bytes && (most == 0 || json_array_size(rows) < most);
         number++) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        size_t n = end ? (size_t)(end - text) - at : n_bytes - at;
        if (strspn(text + at, " \t\r") < n) {
            ok = add_row(rows, path, text + at, n, number);
        }
        at += n + 1;
    }
    free(text);
    if (ok && json_array_size(rows) == 0) {
        cli_failed("%s: there are no rows in it", path);
        ok = false;
    }
    if (!ok) {
        json_decref(rows);
        return NULL;
    }
    return rows;
}

const char *row_text(const json_t *row, const char *key, const char *path, size_t number) {
    const char *text = json_string_value(json_object_get(row, key));
    if (!text) {
        cli_failed("%s, row %zu: \"%s\" must be a string", path, number + 1, key);
    }
    return text;
}
