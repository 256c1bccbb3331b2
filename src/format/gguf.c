/* gguf.c - opening a GGUF file.
 *
 *     "GGUF", u32 version, u64 n_tensors, u64 n_values,
 *     n_values  x  { string key, u32 type, value },         string: u64 length, bytes
 *     n_tensors x  { string name, u32 n_dim, u64 dims[n_dim], u32 type, u64 offset },
 *     padding to general.alignment (32), then the tensors' bytes, each at a multiple of it.
 *
 * dims[0] is the fastest axis there. Source: ggml's docs/gguf.md. */
#include "base/utf8.h"
#include "format/gguf_impl.h"

#include <stdlib.h>
#include <string.h>

/* The least a value and a tensor take in the file: bounds the counts before memory is asked for. */
#define VALUE_MIN_BYTES 13
#define TENSOR_MIN_BYTES 24
#define NAME_MAX_BYTES 1024

typedef struct reader {
    gguf_file *g;
    size_t at;
    uint64_t n_tensors, n_values;
    uint64_t alignment;
    uint64_t *offsets;
} reader;

/* ---- Types of tensors ---- */

typedef struct tensor_type {
    const char *name;
    int type; /* dtype, or -1: cannot be read */
} tensor_type;

/* As ggml numbers them; gaps are types that were removed. */
static const tensor_type tensor_types[] = {
    [0] = {"F32", DT_F32},    [1] = {"F16", DT_F16},    [2] = {"Q4_0", DT_Q4_0},
    [3] = {"Q4_1", DT_Q4_1},  [6] = {"Q5_0", DT_Q5_0},  [7] = {"Q5_1", DT_Q5_1},
    [8] = {"Q8_0", DT_Q8_0},  [9] = {"Q8_1", -1},       [10] = {"Q2_K", DT_Q2_K},
    [11] = {"Q3_K", DT_Q3_K}, [12] = {"Q4_K", DT_Q4_K}, [13] = {"Q5_K", DT_Q5_K},
    [14] = {"Q6_K", DT_Q6_K}, [15] = {"Q8_K", -1},      [16] = {"IQ2_XXS", -1},
    [17] = {"IQ2_XS", -1},    [18] = {"IQ3_XXS", -1},   [19] = {"IQ1_S", -1},
    [20] = {"IQ4_NL", -1},    [21] = {"IQ3_S", -1},     [22] = {"IQ2_S", -1},
    [23] = {"IQ4_XS", -1},    [24] = {"I8", DT_I8},     [25] = {"I16", DT_I16},
    [26] = {"I32", DT_I32},   [27] = {"I64", DT_I64},   [28] = {"F64", DT_F64},
    [29] = {"IQ1_M", -1},     [30] = {"BF16", DT_BF16}, [34] = {"TQ1_0", -1},
    [35] = {"TQ2_0", -1},     [39] = {"MXFP4", -1},     [40] = {"NVFP4", -1},
};

#define N_TENSOR_TYPES (sizeof tensor_types / sizeof tensor_types[0])

/* ---- Pieces ---- */

static jang_status cut_off(const reader *r) {
    return ctx_fail(
        r->g->ctx, JANG_ERR_FORMAT,
        "%s: the header goes on past the file's end at byte %zu; the file is cut off or "
        "damaged",
        r->g->path, r->g->map.n_bytes);
}

/* n_bytes at the place reached, or NULL. */
static const uint8_t *take(reader *r, uint64_t n_bytes) {
    if (n_bytes > r->g->map.n_bytes - r->at) {
        return NULL;
    }
    const uint8_t *data = r->g->map.data + r->at;
    r->at += (size_t)n_bytes;
    return data;
}

static jang_status take_u32(reader *r, uint32_t *out) {
    const uint8_t *at = take(r, 4);
    if (!at) {
        return cut_off(r);
    }
    memcpy(out, at, 4);
    return JANG_OK;
}

