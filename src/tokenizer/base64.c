/* base64.c - decoding base64. */
#include "tokenizer/base64.h"

#include <string.h>

bool base64_decode(buf *out, const char *text, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int8_t value[256];
    memset(value, -1, sizeof value);
    for (int i = 0; i < 64; i++) {
        value[(unsigned char)digits[i]] = (int8_t)i;
    }
    while (n > 0 && text[n - 1] == '=') {
        n--;
    }
    uint32_t bits = 0;
    int n_bits = 0;
    char *to = buf_reserve(out, n);
    for (size_t i = 0; to && i < n; i++) {
        int digit = value[(unsigned char)text[i]];
        if (digit < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)digit;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            *to++ = (char)(bits >> n_bits);
            out->size++;
        }
    }
    return true;
}
