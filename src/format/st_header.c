/* st_header.c - a reader of the one JSON shape that safetensors headers have.
 *
 * Headers of large models hold tens of thousands of entries, each a small object; a general parser
 * would build half a million nodes only to be read once. This one walks over the text and fills the
 * table of tensors as it goes. "__metadata__", which is free text, is left to the JSON library.
 *
 *     { "__metadata__": {...},  "NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
 *       ... }                                                                      then spaces */
#include "format/st_header.h"

#include "base/strmap.h"

#include <string.h>

typedef struct scanner {
    ctx_t *ctx;
    const char *path, *text;
    size_t at, end;
    char *names; /* as many bytes as the header; a name is never longer than its JSON form */
    size_t n_names;
    st_header *out;
    size_t capacity;
    strmap seen;
} scanner;

/* ---- Characters ---- */

static jang_status bad(const scanner *s, const char *wanted) {
    return ctx_fail(s->ctx, JANG_ERR_FORMAT, "%s: header, byte %zu: expected %s", s->path, s->at,
                    wanted);
}

static char peek(scanner *s) {
    while (s->at < s->end && (s->text[s->at] == ' ' || s->text[s->at] == '\n' ||
                              s->text[s->at] == '\t' || s->text[s->at] == '\r')) {
        s->at++;
    }
    return s->at < s->end ? s->text[s->at] : 0;
}

static bool take(scanner *s, char c) {
    if (peek(s) != c) {
        return false;
    }
    s->at++;
    return true;
}

/* Finds the end of a string whose opening quote has been read: the position of its closing quote.
 * *plain is cleared when it holds more than ASCII without escapes. */
static bool string_end(const scanner *s, size_t *out, bool *plain) {
    *plain = true;
    for (size_t i = s->at; i < s->end; i++) {
        unsigned char c = (unsigned char)s->text[i];
        if (c == '"') {
            *out = i;
            return true;
        }
        if (c < 0x20) {
            return false;
        }
        if (c >= 0x80) {
            *plain = false;
        } else if (c == '\\') {
            *plain = false;
            i++;
        }
    }
    return false;
}

/* Reads a string to names, ended by a 0 byte. Escapes and UTF-8 are left to the JSON library. */
static jang_status read_string(scanner *s, const char **out, size_t *n_out) {
    size_t end;
    bool plain;
    if (!take(s, '"') || !string_end(s, &end, &plain)) {
        return bad(s, "a string");
    }
    char *to = s->names + s->n_names;
    size_t n = end - s->at;
    if (plain) {
        memcpy(to, s->text + s->at, n);
    } else {
        json_t *value = NULL;
        jang_status status =
            json_parse(&value, s->ctx, s->path, s->text + s->at - 1, end - s->at + 2);
        if (status != JANG_OK) {
            return status;
        }
        n = json_string_length(value);
        memcpy(to, json_string_value(value), n);
        json_decref(value);
    }
    to[n] = 0;
    s->at = end + 1;
    s->n_names += n + 1;
    *out = to;
    *n_out = n;
    return JANG_OK;
}

/* Reads a number without sign, fraction or exponent. */
static jang_status read_uint(scanner *s, uint64_t *out, const char *tensor) {
    char c = peek(s);
    if (c == '-') {
        return ctx_fail(s->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: negative number in the header at byte %zu", s->path, tensor,
                        s->at);
    }
    if (c < '0' || c > '9') {
        return bad(s, "a whole number");
    }
    uint64_t n = 0;
    for (; s->at < s->end && s->text[s->at] >= '0' && s->text[s->at] <= '9'; s->at++) {
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (unsigned)(s->text[s->at] - '0'), &n) || n > INT64_MAX) {
            return ctx_fail(s->ctx, JANG_ERR_FORMAT,
                            "%s: tensor %s: a number in the header at byte %zu is over 2^63",
                            s->path, tensor, s->at);
        }
    }
    *out = n;
    return JANG_OK;
}

/* Reads [n, n, ...] of at most max numbers. */
static jang_status read_uints(scanner *s, uint64_t *out, int *n_out, int max, const char *tensor) {
    int n = 0;
    if (!take(s, '[')) {
        return bad(s, "a list");
    }
    if (!take(s, ']')) {
        do {
            if (n == max) {
                return ctx_fail(s->ctx, JANG_ERR_FORMAT,
                                "%s: tensor %s: more than %d numbers in a list of the header",
                                s->path, tensor, max);
            }
            jang_status status = read_uint(s, &out[n], tensor);
            if (status != JANG_OK) {
                return status;
            }
            n++;
        } while (take(s, ','));
        if (!take(s, ']')) {
            return bad(s, "',' or ']'");
        }
    }
    *n_out = n;
    return JANG_OK;
}

