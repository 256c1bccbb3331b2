/* left_out.h - what of a checkpoint a conversion leaves behind, and why: towers for images and
 * sound, layers that predict further tokens, buffers, matrices that are another's copy. */
#ifndef JANG_QUANT_LEFT_OUT_H
#define JANG_QUANT_LEFT_OUT_H

#include "quant/names.h"

/* What a part is that a model does without ("vision tower"); NULL: nothing that may be left out. */
const char *left_out_kind(const name_model *nm, const char *name);

/* Adds {what, tensors, params, bytes} to array for each kind that is among the parts which are not
 * used. Bytes are those of the source. */
JANG_MUST_CHECK jang_status left_out_to_json(json_t *array, const part_list *parts,
                                             const name_model *nm);

#endif
