/* convert.h - what jang_convert is made of, for inspection and tests. */
#ifndef JANG_QUANT_CONVERT_H
#define JANG_QUANT_CONVERT_H

#include "quant/pipeline.h"

/* What jang_convert does not ask of its caller. */
typedef struct convert_form {
    uint64_t shard_bytes; /* of tensors */
    bool hub_names;       /* source.h */
} convert_form;

JANG_MUST_CHECK jang_status convert_run(char **plan_json, ctx_t *ctx,
                                        const jang_convert_options *options, convert_form form);

#endif