/* ---- Entries ---- */

static jang_status find_type(const scanner *s, dtype *out, const char *tensor, const char *name) {
    for (int i = 0; i < DT_Q4_0; i++) {
        if (strcmp(dtype_table[i].name, name) == 0) {
            *out = (dtype)i;
            return JANG_OK;
        }
    }
    return ctx_fail(s->ctx, JANG_ERR_UNSUPPORTED,
                    "%s: tensor %s: unknown dtype %.32s, F64, F32, F16, BF16, F8_E4M3, F8_E5M2, "
                    "I64, I32, I16, I8, U64, U32, U16, U8 and BOOL are known",
                    s->path, tensor, name);
}

static jang_status read_shape(scanner *s, tensor_view *t) {
    uint64_t shape[TENSOR_MAX_DIMS];
    jang_status status = read_uints(s, shape, &t->n_dim, TENSOR_MAX_DIMS, t->name);
    for (int i = 0; status == JANG_OK && i < t->n_dim; i++) {
        t->shape[i] = (int64_t)shape[i];
    }
    return status;
}

static jang_status read_offsets(scanner *s, uint64_t *offsets, const tensor_view *t) {
    int n = 0;
    jang_status status = read_uints(s, offsets, &n, 2, t->name);
    if (status == JANG_OK && (n != 2 || offsets[1] < offsets[0])) {
        status = ctx_fail(s->ctx, JANG_ERR_FORMAT,
                          "%s: tensor %s: data_offsets must be [begin, end] with begin <= end",
                          s->path, t->name);
    }
    return status;
}

/* The three keys of an entry, in any order; each once. */
static jang_status read_entry_key(scanner *s, tensor_view *t, uint64_t *offsets, unsigned *have) {
    const char *key, *type;
    size_t n, names_before = s->n_names;
    jang_status status = read_string(s, &key, &n);
    if (status != JANG_OK) {
        return status;
    }
    unsigned bit = strcmp(key, "dtype") == 0          ? 1
                   : strcmp(key, "shape") == 0        ? 2
                   : strcmp(key, "data_offsets") == 0 ? 4
                                                      : 0;
    if (!bit || (*have & bit)) {
        return ctx_fail(s->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: %s key \"%.40s\", dtype, shape and data_offsets are "
                        "wanted once each",
                        s->path, t->name, bit ? "second" : "unknown", key);
    }
    *have |= bit;
    if (!take(s, ':')) {
        return bad(s, "':'");
    }
    if (bit == 1) {
        status = read_string(s, &type, &n);
        if (status == JANG_OK) {
            status = find_type(s, &t->type, t->name, type);
        }
    } else {
        status = bit == 2 ? read_shape(s, t) : read_offsets(s, offsets, t);
    }
    s->n_names = names_before;
    return status;
}

static jang_status check_size(const scanner *s, tensor_view *t, const uint64_t *offsets) {
    if (!tensor_bytes(&t->n_bytes, t->type, t->n_dim, t->shape)) {
        return ctx_fail(s->ctx, JANG_ERR_FORMAT, "%s: tensor %s: its shape overflows 2^63 bytes",
                        s->path, t->name);
    }
    if (t->n_bytes != offsets[1] - offsets[0]) {
        return ctx_fail(s->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: dtype and shape make %zu bytes, its offsets span %llu",
                        s->path, t->name, t->n_bytes,
                        (unsigned long long)(offsets[1] - offsets[0]));
    }
    return JANG_OK;
}

static jang_status grow(scanner *s) {
    st_header *h = s->out;
    if (h->n_tensors < s->capacity) {
        return JANG_OK;
    }
    size_t capacity = s->capacity ? s->capacity * 2 : 256;
    tensor_view *tensors = ctx_realloc(s->ctx, h->tensors, capacity * sizeof *tensors);
    if (!tensors) {
        return ctx_fail_memory(s->ctx, capacity * sizeof *tensors);
    }
    h->tensors = tensors;
    uint64_t(*offsets)[2] = ctx_realloc(s->ctx, h->offsets, capacity * sizeof *offsets);
    if (!offsets) {
        return ctx_fail_memory(s->ctx, capacity * sizeof *offsets);
    }
    h->offsets = offsets;
    s->capacity = capacity;
    return JANG_OK;
}

