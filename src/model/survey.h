/* survey.h - which tensors a model is made of, without running it.
 *
 * The family's own code opens the model, so what it needs, in which shapes, is said in one place: a
 * conversion asks here what to keep and how mlx-lm calls it. No weight is read. */
#ifndef JANG_MODEL_SURVEY_H
#define JANG_MODEL_SURVEY_H

#include "model/model.h"

/* Where a survey looks for tensors: their shapes count, and types and data do not. */
typedef struct tensor_source {
    const tensor_view *(*find)(const void *arg, const char *name);
    const void *arg;
} tensor_source;

typedef struct tensor_use {
    const tensor_view *tensor; /* the source's */
    char *name;                /* as mlx-lm calls it */
} tensor_use;

typedef struct model_survey {
    ctx_t *ctx;
    tensor_use *uses;
    size_t n, capacity;
    int32_t n_layer;
    bool tied;                  /* the embedding is the output matrix */
    const char *const *dropped; /* ends of names that checkpoints hold and the family does not need,
                                   ended by NULL; NULL: none */
} model_survey;

/* Opens the model of a checkpoint's config.json with tensors from source. Errors as model_open's.
 */
JANG_MUST_CHECK jang_status model_survey_make(model_survey *out, ctx_t *ctx, checkpoint *c,
                                              const tensor_source *source);
void model_survey_free(model_survey *survey);

#endif
