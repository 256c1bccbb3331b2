/* safetensors.h - one safetensors file: reading where it lies, and writing.
 *
 * Layout: u64 little-endian header length, header (a JSON object: name -> {dtype, shape,
 * data_offsets}, and "__metadata__": string -> string), then the tensors' bytes without holes.
 * Source: the format description of huggingface/safetensors. */
#ifndef JANG_FORMAT_SAFETENSORS_H
#define JANG_FORMAT_SAFETENSORS_H

#include "base/file.h"
#include "base/json.h"
#include "base/tensor.h"

typedef struct st_file {
    ctx_t *ctx;
    file_map map;
    tensor_view *tensors; /* in order of their place in the file */
    size_t n_tensors;
    json_t *metadata; /* object of strings; NULL if there was none */
    char *names;      /* the tensors' names, each ended by a 0 byte */
} st_file;

/* Maps and checks a file: header within the file, every tensor's offsets within the data, sizes
 * equal to dtype and shape, no overlap, no hole, no duplicate name. Errors name file and tensor. */
JANG_MUST_CHECK jang_status st_open(st_file *out, ctx_t *ctx, const char *path);
void st_close(st_file *f);

/* ---- Writing ---- */

/* Writes one file: all tensors are declared first, then their bytes are written, in any order and
 * from any thread (each byte once). The format allows no holes, so alignment comes from the order:
 * the data begins at a multiple of 64 bytes, and tensors are laid out by the largest power of two
 * up to 64 that divides their size, falling; among equals in the order of declaration. So every
 * tensor begins at a multiple of its element's size, and those whose size is a multiple of 64, that
 * is all large ones, at a multiple of 64. */
typedef struct st_writer st_writer;

/* The file is made, or emptied, at once. */
JANG_MUST_CHECK jang_status st_writer_new(st_writer **out, ctx_t *ctx, const char *path);
/* shape is copied; name, valid UTF-8, too. Returns the tensor's number through *index. */
JANG_MUST_CHECK jang_status st_writer_add(st_writer *w, const char *name, dtype type, int n_dim,
                                          const int64_t *shape, int *index);
/* metadata: an object of strings or NULL; borrowed. Writes the header; then st_writer_put may be
 * called. */
JANG_MUST_CHECK jang_status st_writer_begin(st_writer *w, const json_t *metadata);
/* Writes n_bytes of tensor index at byte offset at within it. */
JANG_MUST_CHECK jang_status st_writer_put(st_writer *w, int index, size_t at, const void *data,
                                          size_t n_bytes);
/* Syncs and closes; w is gone afterwards, also on failure (the file is then removed). Fails when
 * bytes of a tensor were not written. */
JANG_MUST_CHECK jang_status st_writer_finish(st_writer *w);
/* Removes the unfinished file. NULL is fine. */
void st_writer_discard(st_writer *w);

#endif
