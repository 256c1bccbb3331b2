/* model_files.c - copies of model directories with something changed in them. */
#include "model_files.h"

#include "base/file.h"
#include "format/safetensors.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

ctx_t *context_with(int n_threads) {
    jang_context_options o = jang_context_options_default();
    o.n_threads = n_threads;
    ctx_t *ctx = NULL;
    assert_int_equal(jang_context_new(&ctx, &o), JANG_OK);
    return ctx;
}

jang_convert_options options_of(const char *source, const char *output, const char *profile_name) {
    jang_convert_options o = jang_convert_options_default();
    o.source = source;
    o.output = output;
    o.profile = profile_name;
    return o;
}

void copy_directory(ctx_t *ctx, const char *from, const char *to) {
    char **names;
    size_t n;
    assert_ok(ctx, directory_list(&names, &n, ctx, from));
    assert_ok(ctx, directory_make(ctx, to));
    for (size_t i = 0; i < n; i++) {
        char *source = path_join(ctx, from, names[i]), *target = path_join(ctx, to, names[i]);
        char *data;
        size_t n_bytes;
        assert_ok(ctx, file_read(&data, &n_bytes, ctx, source, 1u << 30));
        assert_ok(ctx, file_write(ctx, target, data, n_bytes));
        ctx_free(ctx, data);
        ctx_free(ctx, source);
        ctx_free(ctx, target);
    }
    directory_list_free(ctx, names, n);
}

void patch_tensor(ctx_t *ctx, const char *directory, const char *name, size_t i,
                  const void *value) {
    char *path = path_join(ctx, directory, "model.safetensors");
    st_file f;
    assert_ok(ctx, st_open(&f, ctx, path));
    size_t at = 0, size = 0;
    for (size_t k = 0; k < f.n_tensors; k++) {
        if (strcmp(f.tensors[k].name, name) == 0) {
            size = (size_t)dtype_table[f.tensors[k].type].block_bytes;
            at = (size_t)(f.tensors[k].data - f.map.data) + i * size;
        }
    }
    st_close(&f);
    assert_true(size > 0);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, value, size, (off_t)at), size);
    close(fd);
    ctx_free(ctx, path);
}

void patch_config(ctx_t *ctx, const char *directory, const char *key, json_t *value) {
    char *path = path_join(ctx, directory, "config.json");
    json_t *config = NULL;
    assert_ok(ctx, json_read(&config, ctx, path));
    if (value) {
        json_object_set_new(config, key, value);
    } else {
        json_object_del(config, key);
    }
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    ctx_free(ctx, path);
}

size_t count_entries(const char *path) {
    size_t n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(dir);
    return n;
}
