/* ops_cases.h - random weights, activations and caches for the tests of operators. */
#ifndef TEST_OPS_CASES_H
#define TEST_OPS_CASES_H

#include "ops/ops.h"
#include "support.h"

/* A random weight with its memory, which starts at an odd address where its type permits. */
typedef struct case_weight {
    weight_desc desc;
    uint8_t *memory; /* of all parts */
    float *dense;    /* [n_out, n_in] what it stands for, computed here */
    float *size;     /* [n_out, n_in] |code * scale| + |bias|, or |w|: for bounds of errors */
} case_weight;

/* bits 0: dense of type; else affine, scales of type. with_bias adds a bias of type. */
case_weight case_weight_new(test_rng *rng, int64_t n_out, int64_t n_in, int bits, int group,
                            dtype type, bool with_bias);
void case_weight_free(case_weight *w);

/* A matrix in a fresh buffer with room for n_row * width, holding data (NULL: zeros). */
ops_mat case_mat(ops *o, int64_t n_row, int64_t width, const float *data);
/* Reads a whole matrix of case_mat. */
void case_read(ops *o, ops_mat m, float *data);
/* n normal numbers, some large, some groups zero, so that scales differ. */
float *case_activations(test_rng *rng, int64_t n);

#endif
