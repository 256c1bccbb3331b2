/* rtn.c - round to nearest, for any processor. */
#include "quant/rtn.h"

#include "quant/rtn_body.h"

void rtn_quantize__scalar(const quant_block *block) {
    rtn_block(block);
}
