/* mse.h - the grid of least weighted squared error for each group of weights.
 *
 * A group's scale and bias are free real numbers (of the type they are stored in), so the grid need
 * not end at the extremes as round to nearest has it. Per group:
 *     minimize  sum_i v_i (w_i - scale * code_i - bias)^2
 * by alternating between codes (nearest) and scale and bias (weighted least squares, rounded as
 * stored), from several starts: round to nearest's grid and grids over a part of the range.
 *
 * v is the block's importance of a column (the mean square of its input, from calibration), or 1.
 * The grid found is then stretched to undo the shrinking of least squares, without which 3 bits
 * are worse than round to nearest in the model's answers. Groups of 2 bits without importance keep
 * round to nearest's grid: no weighting that was tried beats it there
 * (docs/quantization-notes.md).
 * Sums have 16 lanes on every instruction set, so the codes are the same on all of them. */
#ifndef JANG_QUANT_MSE_H
#define JANG_QUANT_MSE_H

#include "quant/quantizer.h"

bool mse_quantize__scalar(const quant_block *block);
bool mse_quantize__avx2(const quant_block *block);
bool mse_quantize__avx512(const quant_block *block);

#endif
