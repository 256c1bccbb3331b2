/* mse.c - least squares grids in portable C. */
#include "quant/mse.h"

#include "quant/mse_body.h"

bool mse_quantize__scalar(const quant_block *block) {
    return mse_block(block);
}
