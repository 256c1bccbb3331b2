/* pipeline.h - reading, quantizing and writing all weights of a plan, block by block.
 *
 * Memory is a few blocks for each thread, whatever the model's size: a block is about a million
 * weights, or one row where a row is longer. What a block becomes depends on the block alone, so
 * the output is the same, byte for byte, for any number of threads. */
#ifndef JANG_QUANT_PIPELINE_H
#define JANG_QUANT_PIPELINE_H

#include "quant/plan.h"
#include "quant/quantizer.h"
#include "quant/work.h"

#define PIPELINE_SHARD_BYTES 5000000000u

typedef struct pipeline_options {
    const checkpoint *source;
    quant_plan *plan;
    quant_fn quantize;
    const float *const *importance; /* [n_items] of columns, each may be NULL; NULL: none */
    const work_dir *work;           /* matrices that are finished already; NULL: none */
    const char *directory;          /* where the shards go; there is nothing in it yet */
    uint64_t shard_bytes; /* at most this much of tensors a file, unless one alone is more */
    jang_progress_fn on_progress;
    void *user;
} pipeline_options;

/* Writes model.safetensors, or model-00001-of-0000N.safetensors, and
 * model.safetensors.index.json.
 *
 * Scales planned as f16 that do not fit it make the tensor's scales bf16; the plan is changed so.
 * Errors: JANG_ERR_FORMAT for weights that are not finite or cannot be stored, JANG_ERR_IO,
 * JANG_ERR_CANCELLED. Files written so far are left to the caller, who removes the directory. */
JANG_MUST_CHECK jang_status pipeline_run(ctx_t *ctx, const pipeline_options *options);

#endif
