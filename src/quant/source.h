/* source.h - a model that is about to be converted or exported: its parts under mlx-lm's names, and
 * which of them are written. */
#ifndef JANG_QUANT_SOURCE_H
#define JANG_QUANT_SOURCE_H

#include "quant/names.h"

typedef struct model_source {
    ctx_t *ctx;
    const char *path; /* as the user gave it, for messages; borrowed */
    checkpoint *checkpoint;
    const json_t *config; /* the checkpoint's config.json */
    part_list parts;
    const model_part **kept; /* [n_kept], those that are written, in order of their names */
    size_t n_kept;
    name_model model;
    bool norms_shifted; /* layouts.h */
    bool folded;        /* folds.h */
    bool hub_names;     /* names and layouts are the hub's again */
    bool mlx_convs;     /* convolutions were found as mlx-lm has them */
} model_source;

/* Besides the flags of checkpoint_open: parts get the hub's names and layouts (names_to_hub). */
#define SOURCE_HUB_NAMES 0x100u

/* Opens a model and finds out what of it is written; flags are checkpoint_open's and ours. Errors:
 * those of checkpoint_open and of the family; packed forms and types that are not read, by name. */
JANG_MUST_CHECK jang_status model_source_open(model_source *out, ctx_t *ctx, const char *path,
                                              unsigned flags);
/* Of one that was not opened, all zero, too. */
void model_source_close(model_source *s);

#endif
