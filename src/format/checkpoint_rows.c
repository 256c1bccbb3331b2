/* checkpoint_rows.c - rows of weights as f32, and letting go of their pages. */
#include "base/half.h"
#include "format/checkpoint_impl.h"
#include "format/gguf_blocks.h"

#include <assert.h>
#include <string.h>

/* ---- Plain types: n elements at any address to f32 ---- */

static void read_f64(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double x;
        memcpy(&x, in + 8 * i, 8);
        out[i] = (float)x;
    }
}

static void read_f32(float *restrict out, const uint8_t *restrict in, int64_t n) {
    memcpy(out, in, (size_t)n * 4);
}

static void read_f16(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, 2);
        out[i] = f16_to_f32(h);
    }
}

static void read_bf16(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, 2);
        out[i] = bf16_to_f32(h);
    }
}

static void read_e4m3(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = f8_e4m3_to_f32(in[i]);
    }
}

static void read_e5m2(float *restrict out, const uint8_t *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = f8_e5m2_to_f32(in[i]);
    }
}

typedef void (*read_fn)(float *restrict out, const uint8_t *restrict in, int64_t n);

static const read_fn readers[DT_COUNT] = {
    [DT_F64] = read_f64,   [DT_F32] = read_f32,      [DT_F16] = read_f16,
    [DT_BF16] = read_bf16, [DT_F8_E4M3] = read_e4m3, [DT_F8_E5M2] = read_e5m2,
};

/* ---- Rows ---- */

/* Where row r of Hugging Face's order lies in a GGUF of the Llama family: there, row i of a head's
 * first half and row i of its second half follow each other. */
static int64_t interleaved_row(int64_t r, int64_t head_rows) {
    int64_t head = r / head_rows, within = r % head_rows, half = head_rows / 2;
    return head * head_rows + within % half * 2 + within / half;
}

jang_status checkpoint_rows_f32(float *out, const checkpoint *c, const tensor_view *t,
                                int64_t first, int64_t n) {
    read_fn reader = readers[t->type] ? readers[t->type] : gguf_blocks_reader(t->type);
    int64_t n_rows = tensor_rows(t), n_columns = tensor_columns(t);
    assert(first >= 0 && n >= 0 && first + n <= n_rows);
    if (!reader) {
        return ctx_fail(c->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: tensor %s: type %s is not a type of weights", c->path, t->name,
                        dtype_table[t->type].name);
    }
    if (n_columns == 0) { /* and a file of a few bytes may name any number of such rows */
        return JANG_OK;
    }
    if (t->row_heads && t->n_dim == 1) { /* a bias: its elements are the rows */
        n_rows = n_columns;
        n *= n_columns;
        n_columns = 1;
    }
    size_t row_bytes = n_rows ? t->n_bytes / (size_t)n_rows : 0;
    if (!t->row_heads) {
        reader(out, t->data + (size_t)first * row_bytes, n * n_columns);
        return JANG_OK;
    }
    int64_t head_rows = n_rows / t->row_heads;
    if (n_rows % t->row_heads || head_rows % 2 || n_columns % dtype_table[t->type].block) {
        return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: %lld rows are not %d heads of an even size", c->path,
                        t->name, (long long)n_rows, t->row_heads);
    }
    for (int64_t i = 0; i < n; i++) {
        size_t row = (size_t)interleaved_row(first + i, head_rows);
        reader(out + i * n_columns, t->data + row * row_bytes, n_columns);
    }
    return JANG_OK;
}

jang_status checkpoint_elements_f32(float *out, const checkpoint *c, const tensor_view *t,
                                    int64_t at, int64_t n) {
    assert(at >= 0 && n >= 0 && at + n <= tensor_count(t));
    if (!readers[t->type] || t->row_heads) {
        return ctx_fail(c->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: tensor %s: single elements of type %s cannot be read", c->path,
                        t->name, dtype_table[t->type].name);
    }
    readers[t->type](out, t->data + (size_t)at * (size_t)dtype_table[t->type].block_bytes, n);
    return JANG_OK;
}

/* The i-th of a model's mappings; NULL after the last. */
static const file_map *map_at(const checkpoint *c, size_t i) {
    if (c->gguf) {
        return i == 0 ? gguf_map(c->gguf) : NULL;
    }
    return i < c->n_files ? &c->files[i].map : NULL;
}

/* The mapping that holds an address, or NULL. */
static const file_map *map_of(const checkpoint *c, const uint8_t *data) {
    uintptr_t at = (uintptr_t)data;
    const file_map *map = NULL;
    for (size_t i = 0; (map = map_at(c, i)) != NULL; i++) {
        uintptr_t begin = (uintptr_t)map->data;
        if (at >= begin && at < begin + map->n_bytes) {
            break;
        }
    }
    return map;
}

jang_status checkpoint_prefault(const checkpoint *c, bool lock) {
    jang_status status = JANG_OK;
    const file_map *map;
    for (size_t i = 0; status == JANG_OK && (map = map_at(c, i)) != NULL; i++) {
        status =
            lock ? file_map_lock(map, c->ctx, c->path) : file_map_prefault(map, c->ctx, c->path);
    }
    return status;
}

void checkpoint_drop(const checkpoint *c) {
    const file_map *map;
    for (size_t i = 0; (map = map_at(c, i)) != NULL; i++) {
        file_map_drop(map, 0, map->n_bytes);
    }
}

void checkpoint_drop_rows(const checkpoint *c, const tensor_view *t, int64_t first, int64_t n) {
    const file_map *map = map_of(c, t->data);
    int64_t n_rows = tensor_rows(t);
    if (map && n_rows) {
        size_t row_bytes = t->n_bytes / (size_t)n_rows;
        size_t at = (size_t)(t->data - map->data) + (size_t)first * row_bytes;
        file_map_drop(map, at, (size_t)n * row_bytes);
    }
}
