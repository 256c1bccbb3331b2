/* json_in.c - reads the members of a request, with errors that say which, what came, what is
 * allowed. */
#include "json_in.h"

#include "text_buf.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 256

/* Copies what fits; what is no character, or was cut inside one, becomes U+FFFD or is left out. */
static void put_line(char *out, size_t n_bytes, const char *text) {
    tbuf whole = {0};
    tbuf_add_utf8(&whole, text, strlen(text));
    size_t n = whole.n < n_bytes ? whole.n : n_bytes - 1;
    while (n < whole.n && (whole.data[n] & 0xC0) == 0x80) {
        n--;
    }
    memcpy(out, tbuf_text(&whole), n);
    out[n] = 0;
    tbuf_free(&whole);
}

bool api_fail(api_error *e, int status, const char *code, const char *param, const char *format,
              ...) {
    if (e->status) {
        return false;
    }
    e->status = status;
    e->code = code;
    put_line(e->param, sizeof e->param, param ? param : "");
    char line[sizeof e->message];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    put_line(e->message, sizeof e->message, line);
    return false;
}

/* Deepest nesting of brackets outside strings. */
static bool too_deep(const char *text, size_t n_bytes) {
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < n_bytes; i++) {
        char c = text[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX) {
                return true;
            }
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return false;
}

json_t *in_body(api_error *e, const char *text, size_t n_bytes) {
    json_error_t where;
    if (too_deep(text, n_bytes)) {
        api_fail(e, 400, "invalid_json", NULL, "the body is nested deeper than the limit of %d",
                 DEPTH_MAX);
        return NULL;
    }
    json_t *root = json_loadb(text, n_bytes, JSON_DECODE_ANY, &where);
    if (!root) {
        api_fail(e, 400, "invalid_json", NULL, "the body is not JSON: line %d, column %d: %s",
                 where.line, where.column, where.text);
    } else if (!json_is_object(root)) {
        api_fail(e, 400, "invalid_type", NULL, "the body: expected an object");
        json_decref(root);
        root = NULL;
    }
    return root;
}

json_t *in_get(json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* A value as an error shows it. */
static void describe(char *out, size_t n_bytes, const json_t *value) {
    if (!value) {
        snprintf(out, n_bytes, "nothing");
    } else if (json_is_object(value)) {
        snprintf(out, n_bytes, "an object");
    } else if (json_is_array(value)) {
        snprintf(out, n_bytes, "an array");
    } else {
        char *text =
            json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) | JSON_ENSURE_ASCII);
        snprintf(out, n_bytes, "%.60s", text ? text : "a value");
        free(text);
    }
}

bool in_wrong(const json_in *in, const char *key, const char *what, const json_t *value) {
    char param[96], got[80];
    snprintf(param, sizeof param, "%s%s", in->path, key);
    describe(got, sizeof got, value);
    const char *code = value ? "invalid_type" : "missing_field";
    return api_fail(in->error, 400, code, param, "%s: expected %s, got %s", param, what, got);
}

static bool out_of_range(const json_in *in, const char *key, const char *what,
                         const json_t *value) {
    in_wrong(in, key, what, value);
    if (!strcmp(in->error->code, "invalid_type")) {
        in->error->code = "invalid_value";
    }
    return false;
}

bool in_int(const json_in *in, json_t *object, const char *key, int64_t min, int64_t max,
            int64_t *out) {
    json_t *value = in_get(object, key);
    if (!value || in->error->status) {
        return false;
    }
    char what[96];
    if (max == INT64_MAX || max == INT32_MAX) {
        snprintf(what, sizeof what, "an integer >= %" PRId64, min);
    } else {
        snprintf(what, sizeof what, "an integer from %" PRId64 " to %" PRId64, min, max);
    }
    double real = json_real_value(value);
    bool whole =
        json_is_real(value) && real >= -9e15 && real <= 9e15 && real == (double)(int64_t)real;
    if (!json_is_integer(value) && !whole) {
        return in_wrong(in, key, what, value);
    }
    int64_t number = whole ? (int64_t)real : json_integer_value(value);
    if (number < min || number > max) {
        return out_of_range(in, key, what, value);
    }
    *out = number;
    return true;
}

bool in_real(const json_in *in, json_t *object, const char *key, double min, double max,
             float *out) {
    json_t *value = in_get(object, key);
    if (!value || in->error->status) {
        return false;
    }
    char what[96];
    snprintf(what, sizeof what, "a number from %g to %g", min, max);
    if (!json_is_number(value)) {
        return in_wrong(in, key, what, value);
    }
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) {
        return out_of_range(in, key, what, value);
    }
    *out = (float)number;
    return true;
}

bool in_bool(const json_in *in, json_t *object, const char *key, bool *out) {
    json_t *value = in_get(object, key);
    if (!value || in->error->status) {
        return false;
    }
    if (!json_is_boolean(value)) {
        return in_wrong(in, key, "true or false", value);
    }
    *out = json_is_true(value);
    return true;
}

bool in_text(const json_in *in, json_t *object, const char *key, const char **out) {
    json_t *value = in_get(object, key);
    if (!value || in->error->status) {
        return false;
    }
    if (!json_is_string(value)) {
        return in_wrong(in, key, "a string", value);
    }
    *out = json_string_value(value);
    return true;
}

bool in_choice(const json_in *in, json_t *object, const char *key, const char *const *choices,
               int *out) {
    json_t *value = in_get(object, key);
    if (!value || in->error->status) {
        return false;
    }
    char what[256] = "one of";
    for (int i = 0; choices[i]; i++) {
        if (json_is_string(value) && !strcmp(json_string_value(value), choices[i])) {
            *out = i;
            return true;
        }
        size_t n = strlen(what);
        snprintf(what + n, sizeof what - n, "%s \"%s\"", i ? "," : "", choices[i]);
    }
    return json_is_string(value) ? out_of_range(in, key, what, value)
                                 : in_wrong(in, key, what, value);
}

json_t *in_array(const json_in *in, json_t *object, const char *key) {
    json_t *value = in_get(object, key);
    if (value && !json_is_array(value)) {
        in_wrong(in, key, "an array", value);
        return NULL;
    }
    return value;
}

json_t *in_object(const json_in *in, json_t *object, const char *key) {
    json_t *value = in_get(object, key);
    if (value && !json_is_object(value)) {
        in_wrong(in, key, "an object", value);
        return NULL;
    }
    return value;
}
