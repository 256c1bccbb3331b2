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

/* Where z, x, b, c and dt end among the rows of Mamba's input projection. */
JANG_MUST_CHECK jang_status falcon_h1_read_ends(int64_t ends[5], json_at config);

#endif
