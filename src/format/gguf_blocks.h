/* gguf_blocks.h - GGUF's block types to f32. */
#ifndef JANG_FORMAT_GGUF_BLOCKS_H
#define JANG_FORMAT_GGUF_BLOCKS_H

#include "base/tensor.h"

/* Dequantizes n elements (a whole number of blocks) of a block type at any address. The values are
 * those of ggml's reference: products and sums in f32, in its order. */
typedef void (*gguf_blocks_fn)(float *restrict out, const uint8_t *restrict in, int64_t n);

/* NULL for types that have no blocks. */
gguf_blocks_fn gguf_blocks_reader(dtype type);

#endif
