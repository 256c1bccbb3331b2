/* convert.h - what jang_convert is made of, for inspection and tests. */
#ifndef JANG_QUANT_CONVERT_H
#define JANG_QUANT_CONVERT_H

#include "quant/pipeline.h"

/* jang_convert with the size of a shard, in bytes of tensors. */
JANG_MUST_CHECK jang_status convert_run(char **plan_json, ctx_t *ctx,
                                        const jang_convert_options *options, uint64_t shard_bytes);

#endif
