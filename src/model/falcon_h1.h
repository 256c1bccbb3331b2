/* falcon_h1.h - Falcon-H1's multipliers: the model computes with them, a conversion puts them into
 * the weights (quant/folds.h). */
#ifndef JANG_MODEL_FALCON_H1_H
#define JANG_MODEL_FALCON_H1_H

#include "base/json.h"

typedef struct falcon_h1_multipliers {
    double embedding, output, attention_in, attention_out, key, ssm_in, ssm_out;
    double mlp[2]; /* gate, down */
    double ssm[5]; /* of z, x, b, c, dt */
} falcon_h1_multipliers;

/* As config.json has them; 1 where it has none. */
JANG_MUST_CHECK jang_status falcon_h1_read_multipliers(falcon_h1_multipliers *out, json_at config);

/* Those that are left to apply: the weights of a checkpoint stamped jang_mup_folded hold all, those
 * of mlx-lm (mlx_layout: convolutions are [channels, taps, 1]) all but the keys'. tied: one matrix
 * is embedding and output. Errors: weights that hold one of them in part. */
JANG_MUST_CHECK jang_status falcon_h1_left_multipliers(falcon_h1_multipliers *out, json_at config,
                                                       bool mlx_layout, bool tied);

/* Where z, x, b, c and dt end among the rows of Mamba's input projection. */
JANG_MUST_CHECK jang_status falcon_h1_read_ends(int64_t ends[5], json_at config);

#endif
