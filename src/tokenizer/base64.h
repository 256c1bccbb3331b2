/* base64.h - decoding base64. */
#ifndef JANG_TOKENIZER_BASE64_H
#define JANG_TOKENIZER_BASE64_H

#include "base/buf.h"

/* Appends the bytes of base64 text, with or without padding; false if it is none. */
bool base64_decode(buf *out, const char *text, size_t n);

#endif
