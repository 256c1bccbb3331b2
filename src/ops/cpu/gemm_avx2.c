/* gemm_avx2.c - affine weights by many rows of activations, with AVX2. */
#include "ops/cpu/gemm_avx2_body.h"

const affine_kernels affine_avx2 = AFFINE_KERNELS;
