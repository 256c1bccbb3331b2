/* names.h - which parts of a checkpoint a conversion writes, under the names that mlx-lm gives
 * them.
 *
 * The model itself says which tensors it uses and how mlx-lm calls them (model/survey.h); what
 * mlx-lm makes of several tensors, or of a piece of one, is said in the tables of names.c. */
#ifndef JANG_QUANT_NAMES_H
#define JANG_QUANT_NAMES_H

#include "quant/part_maps.h"

typedef struct name_model {
    const char *model_type; /* borrowed from the config */
    int64_t n_expert;       /* of a layer; 0: it has none */
    map_sizes maps;
    /* By names_survey: */
    int n_layer;
    bool tied;                  /* one matrix is embedding and lm_head */
    const char *const *dropped; /* survey.h */
} name_model;

/* Reads what there is to know before the parts are mapped. */
JANG_MUST_CHECK jang_status names_model(name_model *out, ctx_t *ctx, const json_t *config,
                                        const char *what);

/* Turns the parts into those that mlx-lm has: experts stacked, fused matrices split. */
JANG_MUST_CHECK jang_status names_map(part_list *parts, const name_model *nm);

/* The way back to the hub's names, once the parts have been surveyed and have mlx-lm's: prefixes,
 * experts one by one or fused, matrices whole. */
JANG_MUST_CHECK jang_status names_to_hub(part_list *parts, const name_model *nm);

/* Asks the model which parts it uses, marks them and gives them mlx-lm's names. Errors: those of
 * opening a model, an unknown model_type among them. */
JANG_MUST_CHECK jang_status names_survey(part_list *parts, name_model *nm, checkpoint *c);

/* Whether a part is written. Sets *keep to false for what mlx-lm drops; fails for a tensor the
 * family does not have, since leaving it out would change the model. */
JANG_MUST_CHECK jang_status names_keep(bool *keep, ctx_t *ctx, const name_model *nm,
                                       const model_part *part);

#endif
