/* gguf.h - GGUF files, versions 2 and 3: metadata and tensors where they lie.
 *
 * Source: ggml's docs/gguf.md. Shapes are turned round, so that shape[0] is the slowest axis as
 * everywhere else in jang. */
#ifndef JANG_FORMAT_GGUF_H
#define JANG_FORMAT_GGUF_H

#include "base/file.h"
#include "base/json.h"
#include "base/tensor.h"

typedef struct gguf_file gguf_file;

/* Maps and checks a file: counts, strings and arrays within the file, every tensor's bytes within
 * it, no overlap, no key or tensor twice. Files cut into several ("split") are refused. */
JANG_MUST_CHECK jang_status gguf_open(gguf_file **out, ctx_t *ctx, const char *path);
void gguf_close(gguf_file *g);

/* Tensors under their GGUF names ("blk.0.attn_q.weight"), in file order. */
const tensor_view *gguf_tensors(const gguf_file *g, size_t *n);
const file_map *gguf_map(const gguf_file *g);

/* What Hugging Face's files would hold, made from the metadata when first asked for. Each is owned
 * by the file.
 * gguf_config: config.json of the family (model_type, sizes, rope, token ids). JANG_ERR_UNSUPPORTED
 *   names an architecture that has no mapping, and those that have.
 * gguf_generation_config: generation_config.json, which holds the ids that end an answer.
 * gguf_tokenizer_json: the text of a tokenizer.json; *text is NULL if the file has no vocabulary.
 * gguf_tokenizer_config: that of tokenizer_config.json, chat template included. */
JANG_MUST_CHECK jang_status gguf_config(const json_t **out, gguf_file *g);
JANG_MUST_CHECK jang_status gguf_generation_config(const json_t **out, gguf_file *g);
JANG_MUST_CHECK jang_status gguf_tokenizer_json(const char **text, size_t *n_bytes, gguf_file *g);
JANG_MUST_CHECK jang_status gguf_tokenizer_config(const json_t **out, gguf_file *g);

/* Appends the Hugging Face name of a GGUF tensor ("model.layers.0.self_attn.q_proj.weight") and
 * sets *row_heads (see tensor_view). Appends nothing for a tensor that Hugging Face's model does
 * not have because config.json says the same (RoPE factors). Fails, naming the tensor, when the
 * architecture has none such. */
JANG_MUST_CHECK jang_status gguf_hf_name(buf *out, int32_t *row_heads, gguf_file *g,
                                         const char *name);

#endif
