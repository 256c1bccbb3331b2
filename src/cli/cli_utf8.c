/* cli_utf8.c - UTF-8 checked byte by byte, and mended. */
#include "cli_utf8.h"

#include <stdlib.h>
#include <string.h>

size_t cli_utf8_bytes(const char *text, size_t n_bytes) {
    const unsigned char *s = (const unsigned char *)text;
    if (n_bytes == 0) {
        return 0;
    }
    if (s[0] < 0x80) {
        return 1;
    }
    /* the range of the second byte depends on the first: no surrogates, no long forms */
    size_t n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (n == 0 || n > n_bytes || s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

char *cli_utf8_repair(size_t *n_out, const char *text, size_t n_bytes) {
    char *out = malloc(3 * n_bytes + 1);
    if (!out) {
        return NULL;
    }
    size_t n = 0;
    for (size_t at = 0; at < n_bytes;) {
        size_t length = cli_utf8_bytes(text + at, n_bytes - at);
        if (length) {
            memcpy(out + n, text + at, length);
            n += length;
            at += length;
        } else {
            memcpy(out + n, "\xef\xbf\xbd", 3);
            n += 3;
            at++;
        }
    }
    out[n] = 0;
    *n_out = n;
    return out;
}