static jang_status take_u64(reader *r, uint64_t *out) {
    const uint8_t *at = take(r, 8);
    if (!at) {
        return cut_off(r);
    }
    memcpy(out, at, 8);
    return JANG_OK;
}

static jang_status take_string(reader *r, const uint8_t **out, size_t *n_out) {
    uint64_t n = 0;
    jang_status status = take_u64(r, &n);
    if (status != JANG_OK) {
        return status;
    }
    size_t at = r->at;
    const uint8_t *text = take(r, n);
    if (!text) {
        return ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                        "%s: a string of %llu bytes at byte %zu, the file has %zu", r->g->path,
                        (unsigned long long)n, at, r->g->map.n_bytes);
    }
    if (utf8_valid_prefix((const char *)text, (size_t)n) != n) {
        return ctx_fail(r->g->ctx, JANG_ERR_FORMAT, "%s: the string at byte %zu is not UTF-8",
                        r->g->path, at);
    }
    *out = text;
    *n_out = (size_t)n;
    return JANG_OK;
}

/* A name of a key or tensor: short, without control characters. */
static jang_status take_name(reader *r, const uint8_t **out, size_t *n_out) {
    size_t at = r->at;
    jang_status status = take_string(r, out, n_out);
    bool bad = status == JANG_OK && (*n_out == 0 || *n_out > NAME_MAX_BYTES);
    for (size_t i = 0; status == JANG_OK && !bad && i < *n_out; i++) {
        bad = (*out)[i] < 0x20;
    }
    if (bad) {
        return ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                        "%s: the name at byte %zu is empty, longer than %d bytes or has control "
                        "characters",
                        r->g->path, at, NAME_MAX_BYTES);
    }
    return status;
}

/* ---- Metadata ---- */

static jang_status bad_type(const reader *r, uint32_t type) {
    return ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                    "%s: metadata type %u at byte %zu; 0 to 12 are known, and lists of lists are "
                    "not read",
                    r->g->path, type, r->at);
}

static jang_status take_array(reader *r, gguf_value *v) {
    uint32_t type = 0;
    jang_status status = take_u32(r, &type);
    if (status == JANG_OK) {
        status = take_u64(r, &v->n_items);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (type >= GGUF_N_TYPES || type == GGUF_ARRAY) {
        return bad_type(r, type);
    }
    v->item_type = (gguf_type)type;
    v->data = r->g->map.data + r->at;
    if (type == GGUF_STRING) {
        for (uint64_t i = 0; i < v->n_items; i++) {
            const uint8_t *text;
            size_t n;
            status = take_string(r, &text, &n);
            if (status != JANG_OK) {
                return status;
            }
        }
        return JANG_OK;
    }
    if (v->n_items > r->g->map.n_bytes || !take(r, v->n_items * gguf_type_bytes((gguf_type)type))) {
        return ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                        "%s: a list of %llu items at byte %zu, the file has %zu bytes", r->g->path,
                        (unsigned long long)v->n_items, r->at, r->g->map.n_bytes);
    }
    return JANG_OK;
}

static jang_status take_value(reader *r, gguf_value *v) {
    uint32_t type = 0;
    jang_status status = take_u32(r, &type);
    if (status != JANG_OK) {
        return status;
    }
    if (type >= GGUF_N_TYPES) {
        return bad_type(r, type);
    }
    v->type = (gguf_type)type;
    if (type == GGUF_ARRAY) {
        return take_array(r, v);
    }
    if (type == GGUF_STRING) {
        return take_string(r, &v->data, &v->n_bytes);
    }
    v->data = take(r, gguf_type_bytes((gguf_type)type));
    return v->data ? JANG_OK : cut_off(r);
}

