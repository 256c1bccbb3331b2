/* calib_text.h - the tokens that a conversion calibrates on. */
#ifndef JANG_QUANT_CALIB_TEXT_H
#define JANG_QUANT_CALIB_TEXT_H

#include "format/checkpoint.h"
#include "tokenizer/tokenizer.h"

#define CALIB_SEQ_TOKENS 512

/* Reads a text file, or with the suffix .jsonl a file of objects, one a line: {"messages": [...]}
 * goes through the model's chat template, {"text": "..."} is taken as it is. path NULL: the
 * project's own text. At most n_tokens tokens, taken as whole sequences of CALIB_SEQ_TOKENS spread
 * evenly over the text. JANG_ERR_ARGUMENT: the text gives less than one sequence; JANG_ERR_FORMAT
 * names the line that is not as said. */
JANG_MUST_CHECK jang_status calib_tokens(tok_ids *out, ctx_t *ctx, checkpoint *model,
                                         const char *path, size_t n_tokens);

/* The project's own text, data/calibration.txt: prose, dialogue, code, data, several languages.
 * Documents are divided by lines of four dashes. */
extern const unsigned char calib_builtin[];

#endif
