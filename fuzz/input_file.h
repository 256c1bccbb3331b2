/* input_file.h - for fuzz targets of readers that take a path: the input as a file. */
#ifndef FUZZ_INPUT_FILE_H
#define FUZZ_INPUT_FILE_H

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One context for all runs of a target. */
static inline ctx_t *fuzz_context(void) {
    static ctx_t *ctx;
    if (!ctx) {
        jang_context_options options = jang_context_options_default();
        options.n_threads = 1;
        if (jang_context_new(&ctx, &options) != JANG_OK) {
            abort();
        }
    }
    return ctx;
}

/* The directory of this process's inputs, made once and removed at the end. */
static inline const char *fuzz_directory(void);

static inline void fuzz_clean_up(void) {
    if (directory_remove(fuzz_context(), fuzz_directory()) != JANG_OK) {
        fprintf(stderr, "%s stays\n", fuzz_directory());
    }
}

static inline const char *fuzz_directory(void) {
    static char path[] = "/tmp/jang-fuzz-XXXXXX";
    static const char *made;
    if (!made) {
        made = mkdtemp(path);
        if (!made || atexit(fuzz_clean_up) != 0) {
            abort();
        }
    }
    return made;
}

/* Writes the input as a file of the directory and returns its path, valid until the next call. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        abort();
    }
    return path;
}

#endif
