/* tensor.c - facts of element types, sizes of tensors. */
#include "base/tensor.h"

const dtype_info dtype_table[DT_COUNT] = {
    [DT_F64] = {"F64", 1, 8, true},         [DT_F32] = {"F32", 1, 4, true},
    [DT_F16] = {"F16", 1, 2, true},         [DT_BF16] = {"BF16", 1, 2, true},
    [DT_F8_E4M3] = {"F8_E4M3", 1, 1, true}, [DT_F8_E5M2] = {"F8_E5M2", 1, 1, true},
    [DT_I64] = {"I64", 1, 8, false},        [DT_I32] = {"I32", 1, 4, false},
    [DT_I16] = {"I16", 1, 2, false},        [DT_I8] = {"I8", 1, 1, false},
    [DT_U64] = {"U64", 1, 8, false},        [DT_U32] = {"U32", 1, 4, false},
    [DT_U16] = {"U16", 1, 2, false},        [DT_U8] = {"U8", 1, 1, false},
    [DT_BOOL] = {"BOOL", 1, 1, false},      [DT_Q4_0] = {"Q4_0", 32, 18, false},
    [DT_Q4_1] = {"Q4_1", 32, 20, false},    [DT_Q5_0] = {"Q5_0", 32, 22, false},
    [DT_Q5_1] = {"Q5_1", 32, 24, false},    [DT_Q8_0] = {"Q8_0", 32, 34, false},
    [DT_Q2_K] = {"Q2_K", 256, 84, false},   [DT_Q3_K] = {"Q3_K", 256, 110, false},
    [DT_Q4_K] = {"Q4_K", 256, 144, false},  [DT_Q5_K] = {"Q5_K", 256, 176, false},
    [DT_Q6_K] = {"Q6_K", 256, 210, false},
};

int64_t tensor_count(const tensor_view *t) {
    int64_t n = 1;
    for (int i = 0; i < t->n_dim; i++) {
        n *= t->shape[i];
    }
    return n;
}

int64_t tensor_columns(const tensor_view *t) {
    return t->n_dim ? t->shape[t->n_dim - 1] : 1;
}

int64_t tensor_rows(const tensor_view *t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t->n_dim; i++) {
        n *= t->shape[i];
    }
    return n;
}

/* An axis of 0 makes 0 bytes; the product of the others must not overflow even then, since rows and
 * columns are counted without the rest. */
bool tensor_bytes(size_t *out, dtype type, int n_dim, const int64_t *shape) {
    const dtype_info *info = &dtype_table[type];
    if (n_dim < 0 || n_dim > TENSOR_MAX_DIMS) {
        return false;
    }
    int64_t last = n_dim ? shape[n_dim - 1] : 1;
    if (last < 0 || last % info->block != 0) {
        return false;
    }
    int64_t n_bytes, n_blocks = last / info->block;
    bool empty = last == 0;
    if (__builtin_mul_overflow(empty ? 1 : n_blocks, (int64_t)info->block_bytes, &n_bytes)) {
        return false;
    }
    for (int i = 0; i + 1 < n_dim; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(n_bytes, shape[i] ? shape[i] : 1, &n_bytes)) {
            return false;
        }
        empty = empty || shape[i] == 0;
    }
    *out = empty ? 0 : (size_t)n_bytes;
    return true;
}
