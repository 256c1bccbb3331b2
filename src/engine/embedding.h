/* embedding.h - from pooled hidden states to an embedding, as the model's makers say. */
#ifndef JANG_ENGINE_EMBEDDING_H
#define JANG_ENGINE_EMBEDDING_H

#include "engine/engine.h"

/* Reads the files of sentence-transformers, the weights of their Dense modules and a classifier's
 * padding into m, whose model is open. Errors name the file. */
JANG_MUST_CHECK jang_status embedding_open(jang_model *m);
void embedding_close(jang_model *m);

/* The model's pooling; where it does not say: the mean of an encoder, the last of others. */
jang_pooling embedding_pooling(const jang_model *m);
/* Numbers of an embedding. */
int32_t embedding_size(const jang_model *m);
/* Numbers that embedding_finish needs room for. */
size_t embedding_room(const jang_model *m);
/* Takes the sum of hidden states x [n_embd], with room for embedding_room numbers, through the
 * Dense modules and to unit length: out [embedding_size]. n: how many states are in the sum. */
void embedding_finish(const jang_model *m, double *x, int32_t n, float *out);

#endif
