/* loader_impl.h - what loader.c lends to load_experts.c; and recurrent.c; nobody else includes it.
 */
#ifndef JANG_MODEL_LOADER_IMPL_H
#define JANG_MODEL_LOADER_IMPL_H

#include "model/loader.h"

#include <stdarg.h>

#define LOADER_NAME_BYTES 256

/* "prefix" "base" "suffix" as one name, out [LOADER_NAME_BYTES]; fails when it is too long. */
JANG_MUST_CHECK jang_status loader_name(char *out, loader *l, const char *prefix, const char *base,
                                        const char *suffix);
/* The tensor of this name as mlx-lm or as the hub spells it, or NULL; noted if there is a survey.
 */
const tensor_view *loader_find(loader *l, const char *name);
/* The same without a note: to see how a checkpoint is laid out. */
const tensor_view *loader_peek(const loader *l, const char *name);

struct model_survey;
JANG_MUST_CHECK jang_status survey_add(struct model_survey *s, const tensor_view *tensor,
                                       const char *name);

/* The prefix and what format and args make of it, as one name. */
JANG_MUST_CHECK jang_status loader_format(char *out, loader *l, const char *format, va_list args);
/* Fills in where and how the weight of a module lies, affine or dense; n_out and n_in are set. With
 * n_expert it is that many such matrices, of which the first is described. */
JANG_MUST_CHECK jang_status loader_describe(weight_desc *desc, loader *l, const char *module,
                                            int n_expert);
/* JANG_ERR_UNSUPPORTED for a tensor that is not F32, F16 or BF16. */
JANG_MUST_CHECK jang_status loader_dense_type(loader *l, const tensor_view *t);
/* Makes the weight and keeps it; module is its name in the checkpoint or NULL. On failure owned
 * stays the caller's. */
JANG_MUST_CHECK jang_status loader_keep(ops_weight **out, loader *l, const weight_desc *desc,
                                        const char *module, void *owned);
/* Says that the weight kept last is a part of this module's matrix (model.h). */
JANG_MUST_CHECK jang_status loader_place(loader *l, const char *module, int64_t first, int64_t step,
                                         bool turned);
/* Adds n_all such matrices to what the model amounts to, n_read of them read by each token; 0: a
 * row of one. */
void loader_count(model_totals *totals, const weight_desc *d, int n_all, int n_read);

#endif
