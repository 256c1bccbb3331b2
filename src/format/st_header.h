/* st_header.h - the JSON header of a safetensors file. */
#ifndef JANG_FORMAT_ST_HEADER_H
#define JANG_FORMAT_ST_HEADER_H

#include "base/json.h"
#include "base/tensor.h"

typedef struct st_header {
    tensor_view *tensors; /* data not set; names point into names */
    uint64_t (*offsets)[2];
    size_t n_tensors;
    char *names;
    json_t *metadata;
} st_header;

/* Parses a header of n_bytes bytes. Checks its grammar, dtypes, and that each tensor's offsets span
 * as many bytes as dtype and shape make; not where they lie. */
JANG_MUST_CHECK jang_status st_header_parse(st_header *out, ctx_t *ctx, const char *path,
                                            const char *text, size_t n_bytes);
void st_header_free(st_header *h, ctx_t *ctx);

#endif
