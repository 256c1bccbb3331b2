/* mse_avx2.c - least squares grids, compiled for AVX2. */
#include "quant/mse.h"

#include "quant/mse_body.h"

bool mse_quantize__avx2(const quant_block *block) {
    return mse_block(block);
}
