/* int_parts.h - parts of checkpoints that AWQ and GPTQ made. */
#ifndef JANG_QUANT_INT_PARTS_H
#define JANG_QUANT_INT_PARTS_H

#include "format/int_packed.h"
#include "quant/parts.h"

/* What config.json's quantization_config says of such a checkpoint. */
typedef struct int_source {
    bool is_int; /* false: the checkpoint is none */
    bool is_awq;
    int bits, zero_add;
    int64_t group; /* 0: one for each whole row */
} int_source;

/* Reads it. Errors: a layout that is not read here (AWQ's GEMV and Marlin forms, widths that GPTQ
 * does not have), by name. */
JANG_MUST_CHECK jang_status int_source_read(int_source *out, ctx_t *ctx, const json_t *config);

/* If part->weight is "MODULE.qweight" of such a checkpoint, fills in everything but the role; the
 * part's name becomes name, "MODULE.weight". Errors name the tensor whose shape does not fit. */
JANG_MUST_CHECK jang_status int_part_describe(model_part *part, ctx_t *ctx, const checkpoint *c,
                                              const int_source *source, const char *name);

/* Whether a tensor is the zeros, scales or order of such a part. */
bool int_part_owns(const checkpoint *c, const int_source *source, const tensor_view *t);

/* The part's tensors as a packed matrix. */
int_packed int_part_packed(const model_part *part);

void int_part_rows_f32(float *out, const model_part *part, int64_t first, int64_t n);

#endif
