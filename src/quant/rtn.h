/* rtn.h - round to nearest: the codes that MLX's own affine quantize gives.
 *
 * Per group, in f32:
 *     scale = max((max - min) / (2^bits - 1), 1e-7), negative unless |min| > |max|
 *     edge  = the end of larger magnitude, q0 = rint(edge / scale)
 *     if q0 is not 0: scale = edge / q0, bias = edge; otherwise bias = 0
 *     code  = clamp(rint((w - bias) / scale), 0, 2^bits - 1)
 * So the edge is met exactly and zero lies on the grid. The arithmetic is that of mlx's CPU backend
 * (mlx/backend/cpu/quantized.cpp), operation for operation, so the codes are equal. */
#ifndef JANG_QUANT_RTN_H
#define JANG_QUANT_RTN_H

#include "quant/quantizer.h"

bool rtn_quantize__scalar(const quant_block *block);
bool rtn_quantize__avx2(const quant_block *block);
bool rtn_quantize__avx512(const quant_block *block);

#endif
