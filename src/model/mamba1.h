/* mamba1.h - Mamba's mixer (arXiv:2312.00752):
 *
 *     x, z = linear(h);  x = silu(conv(x));  dt, b, c = linear(x)
 *     y = linear(silu(z) * scan(x, softplus(linear(dt)), b, c))
 *
 * Falcon-Mamba (arXiv:2410.05355) norms dt, b and c without weights, Jamba (arXiv:2403.19887) with
 * them. Reference: transformers, models/{mamba,falcon_mamba,jamba}. */
#ifndef JANG_MODEL_MAMBA1_H
#define JANG_MODEL_MAMBA1_H

#include "model/recurrent.h"

typedef enum mamba1_norm {
    MAMBA1_NORM_NONE,
    MAMBA1_NORM_PLAIN, /* without weights */
    MAMBA1_NORM_NAMED, /* dt_layernorm, b_layernorm, c_layernorm */
} mamba1_norm;

typedef struct mamba1_config {
    int64_t n_inner, n_state, dt_rank;
    int n_tap;
    bool bias;      /* of in_proj and out_proj */
    bool conv_bias; /* dt_proj always has one */
    mamba1_norm norm;
    double norm_eps;
    const char *path; /* "mixer", "mamba" */
} mamba1_config;

/* Makes a block whose weights' names begin with prefix and path. */
JANG_MUST_CHECK jang_status mamba1_make(block **out, loader *l, work *w, const mamba1_config *c,
                                        int64_t n_embd, const char *prefix);

#endif
