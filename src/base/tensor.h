/* tensor.h - element types, and a view of a tensor where it lies in memory or in a mapped file. */
#ifndef JANG_BASE_TENSOR_H
#define JANG_BASE_TENSOR_H

#include "base/ctx.h"

/* Element types of safetensors, then the block types of GGUF. */
typedef enum dtype {
    DT_F64,
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_F8_E4M3,
    DT_F8_E5M2,
    DT_I64,
    DT_I32,
    DT_I16,
    DT_I8,
    DT_U64,
    DT_U32,
    DT_U16,
    DT_U8,
    DT_BOOL,
    DT_Q4_0,
    DT_Q4_1,
    DT_Q5_0,
    DT_Q5_1,
    DT_Q8_0,
    DT_Q2_K,
    DT_Q3_K,
    DT_Q4_K,
    DT_Q5_K,
    DT_Q6_K,
    DT_COUNT
} dtype;

typedef struct dtype_info {
    const char *name; /* as safetensors or GGUF spell it: "BF16", "Q4_K" */
    int block;        /* elements in a block; 1 for plain types */
    int block_bytes;  /* bytes of a block */
    bool is_float;    /* a floating type of one element a block */
} dtype_info;

extern const dtype_info dtype_table[DT_COUNT];

#define TENSOR_MAX_DIMS 8

typedef struct tensor_view {
    const char *name; /* borrowed from the container */
    dtype type;
    int n_dim; /* 0: a scalar */
    int64_t shape[TENSOR_MAX_DIMS];
    const uint8_t
        *data; /* borrowed from the mapping; aligned to its elements only if the file is */
    size_t n_bytes;
    /* GGUF stores q and k of the Llama family with the two halves of each head interleaved; then
     * this is the number of heads, and readers put the rows back in order. Otherwise 0. */
    int32_t row_heads;
} tensor_view;

/* Product of the shape; 1 for a scalar. The container has checked that it does not overflow. */
int64_t tensor_count(const tensor_view *t);
/* A tensor as a matrix: rows = product of all axes but the last, columns = the last axis. */
int64_t tensor_rows(const tensor_view *t);
int64_t tensor_columns(const tensor_view *t);

/* Bytes of a tensor of this type and shape; false on overflow (axes of 0 left aside), a negative
 * axis, or a last axis that is not a whole number of blocks. */
bool tensor_bytes(size_t *out, dtype type, int n_dim, const int64_t *shape);

#endif
