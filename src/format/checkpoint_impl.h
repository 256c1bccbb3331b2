/* checkpoint_impl.h - what the parts of checkpoint share; nobody else includes it. */
#ifndef JANG_FORMAT_CHECKPOINT_IMPL_H
#define JANG_FORMAT_CHECKPOINT_IMPL_H

#include "base/strmap.h"
#include "format/checkpoint.h"
#include "format/gguf.h"
#include "format/safetensors.h"

/* A small file of the model, kept once asked for. */
typedef struct checkpoint_text_entry {
    char *name;
    char *text; /* NULL: the model has none, or only json was made */
    size_t n_bytes;
    json_t *json;    /* NULL: not parsed yet */
    bool text_ready; /* text has been looked for */
} checkpoint_text_entry;

struct checkpoint {
    ctx_t *ctx;
    char *path;
    checkpoint_kind kind;
    unsigned flags;

    st_file *files; /* of a directory or .jang file */
    size_t n_files;
    gguf_file *gguf;
    char *names; /* Hugging Face's names of a GGUF's tensors; those of a v1 model's views */

    /* Of a JANG v1 model that is read as MLX's. */
    strmap forms; /* module -> bits << 8 | group */
    float **made; /* [n_made] scales and biases */
    size_t n_made;

    tensor_view *tensors; /* sorted by name */
    size_t n_tensors;
    strmap by_name;

    checkpoint_text_entry **texts;
    size_t n_texts;
};

/* Opens the directory's safetensors files: those of the index, or model.safetensors, or all. */
JANG_MUST_CHECK jang_status checkpoint_open_shards(checkpoint *c);
/* Fails for a legacy JANG v1 directory. */
JANG_MUST_CHECK jang_status checkpoint_refuse_v1(checkpoint *c);

/* Turns the tensors of v1 files into views in MLX's form. Other files' stay as they are. */
JANG_MUST_CHECK jang_status checkpoint_take_v1(checkpoint *c);

/* ---- GGUF (checkpoint_gguf.c) ---- */

JANG_MUST_CHECK jang_status checkpoint_open_gguf(checkpoint *c);
/* Fills c->tensors, unsorted, under Hugging Face's names. */
JANG_MUST_CHECK jang_status checkpoint_take_gguf(checkpoint *c);
/* The text of one of Hugging Face's small files; *text stays as it is where there is none. */
JANG_MUST_CHECK jang_status checkpoint_make_gguf_text(char **text, size_t *n, checkpoint *c,
                                                      const char *name);

#endif
