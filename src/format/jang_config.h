/* jang_config.h - what a quantized model says about itself: config.json's "quantization" section,
 * as mlx-lm writes and reads it, and jang_config.json. docs/format.md, sections 4 and 5. */
#ifndef JANG_FORMAT_JANG_CONFIG_H
#define JANG_FORMAT_JANG_CONFIG_H

#include "base/json.h"

/* One module of the output that could be quantized. */
typedef struct quant_module {
    const char *module; /* full path in the output, without ".weight" */
    int bits;           /* 0: left unquantized */
    int group;
    int64_t n_weights; /* weights it stands for, for actual_bits */
} quant_module;

/* Makes a copy of a source's config.json that describes the output: "quantization" with the global
 * width and group, mode "affine", and an entry for each quantized module that differs from them;
 * "quantization_config" is the same section again, as mlx-lm writes it. Sections of this name in
 * the source go. Modules left unquantized get no entry: readers know them by their missing scales.
 * No section is written when no module is quantized.
 *
 * bits, group   the global pair: what most weights have, or the profile's MLP pair */
JANG_MUST_CHECK jang_status jang_config_quantized(json_t **out, ctx_t *ctx, const json_t *config,
                                                  const quant_module *modules, size_t n, int bits,
                                                  int group);

/* The pair that most weights have, for jang_config_quantized; 0, 0 when nothing is quantized. */
void jang_config_commonest(int *bits, int *group, const quant_module *modules, size_t n);

/* What jang_config.json says. */
typedef struct jang_config_facts {
    const char *method;       /* "rtn" */
    const char *profile;      /* "JANG_4M", "4-bit" */
    double target_bits;       /* what the profile asks for */
    double actual_bits;       /* nominal mean over the quantized weights */
    int block_size;           /* the group size */
    const char *source_name;  /* name of the source model's directory or file */
    const char *source_dtype; /* "bfloat16" */
    int64_t n_params;
    uint64_t weight_bytes;
} jang_config_facts;

/* Makes jang_config.json. bit_widths_used is collected from the modules. */
JANG_MUST_CHECK jang_status jang_config_make(json_t **out, ctx_t *ctx,
                                             const jang_config_facts *facts,
                                             const quant_module *modules, size_t n);

#endif
