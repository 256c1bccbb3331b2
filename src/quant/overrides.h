/* overrides.h - widths of single matrices by the user's own word.
 *
 * A JSON object from module names to what they get, '*' standing for any text:
 *     {"model.layers.0.*": 8, "*.down_proj": {"bits": 4, "group_size": 32}, "lm_head": false}
 * A number is a width, false keeps the matrix in its floating type. Where several names fit, the
 * last one in the file counts. */
#ifndef JANG_QUANT_OVERRIDES_H
#define JANG_QUANT_OVERRIDES_H

#include "quant/plan.h"

/* Applies a file to a plan; the items it names are fixed then. Errors, by the name in the file:
 * JANG_ERR_ARGUMENT for one that fits no matrix, for widths and groups that are none or that do
 * not divide its rows, and for tensors that stay in floating point whatever the profile. */
JANG_MUST_CHECK jang_status overrides_apply(quant_plan *plan, const char *path);

#endif
