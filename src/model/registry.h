/* registry.h - the list of families. */
#ifndef JANG_MODEL_REGISTRY_H
#define JANG_MODEL_REGISTRY_H

#include "model/family.h"

/* The family of a model_type; an unknown one is JANG_ERR_UNSUPPORTED naming it and the known. */
JANG_MUST_CHECK jang_status registry_find(const model_family **out, ctx_t *ctx, const char *what,
                                          const char *model_type);

/* The same, or NULL. */
const model_family *registry_look_up(const char *model_type);

#endif
