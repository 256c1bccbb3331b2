/* output_texts.h - the small files of a conversion's output: tokenizer and templates, which are the
 * source's, jang_config.json and config.json, which say how the weights are stored. */
#ifndef JANG_QUANT_OUTPUT_TEXTS_H
#define JANG_QUANT_OUTPUT_TEXTS_H

#include "quant/plan.h"
#include "quant/source.h"

typedef struct output_texts {
    const model_source *from;
    const quant_plan *plan; /* as the weights were written */
    const profile *profile;
    const char *method;
    bool all_kept; /* no matrix was quantized anew */
    const char *directory;
} output_texts;

/* Writes them; config.json, which makes it a model, last. */
JANG_MUST_CHECK jang_status output_texts_write(const output_texts *t);

#endif
