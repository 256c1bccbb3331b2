/* make_weights.c - writes out the tiny models whose weights are kept as weights.json.
 *
 *     make_weights GOLDEN OUTPUT
 *
 * GOLDEN is copied to OUTPUT with all in it, plain files as they are; a weights.json becomes the
 * files of weights that it stands for. How a number comes about is told in
 * scripts/fixtures/weights.py, which makes the same ones. */
#include "base/buf.h"
#include "base/file.h"
#include "base/half.h"
#include "base/json.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MANIFEST "weights.json"

static ctx_t *ctx;

static void check(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "make_weights: %s: %s\n", what, jang_context_error(ctx));
        exit(1);
    }
}

/* ---- Numbers ---- */

static uint64_t fnv1a(const char *text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++) {
        h = (h ^ (uint8_t)*text) * 0x100000001b3u;
    }
    return h;
}

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* What element i of a tensor is, before it is rounded to the tensor's type. */
static float element(const json_t *entry, uint64_t start, size_t i) {
    const json_t *values = json_object_get(entry, "values");
    if (values) {
        return (float)json_number_value(json_array_get(values, i));
    }
    uint64_t h = mix(start + i);
    int32_t sum = (int32_t)((h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) + (h >> 48));
    double deviation = json_number_value(json_object_get(entry, "deviation"));
    double mean = json_number_value(json_object_get(entry, "mean"));
    return (float)(((double)(sum - 131070) * deviation / 37837.0) + mean);
}

static void append(buf *out, const char *type, float value) {
    if (strcmp(type, "F32") == 0) {
        buf_put(out, &value, sizeof value);
        return;
    }
    uint16_t half = type[0] == 'B' ? f32_to_bf16(value) : f32_to_f16(value);
    buf_put(out, &half, sizeof half);
}

static size_t count_elements(const json_t *shape) {
    size_t n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        n *= (size_t)json_integer_value(json_array_get(shape, i));
    }
    return n;
}

/* ---- Files ---- */

static void write_whole(const char *path, const void *data, size_t n) {
    FILE *file = fopen(path, "wb");
    check(file && fwrite(data, 1, n, file) == n && fclose(file) == 0, path);
}

/* One file: the length of the header, the header, the numbers. Source: safetensors' format. */
static void write_file(const char *path, json_t *entries, uint64_t seed) {
    buf numbers, header;
    buf_init(&numbers, ctx, BUF_NO_LIMIT);
    buf_init(&header, ctx, BUF_NO_LIMIT);
    buf_puts(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    const char *name;
    json_t *entry;
    json_object_foreach(entries, name, entry) {
        const char *type = json_string_value(json_object_get(entry, "dtype"));
        const json_t *shape = json_object_get(entry, "shape");
        size_t first = numbers.size, n = count_elements(shape);
        uint64_t start = mix(seed ^ fnv1a(name));
        for (size_t i = 0; i < n; i++) {
            append(&numbers, type, element(entry, start, i));
        }
        buf_puts(&header, ",");
        json_write_string(&header, name, strlen(name));
        buf_printf(&header, ":{\"dtype\":\"%s\",\"shape\":", type);
        json_write(&header, shape, 0);
        buf_printf(&header, ",\"data_offsets\":[%zu,%zu]}", first, numbers.size);
    }
    buf_puts(&header, "}");
    while (header.size % 8 != 0) {
        buf_puts(&header, " ");
    }
    uint64_t length = header.size;
    buf whole;
    buf_init(&whole, ctx, BUF_NO_LIMIT);
    buf_put(&whole, &length, sizeof length);
    buf_put(&whole, header.data, header.size);
    buf_put(&whole, numbers.data, numbers.size);
    write_whole(path, whole.data, whole.size);
    buf_free(&whole);
    buf_free(&header);
    buf_free(&numbers);
}

static void write_weights(const char *path, const char *output) {
    json_t *manifest;
    check(json_read(&manifest, ctx, path) == JANG_OK, path);
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(manifest, "seed"));
    const char *file;
    json_t *entries;
    json_object_foreach(json_object_get(manifest, "files"), file, entries) {
        char *target = path_join(ctx, output, file);
        write_file(target, entries, seed);
        ctx_free(ctx, target);
    }
    json_decref(manifest);
}

static void copy_file(const char *from, const char *to) {
    char *data;
    size_t n;
    check(file_read(&data, &n, ctx, from, 1u << 30) == JANG_OK, from);
    write_whole(to, data, n);
    ctx_free(ctx, data);
}

static void make_files(const char *from, const char *to) {
    char **names;
    size_t n;
    check(directory_list(&names, &n, ctx, from) == JANG_OK, from);
    for (size_t i = 0; i < n; i++) {
        char *source = path_join(ctx, from, names[i]), *target = path_join(ctx, to, names[i]);
        if (strcmp(names[i], MANIFEST) == 0) {
            write_weights(source, to);
        } else {
            copy_file(source, target);
        }
        ctx_free(ctx, source);
        ctx_free(ctx, target);
    }
    directory_list_free(ctx, names, n);
}

static void make_tree(const char *from, const char *to) {
    mkdir(to, 0777);
    make_files(from, to);
    DIR *dir = opendir(from);
    check(dir != NULL, from);
    for (struct dirent *e; (e = readdir(dir));) {
        char *source = path_join(ctx, from, e->d_name), *target = path_join(ctx, to, e->d_name);
        if (e->d_name[0] != '.' && file_is_directory(source)) {
            make_tree(source, target);
        }
        ctx_free(ctx, source);
        ctx_free(ctx, target);
    }
    closedir(dir);
}

int main(int argc, char **argv) {
    check(jang_context_new(&ctx, NULL) == JANG_OK, "context");
    if (argc != 3) {
        fputs("make_weights GOLDEN OUTPUT\n", stderr);
        return 2;
    }
    make_tree(argv[1], argv[2]);
    jang_context_free(ctx);
    return 0;
}
