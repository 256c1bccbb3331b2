/* profiles.h - the named ways to spend bits: a width for every role, in every layer. */
#ifndef JANG_QUANT_PROFILES_H
#define JANG_QUANT_PROFILES_H

#include "base/tensor.h"
#include "quant/roles.h"

typedef enum profile_kind {
    PROFILE_TIERED,  /* JANG_*: a width for each tier */
    PROFILE_UNIFORM, /* the same width everywhere */
    PROFILE_MIXED,   /* MLX's mixed recipes: two widths, the layer decides */
    PROFILE_BUDGET,  /* JANG_*K: widths by measured errors within a budget (spend.h) */
    PROFILE_FLOAT,   /* no quantization, all tensors in one floating type */
} profile_kind;

typedef struct profile {
    char name[32]; /* "JANG_4M", "4-bit", "mixed_3_6", "JANG_3.5K", "budget_3.37", "bf16" */
    profile_kind kind;
    int8_t bits[TIER_COUNT]; /* tiered, uniform: by tier */
    int8_t low, high;        /* mixed */
    dtype type;              /* float */
    double target;           /* the width of most weights: 4 for JANG_4M and mixed_4_6; a budget's
                                nominal bits, 0 where it is of bytes */
    uint64_t size;           /* a budget of bytes */
    bool by_size;            /* a budget of what target bits take in groups of the usual size */
} profile;

/* Finds a profile by name, case disregarded, "JANG_" optional; where name is NULL, the uniform one
 * of this width. Any JANG_nK with n from 2 to 8 is one, 3.37 too. JANG_ERR_ARGUMENT names what is
 * known. */
JANG_MUST_CHECK jang_status profile_find(profile *out, ctx_t *ctx, const char *name, int bits);

/* The profile of a budget: nominal bits (2 to 8), or where that is 0, bytes of all weights. */
JANG_MUST_CHECK jang_status profile_of_budget(profile *out, ctx_t *ctx, double nominal,
                                              uint64_t size);

/* What a profile's choice may depend on besides the tensor. */
typedef struct profile_model {
    int n_layer;
    int64_t n_expert; /* of a layer, 0: it has none */
    bool tied;        /* one matrix is both embedding and lm_head */
} profile_model;

/* The least width that a matrix may get from a profile other than a uniform one. */
int profile_floor(const profile_model *model, const char *name, tensor_role role);

/* Width of a matrix, of a budget a provisional one near its mean; 0: keep it in floating point. */
int profile_bits(const profile *p, const profile_model *model, const char *name, tensor_role role);

#endif
