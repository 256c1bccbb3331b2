/* data_file.c - writing a file of tensors: a header, then data whose size is known before. */
#include "format/data_file.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

jang_status data_file_open(data_file *out, ctx_t *ctx, const char *path) {
    char *copy = ctx_strdup(ctx, path);
    if (!copy) {
        return ctx_fail_memory(ctx, strlen(path));
    }
    *out = (data_file){.ctx = ctx, .path = copy};
    jang_status status = file_out_open(&out->file, ctx, path);
    if (status != JANG_OK) {
        ctx_free(ctx, copy);
    }
    return status;
}

jang_status data_file_put(data_file *f, uint64_t at, const void *data, size_t n_bytes) {
    assert(f->data_at);
    jang_status status = file_out_write_at(f->file, f->data_at + at, data, n_bytes);
    if (status == JANG_OK) {
        atomic_fetch_add(&f->n_written, n_bytes);
    }
    return status;
}

jang_status data_file_finish(data_file *f) {
    uint64_t n_written = atomic_load(&f->n_written);
    if (!f->data_at || n_written != f->n_wanted) {
        jang_status status =
            ctx_fail(f->ctx, JANG_ERR_ARGUMENT, "%s: %llu of %llu bytes of tensors were written",
                     f->path, (unsigned long long)n_written, (unsigned long long)f->n_wanted);
        data_file_discard(f);
        return status;
    }
    jang_status status = file_out_close(f->file);
    if (status != JANG_OK) {
        remove(f->path);
    }
    ctx_free(f->ctx, f->path);
    return status;
}

void data_file_discard(data_file *f) {
    file_out_discard(f->file);
    ctx_free(f->ctx, f->path);
}
