/* parts.h - the parameters of a checkpoint, one entry each, in whatever form they are stored.
 *
 * A quantized module's three tensors are one part, named after its weight. Parts are sorted by
 * name, numbers by value, so that layer 2 comes before layer 10. */
#ifndef JANG_QUANT_PARTS_H
#define JANG_QUANT_PARTS_H

#include "format/checkpoint.h"
#include "quant/roles.h"

/* How a part is packed, beyond what its tensor's type says. */
typedef enum part_packing {
    PACKING_NONE,
    PACKING_AFFINE, /* MLX's form: scales, biases, bits, group */
    PACKING_FP8,    /* E4M3 with scales F32 for blocks of rows and columns: NAME_scale_inv */
    PACKING_GPTQ,   /* MODULE.qweight, .qzeros, .scales, .g_idx; see format/int_packed.h */
    PACKING_AWQ,    /* MODULE.qweight, .qzeros, .scales */
    PACKING_MXFP4,  /* NAME_blocks U8 [.., groups, 16] and NAME_scales U8 [.., groups] */
} part_packing;

typedef struct model_part {
    const char *name; /* of the weight, borrowed from the checkpoint or the list */
    const tensor_view *weight;
    const tensor_view *scales, *biases; /* NULL: the packing has none; biases of GPTQ, AWQ: zeros */
    const tensor_view *order;           /* of GPTQ: the group of each input; NULL: in order */
    part_packing packing;
    int bits, group;                   /* of the affine form, GPTQ and AWQ */
    int zero_add;                      /* of GPTQ and AWQ: to each stored zero */
    int64_t block_rows, block_columns; /* of FP8 */
    const struct part_map *map; /* made of other parts (part_maps.h); NULL: stored as it is */
    int n_dim;
    int64_t shape[TENSOR_MAX_DIMS]; /* of the parameter, whatever its form */
    int64_t rows, columns, params;
    size_t n_bytes;
    tensor_role role;
    bool used;                         /* by the model: names_survey found it so */
    float add;                         /* to each number; then it is stored as f32 (layouts.h) */
    const struct row_factors *factors; /* of its rows, NULL: none (folds.h) */
    struct part_scaling *scaling;      /* of its rows and columns, NULL: none (scaling.h) */
} model_part;

typedef struct part_list {
    ctx_t *ctx;
    model_part *parts;
    size_t n_parts;
    uint64_t n_bytes; /* of all */
    char **names;     /* [n_names] of parts whose name is no tensor's */
    size_t n_names;
    struct row_factors *factors; /* what parts' point to, or NULL */
    struct part_maps *maps;      /* what parts are made of, or NULL; see part_maps.h */
} part_list;

/* Lists a checkpoint's parameters, of whatever type; it must outlive the list. Errors name the
 * tensor: weight, scales and biases whose shapes do not fit together. */
JANG_MUST_CHECK jang_status part_list_make(part_list *out, ctx_t *ctx, checkpoint *c);
/* JANG_ERR_UNSUPPORTED for a part that is no weights part_rows_f32 should read: integers, 8-bit
 * floating types, which need scales of their own, other packed forms. */
JANG_MUST_CHECK jang_status part_check_type(ctx_t *ctx, const model_part *part);
void part_list_free(part_list *list);

/* Sets params, rows and columns by the shape. */
void part_set_sizes(model_part *part);

/* The part of this name, or NULL. */
const model_part *part_find(const part_list *list, const char *name);

/* Reads rows [first, first + n) as out f32 [n, columns]. */
JANG_MUST_CHECK jang_status part_rows_f32(float *out, const checkpoint *c, const model_part *part,
                                          int64_t first, int64_t n);

/* Reads columns [column, column + n) of one row of a part that is not AWQ's or GPTQ's. */
JANG_MUST_CHECK jang_status part_run_f32(float *out, const checkpoint *c, const model_part *part,
                                         int64_t row, int64_t column, int64_t n);

/* Tells the system that these rows are not needed again. */
void part_drop_rows(const checkpoint *c, const model_part *part, int64_t first, int64_t n);

/* Order of names: as bytes, but runs of digits by their value. For qsort of strings and lists. */
int part_compare_names(const char *a, const char *b);

#endif
