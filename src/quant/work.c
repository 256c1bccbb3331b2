/* work.c - the directory of finished matrices. */
#include "quant/work.h"

#include "base/file.h"
#include "base/half.h"
#include "format/affine.h"

#include <stdio.h>
#include <string.h>

typedef struct work_file {
    file_map map; /* data NULL: not there */
} work_file;

/* The first bytes of a file. */
typedef struct work_head {
    char magic[8];
    int32_t bits, group, type, reserved;
    int64_t rows, columns;
} work_head;

#define TOOK_NEXT "took-next" /* a file that says so */

static const char work_magic[8] = "JANGWRK";

static char *file_path(const work_dir *w, size_t item, const char *suffix) {
    char name[48];
    snprintf(name, sizeof name, "%08zu.%s", item, suffix);
    return path_join(w->ctx, w->path, name);
}

static work_head head_of(const plan_item *item, dtype type) {
    work_head h = {.bits = item->bits,
                   .group = item->group,
                   .type = (int32_t)type,
                   .rows = item->part->rows,
                   .columns = item->part->columns};
    memcpy(h.magic, work_magic, sizeof h.magic);
    return h;
}

/* Maps an item's file if it is there and as the plan says; false: it is not. */
static bool map_file(work_dir *w, size_t i, const char *suffix) {
    const plan_item *item = &w->plan->items[i];
    char *path = file_path(w, i, suffix);
    bool mapped = false;
    file_map map = {0};
    if (path && item->bits && file_exists(path) && file_map_open(&map, w->ctx, path) == JANG_OK) {
        work_head want = head_of(item, DT_F16), got;
        size_t size = sizeof got + plan_item_weight_bytes(item) + 2 * plan_item_scale_bytes(item);
        memset(&got, 0, sizeof got);
        if (map.n_bytes == size) {
            memcpy(&got, map.data, sizeof got);
        }
        want.type = got.type == DT_BF16 ? DT_BF16 : DT_F16;
        mapped = memcmp(&want, &got, sizeof got) == 0;
        if (mapped) {
            file_map_close(&w->files[i].map);
            w->files[i].map = map;
        } else {
            file_map_close(&map);
        }
    }
    ctx_free(w->ctx, path);
    return mapped;
}

static void map_item(work_dir *w, size_t i) {
    if (!w->took_next || !map_file(w, i, "next")) {
        (void)map_file(w, i, "bin");
    }
}

/* ---- Opening ---- */

static jang_status write_key(const work_dir *w, const char *key) {
    char *path = path_join(w->ctx, w->path, "key");
    jang_status status = path ? file_write(w->ctx, path, key, strlen(key))
                              : ctx_fail_memory(w->ctx, strlen(w->path) + 4);
    ctx_free(w->ctx, path);
    return status;
}

/* Whether the directory holds results of this key. */
static bool key_matches(const work_dir *w, const char *key) {
    char *path = path_join(w->ctx, w->path, "key"), *text = NULL;
    size_t n = 0;
    bool same = path && file_exists(path) &&
                file_read(&text, &n, w->ctx, path, 1 << 20) == JANG_OK && n == strlen(key) &&
                memcmp(text, key, n) == 0;
    ctx_free(w->ctx, text);
    ctx_free(w->ctx, path);
    return same;
}

static jang_status prepare_directory(work_dir *w, const char *key, bool resume) {
    if (file_is_directory(w->path)) {
        if (resume && key_matches(w, key)) {
            return JANG_OK;
        }
        if (resume && !file_is_vacant(w->path)) {
            return ctx_fail(w->ctx, JANG_ERR_ARGUMENT,
                            "%s holds results of another conversion; remove it, or leave out "
                            "--resume",
                            w->path);
        }
        jang_status status = directory_remove(w->ctx, w->path);
        if (status != JANG_OK) {
            return status;
        }
    }
    jang_status status = directory_make(w->ctx, w->path);
    return status == JANG_OK ? write_key(w, key) : status;
}

