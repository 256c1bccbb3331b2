/* gguf_meta.c - typed access to a GGUF file's metadata. */
#include "format/gguf_impl.h"

#include <math.h>
#include <string.h>

static jang_status wrong_type(const gguf_file *g, const char *key, const char *wanted) {
    return ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: metadata %s: expected %s", g->path, key, wanted);
}

const gguf_value *gguf_find(const gguf_file *g, const char *key) {
    int32_t i = strmap_get(&g->by_key, key, strlen(key));
    return i < 0 ? NULL : &g->values[i];
}

const tensor_view *gguf_tensor(const gguf_file *g, const char *name) {
    int32_t i = strmap_get(&g->by_name, name, strlen(name));
    return i < 0 ? NULL : &g->tensors[i];
}

/* An integer of type at any address; false for other types, or when it is over INT64_MAX. */
static bool load_int(int64_t *out, gguf_type type, const uint8_t *at) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    switch (type) {
    case GGUF_U8:
        *out = *at;
        return true;
    case GGUF_I8:
        *out = (int8_t)*at;
        return true;
    case GGUF_U16:
        memcpy(&v.u16, at, 2);
        *out = v.u16;
        return true;
    case GGUF_I16:
        memcpy(&v.i16, at, 2);
        *out = v.i16;
        return true;
    case GGUF_U32:
        memcpy(&v.u32, at, 4);
        *out = v.u32;
        return true;
    case GGUF_I32:
        memcpy(&v.i32, at, 4);
        *out = v.i32;
        return true;
    case GGUF_U64:
        memcpy(&v.u64, at, 8);
        *out = (int64_t)v.u64;
        return v.u64 <= INT64_MAX;
    case GGUF_I64:
        memcpy(&v.i64, at, 8);
        *out = v.i64;
        return true;
    default:
        return false;
    }
}

static bool load_float(double *out, gguf_type type, const uint8_t *at) {
    if (type == GGUF_F32) {
        float f;
        memcpy(&f, at, 4);
        *out = f;
        return true;
    }
    if (type == GGUF_F64) {
        memcpy(out, at, 8);
        return true;
    }
    return false;
}

size_t gguf_type_bytes(gguf_type type) {
    static const uint8_t sizes[GGUF_N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[type];
}

double gguf_item_number(const gguf_value *array, uint64_t i) {
    const uint8_t *at = array->data + i * gguf_type_bytes(array->item_type);
    int64_t n;
    double x;
    if (load_int(&n, array->item_type, at)) {
        return (double)n;
    }
    return load_float(&x, array->item_type, at) ? x : 0.0;
}

const char *gguf_next_string(const gguf_value *array, size_t *at, size_t *n_bytes) {
    uint64_t n;
    memcpy(&n, array->data + *at, 8);
    const char *text = (const char *)array->data + *at + 8;
    *at += 8 + (size_t)n;
    *n_bytes = (size_t)n;
    return text;
}

jang_status gguf_get_int(int64_t *out, const gguf_file *g, const char *key, int64_t fallback,
                         int64_t min, int64_t max) {
    const gguf_value *v = gguf_find(g, key);
    int64_t n = fallback;
    if (v && !load_int(&n, v->type, v->data)) {
        return wrong_type(g, key, "an integer");
    }
    if (v && (n < min || n > max)) {
        return ctx_fail(g->ctx, JANG_ERR_FORMAT,
                        "%s: metadata %s: %lld is out of range, %lld to %lld is allowed", g->path,
                        key, (long long)n, (long long)min, (long long)max);
    }
    *out = n;
    return JANG_OK;
}

jang_status gguf_get_float(double *out, const gguf_file *g, const char *key, double fallback) {
    const gguf_value *v = gguf_find(g, key);
    double x = fallback;
    if (v && !load_float(&x, v->type, v->data)) {
        return wrong_type(g, key, "a floating number");
    }
    if (!isfinite(x)) {
        return ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: metadata %s: not a finite number", g->path,
                        key);
    }
    *out = x;
    return JANG_OK;
}

jang_status gguf_get_bool(bool *out, const gguf_file *g, const char *key, bool fallback) {
    const gguf_value *v = gguf_find(g, key);
    if (v && v->type != GGUF_BOOL) {
        return wrong_type(g, key, "true or false");
    }
    *out = v ? *v->data != 0 : fallback;
    return JANG_OK;
}

jang_status gguf_get_string(const char **text, size_t *n_bytes, const gguf_file *g,
                            const char *key) {
    const gguf_value *v = gguf_find(g, key);
    if (v && v->type != GGUF_STRING) {
        return wrong_type(g, key, "a string");
    }
    *text = v ? (const char *)v->data : NULL;
    *n_bytes = v ? v->n_bytes : 0;
    return JANG_OK;
}

jang_status gguf_get_array(const gguf_value **out, const gguf_file *g, const char *key,
                           gguf_type item_type) {
    const gguf_value *v = gguf_find(g, key);
    if (v && (v->type != GGUF_ARRAY || v->item_type != item_type)) {
        return wrong_type(g, key,
                          item_type == GGUF_STRING ? "a list of strings"
                          : item_type == GGUF_F32  ? "a list of f32"
                                                   : "a list of i32");
    }
    *out = v;
    return JANG_OK;
}
