/* shard_index.h - model.safetensors.index.json: which file holds which tensor. */
#ifndef JANG_FORMAT_SHARD_INDEX_H
#define JANG_FORMAT_SHARD_INDEX_H

#include "base/strmap.h"

#define SHARD_INDEX_NAME "model.safetensors.index.json"

typedef struct shard_index {
    ctx_t *ctx;
    char **files; /* in order of their first mention */
    size_t n_files;
    char *names; /* the tensors' names one after the other, each ended by a 0 byte */
    size_t n_names_bytes;
    strmap file_of; /* tensor name -> number of its file; the keys lie in names */
} shard_index;

/* Parses an index. path names it in messages. File names must be plain: an index cannot point out
 * of its directory. */
JANG_MUST_CHECK jang_status shard_index_parse(shard_index *out, ctx_t *ctx, const char *path,
                                              const char *text, size_t n_bytes);
void shard_index_free(shard_index *index);

#endif
