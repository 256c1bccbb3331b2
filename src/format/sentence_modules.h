/* sentence_modules.h - how an embedding model's makers turn hidden states into one vector, as the
 * files of sentence-transformers say it: modules.json and a directory for each module. */
#ifndef JANG_FORMAT_SENTENCE_MODULES_H
#define JANG_FORMAT_SENTENCE_MODULES_H

#include "format/checkpoint.h"

#define SENTENCE_DENSE_MAX 4
#define SENTENCE_PATH_BYTES 64

typedef enum sentence_pooling { SENTENCE_LAST, SENTENCE_MEAN, SENTENCE_FIRST } sentence_pooling;

/* A layer after pooling, act(W x + b): "linear.weight" [n_out, n_in] in model.safetensors of its
 * directory. */
typedef struct sentence_dense {
    char path[SENTENCE_PATH_BYTES]; /* "2_Dense" */
    int64_t n_in, n_out;
    bool has_bias, is_tanh; /* else no activation */
} sentence_dense;

typedef struct sentence_modules {
    bool found; /* the model says how it embeds */
    sentence_pooling pooling;
    sentence_dense dense[SENTENCE_DENSE_MAX];
    int n_dense;
} sentence_modules;

/* Reads modules.json, or 1_Pooling/config.json alone where there is no such file. A module, a way
 * of pooling or an activation that is not known is JANG_ERR_UNSUPPORTED by name. */
JANG_MUST_CHECK jang_status sentence_modules_read(sentence_modules *out, checkpoint *c);

/* Copies what belongs to them, of a model in a directory, to another directory. */
JANG_MUST_CHECK jang_status sentence_modules_copy(checkpoint *c, const char *directory);

#endif