static jang_status read_values(reader *r) {
    gguf_file *g = r->g;
    g->values = ctx_zero(g->ctx, (size_t)r->n_values, sizeof *g->values);
    if (!g->values) {
        return ctx_fail_memory(g->ctx, (size_t)r->n_values * sizeof *g->values);
    }
    jang_status status = strmap_reserve(&g->by_key, (size_t)r->n_values);
    for (uint64_t i = 0; status == JANG_OK && i < r->n_values; i++) {
        const uint8_t *key;
        size_t n;
        int32_t old = -1;
        status = take_name(r, &key, &n);
        if (status == JANG_OK) {
            status = take_value(r, &g->values[i]);
        }
        if (status == JANG_OK) {
            status = strmap_put(&g->by_key, (const char *)key, n, (int32_t)i, &old);
        }
        if (status == JANG_OK && old >= 0) {
            status = ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: metadata %.*s is there twice", g->path,
                              (int)n, (const char *)key);
        }
        g->n_values++;
    }
    return status;
}

/* ---- Tensors ---- */

static jang_status set_type(const reader *r, tensor_view *t, uint32_t type) {
    const tensor_type *known = type < N_TENSOR_TYPES ? &tensor_types[type] : NULL;
    if (!known || !known->name || known->type < 0) {
        return ctx_fail(r->g->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: tensor %s: type %s (%u) cannot be read; F32, F16, BF16, F64, Q4_0, "
                        "Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K can",
                        r->g->path, t->name, known && known->name ? known->name : "unknown", type);
    }
    t->type = (dtype)known->type;
    return JANG_OK;
}

/* Axes come fastest first. */
static jang_status read_shape(reader *r, tensor_view *t) {
    uint32_t n_dim = 0;
    jang_status status = take_u32(r, &n_dim);
    if (status == JANG_OK && n_dim > TENSOR_MAX_DIMS) {
        return ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: %u axes, at most %d are allowed", r->g->path, t->name,
                        n_dim, TENSOR_MAX_DIMS);
    }
    for (uint32_t i = 0; status == JANG_OK && i < n_dim; i++) {
        uint64_t n = 0;
        status = take_u64(r, &n);
        if (status == JANG_OK && n > INT64_MAX) {
            return ctx_fail(r->g->ctx, JANG_ERR_FORMAT, "%s: tensor %s: axis of %llu elements",
                            r->g->path, t->name, (unsigned long long)n);
        }
        t->shape[n_dim - 1 - i] = (int64_t)n;
    }
    t->n_dim = status == JANG_OK ? (int)n_dim : 0;
    return status;
}

static jang_status read_tensor(reader *r, tensor_view *t, uint64_t *offset) {
    uint32_t type = 0;
    jang_status status = read_shape(r, t);
    if (status == JANG_OK) {
        status = take_u32(r, &type);
    }
    if (status == JANG_OK) {
        status = take_u64(r, offset);
    }
    if (status == JANG_OK) {
        status = set_type(r, t, type);
    }
    if (status == JANG_OK && !tensor_bytes(&t->n_bytes, t->type, t->n_dim, t->shape)) {
        status = ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                          "%s: tensor %s: its shape overflows 2^63 bytes, or its rows of %lld are "
                          "no whole blocks of %s (%d)",
                          r->g->path, t->name, (long long)tensor_columns(t),
                          dtype_table[t->type].name, dtype_table[t->type].block);
    }
    return status;
}

static jang_status read_tensors(reader *r) {
    gguf_file *g = r->g;
    size_t n = (size_t)r->n_tensors, names_at = 0;
    size_t names_max = g->map.n_bytes - r->at + n;
    g->tensors = ctx_zero(g->ctx, n, sizeof *g->tensors);
    r->offsets = ctx_array(g->ctx, n, sizeof *r->offsets);
    names_max = names_max < n * (NAME_MAX_BYTES + 1) ? names_max : n * (NAME_MAX_BYTES + 1);
    g->names = ctx_alloc(g->ctx, names_max);
    if (!g->tensors || !r->offsets || !g->names) {
        return ctx_fail_memory(g->ctx, n * sizeof *g->tensors + names_max);
    }
    jang_status status = strmap_reserve(&g->by_name, n);
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        const uint8_t *name;
        size_t n_name;
        int32_t old = -1;
        status = take_name(r, &name, &n_name);
        if (status != JANG_OK) {
            break;
        }
        char *to = g->names + names_at;
        memcpy(to, name, n_name);
        to[n_name] = 0;
        names_at += n_name + 1;
        g->tensors[i].name = to;
        status = strmap_put(&g->by_name, to, n_name, (int32_t)i, &old);
        if (status == JANG_OK && old >= 0) {
            status = ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: two tensors are named %s", g->path, to);
        }
        if (status == JANG_OK) {
            status = read_tensor(r, &g->tensors[i], &r->offsets[i]);
        }
        g->n_tensors++;
    }
    return status;
}

