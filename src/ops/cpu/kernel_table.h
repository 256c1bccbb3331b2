/* kernel_table.h - the kernels of each instruction set, as their files define them. */
#ifndef JANG_OPS_KERNEL_TABLE_H
#define JANG_OPS_KERNEL_TABLE_H

#include "ops/cpu/cpu_kernels.h"

extern const float_kernels floats_scalar, floats_avx2, floats_avx512, floats_neon;
extern const affine_kernels affine_scalar, affine_avx2, affine_avx_vnni, affine_avx512, affine_neon,
    affine_neon_dot, affine_neon_i8mm;

#endif
