/* utf8.c - validation and repair of UTF-8. Bad parts are those of the Unicode standard, section
 * 3.9, "U+FFFD substitution of maximal subparts". */
#include "base/utf8.h"

#include <string.h>

size_t utf8_valid_prefix(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        while (i + 8 <= n) {
            uint64_t w;
            memcpy(&w, s + i, 8);
            if (w & 0x8080808080808080u) {
                break;
            }
            i += 8;
        }
        if (i == n) {
            break;
        }
        size_t length = utf8_valid_length(s + i, n - i);
        if (length == 0) {
            break;
        }
        i += length;
    }
    return i;
}

size_t utf8_bad_length(const char *s, size_t n, bool *unfinished) {
    const unsigned char *b = (const unsigned char *)s;
    size_t want = b[0] < 0xc2 || b[0] > 0xf4 ? 1 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    unsigned low = b[0] == 0xe0 ? 0xa0 : b[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = b[0] == 0xed ? 0x9f : b[0] == 0xf4 ? 0x8f : 0xbf;
    size_t i = 1;
    while (i < want && i < n && b[i] >= low && b[i] <= high) {
        low = 0x80;
        high = 0xbf;
        i++;
    }
    if (unfinished) {
        *unfinished = i == n && i < want;
    }
    return i;
}

void utf8_repair(buf *out, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t good = utf8_valid_prefix(s + i, n - i);
        buf_put(out, s + i, good);
        i += good;
        if (i < n) {
            buf_puts(out, "\xef\xbf\xbd");
            i += utf8_bad_length(s + i, n - i, NULL);
        }
    }
}