/* ---- Where tensors lie ---- */

typedef struct extent {
    uint64_t begin, end;
    size_t tensor;
} extent;

static int compare_extents(const void *a, const void *b) {
    const extent *p = a, *q = b;
    if (p->begin != q->begin) {
        return p->begin < q->begin ? -1 : 1;
    }
    return p->end < q->end ? -1 : p->end > q->end;
}

static jang_status check_overlap(const gguf_file *g, extent *list) {
    if (g->n_tensors) {
        qsort(list, g->n_tensors, sizeof *list, compare_extents);
    }
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (list[i].begin < list[i - 1].end) {
            return ctx_fail(g->ctx, JANG_ERR_FORMAT,
                            "%s: tensor %s overlaps tensor %s: it begins at byte %llu of the data, "
                            "the other ends at %llu",
                            g->path, g->tensors[list[i].tensor].name,
                            g->tensors[list[i - 1].tensor].name, (unsigned long long)list[i].begin,
                            (unsigned long long)list[i - 1].end);
        }
    }
    return JANG_OK;
}

static jang_status place_tensors(reader *r) {
    gguf_file *g = r->g;
    size_t data_at = (r->at + r->alignment - 1) / r->alignment * r->alignment;
    uint64_t n_data = data_at < g->map.n_bytes ? g->map.n_bytes - data_at : 0;
    extent *list = ctx_array(g->ctx, g->n_tensors, sizeof *list);
    if (!list) {
        return ctx_fail_memory(g->ctx, g->n_tensors * sizeof *list);
    }
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < g->n_tensors; i++) {
        tensor_view *t = &g->tensors[i];
        uint64_t at = r->offsets[i];
        if (at % r->alignment) {
            status =
                ctx_fail(g->ctx, JANG_ERR_FORMAT,
                         "%s: tensor %s: offset %llu is no multiple of the alignment %llu", g->path,
                         t->name, (unsigned long long)at, (unsigned long long)r->alignment);
        } else if (t->n_bytes > n_data || at > n_data - t->n_bytes) {
            status = ctx_fail(
                g->ctx, JANG_ERR_FORMAT,
                "%s: tensor %s: %zu bytes at %llu, the file has %llu bytes of data; it "
                "is cut off or damaged",
                g->path, t->name, t->n_bytes, (unsigned long long)at, (unsigned long long)n_data);
        } else {
            t->data = g->map.data + (t->n_bytes ? data_at + at : 0);
            list[i] = (extent){at, at + t->n_bytes, i};
        }
    }
    if (status == JANG_OK) {
        status = check_overlap(g, list);
    }
    ctx_free(g->ctx, list);
    return status;
}

/* ---- Opening ---- */

