/* gemv_avx_vnni.c - affine weights by few rows of activations, with AVX-VNNI. */
#include "ops/cpu/gemv_avx2_body.h"
