/* beside.h - blocks that read the same input and whose results are added, each with multipliers or
 * norms around it:
 *
 *     y = sum over i of out_i * after_i(block_i(in_i * before_i(h))) */
#ifndef JANG_MODEL_BESIDE_H
#define JANG_MODEL_BESIDE_H

#include "model/decoder.h"

#define BESIDE_MAX 2

typedef struct beside_part {
    block *block;
    float in, out;
    norm_desc before, after; /* width 0: none */
} beside_part;

/* Takes over the blocks, also on failure. */
JANG_MUST_CHECK jang_status beside_make(block **out, loader *l, work *w, const beside_part *parts,
                                        int n_part, int64_t n_embd);

#endif
