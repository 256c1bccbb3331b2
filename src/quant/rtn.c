/* rtn.c - round to nearest, for any processor. */
#include "quant/rtn.h"

#include "quant/rtn_body.h"

bool rtn_quantize__scalar(const quant_block *block) {
    return rtn_block(block);
}
