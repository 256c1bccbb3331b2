/* rtn_avx2.c - round to nearest, compiled for AVX2. */
#include "quant/rtn.h"

#include "quant/rtn_body.h"

bool rtn_quantize__avx2(const quant_block *block) {
    return rtn_block(block);
}
