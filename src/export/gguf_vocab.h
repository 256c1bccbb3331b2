/* gguf_vocab.h - a model's tokenizer and chat template as GGUF has them. */
#ifndef JANG_EXPORT_GGUF_VOCAB_H
#define JANG_EXPORT_GGUF_VOCAB_H

#include "format/checkpoint.h"
#include "format/gguf_writer.h"

/* Declares the vocabulary of the checkpoint's tokenizer.json, which gets n_vocab tokens: missing
 * ones become unused. Byte-level BPE is written as "gpt2", SentencePiece's BPE as "llama". Errors:
 * JANG_ERR_UNSUPPORTED for other models, and for words cut in a way that GGUF has no name for. */
JANG_MUST_CHECK jang_status gguf_vocab_put(gguf_writer *w, ctx_t *ctx, checkpoint *c,
                                           int64_t n_vocab);

#endif
