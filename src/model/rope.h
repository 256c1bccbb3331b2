/* rope.h - rotary position embeddings: from a config's settings to frequencies.
 *
 * Both spellings are read: rope_theta + rope_scaling {type | rope_type, ...}, and rope_parameters
 * {rope_type, rope_theta, ...}. Source: RoFormer, arXiv:2104.09864; the scalings as transformers
 * computes them (linear, dynamic, llama3, yarn: arXiv:2309.00071, longrope: arXiv:2402.13753, and
 * Gemma 4's proportional). */
#ifndef JANG_MODEL_ROPE_H
#define JANG_MODEL_ROPE_H

#include "model/loader.h"

typedef struct rope_config {
    double theta;
    int n_rot;        /* elements of a head that turn */
    float scale;      /* for cos and sin */
    bool interleaved; /* pairs (2i, 2i + 1); a family sets it after reading */
    float *inv_freq;  /* [n_rot / 2], owned; NULL: none */
    float *long_freq; /* the same for sequences of more than long_from tokens; NULL: none */
    int32_t long_from;
} rope_config;

/* What a family knows of its RoPE besides the config. */
typedef struct rope_wanted {
    int head_dim;
    int64_t n_context;    /* max_position_embeddings */
    double theta;         /* where the config does not say it */
    double part;          /* of a head that turns, where the config does not say it; 0: all */
    const char *part_key; /* another name of partial_rotary_factor */
    const char
        *theta_key;     /* another name of rope_theta ("rotary_emb_base", "rope_local_base_freq") */
    bool unscaled;      /* of a scaling nothing is read: local layers */
    bool has_mscales;   /* longrope's factor is short_mscale, and long_mscale */
    bool has_alpha;     /* a "dynamic" scaling with an alpha stretches the base, always */
    bool needs_scaling; /* the reference scales where the config says nothing: refused */
    double original_context; /* where the config does not say it; 0: n_context */
    const char *layer_type;  /* key of the settings within rope_parameters; NULL: they are plain */
} rope_wanted;

/* Reads the settings. A scaling that is not known is JANG_ERR_UNSUPPORTED by name. */
JANG_MUST_CHECK jang_status rope_read(rope_config *out, json_at config, const rope_wanted *wanted);
/* A number among the settings of the scaling, for what families make of them besides. */
JANG_MUST_CHECK jang_status rope_read_number(double *out, json_at config, const char *key,
                                             double fallback);
void rope_free(rope_config *rope, ctx_t *ctx);

/* The operator's parameters, frequencies loaded as a weight of the model. */
JANG_MUST_CHECK jang_status rope_load(rope_desc *out, loader *l, const rope_config *rope);

#endif
