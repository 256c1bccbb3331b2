/* gguf_writer.c - writing a GGUF file. The layout is told in gguf.c. */
#include "format/gguf_writer.h"

#include "format/data_file.h"
#include "format/gguf_impl.h"

#include <assert.h>
#include <string.h>

#define ALIGN 32u /* general.alignment, where a file says nothing else */

typedef struct entry {
    uint64_t begin, n_bytes; /* within the data */
} entry;

struct gguf_writer {
    ctx_t *ctx;
    data_file file;
    const char *prefix;
    buf values, tensors; /* as in the file */
    uint64_t n_values;
    entry *entries;
    int n_entries, capacity;
    uint64_t n_data;
};

/* ---- Life ---- */

static void writer_free(gguf_writer *w) {
    buf_free(&w->values);
    buf_free(&w->tensors);
    ctx_free(w->ctx, w->entries);
    ctx_free(w->ctx, w);
}

jang_status gguf_writer_new(gguf_writer **out, ctx_t *ctx, const char *path) {
    gguf_writer *w = ctx_zero(ctx, 1, sizeof *w);
    if (!w) {
        return ctx_fail_memory(ctx, sizeof *w);
    }
    w->ctx = ctx;
    buf_init(&w->values, ctx, BUF_NO_LIMIT);
    buf_init(&w->tensors, ctx, BUF_NO_LIMIT);
    jang_status status = data_file_open(&w->file, ctx, path);
    if (status != JANG_OK) {
        writer_free(w);
        return status;
    }
    *out = w;
    return JANG_OK;
}

void gguf_writer_discard(gguf_writer *w) {
    if (w) {
        data_file_discard(&w->file);
        writer_free(w);
    }
}

jang_status gguf_writer_finish(gguf_writer *w) {
    jang_status status = data_file_finish(&w->file);
    writer_free(w);
    return status;
}

/* ---- Metadata ---- */

static void put_u32(buf *b, uint32_t x) {
    buf_put(b, &x, sizeof x);
}

static void put_u64(buf *b, uint64_t x) {
    buf_put(b, &x, sizeof x);
}

static void put_text(buf *b, const char *text, size_t n_bytes) {
    put_u64(b, n_bytes);
    buf_put(b, text, n_bytes);
}

void gguf_writer_prefix(gguf_writer *w, const char *prefix) {
    w->prefix = prefix;
}

/* Key and type of a value. */
static void put_key(gguf_writer *w, const char *key, gguf_type type) {
    bool prefixed = key[0] == '.';
    size_t n = prefixed ? strlen(w->prefix) : 0;
    put_u64(&w->values, n + strlen(key));
    buf_put(&w->values, prefixed ? w->prefix : "", n);
    buf_puts(&w->values, key);
    put_u32(&w->values, type);
    w->n_values++;
}

void gguf_meta_u32(gguf_writer *w, const char *key, uint32_t value) {
    put_key(w, key, GGUF_U32);
    put_u32(&w->values, value);
}

void gguf_meta_f32(gguf_writer *w, const char *key, float value) {
    put_key(w, key, GGUF_F32);
    buf_put(&w->values, &value, sizeof value);
}

void gguf_meta_bool(gguf_writer *w, const char *key, bool value) {
    put_key(w, key, GGUF_BOOL);
    buf_putc(&w->values, value ? 1 : 0);
}

void gguf_meta_text(gguf_writer *w, const char *key, const char *text, size_t n_bytes) {
    put_key(w, key, GGUF_STRING);
    put_text(&w->values, text, n_bytes);
}

static void put_array(gguf_writer *w, const char *key, gguf_type type, size_t n) {
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->values, type);
    put_u64(&w->values, n);
}

void gguf_meta_i32s(gguf_writer *w, const char *key, const int32_t *values, size_t n) {
    put_array(w, key, GGUF_I32, n);
    buf_put(&w->values, values, n * sizeof *values);
}

void gguf_meta_f32s(gguf_writer *w, const char *key, const float *values, size_t n) {
    put_array(w, key, GGUF_F32, n);
    buf_put(&w->values, values, n * sizeof *values);
}

void gguf_meta_texts(gguf_writer *w, const char *key, size_t n) {
    put_array(w, key, GGUF_STRING, n);
}

