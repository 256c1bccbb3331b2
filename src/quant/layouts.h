/* layouts.h - what mlx-lm changes in tensors besides their names, when it converts recurrent
 * models: convolutions are [channels, taps, 1] there, and norms that the hub keeps as w of 1 + w
 * hold 1 + w.
 *
 * mlx-lm does both again when it opens a model whose convolutions are the hub's, except where the
 * experts are stacked already; so both are done here. Shifted norms are stored as f32: 1 + w in 16
 * bits would be another number. */
#ifndef JANG_QUANT_LAYOUTS_H
#define JANG_QUANT_LAYOUTS_H

#include "quant/names.h"

/* Changes shapes and numbers of the parts, once they have mlx-lm's names. *shifted: norms hold
 * 1 + w now that held w before. */
void layouts_apply(part_list *parts, const name_model *nm, bool *shifted);

/* The way back to the hub's layouts, of a model that has mlx-lm's; one that has them stays as it
 * is. *mlx_convs: convolutions were mlx-lm's. */
void layouts_undo(part_list *parts, const name_model *nm, bool *mlx_convs);

/* Whether a convolution that the model uses lies as on the hub, [channels, 1, taps]. */
bool layouts_has_hub_conv(const part_list *parts);

/* Text models alone have a model_type of their own (qwen3_5_text), which mlx-lm does not know: it
 * becomes that of the whole, or is one's own again. Not 0: no memory. */
int layouts_rename(json_t *config, bool whole);

/* Adds what mlx-lm and we look for in such a model's config; not 0: no memory. folded: folds.h */
int layouts_note(json_t *config, bool shifted, bool folded);

#endif
