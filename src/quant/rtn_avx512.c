/* rtn_avx512.c - round to nearest, compiled for AVX-512. */
#include "quant/rtn.h"

#include "quant/rtn_body.h"

bool rtn_quantize__avx512(const quant_block *block) {
    return rtn_block(block);
}
