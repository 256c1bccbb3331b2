/* byte_chars.h - the byte-level alphabet: each byte as one printable character.
 *
 * Bytes that print in Latin-1 stand for themselves; the 68 others are U+0100 onwards in order
 * (GPT-2's bytes_to_unicode). All are one or two bytes of UTF-8. */
#ifndef JANG_TOKENIZER_BYTE_CHARS_H
#define JANG_TOKENIZER_BYTE_CHARS_H

#include "base/buf.h"

/* The character of a byte. */
uint32_t byte_char(uint8_t byte);
/* The byte of a character, or -1. */
int byte_of_char(uint32_t c);
/* Appends the characters of bytes. */
void byte_chars_put(buf *out, const char *bytes, size_t n);
/* Appends the bytes of characters if all are of the alphabet; otherwise appends text as it is. */
void byte_chars_take(buf *out, const char *text, size_t n);

#endif
