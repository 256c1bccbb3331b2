/* gguf_splits.h - how byte-level BPE cuts text into words, by the names that GGUF has for it. */
#ifndef JANG_FORMAT_GGUF_SPLITS_H
#define JANG_FORMAT_GGUF_SPLITS_H

#include "base/json.h"

typedef struct gguf_split {
    const char *name;   /* tokenizer.ggml.pre; NULL ends the table */
    const char *words;  /* the pre_tokenizer of a tokenizer.json */
    bool nfc;           /* the text is normalized first */
    bool ignore_merges; /* a word that is a token is taken whole */
    bool add_bos;       /* where the file does not say */
    bool written;       /* the name that files of ours get; others have the same meaning */
} gguf_split;

/* The first is what a file without a name has. */
extern const gguf_split gguf_splits[];

/* NULL: there is none of this name. */
const gguf_split *gguf_split_named(const char *name, size_t n);

/* The one to be written for a tokenizer.json. *out is NULL where its words are cut in a way that
 * has no name here. */
JANG_MUST_CHECK jang_status gguf_split_of(const gguf_split **out, ctx_t *ctx,
                                          const json_t *tokenizer);

#endif
