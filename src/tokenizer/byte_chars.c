/* byte_chars.c - the byte-level alphabet.
 *
 * The bytes that do not print are 0x00-0x20, 0x7f-0xa0 and 0xad: 33 + 34 + 1 of them. */
#include "tokenizer/byte_chars.h"

#include "base/utf8.h"

uint32_t byte_char(uint8_t b) {
    if (b <= 0x20) {
        return 0x100u + b;
    }
    if (b >= 0x7f && b <= 0xa0) {
        return 0x121u + (uint32_t)(b - 0x7f);
    }
    return b == 0xad ? 0x143u : b;
}

int byte_of_char(uint32_t c) {
    if (c < 0x100) {
        return byte_char((uint8_t)c) == c ? (int)c : -1;
    }
    if (c <= 0x120) {
        return (int)(c - 0x100);
    }
    if (c <= 0x142) {
        return (int)(c - 0x121 + 0x7f);
    }
    return c == 0x143 ? 0xad : -1;
}

void byte_chars_put(buf *out, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        buf_put_utf8(out, byte_char((uint8_t)bytes[i]));
    }
}

void byte_chars_take(buf *out, const char *text, size_t n) {
    size_t start = out->size, length;
    char *to = buf_reserve(out, n);
    for (size_t i = 0; to && i < n; i += length) {
        int b = byte_of_char(utf8_read(text + i, &length));
        if (b < 0) {
            out->size = start;
            buf_put(out, text, n);
            return;
        }
        out->data[out->size++] = (char)b;
    }
    if (to) {
        out->data[out->size] = 0;
    }
}
