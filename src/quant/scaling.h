/* scaling.h - columns of matrices scaled, and what makes their inputs scaled the other way (the
 * idea of AWQ, arXiv:2306.00978).
 *
 * W x = (W S) (S^-1 x) for a diagonal S. Where x is what a norm or another matrix gives, S^-1 goes
 * into the norm's weight or that matrix's rows, and the model computes what it did; but a grid that
 * a group of columns shares serves those better that were made larger. All factors are powers of
 * two, so nothing is rounded: the scaled model's f32 outputs are the original's to the bit.
 *
 * Which matrices have an input of their own is known for families whose layers are the usual ones;
 * a layer with parts that the table does not know is left alone. */
#ifndef JANG_QUANT_SCALING_H
#define JANG_QUANT_SCALING_H

#include "quant/parts.h"

#include "base/json.h"

/* What a part is multiplied by as it is read. NULL: 1. */
typedef struct part_scaling {
    float *rows;    /* [rows], of a vector [params] */
    float *columns; /* [n_sets, columns]; row r has set r / (rows / n_sets) */
    int64_t n_sets; /* experts; 1: one matrix */
} part_scaling;

#define SCALING_CONSUMERS 4
#define SCALING_MAKERS 2

/* Channels, the matrices that take them in, and the parts whose rows make them. */
typedef struct scaling_group {
    model_part *consumers[SCALING_CONSUMERS], *makers[SCALING_MAKERS];
    int n_consumers, n_makers;
    int64_t n_sets, n_channels; /* channels of a set */
    int64_t head, repeat;       /* column c takes channel c / (head * repeat) * head + c % head */
    bool decided;
} scaling_group;

typedef struct scalings {
    ctx_t *ctx;
    scaling_group *groups;
    size_t n_groups;
    part_scaling *parts; /* [n_parts] of the list, which point here */
    size_t n_parts;
} scalings;

/* Finds the groups of a model of this type and attaches factors of 1 to the list's parts. Without
 * any, n_groups is 0. list must outlive out. */
JANG_MUST_CHECK jang_status scalings_make(scalings *out, part_list *list, const char *model_type,
                                          json_at config);
void scalings_free(scalings *s);

/* The group in which a part's columns can be scaled, or NULL. */
scaling_group *scalings_find(const scalings *s, const model_part *part);

/* The channel of a consumer's column. */
int64_t scaling_channel(const scaling_group *g, int64_t column);

/* Puts factors [n_sets, n_channels], powers of two, into the group's parts. */
void scaling_set(scaling_group *g, const float *factors);
/* The factors that were set. */
void scaling_get(float *factors, const scaling_group *g);

/* The factors of a row's columns [columns], or NULL where all are 1. */
const float *scaling_columns(const model_part *part, int64_t row);

/* Multiplies rows [first, first + n) of a part, as read, by its factors. */
void scaling_apply(float *rows, const model_part *part, int64_t first, int64_t n);
/* Divides rows that were quantized by the factors of their columns. */
void scaling_undo(float *rows, const model_part *part, int64_t first, int64_t n);

/* Multiplies n stored scales (F16 or BF16) by a power of two, exactly; false: one left f16. */
bool scaling_stored(uint16_t *x, int64_t n, float by, dtype type);

#endif
