/* hub_config.h - config.json of a model that is written under the hub's names. */
#ifndef JANG_QUANT_HUB_CONFIG_H
#define JANG_QUANT_HUB_CONFIG_H

#include "quant/source.h"

/* Changes a copy of the source's config to what transformers needs to open the model as it is
 * written. Of checkpoints with towers, which are left behind, the text model's config is all
 * (*config is replaced); multipliers that are in the weights become 1; our own keys go. */
JANG_MUST_CHECK jang_status hub_config(json_t **config, const model_source *s);

#endif
