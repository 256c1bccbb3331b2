/* rope.h - rotary position embeddings: from a config's settings to frequencies.
 *
 * Both spellings are read: rope_theta + rope_scaling {type | rope_type, ...}, and rope_parameters
 * {rope_type, rope_theta, ...}. Source: RoFormer, arXiv:2104.09864; the scalings as transformers
 * computes them (linear, dynamic, llama3, yarn: arXiv:2309.00071). */
#ifndef JANG_MODEL_ROPE_H
#define JANG_MODEL_ROPE_H

#include "model/loader.h"

typedef struct rope_config {
    double theta;
    int n_rot;       /* elements of a head that turn */
    float scale;     /* for cos and sin */
    float *inv_freq; /* [n_rot / 2], owned */
} rope_config;

/* Reads the settings for heads of head_dim. n_context is max_position_embeddings. A scaling that is
 * not known is JANG_ERR_UNSUPPORTED by name. */
JANG_MUST_CHECK jang_status rope_read(rope_config *out, json_at config, int head_dim,
                                      int64_t n_context, double default_theta);
void rope_free(rope_config *rope, ctx_t *ctx);

/* The operator's parameters, frequencies loaded as a weight of the model. */
JANG_MUST_CHECK jang_status rope_load(rope_desc *out, loader *l, const rope_config *rope);

#endif
