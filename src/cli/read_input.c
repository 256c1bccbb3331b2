/* read_input.c - whole files, standard input, and lists of token ids. */
#include "read_input.h"

#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 31)

static const char *input_name(const char *path) {
    return strcmp(path, "-") ? path : "standard input";
}

static bool read_stream(char **data, size_t *n_bytes, FILE *from, const char *path) {
    size_t n = 0, capacity = 1 << 16;
    char *text = malloc(capacity);
    while (text) {
        n += fread(text + n, 1, capacity - n - 1, from);
        if (n < capacity - 1) {
            break;
        }
        char *larger = capacity < MOST_BYTES ? realloc(text, capacity * 2) : NULL;
        if (!larger) {
            free(text);
        }
        text = larger;
        capacity *= 2;
    }
    if (!text) {
        cli_failed("%s: too large to read into memory", input_name(path));
        return false;
    }
    if (ferror(from)) {
        cli_failed("cannot read %s: %s", input_name(path), strerror(errno));
        free(text);
        return false;
    }
    text[n] = 0;
    *data = text;
    *n_bytes = n;
    return true;
}

bool read_whole(char **data, size_t *n_bytes, const char *path) {
    if (!strcmp(path, "-")) {
        return read_stream(data, n_bytes, stdin, path);
    }
    FILE *from = fopen(path, "rb");
    if (!from) {
        cli_failed("cannot open %s: %s", path, strerror(errno));
        return false;
    }
    bool ok = read_stream(data, n_bytes, from, path);
    fclose(from);
    return ok;
}

/* ---- Ids ---- */

bool id_list_add(id_list *list, int32_t id) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        int32_t *larger = realloc(list->ids, capacity * sizeof *larger);
        if (!larger) {
            return false;
        }
        list->ids = larger;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return true;
}

/* Reads one id; returns what follows it, NULL if there is none. */
static const char *parse_id(int32_t *id, const char *text) {
    size_t n = strspn(text, "0123456789");
    int64_t value = 0;
    for (size_t i = 0; i < n && value <= INT32_MAX; i++) {
        value = 10 * value + (text[i] - '0');
    }
    if (n == 0 || value > INT32_MAX) {
        return NULL;
    }
    *id = (int32_t)value;
    return text + n;
}

bool id_list_parse(id_list *list, const char *text, bool strict, char *error, size_t error_bytes) {
    const char *between = strict ? "" : " \t\r\n,[]";
    const char *at = text + strspn(text, between);
    while (*at || strict) {
        int32_t id;
        const char *next = parse_id(&id, at);
        bool ends_well = next && (!*next || strchr(strict ? "," : between, *next));
        if (!ends_well) {
            snprintf(error, error_bytes,
                     "'%.*s' at byte %zu is no token id: whole numbers from 0 to %d, separated by "
                     "commas",
                     (int)strcspn(at, ", \t\r\n"), at, (size_t)(at - text), INT32_MAX);
            return false;
        }
        if (!id_list_add(list, id)) {
            snprintf(error, error_bytes, "out of memory");
            return false;
        }
        if (strict && !*next) {
            break;
        }
        at = strict ? next + 1 : next + strspn(next, between);
    }
    return true;
}