static jang_status read_start(reader *r) {
    gguf_file *g = r->g;
    uint32_t magic = 0, version = 0;
    jang_status status = take_u32(r, &magic);
    if (status == JANG_OK && magic != 0x46554747) { /* "GGUF" */
        status = ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: not a GGUF file", g->path);
    }
    if (status == JANG_OK) {
        status = take_u32(r, &version);
    }
    if (status == JANG_OK && version != 2 && version != 3) {
        status = ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                          "%s: GGUF version %u%s, versions 2 and 3 can be read", g->path, version,
                          version >> 24 && !(version & 0xff) ? " (a big-endian file)" : "");
    }
    if (status == JANG_OK) {
        status = take_u64(r, &r->n_tensors);
    }
    if (status == JANG_OK) {
        status = take_u64(r, &r->n_values);
    }
    uint64_t left = g->map.n_bytes - r->at;
    if (status == JANG_OK &&
        (r->n_tensors > left / TENSOR_MIN_BYTES || r->n_values > left / VALUE_MIN_BYTES)) {
        status =
            ctx_fail(g->ctx, JANG_ERR_FORMAT,
                     "%s: %llu tensors and %llu metadata values are too many for a file of %zu "
                     "bytes",
                     g->path, (unsigned long long)r->n_tensors, (unsigned long long)r->n_values,
                     g->map.n_bytes);
    }
    return status;
}

static jang_status read_alignment(reader *r) {
    int64_t alignment, split;
    jang_status status = gguf_get_int(&alignment, r->g, "general.alignment", 32, 1, 1 << 20);
    if (status == JANG_OK && (alignment & (alignment - 1))) {
        status = ctx_fail(r->g->ctx, JANG_ERR_FORMAT,
                          "%s: metadata general.alignment: %lld is no power of two", r->g->path,
                          (long long)alignment);
    }
    if (status == JANG_OK) {
        r->alignment = (uint64_t)alignment;
        status = gguf_get_int(&split, r->g, "split.count", 1, 0, 65535);
    }
    if (status == JANG_OK && split > 1) {
        status = ctx_fail(r->g->ctx, JANG_ERR_UNSUPPORTED,
                          "%s: one of %lld parts of a split GGUF; merge them first "
                          "(llama-gguf-split --merge)",
                          r->g->path, (long long)split);
    }
    return status;
}

static jang_status read_all(reader *r) {
    jang_status status = read_start(r);
    if (status == JANG_OK) {
        status = read_values(r);
    }
    if (status == JANG_OK) {
        status = read_alignment(r);
    }
    if (status == JANG_OK) {
        status = read_tensors(r);
    }
    return status == JANG_OK ? place_tensors(r) : status;
}

jang_status gguf_open(gguf_file **out, ctx_t *ctx, const char *path) {
    gguf_file *g = ctx_zero(ctx, 1, sizeof *g);
    if (!g) {
        return ctx_fail_memory(ctx, sizeof *g);
    }
    g->ctx = ctx;
    strmap_init(&g->by_key, ctx);
    strmap_init(&g->by_name, ctx);
    reader r = {.g = g};
    jang_status status;
    g->path = ctx_strdup(ctx, path);
    if (!g->path) {
        status = ctx_fail_memory(ctx, strlen(path) + 1);
        goto done;
    }
    status = file_map_open(&g->map, ctx, path);
    if (status == JANG_OK) {
        status = read_all(&r);
    }
    if (status == JANG_OK) {
        *out = g;
        g = NULL;
    }
done:
    ctx_free(ctx, r.offsets);
    gguf_close(g);
    return status;
}

void gguf_close(gguf_file *g) {
    if (!g) {
        return;
    }
    ctx_t *ctx = g->ctx;
    json_decref(g->config);
    json_decref(g->generation_config);
    json_decref(g->tokenizer_config);
    ctx_free(ctx, g->tokenizer_json);
    strmap_free(&g->by_key);
    strmap_free(&g->by_name);
    ctx_free(ctx, g->values);
    ctx_free(ctx, g->tensors);
    ctx_free(ctx, g->names);
    ctx_free(ctx, g->path);
    file_map_close(&g->map);
    ctx_free(ctx, g);
}

const tensor_view *gguf_tensors(const gguf_file *g, size_t *n) {
    *n = g->n_tensors;
    return g->tensors;
}

const file_map *gguf_map(const gguf_file *g) {
    return &g->map;
}
