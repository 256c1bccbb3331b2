/* st_writer.c - writing a safetensors file whose tensors arrive in any order. */
#include "format/data_file.h"
#include "format/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u

typedef struct entry {
    char *name;
    dtype type;
    int n_dim;
    int64_t shape[TENSOR_MAX_DIMS];
    size_t n_bytes;
    uint64_t begin; /* within the data */
    int index;
} entry;

struct st_writer {
    ctx_t *ctx;
    data_file file;
    entry *entries;
    int n_entries, capacity;
};

/* ---- Life ---- */

static void writer_free(st_writer *w) {
    for (int i = 0; i < w->n_entries; i++) {
        ctx_free(w->ctx, w->entries[i].name);
    }
    ctx_free(w->ctx, w->entries);
    ctx_free(w->ctx, w);
}

jang_status st_writer_new(st_writer **out, ctx_t *ctx, const char *path) {
    st_writer *w = ctx_zero(ctx, 1, sizeof *w);
    if (!w) {
        return ctx_fail_memory(ctx, sizeof *w);
    }
    w->ctx = ctx;
    jang_status status = data_file_open(&w->file, ctx, path);
    if (status != JANG_OK) {
        writer_free(w);
        return status;
    }
    *out = w;
    return JANG_OK;
}

void st_writer_discard(st_writer *w) {
    if (w) {
        data_file_discard(&w->file);
        writer_free(w);
    }
}

jang_status st_writer_finish(st_writer *w) {
    jang_status status = data_file_finish(&w->file);
    writer_free(w);
    return status;
}

/* ---- Declaring ---- */

static jang_status grow(st_writer *w) {
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

jang_status st_writer_add(st_writer *w, const char *name, dtype type, int n_dim,
                          const int64_t *shape, int *index) {
    assert(!w->file.data_at);
    entry e = {.type = type, .n_dim = n_dim, .index = w->n_entries};
    if (type >= DT_Q4_0 || !tensor_bytes(&e.n_bytes, type, n_dim, shape)) {
        return ctx_fail(w->ctx, JANG_ERR_ARGUMENT,
                        "%s: tensor %s: type %s and its shape cannot be written", w->file.path,
                        name, dtype_table[type].name);
    }
    for (int i = 0; i < n_dim; i++) {
        e.shape[i] = shape[i];
    }
    jang_status status = grow(w);
    if (status != JANG_OK) {
        return status;
    }
    e.name = ctx_strdup(w->ctx, name);
    if (!e.name) {
        return ctx_fail_memory(w->ctx, strlen(name));
    }
    w->entries[w->n_entries] = e;
    *index = w->n_entries++;
    return JANG_OK;
}

/* ---- Layout and header ---- */

/* The largest power of two up to ALIGN that divides a size. */
static unsigned size_align(size_t n_bytes) {
    size_t bit = (n_bytes | ALIGN) & (~(n_bytes | ALIGN) + 1);
    return (unsigned)bit;
}

static int compare_layout(const void *a, const void *b) {
    const entry *p = *(entry *const *)a, *q = *(entry *const *)b;
    unsigned x = size_align(p->n_bytes), y = size_align(q->n_bytes);
    if (x != y) {
        return x > y ? -1 : 1;
    }
    return p->index < q->index ? -1 : p->index > q->index;
}

static void put_entry(buf *b, const entry *e) {
    json_write_string(b, e->name, strlen(e->name));
    buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_table[e->type].name);
    for (int i = 0; i < e->n_dim; i++) {
        buf_printf(b, "%s%lld", i ? "," : "", (long long)e->shape[i]);
    }
    buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)e->begin,
               (unsigned long long)(e->begin + e->n_bytes));
}

static jang_status make_header(st_writer *w, buf *b, entry *const *order, const json_t *metadata) {
    static const uint64_t no_length = 0;
    buf_put(b, &no_length, sizeof no_length);
    buf_putc(b, '{');
    if (metadata) {
        buf_puts(b, "\"__metadata__\":");
        json_write(b, metadata, 0);
    }
    for (int i = 0; i < w->n_entries; i++) {
        if (i || metadata) {
            buf_putc(b, ',');
        }
        put_entry(b, order[i]);
    }
    buf_putc(b, '}');
    while (b->status == JANG_OK && b->size % ALIGN) {
        buf_putc(b, ' ');
    }
    jang_status status = buf_status(b);
    if (status == JANG_OK) {
        uint64_t n = b->size - 8;
        memcpy(b->data, &n, sizeof n);
    }
    return status;
}

jang_status st_writer_begin(st_writer *w, const json_t *metadata) {
    assert(!w->file.data_at);
    buf b;
    buf_init(&b, w->ctx, BUF_NO_LIMIT);
    jang_status status;
    entry **order = ctx_array(w->ctx, (size_t)w->n_entries, sizeof *order);
    if (!order) {
        status = ctx_fail_memory(w->ctx, (size_t)w->n_entries * sizeof *order);
        goto done;
    }
    for (int i = 0; i < w->n_entries; i++) {
        order[i] = &w->entries[i];
    }
    qsort(order, (size_t)w->n_entries, sizeof *order, compare_layout);
    for (int i = 0; i < w->n_entries; i++) {
        order[i]->begin = w->file.n_wanted;
        w->file.n_wanted += order[i]->n_bytes;
    }
    status = make_header(w, &b, order, metadata);
    if (status != JANG_OK) {
        goto done;
    }
    status = file_out_write_at(w->file.file, 0, b.data, b.size);
    w->file.data_at = b.size;
done:
    ctx_free(w->ctx, order);
    buf_free(&b);
    return status;
}

jang_status st_writer_put(st_writer *w, int index, size_t at, const void *data, size_t n_bytes) {
    assert(index >= 0 && index < w->n_entries);
    const entry *e = &w->entries[index];
    assert(at <= e->n_bytes && n_bytes <= e->n_bytes - at);
    return data_file_put(&w->file, e->begin + at, data, n_bytes);
}