jang_status work_open(work_dir *out, ctx_t *ctx, const char *output, const quant_plan *plan,
                      const char *key, bool resume) {
    size_t n = strlen(output);
    while (n > 1 && output[n - 1] == '/') {
        n--;
    }
    work_dir w = {.ctx = ctx, .plan = plan, .path = ctx_alloc(ctx, n + sizeof ".work")};
    w.files = ctx_zero(ctx, plan->n_items + 1, sizeof *w.files);
    if (!w.path || !w.files) {
        work_close(&w, false);
        return ctx_fail_memory(ctx, n + plan->n_items * sizeof *w.files);
    }
    memcpy(w.path, output, n);
    memcpy(w.path + n, ".work", sizeof ".work");
    jang_status status = prepare_directory(&w, key, resume);
    if (status != JANG_OK) {
        work_close(&w, false);
        return status;
    }
    char *mark = path_join(ctx, w.path, TOOK_NEXT);
    w.took_next = mark && file_exists(mark);
    ctx_free(ctx, mark);
    for (size_t i = 0; i < plan->n_items; i++) {
        map_item(&w, i);
    }
    *out = w;
    return JANG_OK;
}

void work_close(work_dir *w, bool remove) {
    if (!w->ctx) {
        return;
    }
    for (size_t i = 0; w->files && i < w->plan->n_items; i++) {
        file_map_close(&w->files[i].map);
    }
    if (remove && w->path && directory_remove(w->ctx, w->path) != JANG_OK) {
        ctx_log(w->ctx, "%s could not be removed", w->path);
    }
    ctx_free(w->ctx, w->files);
    ctx_free(w->ctx, w->path);
    *w = (work_dir){0};
}

/* ---- Matrices ---- */

static jang_status write_scales(file_out *f, ctx_t *ctx, const float *x, size_t n, dtype type) {
    uint16_t *stored = ctx_array(ctx, n, sizeof *stored);
    if (!stored) {
        return ctx_fail_memory(ctx, n * sizeof *stored);
    }
    for (size_t i = 0; i < n; i++) {
        stored[i] = type == DT_BF16 ? f32_to_bf16(x[i]) : f32_to_f16(x[i]);
    }
    jang_status status = file_out_write(f, stored, n * sizeof *stored);
    ctx_free(ctx, stored);
    return status;
}

static jang_status write_matrix(file_out *f, const work_dir *w, const plan_item *item,
                                const void *what) {
    const work_matrix *m = what;
    work_head head = head_of(item, m->type);
    jang_status status = file_out_write(f, &head, sizeof head);
    size_t words = (size_t)affine_row_words(item->part->columns, item->bits);
    uint32_t *row = ctx_array(w->ctx, words, sizeof *row);
    if (!row) {
        return ctx_fail_memory(w->ctx, words * sizeof *row);
    }
    for (int64_t i = 0; i < item->part->rows && status == JANG_OK; i++) {
        affine_pack(row, m->codes + i * item->part->columns, item->part->columns, item->bits);
        status = file_out_write(f, row, words * sizeof *row);
    }
    ctx_free(w->ctx, row);
    size_t n_groups = (size_t)(item->part->params / item->group);
    if (status == JANG_OK) {
        status = write_scales(f, w->ctx, m->scales, n_groups, m->type);
    }
    return status == JANG_OK ? write_scales(f, w->ctx, m->biases, n_groups, m->type) : status;
}

static jang_status write_stored(file_out *f, const work_dir *w, const plan_item *item,
                                const void *what) {
    (void)w;
    const stored_rows *r = what;
    size_t scale_bytes = plan_item_scale_bytes(item);
    work_head head = head_of(item, r->type);
    jang_status status = file_out_write(f, &head, sizeof head);
    if (status == JANG_OK) {
        status = file_out_write(f, r->weights, plan_item_weight_bytes(item));
    }
    if (status == JANG_OK) {
        status = file_out_write(f, r->scales, scale_bytes);
    }
    return status == JANG_OK ? file_out_write(f, r->biases, scale_bytes) : status;
}

