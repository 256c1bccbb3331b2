/* data_file.h - writing a file of tensors: a header, then data whose size is known before. */
#ifndef JANG_FORMAT_DATA_FILE_H
#define JANG_FORMAT_DATA_FILE_H

#include "base/ctx.h"
#include "base/file.h"

#include <stdatomic.h>

typedef struct data_file {
    ctx_t *ctx;
    char *path;
    file_out *file;
    uint64_t data_at;  /* of the data in the file; 0 before the header is written */
    uint64_t n_wanted; /* bytes of data that finish asks for */
    _Atomic uint64_t n_written;
} data_file;

JANG_MUST_CHECK jang_status data_file_open(data_file *out, ctx_t *ctx, const char *path);
/* Writes bytes of data, from any thread; at counts from the data's beginning. */
JANG_MUST_CHECK jang_status data_file_put(data_file *f, uint64_t at, const void *data,
                                          size_t n_bytes);
/* Closes the file, or removes it where data is missing or closing fails. Frees what f holds. */
JANG_MUST_CHECK jang_status data_file_finish(data_file *f);
/* Removes the file and frees what f holds. */
void data_file_discard(data_file *f);

#endif
