/* plan.h - what a conversion will do with each parameter, and the figures of the result.
 *
 * Two averages are told apart everywhere:
 * - nominal bits: the mean width of the codes over the quantized parameters alone; scales, biases
 *   and what stays in floating point are not counted. Uniform 4-bit is 4.00. (Where nothing is
 *   quantized it is the mean over all.)
 * - true bits: all bytes of all weight tensors times 8, divided by the number of parameters. */
#ifndef JANG_QUANT_PLAN_H
#define JANG_QUANT_PLAN_H

#include "quant/parts.h"
#include "quant/profiles.h"

typedef struct plan_item {
    const model_part *part;
    int bits, group;  /* 0: not quantized */
    dtype type;       /* of scales and biases, or of the whole unquantized tensor */
    bool kept;        /* the source's codes are (kept_codes.h) */
    bool fixed;       /* by the user, by name: no budget changes it */
    const char *note; /* why a matrix is not treated as its tier says, or NULL */
} plan_item;

typedef struct plan_totals {
    int64_t params, quantized_params;
    uint64_t bytes;
    double nominal_bits, true_bits;
} plan_totals;

typedef struct quant_plan {
    ctx_t *ctx;
    char profile[32];
    int group;           /* as asked for; of a stored model the largest */
    profile_model model; /* of a plan that was made */
    double budget;       /* nominal bits or bytes that were to be spent; 0: there is none */
    const char *measure; /* ... and what it was spent by: "weight error" */
    plan_item *items;
    size_t n_items;
    plan_totals totals;
} quant_plan;

#define PLAN_DEFAULT_GROUP 64

/* Plans n parts, all of which are written. group 0: the default. Rows that the group size does not
 * divide get a smaller one, or stay in floating point. JANG_ERR_ARGUMENT: the group size is none,
 * or was asked for and divides no row of a model that has quantizable matrices. */
JANG_MUST_CHECK jang_status plan_make(quant_plan *out, ctx_t *ctx, const profile *p,
                                      const profile_model *model, int group,
                                      const model_part *const *parts, size_t n);

/* Describes parts as they are stored: the plan of a model that exists. */
JANG_MUST_CHECK jang_status plan_of_stored(quant_plan *out, ctx_t *ctx, const char *profile,
                                           const part_list *list);

/* The item, to be quantized, that a model's module ("model.layers.0.mlp.up_proj") is, under
 * whatever prefix its checkpoint has such modules; SIZE_MAX: none. */
size_t plan_find_module(const quant_plan *plan, const char *module);

/* Whether any matrix gets new codes of so many bits. */
bool plan_has_width(const quant_plan *plan, int bits);

/* Gives a matrix another width and group. group 0: the plan's. False: no group of at most that size
 * divides its rows (nothing changes), or it has no rows. bits 0: it stays in floating point. */
bool plan_set(quant_plan *plan, size_t item, int bits, int group);
/* Gives a matrix bf16 scales and biases, since f16 does not hold them, and notes it. */
void plan_widen(plan_item *item);

/* Keeps the codes of all matrices that have some, which no budget or override then changes. The
 * others stay as they are planned; of those that should have been kept, notes say why not. Returns
 * the number of the latter, and in *n_kept that of the former. */
size_t plan_keep_codes(quant_plan *plan, size_t *n_kept);
/* Adds up anew after changes. */
void plan_sum(quant_plan *plan);
void plan_free(quant_plan *plan);

/* Bytes of an item's codes (or of the unquantized tensor), and of its scales, as of its biases. */
size_t plan_item_weight_bytes(const plan_item *item);
size_t plan_item_scale_bytes(const plan_item *item);
/* All of an item's bytes. */
size_t plan_item_bytes(const plan_item *item);

/* Adds the figures and the table to a JSON object: profile, group_size, params, nominal_bits,
 * true_bits, weight_bytes, rows [{role, tier, bits, tensors, params, bytes}], notes, and of a
 * budget "budget" {asked, spent, unit, measure}. */
JANG_MUST_CHECK jang_status plan_to_json(json_t *object, const quant_plan *plan);

#endif