void gguf_meta_item(gguf_writer *w, const char *text, size_t n_bytes) {
    put_text(&w->values, text, n_bytes);
}

/* ---- Tensors ---- */

bool gguf_type_number(uint32_t *out, dtype type) {
    static const uint8_t numbers[DT_COUNT] = {
        /* plus one */
        [DT_F32] = 1,   [DT_F16] = 2,   [DT_Q4_0] = 3,  [DT_Q4_1] = 4,  [DT_Q5_0] = 7,
        [DT_Q5_1] = 8,  [DT_Q8_0] = 9,  [DT_Q2_K] = 11, [DT_Q3_K] = 12, [DT_Q4_K] = 13,
        [DT_Q5_K] = 14, [DT_Q6_K] = 15, [DT_BF16] = 31};
    if (!numbers[type]) {
        return false;
    }
    *out = numbers[type] - 1u;
    return true;
}

static jang_status grow(gguf_writer *w) {
    if (w->n_entries < w->capacity) {
        return JANG_OK;
    }
    int capacity = w->capacity ? w->capacity * 2 : 64;
    entry *entries = ctx_realloc(w->ctx, w->entries, (size_t)capacity * sizeof *entries);
    if (!entries) {
        return ctx_fail_memory(w->ctx, (size_t)capacity * sizeof *entries);
    }
    w->entries = entries;
    w->capacity = capacity;
    return JANG_OK;
}

static uint64_t aligned(uint64_t at) {
    return (at + ALIGN - 1) / ALIGN * ALIGN;
}

jang_status gguf_writer_add(gguf_writer *w, const char *name, dtype type, int n_dim,
                            const int64_t *shape, int *index) {
    assert(!w->file.data_at);
    uint32_t number;
    size_t n_bytes;
    if (!gguf_type_number(&number, type) || !tensor_bytes(&n_bytes, type, n_dim, shape)) {
        return ctx_fail(w->ctx, JANG_ERR_ARGUMENT,
                        "%s: tensor %s: type %s and its shape cannot be written", w->file.path,
                        name, dtype_table[type].name);
    }
    jang_status status = grow(w);
    if (status != JANG_OK) {
        return status;
    }
    w->entries[w->n_entries] = (entry){aligned(w->n_data), n_bytes};
    w->n_data = aligned(w->n_data) + n_bytes;
    w->file.n_wanted += n_bytes;
    put_text(&w->tensors, name, strlen(name));
    put_u32(&w->tensors, (uint32_t)n_dim);
    for (int i = n_dim; i-- > 0;) {
        put_u64(&w->tensors, (uint64_t)shape[i]);
    }
    put_u32(&w->tensors, number);
    put_u64(&w->tensors, w->entries[w->n_entries].begin);
    *index = w->n_entries++;
    return JANG_OK;
}

jang_status gguf_writer_begin(gguf_writer *w) {
    static const char zeros[ALIGN] = {0};
    buf head;
    buf_init(&head, w->ctx, BUF_NO_LIMIT);
    buf_put(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, (uint64_t)w->n_entries);
    put_u64(&head, w->n_values);
    const buf *parts[] = {&head, &w->values, &w->tensors};
    uint64_t at = 0;
    jang_status status = buf_status(&head);
    status = status == JANG_OK ? buf_status(&w->values) : status;
    status = status == JANG_OK ? buf_status(&w->tensors) : status;
    for (size_t i = 0; i < 3 && status == JANG_OK; i++) {
        status = file_out_write_at(w->file.file, at, parts[i]->data, parts[i]->size);
        at += parts[i]->size;
    }
    if (status == JANG_OK) { /* the gaps between tensors are holes, which read as zeros */
        status = file_out_write_at(w->file.file, at, zeros, (size_t)(aligned(at) - at));
        w->file.data_at = aligned(at);
    }
    buf_free(&head);
    return status;
}

jang_status gguf_writer_put(gguf_writer *w, int index, size_t at, const void *data,
                            size_t n_bytes) {
    const entry *e = &w->entries[index];
    assert(at <= e->n_bytes && n_bytes <= e->n_bytes - at);
    return data_file_put(&w->file, e->begin + at, data, n_bytes);
}
