/* gguf_family.h - what GGUF calls a family, its tensors and its settings.
 *
 * Source: the programs that read such files, llama.cpp and its kin, as of the gguf package's
 * constants.py: a file has exactly the keys and tensors that they look for. */
#ifndef JANG_EXPORT_GGUF_FAMILY_H
#define JANG_EXPORT_GGUF_FAMILY_H

#include "format/gguf_writer.h"
#include "quant/source.h"

typedef struct gguf_family gguf_family;

/* Sizes that the tensors tell, whatever the config says or leaves out. */
typedef struct gguf_sizes {
    int64_t n_vocab, n_head, n_kv_head, head_dim;
    int64_t n_expert; /* 0: it has none */
} gguf_sizes;

/* A tensor that stands for something of the config: factors of RoPE. */
typedef struct gguf_extra {
    const char *name;
    float *values; /* [n], owned by gguf_facts */
    int64_t n;
} gguf_extra;

#define GGUF_MAX_EXTRAS 2

/* All that a file says besides weights and vocabulary. */
typedef struct gguf_facts {
    ctx_t *ctx;
    const gguf_family *family;
    json_at config; /* of the text model, where a config has several */
    gguf_sizes sizes;
    gguf_extra extras[GGUF_MAX_EXTRAS];
    int n_extras;
    json_t *notes; /* what GGUF cannot say of this model; borrowed */
} gguf_facts;

/* Finds the family and the sizes, and makes the extra tensors. Errors: JANG_ERR_UNSUPPORTED for a
 * family that has no place here, naming those that have, and for settings that its readers do not
 * know, by name. On success the caller owes a gguf_facts_free. */
JANG_MUST_CHECK jang_status gguf_facts_make(gguf_facts *out, const model_source *source,
                                            json_t *notes);
void gguf_facts_free(gguf_facts *f);

/* Declares them all: the architecture's name, sizes, RoPE. */
JANG_MUST_CHECK jang_status gguf_facts_put(gguf_writer *w, const gguf_facts *f);

/* How a tensor is written. */
typedef struct gguf_tensor_form {
    int64_t row_heads; /* the halves of so many heads' rows are interleaved; 0: rows as they are */
    float add;         /* to each number */
    bool exact;        /* F32, as the readers want it: norms, routers */
} gguf_tensor_form;

/* Appends the name of a part. Errors name the part that has no place in the family. */
JANG_MUST_CHECK jang_status gguf_tensor_of(buf *name, gguf_tensor_form *form, const gguf_facts *f,
                                           const model_part *part);

#endif
