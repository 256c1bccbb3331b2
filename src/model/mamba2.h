/* mamba2.h - Mamba-2's mixer (arXiv:2405.21060):
 *
 *     z, x, b, c, dt = linear(h);  x, b, c = silu(conv(x, b, c))
 *     y = linear(norm(silu(z) * ssd(x, softplus(dt), b, c)))
 *
 * with the norm by groups of heads. Reference: transformers, models/{mamba2,nemotron_h,bamba,
 * granitemoehybrid,falcon_h1}. */
#ifndef JANG_MODEL_MAMBA2_H
#define JANG_MODEL_MAMBA2_H

#include "model/recurrent.h"

typedef enum mamba2_norm {
    MAMBA2_GATE_FIRST, /* norm(y * silu(z)) */
    MAMBA2_NORM_FIRST, /* norm(y) * silu(z) */
    MAMBA2_NO_NORM,    /* y * silu(z) */
} mamba2_norm;

typedef struct mamba2_config {
    int64_t n_head, head_dim, n_group, n_state;
    int n_tap;
    bool in_bias, out_bias, conv_bias;
    double dt_min, dt_max; /* after softplus */
    mamba2_norm norm;
    int64_t norm_groups;
    double norm_eps;
    double in_scale;          /* of the input; 0: 1 */
    const double *part_scale; /* [5] of z, x, b, c, dt (FalconH1); NULL: none */
    const char *path;         /* "mixer", "mamba" */
} mamba2_config;

/* Reads time_step_limit, [0, infinity] where it is absent or null. */
JANG_MUST_CHECK jang_status mamba2_read_limits(mamba2_config *c, json_at config);

/* Makes a block whose weights' names begin with prefix and path. */
JANG_MUST_CHECK jang_status mamba2_make(block **out, loader *l, work *w, const mamba2_config *c,
                                        int64_t n_embd, const char *prefix);

#endif