typedef jang_status (*write_fn)(file_out *f, const work_dir *w, const plan_item *item,
                                const void *what);

static jang_status put_file(work_dir *w, size_t i, write_fn write, const void *what,
                            const char *suffix) {
    char *path = file_path(w, i, suffix), *temp = file_path(w, i, "new");
    file_out *f = NULL;
    jang_status status = path && temp ? JANG_OK : ctx_fail_memory(w->ctx, strlen(w->path) + 16);
    if (status == JANG_OK) {
        status = file_out_open(&f, w->ctx, temp);
    }
    if (status == JANG_OK) {
        status = write(f, w, &w->plan->items[i], what);
        if (status == JANG_OK) {
            status = file_out_close(f);
        } else {
            file_out_discard(f);
        }
    }
    if (status == JANG_OK) {
        status = file_rename(w->ctx, temp, path);
    }
    ctx_free(w->ctx, path);
    ctx_free(w->ctx, temp);
    return status;
}

static jang_status put_first(work_dir *w, size_t i, write_fn write, const void *what) {
    jang_status status = put_file(w, i, write, what, "bin");
    if (status != JANG_OK) {
        return status;
    }
    map_item(w, i);
    return w->files[i].map.data
               ? JANG_OK
               : ctx_fail(w->ctx, JANG_ERR_IO, "%s: a file cannot be read back", w->path);
}

jang_status work_put(work_dir *w, size_t i, const work_matrix *m) {
    return put_first(w, i, write_matrix, m);
}

jang_status work_put_stored(work_dir *w, size_t i, const stored_rows *rows) {
    return put_first(w, i, write_stored, rows);
}

jang_status work_put_next(work_dir *w, size_t i, const work_matrix *m) {
    return put_file(w, i, write_matrix, m, "next");
}

jang_status work_take_next(work_dir *w) {
    char *path = path_join(w->ctx, w->path, TOOK_NEXT);
    jang_status status =
        path ? file_write(w->ctx, path, "", 0) : ctx_fail_memory(w->ctx, strlen(w->path) + 8);
    ctx_free(w->ctx, path);
    w->took_next = status == JANG_OK;
    for (size_t i = 0; i < w->plan->n_items && status == JANG_OK; i++) {
        map_item(w, i);
    }
    return status;
}

bool work_took_next(const work_dir *w) {
    return w->took_next;
}

bool work_get(work_view *out, const work_dir *w, size_t i) {
    const uint8_t *data = w->files[i].map.data;
    if (!data) {
        return false;
    }
    const plan_item *item = &w->plan->items[i];
    work_head head;
    memcpy(&head, data, sizeof head);
    data += sizeof head;
    const uint8_t *scales = data + plan_item_weight_bytes(item);
    *out = (work_view){data, scales, scales + plan_item_scale_bytes(item), (dtype)head.type};
    return true;
}

void work_drop(const work_dir *w) {
    for (size_t i = 0; i < w->plan->n_items; i++) {
        file_map_drop(&w->files[i].map, 0, w->files[i].map.n_bytes);
    }
}

void work_rows_f32(float *out, const work_dir *w, size_t i, int64_t first, int64_t n_rows) {
    work_view v;
    if (!work_get(&v, w, i)) {
        return;
    }
    const plan_item *item = &w->plan->items[i];
    int64_t rows = item->part->rows, n = item->part->columns;
    size_t words = plan_item_weight_bytes(item) / (size_t)rows;
    size_t scales = plan_item_scale_bytes(item) / (size_t)rows;
    for (int64_t r = first; r < first + n_rows; r++) {
        affine_row_f32(out + (r - first) * n, v.weights + (size_t)r * words,
                       v.scales + (size_t)r * scales, v.biases + (size_t)r * scales, v.type, n,
                       item->bits, item->group);
    }
}