static jang_status read_tensor(scanner *s, const char *name) {
    jang_status status = grow(s);
    if (status != JANG_OK) {
        return status;
    }
    tensor_view *t = &s->out->tensors[s->out->n_tensors];
    uint64_t *offsets = s->out->offsets[s->out->n_tensors];
    *t = (tensor_view){.name = name};
    unsigned have = 0;
    if (!take(s, '{')) {
        return bad(s, "'{'");
    }
    do {
        status = read_entry_key(s, t, offsets, &have);
        if (status != JANG_OK) {
            return status;
        }
    } while (take(s, ','));
    if (!take(s, '}')) {
        return bad(s, "',' or '}'");
    }
    if (have != 7) {
        return ctx_fail(s->ctx, JANG_ERR_FORMAT, "%s: tensor %s: no %s", s->path, name,
                        !(have & 1)   ? "dtype"
                        : !(have & 2) ? "shape"
                                      : "data_offsets");
    }
    s->out->n_tensors++;
    return check_size(s, t, offsets);
}

/* Metadata is an object of strings: its end is the first '}' outside a string. mlx writes null
 * where it has none. */
static jang_status read_metadata(scanner *s) {
    size_t begin = s->at;
    if (s->end - s->at >= 4 && memcmp(s->text + s->at, "null", 4) == 0) {
        s->at += 4;
        return JANG_OK;
    }
    if (!take(s, '{')) {
        return bad(s, "'{'");
    }
    while (s->at < s->end && s->text[s->at] != '}') {
        bool plain;
        if (s->text[s->at++] == '"') {
            if (!string_end(s, &s->at, &plain)) {
                return bad(s, "the end of a string");
            }
            s->at++;
        }
    }
    if (!take(s, '}')) {
        return bad(s, "'}'");
    }
    jang_status status =
        json_parse(&s->out->metadata, s->ctx, s->path, s->text + begin, s->at - begin);
    if (status != JANG_OK) {
        return status;
    }
    const char *key;
    json_t *value;
    json_object_foreach(s->out->metadata, key, value) {
        if (!json_is_string(value)) {
            return ctx_fail(s->ctx, JANG_ERR_FORMAT,
                            "%s: __metadata__: %.60s is not a string, only strings are allowed",
                            s->path, key);
        }
    }
    return JANG_OK;
}

static jang_status read_member(scanner *s) {
    const char *name;
    size_t n;
    int32_t old;
    jang_status status = read_string(s, &name, &n);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)name[i] < 0x20) {
            return bad(s, "a name without control characters");
        }
    }
    status = strmap_put(&s->seen, name, n, 0, &old);
    if (status != JANG_OK) {
        return status;
    }
    if (old >= 0) {
        return ctx_fail(s->ctx, JANG_ERR_FORMAT, "%s: two tensors are named %s", s->path, name);
    }
    if (!take(s, ':')) {
        return bad(s, "':'");
    }
    peek(s);
    return strcmp(name, "__metadata__") == 0 ? read_metadata(s) : read_tensor(s, name);
}

static jang_status read_header(scanner *s) {
    if (s->at == s->end || s->text[0] != '{') {
        return bad(s, "'{'");
    }
    s->at++;
    if (!take(s, '}')) {
        do {
            jang_status status = read_member(s);
            if (status != JANG_OK) {
                return status;
            }
        } while (take(s, ','));
        if (!take(s, '}')) {
            return bad(s, "',' or '}'");
        }
    }
    peek(s);
    return s->at == s->end ? JANG_OK : bad(s, "nothing but spaces after the header's end");
}

jang_status st_header_parse(st_header *out, ctx_t *ctx, const char *path, const char *text,
                            size_t n_bytes) {
    st_header h = {0};
    scanner s = {.ctx = ctx, .path = path, .text = text, .end = n_bytes, .out = &h};
    strmap_init(&s.seen, ctx);
    jang_status status;
    s.names = h.names = ctx_alloc(ctx, n_bytes + 1);
    if (!s.names) {
        status = ctx_fail_memory(ctx, n_bytes + 1);
        goto done;
    }
    status = read_header(&s);
    if (status == JANG_OK) {
        *out = h;
        h = (st_header){0};
    }
done:
    strmap_free(&s.seen);
    st_header_free(&h, ctx);
    return status;
}

void st_header_free(st_header *h, ctx_t *ctx) {
    ctx_free(ctx, h->tensors);
    ctx_free(ctx, h->offsets);
    ctx_free(ctx, h->names);
    json_decref(h->metadata);
    *h = (st_header){0};
}
