/* model_files.h - copies of model directories with something changed in them. */
#ifndef TEST_MODEL_FILES_H
#define TEST_MODEL_FILES_H

#include "base/json.h"
#include "support.h"

/* Directory of the small models (scripts/fixtures/models.py). */
#define MODELS TEST_MODELS "/"

/* A context with this many threads. */
ctx_t *context_with(int n_threads);

/* Options of a conversion, the rest as by default. */
jang_convert_options options_of(const char *source, const char *output, const char *profile_name);

void copy_directory(ctx_t *ctx, const char *from, const char *to);

/* Overwrites element i of a tensor in a model of one file, type for type. */
void patch_tensor(ctx_t *ctx, const char *directory, const char *name, size_t i, const void *value);

/* Sets a key of config.json (value is given away), or removes it where value is NULL. */
void patch_config(ctx_t *ctx, const char *directory, const char *key, json_t *value);

/* Number of entries of a directory, of any kind. */
size_t count_entries(const char *path);

#endif
