/* gguf_writer.h - writing a GGUF file, version 3.
 *
 * First all metadata and tensors are declared, then the header is written, then the tensors' bytes
 * in any order and from any thread, each byte once. */
#ifndef JANG_FORMAT_GGUF_WRITER_H
#define JANG_FORMAT_GGUF_WRITER_H

#include "base/file.h"
#include "base/tensor.h"

typedef struct gguf_writer gguf_writer;

/* The file is made, or emptied, at once. */
JANG_MUST_CHECK jang_status gguf_writer_new(gguf_writer **out, ctx_t *ctx, const char *path);

/* ---- Metadata: lack of memory is reported by gguf_writer_begin ---- */

/* What stands before the first dot of the keys that follow and have none: "llama" makes
 * "llama.block_count" of ".block_count". Borrowed. */
void gguf_writer_prefix(gguf_writer *w, const char *prefix);
void gguf_meta_u32(gguf_writer *w, const char *key, uint32_t value);
void gguf_meta_f32(gguf_writer *w, const char *key, float value);
void gguf_meta_bool(gguf_writer *w, const char *key, bool value);
void gguf_meta_text(gguf_writer *w, const char *key, const char *text, size_t n_bytes);
void gguf_meta_i32s(gguf_writer *w, const char *key, const int32_t *values, size_t n);
void gguf_meta_f32s(gguf_writer *w, const char *key, const float *values, size_t n);
/* A list of n texts, which then follow one by one. */
void gguf_meta_texts(gguf_writer *w, const char *key, size_t n);
void gguf_meta_item(gguf_writer *w, const char *text, size_t n_bytes);

/* ---- Tensors ---- */

/* shape as everywhere in jang, the slowest axis first; name is copied. Returns the tensor's number
 * through *index. Errors: a last axis that is no whole number of the type's blocks. */
JANG_MUST_CHECK jang_status gguf_writer_add(gguf_writer *w, const char *name, dtype type, int n_dim,
                                            const int64_t *shape, int *index);
/* Writes the header; then gguf_writer_put may be called. */
JANG_MUST_CHECK jang_status gguf_writer_begin(gguf_writer *w);
/* Writes n_bytes of tensor index at byte offset at within it. */
JANG_MUST_CHECK jang_status gguf_writer_put(gguf_writer *w, int index, size_t at, const void *data,
                                            size_t n_bytes);
/* Syncs and closes; w is gone afterwards, also on failure (the file is then removed). Fails when
 * bytes of a tensor were not written. */
JANG_MUST_CHECK jang_status gguf_writer_finish(gguf_writer *w);
/* Removes the unfinished file. NULL is fine. */
void gguf_writer_discard(gguf_writer *w);

/* Whether tensors of this type can be written, and the number that the format gives it. */
bool gguf_type_number(uint32_t *out, dtype type);

#endif
