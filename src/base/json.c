/* json.c - jansson behind the context's errors, and typed getters. */
#include "base/json.h"

#include "base/file.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JSON_FILE_MAX ((size_t)256 << 20)

/* ---- Reading ---- */

/* What Python writes and jansson does not read: Infinity, NaN, integers past 64 bits
 * (tokenizer_config.json's model_max_length is often 10^30). */
typedef struct foreign {
    size_t n_bytes; /* in the text; 0: none here */
    const char *replacement;
    bool keep; /* the text stays, replacement follows it */
} foreign;

static foreign foreign_number(const char *at, size_t n) {
    size_t i = 0;
    while (i < n && strchr("0123456789.eE+-", at[i]) && at[i]) {
        i++;
    }
    bool integer = i > 18 && !memchr(at, '.', i) && !memchr(at, 'e', i) && !memchr(at, 'E', i);
    char digits[24] = "9999999999999999999";
    if (integer && i < sizeof digits) {
        memcpy(digits, at, i);
        digits[i] = 0;
    }
    errno = 0;
    bool too_big = integer && (strtoll(digits, NULL, 10), errno == ERANGE);
    return (foreign){i, too_big ? ".0" : "", true};
}

static foreign find_foreign(const char *at, size_t n) {
    if (*at >= '0' && *at <= '9') {
        return foreign_number(at, n);
    }
    if (n >= 8 && memcmp(at, "Infinity", 8) == 0) {
        return (foreign){8, "1.7976931348623157e308", false};
    }
    if (n >= 3 && memcmp(at, "NaN", 3) == 0) {
        return (foreign){3, "null", false};
    }
    return (foreign){0};
}

/* The index after the string that begins at text[i]. */
static size_t skip_string(const char *text, size_t i, size_t n) {
    for (i++; i < n && text[i] != '"'; i++) {
        i += text[i] == '\\';
    }
    return i < n ? i + 1 : n;
}

/* Replaces the foreign numbers outside strings. Returns NULL when there are none, or no memory;
 * then the text is parsed as it is. */
static char *replace_foreign(ctx_t *ctx, const char *text, size_t n, size_t *n_out) {
    buf b;
    buf_init(&b, ctx, BUF_NO_LIMIT);
    size_t copied = 0;
    for (size_t i = 0; i < n;) {
        if (text[i] == '"') {
            i = skip_string(text, i, n);
            continue;
        }
        foreign f = find_foreign(text + i, n - i);
        if (f.n_bytes && *f.replacement) {
            size_t end = f.keep ? i + f.n_bytes : i;
            buf_put(&b, text + copied, end - copied);
            buf_puts(&b, f.replacement);
            copied = i + f.n_bytes;
        }
        i += f.n_bytes ? f.n_bytes : 1;
    }
    char *data = NULL;
    if (copied) {
        buf_put(&b, text + copied, n - copied);
        if (buf_take(&b, &data, n_out) != JANG_OK) {
            data = NULL;
        }
    }
    buf_free(&b);
    return data;
}

jang_status json_parse(json_t **out, ctx_t *ctx, const char *what, const char *text, size_t n) {
    size_t n_replaced = 0;
    char *replaced = replace_foreign(ctx, text, n, &n_replaced);
    json_error_t error;
    json_t *root = json_loadb(replaced ? replaced : text, replaced ? n_replaced : n,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    ctx_free(ctx, replaced);
    if (!root) {
        /* jansson leaves the text empty where a table of its own could not grow */
        if (json_error_code(&error) == json_error_out_of_memory || !error.text[0]) {
            return ctx_fail_memory(ctx, n);
        }
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: not valid JSON: line %d, column %d: %s", what,
                        error.line, error.column, error.text);
    }
    *out = root;
    return JANG_OK;
}

jang_status json_read(json_t **out, ctx_t *ctx, const char *path) {
    char *text;
    size_t n;
    jang_status status = file_read(&text, &n, ctx, path, JSON_FILE_MAX);
    if (status == JANG_OK) {
        status = json_parse(out, ctx, path, text, n);
        ctx_free(ctx, text);
    }
    return status;
}

static int write_piece(const char *data, size_t n, void *user) {
    buf *b = user;
    buf_put(b, data, n);
    return b->status == JANG_OK ? 0 : -1;
}

