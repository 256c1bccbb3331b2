/* shard_index.c - reading a shard index without building a tree of its tens of thousands of
 * entries. */
#include "format/shard_index.h"

#include "base/file.h"
#include "base/jsonpull.h"

#include <string.h>

typedef struct index_reader {
    jsonpull pull;
    const char *path;
    shard_index *out;
    strmap files; /* file name -> number */
} index_reader;

static jang_status add_file(index_reader *r, const char *name, size_t n, int32_t *number) {
    shard_index *x = r->out;
    char **files = ctx_realloc(x->ctx, x->files, (x->n_files + 1) * sizeof *files);
    char *copy = files ? ctx_strndup(x->ctx, name, n) : NULL;
    x->files = files ? files : x->files;
    if (!copy) {
        return ctx_fail_memory(x->ctx, (x->n_files + 1) * sizeof *files + n);
    }
    files[x->n_files] = copy;
    *number = (int32_t)x->n_files++;
    return strmap_put(&r->files, copy, n, *number, NULL);
}

/* One entry: "TENSOR": "FILE". */
static jang_status read_entry(index_reader *r) {
    shard_index *x = r->out;
    jsonpull_str key = r->pull.key, file;
    char *tensor = x->names + x->n_names_bytes;
    int32_t number, old = -1;
    memcpy(tensor, key.data, key.n_bytes);
    tensor[key.n_bytes] = 0;
    x->n_names_bytes += key.n_bytes + 1;
    if (jsonpull_peek(&r->pull) != '"') {
        return ctx_fail(x->ctx, JANG_ERR_FORMAT, "%s: tensor %s: expected a file name", r->path,
                        tensor);
    }
    jang_status status = jsonpull_string(&r->pull, &file);
    if (status != JANG_OK) {
        return status;
    }
    number = strmap_get(&r->files, file.data, file.n_bytes);
    if (number < 0) {
        status = add_file(r, file.data, file.n_bytes, &number);
    }
    const char *name = status == JANG_OK ? x->files[number] : NULL;
    if (name && (!path_is_plain_name(name) || strlen(name) != file.n_bytes)) {
        return ctx_fail(x->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: \"%s\" is no file name in the model's directory", r->path,
                        tensor, name);
    }
    if (status == JANG_OK) {
        status = strmap_put(&x->file_of, tensor, key.n_bytes, number, &old);
    }
    if (status == JANG_OK && old >= 0) {
        status = ctx_fail(x->ctx, JANG_ERR_FORMAT, "%s: tensor %s is there twice", r->path, tensor);
    }
    return status;
}

static jang_status read_index(index_reader *r) {
    bool found = false;
    jang_status status = jsonpull_enter(&r->pull, '{');
    while (status == JANG_OK && jsonpull_next(&r->pull, &status)) {
        if (!jsonpull_key_is(&r->pull, "weight_map")) {
            status = jsonpull_skip(&r->pull);
            continue;
        }
        if (found) {
            return jsonpull_fail(&r->pull, "a second weight_map");
        }
        found = true;
        status = jsonpull_enter(&r->pull, '{');
        while (status == JANG_OK && jsonpull_next(&r->pull, &status)) {
            status = read_entry(r);
        }
    }
    if (status == JANG_OK) {
        status = jsonpull_end(&r->pull);
    }
    if (status == JANG_OK && !found) {
        status = ctx_fail(r->out->ctx, JANG_ERR_FORMAT, "%s: no weight_map", r->path);
    }
    return status;
}

jang_status shard_index_parse(shard_index *out, ctx_t *ctx, const char *path, const char *text,
                              size_t n_bytes) {
    shard_index x = {.ctx = ctx};
    index_reader r = {.path = path, .out = &x};
    jsonpull_init(&r.pull, ctx, path, text, n_bytes);
    strmap_init(&r.files, ctx);
    strmap_init(&x.file_of, ctx);
    /* a name takes two quotes in the text and one 0 byte here; U+FFFD for a lone surrogate is
     * shorter than its escape */
    x.names = ctx_alloc(ctx, n_bytes + 1);
    jang_status status = x.names ? read_index(&r) : ctx_fail_memory(ctx, n_bytes + 1);
    strmap_free(&r.files);
    jsonpull_free(&r.pull);
    if (status != JANG_OK) {
        shard_index_free(&x);
        return status;
    }
    *out = x;
    return JANG_OK;
}

void shard_index_free(shard_index *x) {
    if (x->ctx) {
        directory_list_free(x->ctx, x->files, x->n_files);
        ctx_free(x->ctx, x->names);
        strmap_free(&x->file_of);
    }
    *x = (shard_index){0};
}
