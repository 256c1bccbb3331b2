/* names.h - the tensors of each model family, under the names that mlx-lm gives them.
 *
 * A conversion writes mlx-lm's names and leaves out what mlx-lm's `sanitize` leaves out. For the
 * families here Hugging Face's names are already mlx-lm's. A family is one row in names.c. */
#ifndef JANG_QUANT_NAMES_H
#define JANG_QUANT_NAMES_H

#include "quant/part_maps.h"

typedef struct name_family name_family;

/* Finds the family of a config.json. JANG_ERR_UNSUPPORTED names the model_type and those known. */
JANG_MUST_CHECK jang_status names_find(const name_family **out, ctx_t *ctx, const char *model_type);

/* The sizes that shapes are made of. */
typedef enum name_size {
    SIZE_NONE,
    SIZE_VOCAB,
    SIZE_HIDDEN,
    SIZE_FF,
    SIZE_Q,    /* heads * head_dim */
    SIZE_KV,   /* key-value heads * head_dim */
    SIZE_HEAD, /* head_dim */
    SIZE_COUNT
} name_size;

typedef struct name_model {
    const name_family *family;
    int n_layer;
    int64_t sizes[SIZE_COUNT];
    int64_t n_expert;
    map_sizes maps;
    bool tied;     /* one matrix is embedding and lm_head */
    bool surveyed; /* which parts are used is known from the model itself */
    const char *model_type;
    const char *const *dropped; /* survey.h */
} name_model;

/* Reads the sizes of a model from its config.json. Where that does not say whether embeddings are
 * tied, they are when there is no lm_head. */
JANG_MUST_CHECK jang_status names_model(name_model *out, ctx_t *ctx, const json_t *config,
                                        const char *what, const part_list *parts);

/* Turns the parts into those that mlx-lm has: experts stacked, fused matrices split. */
JANG_MUST_CHECK jang_status names_map(part_list *parts, const name_model *nm);

/* Asks the model which parts it uses, marks them and gives them mlx-lm's names. For families that
 * run; the others have tables in names.c. */
JANG_MUST_CHECK jang_status names_survey(part_list *parts, name_model *nm, checkpoint *c);

/* Checks that every tensor the family needs is there. */
JANG_MUST_CHECK jang_status names_check(ctx_t *ctx, const name_model *nm, const part_list *parts);

/* Whether a part is written. Sets *keep to false for what mlx-lm drops; fails for a tensor the
 * family does not have, since leaving it out would change the model, and for one whose shape
 * contradicts the config. */
JANG_MUST_CHECK jang_status names_keep(bool *keep, ctx_t *ctx, const name_model *nm,
                                       const model_part *part);

#endif
