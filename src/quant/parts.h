/* parts.h - the parameters of a checkpoint, one entry each, in whatever form they are stored.
 *
 * A quantized module's three tensors are one part, named after its weight. Parts are sorted by
 * name, numbers by value, so that layer 2 comes before layer 10. */
#ifndef JANG_QUANT_PARTS_H
#define JANG_QUANT_PARTS_H

#include "format/checkpoint.h"
#include "quant/roles.h"

typedef struct model_part {
    const char *name; /* of the weight, borrowed from the checkpoint */
    const tensor_view *weight;
    const tensor_view *scales, *biases; /* NULL: not in affine form */
    int bits, group;                    /* of the affine form */
    int n_dim;
    int64_t shape[TENSOR_MAX_DIMS]; /* of the parameter, whatever its form */
    int64_t rows, columns, params;
    size_t n_bytes;
    tensor_role role;
} model_part;

typedef struct part_list {
    ctx_t *ctx;
    model_part *parts;
    size_t n_parts;
    uint64_t n_bytes; /* of all */
} part_list;

/* Lists a checkpoint's parameters, of whatever type; it must outlive the list. Errors name the
 * tensor: weight, scales and biases whose shapes do not fit together. */
JANG_MUST_CHECK jang_status part_list_make(part_list *out, ctx_t *ctx, checkpoint *c);
/* JANG_ERR_UNSUPPORTED for a part that is no weights part_rows_f32 should read: integers, 8-bit
 * floating types, which need scales of their own, other packed forms. */
JANG_MUST_CHECK jang_status part_check_type(ctx_t *ctx, const model_part *part);
void part_list_free(part_list *list);

/* The part of this name, or NULL. */
const model_part *part_find(const part_list *list, const char *name);

/* Reads rows [first, first + n) as out f32 [n, columns]. */
JANG_MUST_CHECK jang_status part_rows_f32(float *out, const checkpoint *c, const model_part *part,
                                          int64_t first, int64_t n);

/* Tells the system that these rows are not needed again. */
void part_drop_rows(const checkpoint *c, const model_part *part, int64_t first, int64_t n);

/* Order of names: as bytes, but runs of digits by their value. For qsort of strings and lists. */
int part_compare_names(const char *a, const char *b);

#endif
