/* utf8.h - reading UTF-8: what is valid, code points, and repair. */
#ifndef JANG_BASE_UTF8_H
#define JANG_BASE_UTF8_H

#include "base/buf.h"

/* Bytes of the valid character at s (1 to 4), or 0 if there is none. Surrogates, overlong forms
 * and values over U+10FFFF are not valid. */
static inline size_t utf8_valid_length(const char *s, size_t n) {
    const unsigned char *b = (const unsigned char *)s;
    if (n == 0) {
        return 0;
    }
    if (b[0] < 0x80) {
        return 1;
    }
    if (b[0] < 0xc2 || b[0] > 0xf4 || n < 2) {
        return 0;
    }
    if (b[0] < 0xe0) {
        return (b[1] & 0xc0) == 0x80 ? 2 : 0;
    }
    unsigned low = b[0] == 0xe0 ? 0xa0 : b[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = b[0] == 0xed ? 0x9f : b[0] == 0xf4 ? 0x8f : 0xbf;
    if (b[1] < low || b[1] > high || n < 3 || (b[2] & 0xc0) != 0x80) {
        return 0;
    }
    if (b[0] < 0xf0) {
        return 3;
    }
    return n >= 4 && (b[3] & 0xc0) == 0x80 ? 4 : 0;
}

/* Reads one character of valid UTF-8 at s and says how many bytes it has. */
static inline uint32_t utf8_read(const char *s, size_t *n_bytes) {
    const unsigned char *b = (const unsigned char *)s;
    if (b[0] < 0x80) {
        *n_bytes = 1;
        return b[0];
    }
    if (b[0] < 0xe0) {
        *n_bytes = 2;
        return (uint32_t)(b[0] & 0x1f) << 6 | (b[1] & 0x3f);
    }
    if (b[0] < 0xf0) {
        *n_bytes = 3;
        return (uint32_t)(b[0] & 0x0f) << 12 | (uint32_t)(b[1] & 0x3f) << 6 | (b[2] & 0x3f);
    }
    *n_bytes = 4;
    return (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3f) << 12 |
           (uint32_t)(b[2] & 0x3f) << 6 | (b[3] & 0x3f);
}

/* Bytes of the character that ends before s + at; at > 0, valid UTF-8. */
static inline size_t utf8_back(const char *s, size_t at) {
    size_t n = 1;
    while (n < at && n < 4 && ((unsigned char)s[at - n] & 0xc0) == 0x80) {
        n++;
    }
    return n;
}

/* Length of the longest valid part at the start of s. */
size_t utf8_valid_prefix(const char *s, size_t n);

/* Bytes of the maximal bad part at s, where no valid character begins: what one U+FFFD stands for.
 * *unfinished, if not NULL, tells whether more bytes could have made it a character. */
size_t utf8_bad_length(const char *s, size_t n, bool *unfinished);

/* Appends s with each maximal bad part replaced by U+FFFD (as Python's errors="replace"). */
void utf8_repair(buf *out, const char *s, size_t n);

#endif
