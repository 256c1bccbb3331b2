/* folds.h - multipliers that a model's config has and mlx-lm wants in the weights (Falcon-H1).
 *
 * A row of a part is multiplied as it is read, before it is quantized. The config is stamped
 * jang_mup_folded. mlx-lm folds likewise when it opens a hub checkpoint, but for the multiplier of
 * keys, and does not when convolutions are [channels, taps, 1], as ours are. */
#ifndef JANG_QUANT_FOLDS_H
#define JANG_QUANT_FOLDS_H

#include "quant/names.h"

#define FOLD_RUNS 5

/* Rows up to ends[i] (of a vector: elements) are multiplied by by[i]; ends with the last row. */
typedef struct row_factors {
    int64_t ends[FOLD_RUNS];
    float by[FOLD_RUNS];
} row_factors;

/* Sets the factors of the parts, which have mlx-lm's names; before layouts_apply. */
JANG_MUST_CHECK jang_status folds_apply(part_list *parts, const name_model *nm,
                                        const json_t *config, bool *folded);

/* Multiplies rows first .. first + n - 1 of a part by its factors. */
void folds_rows(float *rows, const model_part *part, int64_t first, int64_t n);

#endif
