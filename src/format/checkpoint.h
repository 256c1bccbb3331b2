/* checkpoint.h - a model as it lies on disk, whatever the container.
 *
 * A directory of safetensors (one file, or shards with an index; Hugging Face, MLX or JANG), a
 * one-file .jang, or a GGUF file whose parts are given Hugging Face's names and shapes. Everything
 * is checked when opened; tensors are views into the mapped files. Immutable after opening. */
#ifndef JANG_FORMAT_CHECKPOINT_H
#define JANG_FORMAT_CHECKPOINT_H

#include "base/json.h"
#include "base/tensor.h"

typedef enum checkpoint_kind {
    CHECKPOINT_DIRECTORY,
    CHECKPOINT_JANG_FILE,
    CHECKPOINT_GGUF,
} checkpoint_kind;

typedef struct checkpoint checkpoint;

#define CHECKPOINT_TEXT_ONLY 1u /* do not open the weights (jang tokenize) */
#define CHECKPOINT_V1 2u        /* read legacy JANG v1 directories, as if they were MLX's */

/* Opens a model. Errors: no config.json, missing shard, damaged file, legacy JANG v1 (says to use
 * jang upgrade). */
JANG_MUST_CHECK jang_status checkpoint_open(checkpoint **out, ctx_t *ctx, const char *path,
                                            unsigned flags);
void checkpoint_close(checkpoint *c);

const char *checkpoint_path(const checkpoint *c);
checkpoint_kind checkpoint_get_kind(const checkpoint *c);

/* Whether it is a legacy JANG v1 model, read with CHECKPOINT_V1. */
bool checkpoint_is_v1(const checkpoint *c);

/* Tensors, sorted by name; names are Hugging Face's or MLX's as the files have them. */
const tensor_view *checkpoint_tensors(const checkpoint *c, size_t *n);
/* The tensor of this name, or NULL. */
const tensor_view *checkpoint_find(const checkpoint *c, const char *name);
/* Sum of the sizes of the tensors. */
uint64_t checkpoint_bytes(const checkpoint *c);

/* The JSON files: "config.json" (always there), "generation_config.json", "jang_config.json",
 * "tokenizer_config.json", ... as parsed; NULL if the model has none. Borrowed. Not for
 * tokenizer.json, which is large: see checkpoint_text. */
JANG_MUST_CHECK jang_status checkpoint_json(const json_t **out, checkpoint *c, const char *name);
/* A small file as text, e.g. "tokenizer.json", "chat_template.jinja". *text is NULL if the model
 * has none. Borrowed. */
JANG_MUST_CHECK jang_status checkpoint_text(const char **text, size_t *n_bytes, checkpoint *c,
                                            const char *name);
/* The chat template: chat_template.jinja, chat_template.json, or tokenizer_config.json's
 * chat_template (of a list of named ones, "default"). *text NULL if there is none. */
JANG_MUST_CHECK jang_status checkpoint_chat_template(const char **text, size_t *n_bytes,
                                                     checkpoint *c);

/* Reads rows [first, first + n) of a plain or block-quantized tensor seen as a matrix into
 * out f32 [n, columns], in Hugging Face's row order. Integer types other than block types are
 * JANG_ERR_UNSUPPORTED. */
JANG_MUST_CHECK jang_status checkpoint_rows_f32(float *out, const checkpoint *c,
                                                const tensor_view *t, int64_t first, int64_t n);
/* Reads elements [at, at + n) of a tensor of a plain floating type into out f32 [n], in the order
 * of the file. Other types are JANG_ERR_UNSUPPORTED. */
JANG_MUST_CHECK jang_status checkpoint_elements_f32(float *out, const checkpoint *c,
                                                    const tensor_view *t, int64_t at, int64_t n);
/* Reads all weights into memory; lock: keeps them there until the checkpoint is closed. */
JANG_MUST_CHECK jang_status checkpoint_prefault(const checkpoint *c, bool lock);
/* Gives back the pages of all weights that were read; what is read again comes from the files. */
void checkpoint_drop(const checkpoint *c);
/* Tells the system that these rows' bytes are not needed again. */
void checkpoint_drop_rows(const checkpoint *c, const tensor_view *t, int64_t first, int64_t n);

/* Width and group of a quantized module ("model.layers.0.mlp.up_proj") by config.json's
 * "quantization" (or "quantization_config"): its own entry, else the global one. *bits is 0 when
 * the module is not quantized there. An entry's group_size null means the global one. */
JANG_MUST_CHECK jang_status checkpoint_quantization(int *bits, int *group, checkpoint *c,
                                                    const char *module);

/* Copies the model's other small files (tokenizer, templates, generation config, vocabularies) to
 * a directory; a GGUF's are written from its metadata. config.json and weights are not among them.
 */
JANG_MUST_CHECK jang_status checkpoint_copy_texts(checkpoint *c, const char *directory);

#endif
