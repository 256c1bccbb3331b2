/* mse_avx512.c - least squares grids, compiled for AVX-512. */
#include "quant/mse.h"

#include "quant/mse_body.h"

bool mse_quantize__avx512(const quant_block *block) {
    return mse_block(block);
}
