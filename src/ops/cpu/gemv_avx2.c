/* gemv_avx2.c - affine weights by few rows of activations, with AVX2. */
#include "ops/cpu/gemv_avx2_body.h"