/* One piece of a number is the whole of it; one behind a quote is a string's. */
static int write_python_piece(const char *data, size_t n, void *user) {
    static const char largest[] = "1.7976931348623157e308";
    const buf *b = user;
    bool negative = n > 0 && *data == '-';
    bool is_number = b->size == 0 || b->data[b->size - 1] != '"';
    if (is_number && n - negative == strlen(largest) &&
        memcmp(data + negative, largest, n - negative) == 0) {
        return write_piece(negative ? "-Infinity" : "Infinity", 8 + negative, user);
    }
    return write_piece(data, n, user);
}

static void write_with(json_dump_callback_t piece, buf *out, const json_t *value, int indent) {
    size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(17);
    flags |= indent ? JSON_INDENT((size_t)indent) : 0;
    if (json_dump_callback(value, piece, out, flags) != 0) {
        out->status = JANG_ERR_MEMORY;
    }
}

void json_write(buf *out, const json_t *value, int indent) {
    write_with(write_piece, out, value, indent);
}

void json_write_python(buf *out, const json_t *value, int indent) {
    write_with(write_python_piece, out, value, indent);
}

void json_write_string(buf *out, const char *text, size_t n) {
    size_t from = 0;
    buf_putc(out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        buf_put(out, text + from, i - from);
        from = i + 1;
        if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_putc(out, '\\');
            buf_putc(out, (char)c);
        }
    }
    buf_put(out, text + from, n - from);
    buf_putc(out, '"');
}

json_t *json_repaired(ctx_t *ctx, const char *text) {
    buf valid;
    buf_init(&valid, ctx, BUF_NO_LIMIT);
    utf8_repair(&valid, text, strlen(text));
    json_t *string = valid.status == JANG_OK ? json_stringn(valid.data, valid.size) : NULL;
    buf_free(&valid);
    return string;
}

/* ---- Getters ---- */

static const json_t *find(json_at at, const char *key) {
    const json_t *value = json_object_get(at.object, key);
    return json_is_null(value) ? NULL : value;
}

static jang_status wrong_type(json_at at, const char *key, const char *wanted) {
    return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: %s: expected %s", at.what, key, wanted);
}

bool json_has(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value);
}

jang_status json_get_int(int64_t *out, json_at at, const char *key, int64_t fallback, int64_t min,
                         int64_t max) {
    const json_t *value = find(at, key);
    int64_t n = fallback;
    if (value) {
        double real = json_number_value(value);
        if (json_is_integer(value)) {
            n = json_integer_value(value);
        } else if (json_is_real(value) && real >= -9e15 && real <= 9e15 &&
                   real == (double)(int64_t)real) {
            n = (int64_t)real;
        } else {
            return wrong_type(at, key, "an integer");
        }
        if (n < min || n > max) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                            "%s: %s: %lld is out of range, %lld to %lld is allowed", at.what, key,
                            (long long)n, (long long)min, (long long)max);
        }
    }
    *out = n;
    return JANG_OK;
}

jang_status json_get_double(double *out, json_at at, const char *key, double fallback) {
    const json_t *value = find(at, key);
    if (value && !json_is_number(value)) {
        return wrong_type(at, key, "a number");
    }
    *out = value ? json_number_value(value) : fallback;
    return JANG_OK;
}

jang_status json_get_bool(bool *out, json_at at, const char *key, bool fallback) {
    const json_t *value = find(at, key);
    if (value && !json_is_boolean(value)) {
        return wrong_type(at, key, "true or false");
    }
    *out = value ? json_is_true(value) : fallback;
    return JANG_OK;
}

jang_status json_get_string(const char **out, json_at at, const char *key, const char *fallback) {
    const json_t *value = find(at, key);
    if (value && !json_is_string(value)) {
        return wrong_type(at, key, "a string");
    }
    *out = value ? json_string_value(value) : fallback;
    return JANG_OK;
}

jang_status json_get_object(const json_t **out, json_at at, const char *key) {
    const json_t *value = find(at, key);
    if (value && !json_is_object(value)) {
        return wrong_type(at, key, "an object");
    }
    *out = value;
    return JANG_OK;
}

jang_status json_get_array(const json_t **out, json_at at, const char *key) {
    const json_t *value = find(at, key);
    if (value && !json_is_array(value)) {
        return wrong_type(at, key, "an array");
    }
    *out = value;
    return JANG_OK;
}
