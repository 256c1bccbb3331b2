/* gemm_avx_vnni.c - affine weights by many rows of activations, with AVX-VNNI. */
#include "ops/cpu/gemm_avx2_body.h"

const affine_kernels affine_avx_vnni = AFFINE_KERNELS;
